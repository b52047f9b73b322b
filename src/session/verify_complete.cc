// Promise 2: every state is needed. Left out alone, each makes what follows diverge; and so do keys and values without the rest.
#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <map>
#include <optional>

#include "session/verify_internal.h"

namespace reprise::verify {
namespace {

// What is seen from the rich boundary, four ways: text, tokens with their logits, the boundary's own logits, and the draft.
struct Seen {
  std::vector<VerifySubject::Shown> shown;
  std::vector<Step> steps;
  std::vector<float> boundary;
  std::vector<float> draft;
};

constexpr char kRefused[] = "refused";  // a step that fails on what it finds counts as a difference: nobody would take it for the same
constexpr char kBoundary[] = "logits of the boundary";

// The first difference from `expected` that a line going on from `capsule` shows: in the tokens, if there is one.
Result<std::optional<Divergence>> Differs(Setup& setup, const Capsule& capsule, const Seen& expected) {
  VerifySubject& subject = setup.subject;
  const Line line = 1;
  REPRISE_RETURN_IF_ERROR(subject.Restore(line, capsule));
  REPRISE_ASSIGN_OR_RETURN(const auto shown, ShowTheRest(subject, line));
  if (shown != expected.shown) return std::optional(Divergence{0, "text", 0});

  REPRISE_RETURN_IF_ERROR(subject.Restore(line, capsule));
  std::vector<Step> steps;
  for (size_t i = 0; i < expected.steps.size(); ++i) {
    auto one = GoOn(subject, line, 1);
    if (!one.ok()) return std::optional(Divergence{i, kRefused, 0});
    steps.push_back((*one)[0]);
    if (const auto divergence = FirstDivergence(std::span(expected.steps).first(i + 1), steps)) return std::optional(*divergence);
  }

  REPRISE_RETURN_IF_ERROR(subject.Restore(line, capsule));
  REPRISE_ASSIGN_OR_RETURN(const auto boundary, subject.Logits(std::span(&line, 1)));
  if (!SameBits(boundary[0], expected.boundary))
    return std::optional(Divergence{0, kBoundary, LargestDifference(boundary[0], expected.boundary)});

  if (setup.info().has_draft) {
    REPRISE_RETURN_IF_ERROR(subject.Restore(line, capsule));
    REPRISE_ASSIGN_OR_RETURN(const auto draft, subject.DraftLogits(line, subject.PendingToken(line)));
    if (!SameBits(draft, expected.draft)) return std::optional(Divergence{0, "draft", LargestDifference(draft, expected.draft)});
  }
  return std::optional<Divergence>();
}

// "blk.12.conv.tail" -> "blk.*.conv.tail": the states of one kind are told of together.
std::string Kind(const std::string& name) {
  std::string kind;
  for (size_t at = 0; at <= name.size();) {
    const size_t end = std::min(name.find('.', at), name.size());
    const std::string part = name.substr(at, end - at);
    const bool number = !part.empty() && part.find_first_not_of("0123456789") == std::string::npos;
    kind += (at > 0 ? "." : "") + (number ? "*" : part);
    at = end + 1;
  }
  return kind;
}

struct KindSeen {
  size_t count = 0;
  size_t latest = 0;                                       // the token at which the last of them showed
  double least = std::numeric_limits<double>::infinity();  // of the logit differences
  double most = 0;
  std::string what;
};

std::string Describe(const std::map<std::string, KindSeen>& kinds) {
  std::string text;
  for (const auto& [kind, seen] : kinds) {
    text += text.empty() ? "" : "; ";
    text += kind;
    if (seen.count > 1) text += fmt::format(" ({})", seen.count);
    if (seen.what == "text") {
      text += " the text shown next";
      continue;
    }
    if (seen.what == kRefused) {
      text += fmt::format(" refused at token {}", seen.latest + 1);
      continue;
    }
    if (seen.what == "token") {
      text += fmt::format(" token {}", seen.latest + 1);
    } else if (seen.what == kBoundary) {
      text += fmt::format(" {} by {:.2g}", kBoundary, seen.least);
    } else {
      text += fmt::format(" {} of token {} by {:.2g}", seen.what, seen.latest + 1, seen.least);
    }
    if (seen.most > seen.least) text += fmt::format(" to {:.2g}", seen.most);
  }
  return text;
}

}  // namespace

Status CheckComplete(Setup& setup, Findings& findings) {
  VerifySubject& subject = setup.subject;
  const int count = 32;
  REPRISE_RETURN_IF_ERROR(MakeRich(setup, 0));
  const Capsule rich = subject.Snapshot(0);
  Seen expected;
  REPRISE_ASSIGN_OR_RETURN(expected.shown, ShowTheRest(subject, 0));
  REPRISE_RETURN_IF_ERROR(subject.Restore(0, rich));
  REPRISE_ASSIGN_OR_RETURN(expected.steps, GoOn(subject, 0, count));
  REPRISE_RETURN_IF_ERROR(subject.Restore(0, rich));
  const Line parent = 0;
  REPRISE_ASSIGN_OR_RETURN(auto boundary, subject.Logits(std::span(&parent, 1)));
  expected.boundary = std::move(boundary[0]);
  if (setup.info().has_draft) {
    REPRISE_RETURN_IF_ERROR(subject.Restore(0, rich));
    REPRISE_ASSIGN_OR_RETURN(expected.draft, subject.DraftLogits(0, subject.PendingToken(0)));
  }

  // A copy with nothing left out must not diverge, or the differences below would prove nothing.
  {
    REPRISE_ASSIGN_OR_RETURN(const Capsule whole, subject.Without(rich, {}));
    REPRISE_ASSIGN_OR_RETURN(const auto divergence, Differs(setup, whole, expected));
    if (divergence) findings.Fail("a copy of the whole state diverges: " + verify::Describe(*divergence));
  }

  std::map<std::string, KindSeen> kinds;
  const auto states = subject.layout().states();
  std::vector<std::string> recurrent;
  for (size_t i = 0; i < states.size(); ++i) {
    const std::string& name = states[i].name;
    if (states[i].growth == Growth::kRecurrent && states[i].space == Space::kDevice) recurrent.push_back(name);
    REPRISE_ASSIGN_OR_RETURN(const Capsule without, subject.Without(rich, std::span(&name, 1)));
    REPRISE_ASSIGN_OR_RETURN(const auto divergence, Differs(setup, without, expected));
    setup.Progress(static_cast<double>(i + 1) / static_cast<double>(states.size() + 1));
    if (!divergence) {
      findings.Fail(fmt::format("leaving out {} changes nothing in {} tokens: it is not captured, or not needed", name, count));
      continue;
    }
    KindSeen& kind = kinds[Kind(name)];
    ++kind.count;
    kind.latest = std::max(kind.latest, divergence->token);
    kind.least = std::min(kind.least, divergence->difference);
    kind.most = std::max(kind.most, divergence->difference);
    kind.what = divergence->what;
  }

  // What a paged cache keeps: rows, without the recurrent state.
  REPRISE_ASSIGN_OR_RETURN(const Capsule rows_only, subject.Without(rich, recurrent));
  REPRISE_ASSIGN_OR_RETURN(const auto divergence, Differs(setup, rows_only, expected));
  if (!divergence) findings.Fail("keys and values alone go on as the whole state does: the recurrent state is not captured, or not needed");
  if (divergence) {
    findings.Note(fmt::format("Each of {} states, left out alone, shows in what follows; with keys and values alone {}.", states.size(),
                              verify::Describe(*divergence)));
    findings.Note("First seen in: " + Describe(kinds) + ".");
  }
  return Ok();
}

}  // namespace reprise::verify
