// What a device is wanted for, in figures: tools/gpu_check.sh runs it, and tools/device_results.py writes down what it says.
//
//   device_ttft [--chunk N] [--runs N] [--steps N] [--suffixes N,...] [--seconds S] MODEL DEVICE PREFIX...
//   device_ttft --spill MIB [--steps N] MODEL DEVICE PREFIX      decoding while what is kept leaves the device's memory
//
// One JSON object. Wall time, with the device settled before a clock is read. Three rounds of every shape come first and are not counted; cold and
// restored take turns; before each restore another prompt goes over every buffer. Medians and 95th percentiles. A cold prompt that is long takes
// seconds, so a prefix's rounds are fewer, and say so, where all would take longer than --seconds.
#include <algorithm>
#include <charconv>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "backend/cuda/cuda_backend.h"
#include "backend/cuda/emulator/emulated_device.h"
#include "backend/devices.h"
#include "capsule/ablation.h"
#include "exec/lane.h"
#include "reprise/model.h"
#include "reprise/session.h"
#include "session/engine.h"

namespace reprise {
namespace {

using Clock = std::chrono::steady_clock;
double Since(Clock::time_point start) { return std::chrono::duration<double, std::milli>(Clock::now() - start).count(); }

[[noreturn]] void Fail(const std::string& why) {
  std::fprintf(stderr, "device_ttft: %s\n", why.c_str());
  std::exit(1);
}
void Need(const Status& status) {
  if (!status.ok()) Fail(status.message());
}
int Number(std::string_view text) {
  int value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value < 0) Fail("'" + std::string(text) + "' is not a number");
  return value;
}

struct Options {
  int chunk = 1024, runs = 7, steps = 200, seconds = 120, spill = 0;
  std::vector<int> suffixes = {24, 64, 512}, prefixes;
  std::string model, device;
};

class Figures {
 public:
  void Add(double value) { values_.push_back(value); }
  double median() const { return At(0.5); }
  double p95() const { return At(0.95); }
  size_t count() const { return values_.size(); }

 private:
  double At(double share) const {
    std::vector<double> sorted = values_;
    std::sort(sorted.begin(), sorted.end());
    return sorted.empty() ? 0 : sorted[std::min(sorted.size() - 1, static_cast<size_t>(share * static_cast<double>(sorted.size())))];
  }
  std::vector<double> values_;
};
// "name": median, "name_p95": the percentile.
void Print(const char* name, const Figures& figures) {
  std::printf(", \"%s\": %.4f, \"%s_p95\": %.4f", name, figures.median(), name, figures.p95());
}

std::vector<int32_t> Prompt(int count, int vocabulary, uint64_t seed) {
  std::vector<int32_t> tokens(static_cast<size_t>(count));
  for (int32_t& token : tokens) {
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    token = static_cast<int32_t>((seed >> 33) % static_cast<uint64_t>(vocabulary / 2));
  }
  return tokens;
}

class Bench {
 public:
  Bench(const Options& options, const ModelOptions& load)
      : options_(options), model_(Load(options.model, load)), main_(*model_.NewSession()), origin_(main_.Snapshot()) {}

  // One session at every prefix and suffix, then decoding.
  void Run() {
    Begin();
    Comma comma;
    std::printf(", \"ttft\": [");
    for (const int prefix : options_.prefixes) {
      for (const int suffix : options_.suffixes) TimeToFirstToken(prefix, suffix, comma);
    }
    std::printf("\n], \"capsules\": [");
    comma = {};
    for (const int prefix : options_.prefixes) Capsules(prefix, comma);
    const BackendLimits limits = engine().backend().MeasureLimits();
    std::printf("\n], \"read_gb_s\": %.1f, \"byte_gmac_s\": %.0f, \"decode\": [", limits.read_bytes_per_second / 1e9,
                limits.byte_macs_per_second / 1e9);
    comma = {};
    for (size_t lanes = 1; lanes <= 8; lanes *= 2) Decode(lanes, limits.read_bytes_per_second, comma);
    std::printf("\n]");
    LeaveOut();
    std::printf("}\n");
  }

  // Steps alone, steps of which the last few are kept, and steps that are all kept, more than the device has room for.
  void RunSpill() {
    Begin();
    Need(main_.Append(Tokens(options_.prefixes.at(0), 1)));
    Need(main_.Next().status());
    std::vector<Capsule> kept;
    const auto step = [&](Figures& figures, size_t most) {
      const auto start = Clock::now();
      Need(main_.Next().status());
      kept.push_back(main_.Snapshot());
      if (kept.size() > most) kept.erase(kept.begin());
      figures.Add(Since(start));
    };
    Figures warm, few, all;
    for (int i = 0; i < options_.steps; ++i) step(i < options_.steps / 4 ? warm : few, 2);
    const auto before = engine().space().usage();
    kept.reserve(static_cast<size_t>(options_.steps));
    const int room = before.block_limit - before.blocks[0];
    for (int i = 0; i < std::min(options_.steps, room); ++i) step(all, SIZE_MAX);
    Settle();
    const auto after = engine().space().usage();
    // Back to the oldest, whose block and last extents are away; and to one whose are not.
    const auto restore = [&](const Capsule& capsule) {
      const auto start = Clock::now();
      Need(main_.Restore(capsule));
      Need(main_.Next().status());
      Settle();
      return Since(start);
    };
    const double near = restore(kept.back()), far = restore(kept.front());
    const auto last = engine().space().usage();
    std::printf(", \"prefix\": %d, \"steps\": %zu", options_.prefixes.at(0), all.count());
    Print("few_kept_ms", few);
    Print("all_kept_ms", all);
    std::printf(", \"moved_out\": %llu, \"moved_back\": %llu, \"restored_here_ms\": %.4f, \"restored_from_host_ms\": %.4f}\n",
                static_cast<unsigned long long>(after.spilled - before.spilled),
                static_cast<unsigned long long>(last.returned - after.returned), near, far);
  }

 private:
  struct Comma {
    bool first = true;
    const char* Next() { return std::exchange(first, false) ? "\n  " : ",\n  "; }
  };

  static Model Load(const std::string& path, const ModelOptions& load) {
    auto model = Model::Load(path, load);
    Need(model.status());
    return *std::move(model);
  }
  Engine& engine() { return model_.engine(); }
  void Settle() { Need(engine().backend().stream().Synchronize()); }
  std::vector<int32_t> Tokens(int count, uint64_t seed) { return Prompt(count, model_.info().vocabulary, seed); }
  void Dirty() {
    Need(main_.Restore(origin_));
    Need(main_.Append(dirt_));
    Settle();
  }
  Capsule At(const std::vector<int32_t>& tokens) {
    Need(main_.Restore(origin_));
    Need(main_.Append(tokens));
    Settle();
    return main_.Snapshot();
  }
  void Begin() {
    const ModelInfo& info = model_.info();
    std::printf("{\"model\": \"%s\", \"device\": \"%s\", \"weight_bytes\": %llu, \"block_bytes\": %zu, \"row_bytes\": %zu, \"chunk\": %d",
                options_.model.c_str(), info.backend.c_str(), static_cast<unsigned long long>(info.weight_bytes),
                model_.layout().block_bytes(Space::kDevice), model_.layout().row_bytes(), options_.chunk);
  }

  void TimeToFirstToken(int prefix, int suffix_length, Comma& comma) {
    constexpr int kWarm = 3, kLongPrefix = 4096;
    const auto tokens = Tokens(prefix, 1), suffix = Tokens(suffix_length, 7);
    const Capsule capsule = At(tokens);
    Figures cold, restored, restore, rest, decode;
    int runs = options_.runs;
    for (int round = -kWarm; round < runs; ++round) {
      Dirty();
      // The shapes of a long cold prompt's steps are warm from the capsule's own.
      double cold_ms = 0;
      if (round >= 0 || prefix <= kLongPrefix) {
        Need(main_.Restore(origin_));
        const auto start = Clock::now();
        Need(main_.Append(tokens));
        Need(main_.Append(suffix));
        Need(main_.Next().status());
        Settle();
        cold_ms = Since(start);
        Dirty();
      }
      const auto start = Clock::now();
      Need(main_.Restore(capsule));
      const double restore_ms = Since(start);
      Need(main_.Append(suffix));
      Settle();
      const double with_suffix = Since(start);
      Need(main_.Next().status());
      Settle();
      const double all = Since(start);
      if (round < 0) continue;
      if (round == 0) {
        const double each = cold_ms * static_cast<double>(options_.suffixes.size()) / 1000;
        runs = std::clamp(static_cast<int>(options_.seconds / std::max(each, 1e-6)), 1, runs);
      }
      cold.Add(cold_ms);
      restored.Add(all);
      restore.Add(restore_ms * 1000);
      rest.Add(with_suffix - restore_ms);
      decode.Add(all - with_suffix);
    }
    std::printf("%s{\"prefix\": %d, \"suffix\": %d, \"runs\": %zu, \"times\": %.2f", comma.Next(), prefix, suffix_length, cold.count(),
                cold.median() / restored.median());
    Print("cold_ms", cold);
    Print("restored_ms", restored);
    Print("restore_us", restore);
    Print("suffix_ms", rest);
    Print("first_decode_ms", decode);
    std::printf("}");
    std::fflush(stdout);
  }

  // What the verbs cost, and what they move: a snapshot nothing; a restore or a fork the addresses of extents, with the step that follows; and that
  // step, in a branch that finds its last extent shared, the rows of it below.
  void Capsules(int prefix, Comma& comma) {
    const auto tokens = Tokens(prefix, 1), one = Tokens(1, 7);
    const Capsule capsule = At(tokens);
    Figures snapshot, restore, fork;
    uint64_t copied = 0;
    for (int round = -3; round < options_.runs; ++round) {
      Dirty();
      auto start = Clock::now();
      Need(main_.Restore(capsule));
      const double restore_us = Since(start) * 1000;
      start = Clock::now();
      const Capsule again = main_.Snapshot();
      const double snapshot_us = Since(start) * 1000;
      start = Clock::now();
      auto branches = main_.Fork(capsule, 7);
      const double fork_us = Since(start) * 1000 / 7;
      Need(branches.status());
      for (Session& branch : *branches) Need(branch.Append(one));
      copied = branches->back().lane().copied_rows();
      if (round < 0) continue;
      snapshot.Add(snapshot_us);
      restore.Add(restore_us);
      fork.Add(fork_us);
    }
    const int extents = (prefix + kExtentRows - 1) / kExtentRows;
    std::printf("%s{\"prefix\": %d, \"address_bytes\": %zu, \"fork_copied_bytes\": %llu", comma.Next(), prefix,
                static_cast<size_t>(extents) * sizeof(std::byte*), static_cast<unsigned long long>(copied * model_.layout().row_bytes()));
    Print("snapshot_us", snapshot);
    Print("restore_us", restore);
    Print("fork_us", fork);
    std::printf("}");
    std::fflush(stdout);
  }

  // Decoding, alone and as branches of one context, and what of the device's reads the weights come to.
  void Decode(size_t lanes, double read_bytes_per_second, Comma& comma) {
    const Capsule capsule = At(dirt_);
    std::vector<Session> branches;
    if (lanes > 1) {
      auto forked = main_.Fork(capsule, static_cast<int>(lanes) - 1);
      Need(forked.status());
      branches = *std::move(forked);
    }
    std::vector<Session*> batch = {&main_};
    for (Session& branch : branches) batch.push_back(&branch);
    std::vector<Token> out(lanes);
    for (int i = 0; i < options_.steps / 10; ++i) Need(Session::NextBatch(batch, out));
    Figures steps;
    for (int i = 0; i < options_.steps; ++i) {
      const auto start = Clock::now();
      Need(Session::NextBatch(batch, out));
      steps.Add(Since(start));
    }
    const double rate = static_cast<double>(model_.info().weight_bytes) / steps.median() * 1000;
    std::printf("%s{\"lanes\": %zu, \"tokens_s\": %.1f, \"weight_gb_s\": %.1f, \"of_read\": %.4f", comma.Next(), lanes,
                1000.0 * static_cast<double>(lanes) / steps.median(), rate / 1e9,
                read_bytes_per_second > 0 ? rate / read_bytes_per_second : 0.0);
    Print("ms_a_step", steps);
    std::printf("}");
    std::fflush(stdout);
  }

  // A restore of everything goes on with the same tokens; one of keys and values alone does not.
  void LeaveOut() {
    constexpr int kTokens = 32;
    const Capsule whole = At(Tokens(options_.prefixes.at(0), 1));
    auto rows = RowsOnly(whole);
    Need(rows.status());
    const auto suffix = Tokens(options_.suffixes.at(0), 7);
    const auto from = [&](const Capsule& capsule) {
      Dirty();
      Need(main_.Restore(capsule));
      Need(main_.Append(suffix));
      std::vector<int32_t> tokens;
      for (int i = 0; i < std::min(kTokens, options_.steps); ++i) {
        const auto token = main_.Next();
        Need(token.status());
        tokens.push_back(token->id);
      }
      return tokens;
    };
    const auto first = from(whole), second = from(whole), without = from(*rows);
    const auto same = [&](const std::vector<int32_t>& other) {
      return static_cast<int>(std::mismatch(first.begin(), first.end(), other.begin()).first - first.begin());
    };
    std::printf(",\n\"left_out\": {\"prefix\": %d, \"tokens\": %zu, \"same_of_whole\": %d, \"same_of_rows_only\": %d}",
                options_.prefixes.at(0), first.size(), same(second), same(without));
  }

  const Options& options_;
  Model model_;
  Session main_;
  const Capsule origin_;
  const std::vector<int32_t> dirt_ = Tokens(std::min(300, options_.prefixes.at(0)), 99);
};

Options Parse(int argc, char** argv) {
  Options options;
  std::vector<std::string> plain;
  for (int i = 1; i < argc; ++i) {
    const std::string_view flag = argv[i];
    if (!flag.starts_with("--")) {
      plain.emplace_back(flag);
      continue;
    }
    if (++i == argc) Fail("'" + std::string(flag) + "' wants a value");
    if (flag == "--suffixes") {
      options.suffixes.clear();
      for (std::string_view list = argv[i]; !list.empty();) {
        const size_t comma = std::min(list.find(','), list.size());
        options.suffixes.push_back(Number(list.substr(0, comma)));
        list.remove_prefix(std::min(comma + 1, list.size()));
      }
      continue;
    }
    const std::pair<std::string_view, int*> numbers[] = {{"--chunk", &options.chunk},
                                                         {"--runs", &options.runs},
                                                         {"--steps", &options.steps},
                                                         {"--seconds", &options.seconds},
                                                         {"--spill", &options.spill}};
    const auto* const known = std::find_if(std::begin(numbers), std::end(numbers), [&](const auto& one) { return one.first == flag; });
    if (known == std::end(numbers)) Fail("'" + std::string(flag) + "' is no option of this program");
    *known->second = Number(argv[i]);
  }
  if (plain.size() < 3) Fail("give a model, a device and at least one prefix");
  options.model = plain[0];
  options.device = plain[1];
  for (size_t i = 2; i < plain.size(); ++i) options.prefixes.push_back(Number(plain[i]));
  if (options.suffixes.empty() || options.runs < 1 || options.steps < 1) Fail("there is nothing to do");
  return options;
}

void Main(int argc, char** argv) {
  AddDevice("emulated", [] { return cuda::MakeBackend(cuda::MakeEmulatedDevice()); });
  const Options options = Parse(argc, argv);
  const int longest = *std::max_element(options.prefixes.begin(), options.prefixes.end());
  const int suffix = *std::max_element(options.suffixes.begin(), options.suffixes.end());
  ModelOptions load{
      .device = options.device, .context = longest + suffix + options.steps * 2 + 512, .lanes = 8, .capsules = 8, .chunk = options.chunk};
  if (options.spill == 0) return Bench(options, load).Run();
  load.lanes = 1;
  load.spill_budget = size_t{1} << 20;
  load.spill_budget *= static_cast<size_t>(options.spill);
  Bench(options, load).RunSpill();
}

}  // namespace
}  // namespace reprise

int main(int argc, char** argv) {
  reprise::Main(argc, argv);
  return 0;
}
