// What the checks of the six promises share: prompts, ways to go on and to compare, and a notebook of findings. For verify*.cc alone.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <random>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "session/verify.h"

namespace reprise::verify {

using Line = VerifySubject::Line;

// What one check has seen. The first failure is what the report tells, with how many more there were.
class Findings {
 public:
  void Fail(std::string what) {
    if (failures_++ == 0) first_failure_ = std::move(what);
  }
  void Note(std::string_view sentence) {
    if (!notes_.empty()) notes_ += " ";
    notes_ += sentence;
  }
  bool passed() const { return failures_ == 0; }
  std::string Evidence() const;

 private:
  int failures_ = 0;
  std::string first_failure_;
  std::string notes_;
};

struct Setup {
  VerifySubject& subject;
  bool quick = false;
  std::function<void(double)> progress;  // may be called with fractions of the present check
  std::vector<int32_t> prompt;           // crosses extents and, where the context allows, a block of attention
  std::vector<int32_t> other;            // shares nothing with it on purpose: what dirties a line
  Capsule origin;                        // position 0
  std::mt19937_64 random{20261121};      // every run takes the same choices

  const ModelInfo& info() const { return subject.info(); }
  Status Reset(Line line) { return subject.Restore(line, origin); }
  Status Append(Line line, std::span<const int32_t> tokens) {
    const VerifySubject::Feed feed{line, tokens};
    return subject.Append(std::span(&feed, 1));
  }
  // Another line of thought altogether on `line`: other tokens, other sampling, half a stop string held.
  Status Dirty(Line line);
  void Progress(double fraction) const {
    if (progress) progress(fraction);
  }
};

// Sampling that uses everything there is: temperature, cuts, penalties, a seed.
SamplingOptions SampledOptions(uint64_t seed);

// Biases on what the model is about to say at a line's boundary, so that leaving them out shows.
Result<std::vector<std::pair<int32_t, float>>> BiasesOnTheLikely(Setup& setup, Line line);

// Of three bytes two are not 'e': what a model wants to say is seldom so, and can always be said otherwise. No grammar where text is not known.
Result<Grammar> FewE(const Setup& setup);

// One token of a continuation: the logits that it was chosen from, and what came of it.
struct Step {
  int32_t id = -1;
  std::string text;
  Finish finish = Finish::kNone;
  std::vector<float> logits;
};
// `count` tokens; fewer when a stop string completes.
Result<std::vector<Step>> GoOn(VerifySubject& subject, Line line, int count);

// Where two continuations part: at which token, and in what.
struct Divergence {
  size_t token = 0;
  std::string what;       // "logits", "token", "text", "length"; or what a check calls it
  double difference = 0;  // for logits: the largest of their differences
};
// Logits are compared bit for bit.
std::optional<Divergence> FirstDivergence(std::span<const Step> expected, std::span<const Step> actual);
std::string Describe(const Divergence& divergence);

bool SameBits(std::span<const float> a, std::span<const float> b);
double LargestDifference(std::span<const float> a, std::span<const float> b);

// A digest of each named state of a line, in the layout's order.
Result<std::vector<uint64_t>> Digests(VerifySubject& subject, Line line);
// The same of a capsule.
Result<std::vector<uint64_t>> Digests(const Capsule& capsule);
// The name of the first state in which they differ, or nothing.
std::optional<std::string> FirstDifference(const StateLayout& layout, std::span<const uint64_t> a, std::span<const uint64_t> b);

// A boundary that uses every state: a prompt, some sampled and penalised tokens, one of them pending, half of a stop string held and a
// character incomplete.
inline constexpr char kRichStop[] = "half\xe2\x82\xacway";
inline constexpr char kRichFirst[] = " and half\xe2\x82";
inline constexpr char kRichSecond[] = "\xacw";
inline constexpr char kRichThird[] = "ay, and on";
Status MakeRich(Setup& setup, Line line);
// What is shown from there on as the stop string goes on to be complete.
Result<std::vector<VerifySubject::Shown>> ShowTheRest(VerifySubject& subject, Line line);

std::string Count(size_t n, std::string_view noun);  // "1 token", "3 tokens"

// An error is a defect found: it fails the promise.
Status CheckExact(Setup& setup, Findings& findings);
Status CheckComplete(Setup& setup, Findings& findings);
Status CheckCut(Setup& setup, Findings& findings);
Status CheckIsolated(Setup& setup, Findings& findings);
Status CheckFixed(Setup& setup, Findings& findings);
Status CheckRefusing(Setup& setup, Findings& findings);

}  // namespace reprise::verify
