#include "session/verify_internal.h"

#include <fmt/format.h>
#include <xxhash.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <utility>

#include "decode/grammar_builder.h"

namespace reprise::verify {

std::string Findings::Evidence() const {
  if (failures_ == 0) return notes_;
  return failures_ == 1 ? first_failure_ : fmt::format("{} ({} more failures)", first_failure_, failures_ - 1);
}

std::string Count(size_t n, std::string_view noun) { return fmt::format("{} {}{}", n, noun, n == 1 ? "" : "s"); }

SamplingOptions SampledOptions(uint64_t seed) {
  SamplingOptions options;
  options.temperature = 1.2f;
  options.top_k = 200;
  options.top_p = 0.98f;
  options.min_p = 0.001f;
  options.repetition_penalty = 1.15f;
  options.presence_penalty = 0.4f;
  options.frequency_penalty = 0.2f;
  options.penalty_window = 96;
  options.seed = seed;
  return options;
}

Status Setup::Dirty(Line line) {
  REPRISE_RETURN_IF_ERROR(Reset(line));
  REPRISE_RETURN_IF_ERROR(Append(line, other));
  SamplingOptions options = SampledOptions(999);
  options.stop = {"another stop"};
  REPRISE_RETURN_IF_ERROR(subject.SetSampling(line, options));
  REPRISE_RETURN_IF_ERROR(GoOn(subject, line, 3).status());
  return subject.Show(line, "an\xf0\x9f").status();
}

Result<std::vector<Step>> GoOn(VerifySubject& subject, Line line, int count) {
  std::vector<Step> steps;
  for (int i = 0; i < count; ++i) {
    Token token;
    REPRISE_RETURN_IF_ERROR(subject.Next(std::span(&line, 1), std::span(&token, 1)));
    Step step{token.id, std::string(token.text), token.finish, {}};
    // The token is not yet fed: these are the logits that it was chosen from.
    REPRISE_ASSIGN_OR_RETURN(auto logits, subject.Logits(std::span(&line, 1)));
    step.logits = std::move(logits[0]);
    steps.push_back(std::move(step));
    if (token.finish == Finish::kStopString) break;
  }
  return steps;
}

bool SameBits(std::span<const float> a, std::span<const float> b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size_bytes()) == 0;
}

double LargestDifference(std::span<const float> a, std::span<const float> b) {
  double largest = 0;
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
    const double difference = std::fabs(static_cast<double>(a[i]) - b[i]);
    if (!(difference <= largest)) largest = difference;  // NaN counts
  }
  return largest;
}

std::optional<Divergence> FirstDivergence(std::span<const Step> expected, std::span<const Step> actual) {
  for (size_t i = 0; i < std::max(expected.size(), actual.size()); ++i) {
    if (i >= expected.size() || i >= actual.size()) return Divergence{i, "length", 0};
    const Step& a = expected[i];
    const Step& b = actual[i];
    if (!SameBits(a.logits, b.logits)) return Divergence{i, "logits", LargestDifference(a.logits, b.logits)};
    if (a.id != b.id) return Divergence{i, "token", 0};
    if (a.text != b.text || a.finish != b.finish) return Divergence{i, "text", 0};
  }
  return std::nullopt;
}

std::string Describe(const Divergence& divergence) {
  if (divergence.what == "logits")
    return fmt::format("the logits of token {} differ by up to {:.3g}", divergence.token + 1, divergence.difference);
  if (divergence.what == "length") return fmt::format("one of them ends before token {}", divergence.token + 1);
  if (divergence.difference > 0) return fmt::format("the {} differ by up to {:.3g}", divergence.what, divergence.difference);
  return fmt::format("the {} differs at token {}", divergence.what, divergence.token + 1);
}

Result<std::vector<uint64_t>> Digests(VerifySubject& subject, Line line) {
  std::vector<uint64_t> digests;
  for (const StateDecl& state : subject.layout().states()) {
    REPRISE_ASSIGN_OR_RETURN(const auto bytes, subject.ReadState(line, state.name));
    digests.push_back(XXH3_64bits(bytes.data(), bytes.size()));
  }
  return digests;
}

Result<std::vector<uint64_t>> Digests(const Capsule& capsule) {
  std::vector<uint64_t> digests;
  for (const StateDecl& state : capsule.layout().states()) {
    REPRISE_ASSIGN_OR_RETURN(const auto bytes, capsule.Read(state.name));
    digests.push_back(XXH3_64bits(bytes.data(), bytes.size()));
  }
  return digests;
}

std::optional<std::string> FirstDifference(const StateLayout& layout, std::span<const uint64_t> a, std::span<const uint64_t> b) {
  for (size_t i = 0; i < a.size(); ++i) {
    if (a[i] != b[i]) return layout[static_cast<int>(i)].name;
  }
  return std::nullopt;
}

Result<std::vector<std::pair<int32_t, float>>> BiasesOnTheLikely(Setup& setup, Line line) {
  REPRISE_ASSIGN_OR_RETURN(const auto logits, setup.subject.Logits(std::span(&line, 1)));
  std::vector<int32_t> tokens(logits[0].size());
  std::iota(tokens.begin(), tokens.end(), 0);
  const auto count = static_cast<ptrdiff_t>(std::min(tokens.size(), SamplingOptions::kMaxBiases));
  std::partial_sort(tokens.begin(), tokens.begin() + count, tokens.end(),
                    [&](int32_t a, int32_t b) { return logits[0][static_cast<size_t>(a)] > logits[0][static_cast<size_t>(b)]; });
  std::sort(tokens.begin(), tokens.begin() + count);
  std::vector<std::pair<int32_t, float>> biases;
  for (ptrdiff_t i = 0; i < count; ++i) biases.emplace_back(tokens[static_cast<size_t>(i)], i % 2 == 0 ? 6.0f : -6.0f);
  return biases;
}

Result<Grammar> FewE(const Setup& setup) {
  if (setup.subject.layout().Find("decode.grammar") < 0) return Grammar();
  GrammarBuilder builder;
  const auto no_e = [&] { builder.OneOf(2, [&](size_t i) { builder.Range(i == 0 ? 0 : 'f', i == 0 ? 'd' : 0xff); }); };
  return builder.Repeat(0, -1, [&] { builder.Repeat(2, 2, no_e).Range(0, 0xff); }).Accept().Finish();
}

Status MakeRich(Setup& setup, Line line) {
  REPRISE_RETURN_IF_ERROR(setup.Reset(line));
  REPRISE_RETURN_IF_ERROR(setup.Append(line, setup.prompt));
  // Flat enough for every draw to matter, with penalties over the whole history.
  SamplingOptions options;
  options.temperature = 1.5f;
  options.repetition_penalty = 1.2f;
  options.presence_penalty = 1.0f;
  options.penalty_window = -1;
  options.seed = 7;
  REPRISE_ASSIGN_OR_RETURN(options.bias, BiasesOnTheLikely(setup, line));
  options.stop = {kRichStop};
  REPRISE_ASSIGN_OR_RETURN(options.grammar, FewE(setup));
  REPRISE_RETURN_IF_ERROR(setup.subject.SetSampling(line, options));
  REPRISE_RETURN_IF_ERROR(GoOn(setup.subject, line, 5).status());
  REPRISE_ASSIGN_OR_RETURN(const auto shown, setup.subject.Show(line, kRichFirst));
  if (shown.stopped) return Internal("a stop string was found where there is none");
  return Ok();
}

Result<std::vector<VerifySubject::Shown>> ShowTheRest(VerifySubject& subject, Line line) {
  std::vector<VerifySubject::Shown> shown;
  for (const char* bytes : {kRichSecond, kRichThird}) {
    REPRISE_ASSIGN_OR_RETURN(auto one, subject.Show(line, bytes));
    shown.push_back(std::move(one));
  }
  return shown;
}

}  // namespace reprise::verify
