// Metrics: what the server counts, as text in Prometheus' form. Any thread may count; what is read together was not counted together.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <map>
#include <mutex>
#include <string>

#include "reprise/model.h"
#include "reprise/store.h"

namespace reprise::serve {

class Histogram {
 public:
  static constexpr std::array<double, 14> kBounds = {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60};

  void Observe(double seconds);
  void Write(std::string_view name, std::string_view help, std::string& out) const;

 private:
  std::array<std::atomic<uint64_t>, kBounds.size() + 1> buckets_{};
  std::atomic<uint64_t> microseconds_{0};
};

struct Metrics {
  Histogram first_token;  // from the submission of a request
  Histogram inter_token;
  Histogram queued;
  std::atomic<uint64_t> computed_tokens{0};              // of prompts
  std::array<std::atomic<uint64_t>, 4> reused_tokens{};  // by Tier
  std::atomic<uint64_t> predicted_tokens{0};
  std::atomic<uint64_t> cancelled{0}, rejected{0}, slow_readers{0};
  std::atomic<int> lines{0}, waiting{0}, reading{0};

  void CountRequest(std::string_view route, int status);
  std::string Text(const Model* model, int connections) const;

 private:
  mutable std::mutex mutex_;
  std::map<std::pair<std::string, int>, uint64_t> requests_;
};

}  // namespace reprise::serve
