// Promise 1: restore gives back every named byte, and what follows a restore equals what follows no interruption.
#include <fmt/format.h>

#include <optional>

#include "session/verify_internal.h"

namespace reprise::verify {
namespace {

// Stops in the middle of what the model is about to say: from within token `at` to within the next one. Nothing for text too short.
std::optional<std::string> StopAcross(std::span<const Step> steps, size_t at) {
  if (at + 1 >= steps.size()) return std::nullopt;
  const std::string& first = steps[at].text;
  const std::string& second = steps[at + 1].text;
  if (first.size() < 2 || second.size() < 2) return std::nullopt;
  for (const std::string* text : {&first, &second}) {
    for (const char c : *text) {
      if (static_cast<unsigned char>(c) >= 0x80) return std::nullopt;  // may be cut anywhere then
    }
  }
  return first.substr(first.size() / 2) + second.substr(0, (second.size() + 1) / 2);
}

struct Case {
  std::string name;
  SamplingOptions options;
  int before = 0;          // tokens chosen before the snapshot
  bool half_text = false;  // half a stop string and half a character are held at the snapshot
};

// Runs the case to its snapshot on `line`.
Status Arrive(Setup& setup, Line line, const Case& one) {
  REPRISE_RETURN_IF_ERROR(setup.Reset(line));
  REPRISE_RETURN_IF_ERROR(setup.Append(line, setup.prompt));
  REPRISE_RETURN_IF_ERROR(setup.subject.SetSampling(line, one.options));
  REPRISE_RETURN_IF_ERROR(GoOn(setup.subject, line, one.before).status());
  if (!one.half_text) return Ok();
  return setup.subject.Show(line, kRichFirst).status();
}

struct Followed {
  std::vector<Step> steps;
  std::vector<VerifySubject::Shown> shown;
};

Result<Followed> Follow(Setup& setup, Line line, const Case& one, int count) {
  Followed followed;
  if (one.half_text) {
    REPRISE_ASSIGN_OR_RETURN(followed.shown, ShowTheRest(setup.subject, line));
  }
  REPRISE_ASSIGN_OR_RETURN(followed.steps, GoOn(setup.subject, line, count));
  return followed;
}

Status CheckCase(Setup& setup, Findings& findings, const Case& one, int count, size_t* bytes) {
  VerifySubject& subject = setup.subject;
  const Line line = 0;
  const Line other_line = 1;
  REPRISE_RETURN_IF_ERROR(Arrive(setup, line, one));
  REPRISE_ASSIGN_OR_RETURN(const auto before, Digests(subject, line));
  const Capsule capsule = subject.Snapshot(line);
  *bytes = capsule.recurrent_bytes() + capsule.row_bytes();
  REPRISE_ASSIGN_OR_RETURN(const Followed uninterrupted, Follow(setup, line, one, count));

  // Back on the same line, which has gone on and then been used for something else; and on a line that was elsewhere all the time.
  for (const Line target : {line, other_line}) {
    const std::string where = one.name + (target == line ? ", restored to its own line" : ", restored to another line");
    REPRISE_RETURN_IF_ERROR(setup.Dirty(target));
    REPRISE_RETURN_IF_ERROR(subject.Restore(target, capsule));
    REPRISE_ASSIGN_OR_RETURN(const auto after, Digests(subject, target));
    if (const auto state = FirstDifference(subject.layout(), before, after))
      findings.Fail(where + ": the bytes of " + *state + " are not what they were");
    REPRISE_ASSIGN_OR_RETURN(const Followed again, Follow(setup, target, one, count));
    if (const auto divergence = FirstDivergence(uninterrupted.steps, again.steps)) findings.Fail(where + ": " + Describe(*divergence));
    if (again.shown != uninterrupted.shown) findings.Fail(where + ": the rest of a half-shown stop string is shown differently");
  }
  if (one.half_text && !(uninterrupted.shown.size() == 2 && uninterrupted.shown[1].stopped && uninterrupted.shown[1].text.empty())) {
    findings.Fail(one.name + ": a stop string that was half shown is not found when its other half comes");
  }
  return Ok();
}

}  // namespace

Status CheckExact(Setup& setup, Findings& findings) {
  const int count = setup.quick ? 16 : 32;
  std::vector<Case> cases;
  cases.push_back({"greedy", {}, 0, false});
  cases.push_back({"greedy with a token pending", {}, 4, false});
  cases.push_back({"sampled and penalised", SampledOptions(11), 6, false});
  cases.push_back({"in the middle of a stop string and of a character", SampledOptions(12), 3, true});
  cases.back().options.stop = {kRichStop};
  REPRISE_ASSIGN_OR_RETURN(cases.back().options.grammar, FewE(setup));
  const bool in_grammar = cases.back().options.grammar.present();
  REPRISE_RETURN_IF_ERROR(setup.Reset(0));
  REPRISE_RETURN_IF_ERROR(setup.Append(0, setup.prompt));
  REPRISE_ASSIGN_OR_RETURN(cases.back().options.bias, BiasesOnTheLikely(setup, 0));

  // A stop string that the model itself is about to say, with the capsule taken between its two tokens.
  REPRISE_RETURN_IF_ERROR(setup.Reset(0));
  REPRISE_RETURN_IF_ERROR(setup.Append(0, setup.prompt));
  REPRISE_RETURN_IF_ERROR(setup.subject.SetSampling(0, SampledOptions(13)));
  REPRISE_ASSIGN_OR_RETURN(const auto preview, GoOn(setup.subject, 0, count));
  for (size_t at = 1; at + 1 < preview.size(); ++at) {
    const auto stop = StopAcross(preview, at);
    if (!stop) continue;
    std::string said;  // not said earlier, or generation would end there
    for (size_t i = 0; i <= at; ++i) said += preview[i].text;
    if (said.find(*stop) != std::string::npos) continue;
    cases.push_back({"in the middle of a stop string that the model says", SampledOptions(13), static_cast<int>(at) + 1, false});
    cases.back().options.stop = {*stop};
    break;
  }

  size_t bytes = 0;
  for (size_t i = 0; i < cases.size(); ++i) {
    REPRISE_RETURN_IF_ERROR(CheckCase(setup, findings, cases[i], count, &bytes));
    setup.Progress(static_cast<double>(i + 1) / static_cast<double>(cases.size()));
  }
  findings.Note(fmt::format(
      "{} states, {} bytes, are the same after snapshot, another prompt and restore, {} times on two lines each; the {} tokens that follow "
      "each time, their texts and every logit bit equal those of the uninterrupted run (greedy, sampled with penalties, within a stop "
      "string{} and within a character).",
      setup.subject.layout().states().size(), bytes, cases.size(), count, in_grammar ? ", within a grammar" : ""));
  return Ok();
}

}  // namespace reprise::verify
