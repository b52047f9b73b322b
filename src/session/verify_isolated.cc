// Promise 4: a fork's future never shows in its siblings, its parent, or the capsule that they came from.
#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "session/verify_internal.h"

namespace reprise::verify {

Status CheckIsolated(Setup& setup, Findings& findings) {
  VerifySubject& subject = setup.subject;
  const StateLayout& layout = subject.layout();
  const int lines = std::min(subject.lines(), 4);
  const int watched = setup.quick ? 3 : 8;  // steps after which every other line is read back
  const int batched = 12;

  REPRISE_RETURN_IF_ERROR(setup.Reset(0));
  REPRISE_RETURN_IF_ERROR(setup.Append(0, setup.prompt));
  REPRISE_RETURN_IF_ERROR(subject.SetSampling(0, SampledOptions(20)));
  REPRISE_RETURN_IF_ERROR(GoOn(subject, 0, 3).status());
  const Capsule capsule = subject.Snapshot(0);
  REPRISE_ASSIGN_OR_RETURN(const auto taken, Digests(capsule));

  const auto seed_line = [&](Line line) {
    return line == 0 ? Ok() : subject.SetSampling(line, SampledOptions(20 + static_cast<uint64_t>(line)));
  };
  // What each line says when nobody else is there: computed one after the other on one line.
  std::vector<std::vector<Step>> alone;
  for (Line line = 0; line < lines; ++line) {
    REPRISE_RETURN_IF_ERROR(subject.Restore(1, capsule));
    if (line > 0) REPRISE_RETURN_IF_ERROR(subject.SetSampling(1, SampledOptions(20 + static_cast<uint64_t>(line))));
    REPRISE_ASSIGN_OR_RETURN(auto steps, GoOn(subject, 1, watched + batched));
    alone.push_back(std::move(steps));
  }

  // The parent keeps its place; its forks go their own ways beside it.
  std::vector<Line> all;
  for (Line line = 0; line < lines; ++line) {
    if (line > 0) REPRISE_RETURN_IF_ERROR(subject.Restore(line, capsule));
    REPRISE_RETURN_IF_ERROR(seed_line(line));
    all.push_back(line);
  }
  std::vector<std::vector<uint64_t>> before(static_cast<size_t>(lines));
  for (Line line = 0; line < lines; ++line) {
    REPRISE_ASSIGN_OR_RETURN(before[static_cast<size_t>(line)], Digests(subject, line));
  }
  std::vector<std::vector<Step>> said(static_cast<size_t>(lines));
  size_t comparisons = 0;
  const auto unchanged = [&](Line mover, const std::string& act) -> Status {
    for (Line line = 0; line < lines; ++line) {
      REPRISE_ASSIGN_OR_RETURN(auto now, Digests(subject, line));
      auto& then = before[static_cast<size_t>(line)];
      if (line != mover) {
        ++comparisons;
        if (const auto state = FirstDifference(layout, then, now)) {
          findings.Fail(fmt::format("{} of line {} changed {} of line {}", act, mover + 1, *state, line + 1));
        }
      }
      then = std::move(now);
    }
    REPRISE_ASSIGN_OR_RETURN(const auto now, Digests(capsule));
    ++comparisons;
    if (const auto state = FirstDifference(layout, taken, now))
      findings.Fail(fmt::format("{} of line {} changed {} of the capsule", act, mover + 1, *state));
    return Ok();
  };
  for (int step = 0; step < watched; ++step) {
    for (Line line = lines - 1; line >= 0; --line) {
      REPRISE_ASSIGN_OR_RETURN(auto one, GoOn(subject, line, 1));
      said[static_cast<size_t>(line)].push_back(std::move(one[0]));
      REPRISE_RETURN_IF_ERROR(unchanged(line, "a token"));
    }
    setup.Progress(0.8 * (step + 1) / watched);
  }
  for (int step = 0; step < batched; ++step) {
    std::vector<Token> tokens(all.size());
    REPRISE_RETURN_IF_ERROR(subject.Next(all, tokens));
    std::vector<std::string> texts;
    texts.reserve(tokens.size());
    for (const Token& token : tokens) texts.emplace_back(token.text);
    REPRISE_ASSIGN_OR_RETURN(auto logits, subject.Logits(all));
    for (size_t i = 0; i < all.size(); ++i) said[i].push_back({tokens[i].id, texts[i], tokens[i].finish, std::move(logits[i])});
  }
  for (size_t i = 0; i < all.size(); ++i) {
    if (const auto divergence = FirstDivergence(alone[i], said[i])) {
      findings.Fail(fmt::format("line {} among its siblings does not say what it says alone: {}", i + 1, Describe(*divergence)));
    }
  }
  // A sibling that goes back, and one that is used for something else.
  for (Line line = 0; line < lines; ++line) {
    REPRISE_ASSIGN_OR_RETURN(before[static_cast<size_t>(line)], Digests(subject, line));
  }
  REPRISE_RETURN_IF_ERROR(subject.Rollback(lines - 1, 6));
  REPRISE_RETURN_IF_ERROR(unchanged(lines - 1, "a rollback"));
  REPRISE_RETURN_IF_ERROR(setup.Append(lines - 1, std::span<const int32_t>(setup.other).first(5)));
  REPRISE_RETURN_IF_ERROR(unchanged(lines - 1, "other tokens"));
  REPRISE_RETURN_IF_ERROR(setup.Dirty(1));
  REPRISE_RETURN_IF_ERROR(unchanged(1, "another prompt"));

  findings.Note(
      fmt::format("A parent and {} from one capsule, {} tokens each, one line at a time and as one batch: {} times every state of every "
                  "other line and of the "
                  "capsule was read back unchanged, and each line says what it says alone.",
                  Count(static_cast<size_t>(lines - 1), "fork"), watched + batched, comparisons));
  return Ok();
}

}  // namespace reprise::verify
