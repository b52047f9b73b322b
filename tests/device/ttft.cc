// Time to the first token of a restored prefix against a cold one, on a device: for tools/gpu_check.sh.
//
//   device_ttft MODEL DEVICE CHUNK RUNS PREFIX...
//
// One JSON object. Wall time, with the device settled before a clock is read. Three rounds of every shape come first and are not counted; cold and
// restored take turns; before each restore another prompt goes over every buffer. Medians, and the 95th percentile of what counts.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "reprise/model.h"
#include "reprise/session.h"
#include "session/engine.h"

namespace reprise {
namespace {

using Clock = std::chrono::steady_clock;
double Since(Clock::time_point start) { return std::chrono::duration<double, std::milli>(Clock::now() - start).count(); }

void Need(const Status& status) {
  if (status.ok()) return;
  std::fprintf(stderr, "device_ttft: %s\n", status.message().c_str());
  std::exit(1);
}
double At(std::vector<double> values, double share) {
  std::sort(values.begin(), values.end());
  return values[std::min(values.size() - 1, static_cast<size_t>(share * static_cast<double>(values.size())))];
}

std::vector<int32_t> Prompt(int count, int vocabulary, uint64_t seed) {
  std::vector<int32_t> tokens(static_cast<size_t>(count));
  for (int32_t& token : tokens) {
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    token = static_cast<int32_t>((seed >> 33) % static_cast<uint64_t>(vocabulary / 2));
  }
  return tokens;
}

int Run(int argc, char** argv) {
  const std::string path = argv[1];
  const int runs = std::atoi(argv[4]);
  int longest = 0;
  for (int i = 5; i < argc; ++i) longest = std::max(longest, std::atoi(argv[i]));
  auto model = Model::Load(path, {.device = argv[2], .context = longest + 1024, .lanes = 4, .capsules = 8, .chunk = std::atoi(argv[3])});
  Need(model.status());
  Stream& stream = model->engine().backend().stream();
  const auto settle = [&] { Need(stream.Synchronize()); };
  Session main = *model->NewSession();
  const Capsule origin = main.Snapshot();
  const int vocabulary = model->info().vocabulary;
  const auto dirt = Prompt(300, vocabulary, 99);
  const auto dirty = [&] {
    Need(main.Restore(origin));
    Need(main.Append(dirt));
    settle();
  };
  std::printf("{\"model\": \"%s\", \"device\": \"%s\", \"block_bytes\": %zu, \"row_bytes\": %zu, \"runs\": %d, \"ttft\": [", path.c_str(),
              model->info().backend.c_str(), model->layout().block_bytes(Space::kDevice), model->layout().row_bytes(), runs);
  bool first = true;
  for (int i = 5; i < argc; ++i) {
    const int prefix = std::atoi(argv[i]);
    const auto tokens = Prompt(prefix, vocabulary, 1);
    Need(main.Restore(origin));
    Need(main.Append(tokens));
    settle();
    auto start = Clock::now();
    const Capsule capsule = main.Snapshot();
    const double snapshot_us = Since(start) * 1000;
    for (const int suffix_length : {24, 64, 512}) {
      const auto suffix = Prompt(suffix_length, vocabulary, 7);
      std::vector<double> cold, restore, suffix_ms, decode, restored;
      for (int round = -3; round < runs; ++round) {
        dirty();
        // A cold prompt costs seconds where it is long; the last suffix stands for the others then.
        const bool measure_cold = round >= 0 ? true : prefix <= 4096;
        double cold_ms = 0;
        if (measure_cold) {
          Need(main.Restore(origin));
          start = Clock::now();
          Need(main.Append(tokens));
          Need(main.Append(suffix));
          Need(main.Next().status());
          settle();
          cold_ms = Since(start);
          dirty();
        }
        start = Clock::now();
        Need(main.Restore(capsule));
        const double restore_ms = Since(start);
        Need(main.Append(suffix));
        settle();
        const double with_suffix = Since(start);
        Need(main.Next().status());
        settle();
        const double all = Since(start);
        if (round < 0) continue;
        cold.push_back(cold_ms);
        restore.push_back(restore_ms * 1000);
        suffix_ms.push_back(with_suffix - restore_ms);
        decode.push_back(all - with_suffix);
        restored.push_back(all);
      }
      std::printf(
          "%s\n  {\"prefix\": %d, \"suffix\": %d, \"cold_ms\": %.3f, \"cold_p95_ms\": %.3f, \"restored_ms\": %.3f, "
          "\"restored_p95_ms\": %.3f, \"times\": %.1f, \"snapshot_us\": %.2f, \"restore_us\": %.2f, \"suffix_ms\": %.3f, "
          "\"first_decode_ms\": %.3f}",
          first ? "" : ",", prefix, suffix_length, At(cold, 0.5), At(cold, 0.95), At(restored, 0.5), At(restored, 0.95),
          At(cold, 0.5) / At(restored, 0.5), snapshot_us, At(restore, 0.5), At(suffix_ms, 0.5), At(decode, 0.5));
      std::fflush(stdout);
      first = false;
    }
  }
  const BackendLimits limits = model->engine().backend().MeasureLimits();
  // Decode, alone and with branches, and what of the device's reads it comes to.
  std::printf("\n], \"read_gb_s\": %.1f, \"byte_gmac_s\": %.0f, \"decode\": [", limits.read_bytes_per_second / 1e9,
              limits.byte_macs_per_second / 1e9);
  std::vector<Session> sessions;
  sessions.push_back(std::move(main));
  for (int i = 1; i < 4; ++i) sessions.push_back(*model->NewSession());
  for (size_t lanes = 1; lanes <= 4; lanes *= 2) {
    std::vector<Session*> batch;
    for (size_t i = 0; i < lanes; ++i) {
      Need(sessions[i].Restore(origin));
      Need(sessions[i].Append(dirt));
      batch.push_back(&sessions[i]);
    }
    std::vector<Token> out(lanes);
    for (int i = 0; i < 20; ++i) Need(Session::NextBatch(batch, out));
    settle();
    const int steps = 200;
    const auto start = Clock::now();
    for (int i = 0; i < steps; ++i) Need(Session::NextBatch(batch, out));
    settle();
    const double ms = Since(start) / steps;
    std::printf("%s\n  {\"lanes\": %zu, \"ms_a_step\": %.4f, \"tokens_s\": %.1f, \"weight_gb_s\": %.1f}", lanes == 1 ? "" : ",", lanes, ms,
                1000.0 * static_cast<double>(lanes) / ms, static_cast<double>(model->info().weight_bytes) / ms / 1e6);
  }
  std::printf("\n]}\n");
  return 0;
}

}  // namespace
}  // namespace reprise

int main(int argc, char** argv) {
  if (argc < 6) {
    std::fprintf(stderr, "usage: device_ttft MODEL DEVICE CHUNK RUNS PREFIX...\n");
    return 2;
  }
  return reprise::Run(argc, argv);
}
