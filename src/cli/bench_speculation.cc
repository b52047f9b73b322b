#include "cli/bench_speculation.h"

#include <chrono>
#include <string_view>
#include <utility>

namespace reprise {
namespace {

constexpr int kTokens = 128;  // chosen a run, if the text does not end before
constexpr float kTemperatures[] = {0.0f, 0.8f};

constexpr std::string_view kText =
    "The letter came on a Tuesday, when the family were still at breakfast, and it was some minutes before anyone but Anne had leisure to "
    "observe that it was not written in the usual hand. Her father had the newspaper; her sister had a new bonnet to describe, and would "
    "have "
    "described it to the teapot rather than be silent. \"My dear,\" said her mother at last, \"you have not told us what your aunt has to "
    "say,"
    "\" and Anne, who had read the first page twice without understanding it, replied that her aunt was well, that the roads were very "
    "bad, and "
    "that they were all invited to spend the winter in town. Nothing could have been less expected. Her sister declared that she must have "
    "three new gowns at the least; her father, that he would not stir from his own fireside for any aunt in the kingdom; and her mother, "
    "who "
    "had wished for nothing else these seven years, said only that";

}  // namespace

Result<SpeculationBench> SpeculationBench::Make(const Model& model, int draft) {
  REPRISE_ASSIGN_OR_RETURN(Session session, model.NewSession());
  REPRISE_RETURN_IF_ERROR(session.Prefill(kText).status());
  std::vector<Source> sources = {{"off", {}}, {"lookup", {.draft = draft, .source = Speculation::Source::kLookup}}};
  if (model.info().has_draft) sources.push_back({"mtp", {.draft = draft, .source = Speculation::Source::kMtp}});
  return SpeculationBench(std::move(session), std::move(sources));
}

Result<std::vector<DraftedRun>> SpeculationBench::Round(uint64_t seed) {
  std::vector<DraftedRun> runs;
  for (const float temperature : kTemperatures) {
    std::vector<int32_t> first;
    for (size_t turn = 0; turn < sources_.size(); ++turn) {
      std::vector<int32_t> chosen;
      REPRISE_ASSIGN_OR_RETURN(DraftedRun run, Once(sources_[(turn + seed) % sources_.size()], temperature, seed, chosen));
      if (turn == 0) first = chosen;
      if (chosen != first) return Internal("guessing ahead (" + run.drafts + ") changed what was chosen");
      runs.push_back(std::move(run));
    }
  }
  return runs;
}

Result<DraftedRun> SpeculationBench::Once(const Source& source, float temperature, uint64_t seed, std::vector<int32_t>& chosen) {
  REPRISE_RETURN_IF_ERROR(session_.Restore(start_));
  REPRISE_RETURN_IF_ERROR(session_.SetSampling({.temperature = temperature, .top_k = 40, .seed = seed}));
  REPRISE_RETURN_IF_ERROR(session_.SetSpeculation(source.speculation));
  REPRISE_RETURN_IF_ERROR(session_.Next().status());  // the logits of a bare restore are made here
  const auto start = std::chrono::steady_clock::now();
  REPRISE_RETURN_IF_ERROR(session_
                              .Generate(kTokens,
                                        [&](const Token& token) {
                                          chosen.push_back(token.id);
                                          return true;
                                        })
                              .status());
  const double ms = std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
  return DraftedRun{source.name, temperature, static_cast<int>(chosen.size()), ms, session_.speculation_stats()};
}

}  // namespace reprise
