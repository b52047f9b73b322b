#include "serve/metrics.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>

namespace reprise::serve {
namespace {

void WriteHead(std::string_view name, std::string_view type, std::string_view help, std::string& out) {
  fmt::format_to(std::back_inserter(out), "# HELP {} {}\n# TYPE {} {}\n", name, help, name, type);
}

template <class T>
void WriteOne(std::string_view name, std::string_view type, std::string_view help, T value, std::string& out) {
  WriteHead(name, type, help, out);
  fmt::format_to(std::back_inserter(out), "{} {}\n", name, value);
}

}  // namespace

void Histogram::Observe(double seconds) {
  const auto bucket = static_cast<size_t>(std::lower_bound(kBounds.begin(), kBounds.end(), seconds) - kBounds.begin());
  buckets_[bucket].fetch_add(1, std::memory_order_relaxed);
  microseconds_.fetch_add(static_cast<uint64_t>(std::max(0.0, seconds) * 1e6), std::memory_order_relaxed);
}

void Histogram::Write(std::string_view name, std::string_view help, std::string& out) const {
  WriteHead(name, "histogram", help, out);
  uint64_t total = 0;
  for (size_t i = 0; i < kBounds.size(); ++i) {
    total += buckets_[i].load(std::memory_order_relaxed);
    fmt::format_to(std::back_inserter(out), "{}_bucket{{le=\"{}\"}} {}\n", name, kBounds[i], total);
  }
  total += buckets_.back().load(std::memory_order_relaxed);
  fmt::format_to(std::back_inserter(out), "{0}_bucket{{le=\"+Inf\"}} {1}\n{0}_sum {2}\n{0}_count {1}\n", name, total,
                 static_cast<double>(microseconds_.load(std::memory_order_relaxed)) / 1e6);
}

void Metrics::CountRequest(std::string_view route, int status) {
  const std::lock_guard lock(mutex_);
  ++requests_[{std::string(route), status}];
}

std::string Metrics::Text(const Model* model, int connections) const {
  std::string out;
  WriteHead("reprise_requests_total", "counter", "Requests answered, by route and status.", out);
  {
    const std::lock_guard lock(mutex_);
    for (const auto& [key, count] : requests_) {
      fmt::format_to(std::back_inserter(out), "reprise_requests_total{{route=\"{}\",status=\"{}\"}} {}\n", key.first, key.second, count);
    }
  }
  first_token.Write("reprise_time_to_first_token_seconds", "From the submission of a request to its first token.", out);
  inter_token.Write("reprise_inter_token_seconds", "Between two tokens of one stream.", out);
  queued.Write("reprise_queue_seconds", "From the submission of a request to its lane.", out);
  WriteOne("reprise_prompt_tokens_computed_total", "counter", "Prompt tokens that were computed.", computed_tokens.load(), out);
  WriteHead("reprise_prompt_tokens_reused_total", "counter", "Prompt tokens that were not computed again, by where they came from.", out);
  for (const Tier tier : {Tier::kLive, Tier::kMemory, Tier::kDisk}) {
    fmt::format_to(std::back_inserter(out), "reprise_prompt_tokens_reused_total{{tier=\"{}\"}} {}\n", TierName(tier),
                   reused_tokens[static_cast<size_t>(tier)].load());
  }
  WriteOne("reprise_predicted_tokens_total", "counter", "Tokens generated.", predicted_tokens.load(), out);
  WriteOne("reprise_requests_cancelled_total", "counter", "Requests whose client went away.", cancelled.load(), out);
  WriteOne("reprise_requests_rejected_total", "counter", "Requests turned away because the queue was full.", rejected.load(), out);
  WriteOne("reprise_slow_readers_total", "counter", "Requests ended because their client did not read.", slow_readers.load(), out);
  WriteOne("reprise_lines", "gauge", "Lanes at work.", lines.load(), out);
  WriteOne("reprise_queue_length", "gauge", "Requests that wait for a lane.", waiting.load(), out);
  WriteOne("reprise_reading", "gauge", "Requests whose capsule is being read from disk.", reading.load(), out);
  WriteOne("reprise_connections", "gauge", "Open connections.", connections, out);
  if (model == nullptr) return out;
  WriteOne("reprise_lanes", "gauge", "Lanes in all.", model->info().lanes, out);
  if (model->store() == nullptr) return out;
  const CapsuleStore::Stats stats = model->store()->stats();
  const auto tiers = [&](std::string_view name, std::string_view type, std::string_view help, uint64_t memory, uint64_t disk) {
    WriteHead(name, type, help, out);
    fmt::format_to(std::back_inserter(out), "{0}{{tier=\"memory\"}} {1}\n{0}{{tier=\"disk\"}} {2}\n", name, memory, disk);
  };
  tiers("reprise_capsule_bytes", "gauge", "Bytes of capsules kept, by tier.", stats.memory_bytes, stats.disk_bytes);
  tiers("reprise_capsule_budget_bytes", "gauge", "Most bytes of capsules, by tier.", stats.memory_budget, stats.disk_budget);
  tiers("reprise_capsules", "gauge", "Capsules kept, by tier.", stats.entries_in_memory, stats.entries_on_disk);
  tiers("reprise_capsule_hits_total", "counter", "Prompts that went on from a capsule, by tier.", stats.hits_memory, stats.hits_disk);
  tiers("reprise_capsule_evictions_total", "counter", "Capsules dropped for want of room, by tier.", stats.evicted_memory,
        stats.evicted_disk);
  WriteOne("reprise_capsule_misses_total", "counter", "Prompts of which no capsule was found.", stats.misses, out);
  WriteOne("reprise_capsules_quarantined_total", "counter", "Damaged files set aside.", stats.quarantined, out);
  WriteOne("reprise_capsule_bytes_written_total", "counter", "Bytes written to the directory.", stats.bytes_written, out);
  return out;
}

}  // namespace reprise::serve
