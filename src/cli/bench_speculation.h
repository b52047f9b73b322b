// What guessing ahead is worth: the same tokens of the same text, chosen without guesses and with guesses of each source.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "reprise/model.h"
#include "reprise/session.h"
#include "reprise/status.h"

namespace reprise {

struct DraftedRun {
  std::string drafts;  // "off", "mtp" or "lookup"
  float temperature = 0;
  int tokens = 0;
  double ms = 0;
  SpeculationStats guesses;
};

// Guesses come true as often as the text lets them, so the text is English that the model goes on with: greedily, where a small model soon
// repeats itself and is easily foretold, and sampled at a temperature, where what is likeliest often does not come.
class SpeculationBench {
 public:
  // kUnsupported for a model without a tokenizer.
  static Result<SpeculationBench> Make(const Model& model, int draft);

  int prompt() const { return prompt_; }
  // Every source once at each temperature, in turns with no guesses at all. An error if one of them changes what is chosen.
  Result<std::vector<DraftedRun>> Round(uint64_t seed);

 private:
  struct Source {
    std::string name;
    Speculation speculation;
  };
  SpeculationBench(Session session, std::vector<Source> sources)
      : session_(std::move(session)), prompt_(session_.position()), start_(session_.Snapshot()), sources_(std::move(sources)) {}
  Result<DraftedRun> Once(const Source& source, float temperature, uint64_t seed, std::vector<int32_t>& chosen);

  Session session_;
  int prompt_;
  Capsule start_;
  std::vector<Source> sources_;
};

inline double AcceptanceRate(const SpeculationStats& stats) {
  return stats.drafted > 0 ? static_cast<double>(stats.accepted) / static_cast<double>(stats.drafted) : 0;
}

}  // namespace reprise
