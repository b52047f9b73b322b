#include "decode/sampler.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <string>

#include "base/logit_weight.h"
#include "decode/candidates.h"

namespace reprise {
namespace {

// By how much of itself a sum of some hundred thousand weights may differ from the same in another order, and more.
constexpr double kOrderError = 1e-10;

constexpr float kNever = -std::numeric_limits<float>::infinity();
Status NoToken(AllowedTokens allowed) {
  return Internal(allowed.empty()
                      ? "no token can be chosen: every logit is NaN or minus infinity"
                      : "no token can be chosen: what the grammar allows is not in the vocabulary, or has logits of NaN or minus infinity");
}

// The fewest of ranked[0, n) that remain after top_p, given weights by id. Ranks lazily: most choices need a few dozen of many thousands.
size_t KeepTopP(std::span<uint64_t> ranked, std::span<const double> weights, double wanted) {
  const auto worse = std::greater<uint64_t>();  // the best key at the top of the heap
  std::make_heap(ranked.begin(), ranked.end(), worse);
  auto end = ranked.end();
  double sum = 0;
  while (end != ranked.begin()) {
    std::pop_heap(ranked.begin(), end, worse);
    --end;
    sum += weights[IdOf(*end)];
    if (sum >= wanted) break;
  }
  // The kept ones lie at the end now.
  const auto kept = static_cast<size_t>(ranked.end() - end);
  std::copy(end, ranked.end(), ranked.begin());
  return kept;
}

}  // namespace

SampleWorkspace::SampleWorkspace(int vocabulary)
    : logits_(static_cast<size_t>(std::max(vocabulary, 0))), counts_(logits_.size()), ranked_(logits_.size()), weights_(logits_.size()) {}

class Sampler {
 public:
  // Of the whole row; or of those logits whose ids are given, ascending. The places of logits stand for their tokens from here on: they have the
  // same order.
  Sampler(const SamplingNumbers& numbers, std::span<const float> logits, std::span<const int32_t> ids, SampleWorkspace& workspace)
      : numbers_(numbers), logits_(logits), ids_(ids), workspace_(workspace) {}

  // What the unknown tokens weigh, given the best of the row before anything is taken from or added to it.
  void KnowMass(const BestLogits& best, const RowWeights& weights) {
    const double mass = weights.total();
    if (!(mass > 0) || numbers_.temperature == 0) return;
    greatest_before_ = *std::max_element(best.logits.begin(), best.logits.end());
    double known = 0;
    for (const float logit : best.logits) known += WeightOf(logit, greatest_before_);
    const double slack = mass * (weights.error + kOrderError);
    least_unknown_ = std::max(0.0, mass - known - slack);
    most_unknown_ = std::max(0.0, mass - known) + slack;
    knows_mass_ = true;
  }

  void Allow(AllowedTokens allowed) {
    if (allowed.empty()) return;
    lowers_unknown_ = true;
    CopyLogits();
    const auto forbid = [this](size_t at) { workspace_.logits_[at] = kNever; };
    if (!ids_.empty()) {
      for (size_t i = 0; i < ids_.size(); ++i) {
        const auto id = static_cast<size_t>(ids_[i]);
        if ((allowed[id / 64] >> (id % 64) & 1) == 0) forbid(i);
      }
      return;
    }
    for (size_t first = 0; first < logits_.size(); first += 64) {
      uint64_t forbidden = ~allowed[first / 64];
      if (const size_t left = logits_.size() - first; left < 64) forbidden &= (uint64_t{1} << left) - 1;
      for (; forbidden != 0; forbidden &= forbidden - 1) forbid(first + static_cast<size_t>(std::countr_zero(forbidden)));
    }
  }

  void Penalise(std::span<const int32_t> window) {
    const int32_t last = numbers_.Window();
    if (last == 0) return;
    if (last > 0) window = window.last(std::min(window.size(), static_cast<size_t>(last)));
    CopyLogits();
    for (const int32_t id : window) {
      if (InRange(id)) ++workspace_.counts_[static_cast<size_t>(id)];
    }
    for (const int32_t id : window) {
      if (!InRange(id)) continue;
      int32_t& count = workspace_.counts_[static_cast<size_t>(id)];
      if (count == 0) continue;  // done at an earlier occurrence
      if (const size_t at = PlaceOf(id); at < logits_.size()) {
        float& logit = workspace_.logits_[at];
        logit = logit > 0 ? logit / numbers_.repetition_penalty : logit * numbers_.repetition_penalty;
        logit -= static_cast<float>(count) * numbers_.frequency_penalty;
        logit -= numbers_.presence_penalty;
      } else if (!(numbers_.repetition_penalty >= 1 && numbers_.frequency_penalty >= 0 && numbers_.presence_penalty >= 0)) {
        raises_unknown_ = true;
      } else {
        lowers_unknown_ = true;
      }
      count = 0;
    }
  }

  void AddBiases(const TokenBiases& biases) {
    if (biases.count == 0) return;
    CopyLogits();
    for (const TokenBiases::Entry& entry : std::span(biases.entries).first(biases.count)) {
      if (!InRange(entry.token)) continue;
      if (const size_t at = PlaceOf(entry.token); at < logits_.size()) {
        workspace_.logits_[at] += entry.bias;
      } else {
        (entry.bias > 0 ? raises_unknown_ : lowers_unknown_) = true;
      }
    }
  }

  // Whether the tokens that are not known make no difference, given that each ranked behind `bound`, a place and its logit before penalties and
  // biases, and ranks no better after them.
  bool Decides(size_t bound, float bound_logit) {
    if (raises_unknown_) return false;
    const uint64_t least = RankKey(bound_logit, bound);
    const int32_t best = ArgMax(logits_);
    if (best < 0 || RankKey(logits_[static_cast<size_t>(best)], static_cast<size_t>(best)) > least) return false;
    if (numbers_.temperature == 0) return true;
    if (const auto k = static_cast<size_t>(numbers_.top_k); k > 0) {
      // As many as top_k leaves are known to rank before every unknown one.
      size_t before = 0;
      for (size_t i = 0; i < logits_.size(); ++i) before += logits_[i] > kNever && RankKey(logits_[i], i) <= least ? 1 : 0;
      if (before >= k) return true;
    }
    // What ranks behind the bound weighs no more than it, but for the last bits of the exponential.
    const double weight = WeightOf(bound_logit, logits_[static_cast<size_t>(best)]);
    constexpr double kSlack = 1 + 1e-9;
    if (weight == 0 || (numbers_.top_p >= 1 && weight * kSlack < static_cast<double>(numbers_.min_p))) return true;
    return MassDecides(static_cast<size_t>(best), least);
  }

  int32_t Greedy() const { return ArgMax(logits_); }

  int32_t Draw(double uniform) {
    const int32_t best = ArgMax(logits_);
    if (best < 0) return -1;
    Gather();
    double total = Weigh(logits_[static_cast<size_t>(best)]);
    if (numbers_.top_p < 1) {
      count_ = KeepTopP(ranked().first(count_), workspace_.weights_, static_cast<double>(numbers_.top_p) * (total + unknown_));
      SortById();
    }
    total = 0;
    for (const uint64_t key : ranked().first(count_)) total += Kept(key);
    const double point = uniform * total;
    double sum = 0;
    int32_t chosen = best;
    for (const uint64_t key : ranked().first(count_)) {
      const double weight = Kept(key);
      if (weight == 0) continue;
      chosen = static_cast<int32_t>(IdOf(key));
      sum += weight;
      if (sum > point) break;
    }
    return chosen;
  }

 private:
  // Whether top_p leaves the same tokens, each of which ranks before `least`, whatever the unknown ones weigh; sets what they are taken to weigh.
  bool MassDecides(size_t best, uint64_t least) {
    if (!knows_mass_ || numbers_.top_p >= 1) return false;
    // Weights are relative to the best there is now.
    const float greatest = logits_[best];
    if (greatest != greatest_before_) {
      const double log_scale = (static_cast<double>(greatest_before_) - greatest) / static_cast<double>(numbers_.temperature);
      if (!(std::abs(log_scale) < 600)) return false;
      const double scale = log_scale <= 0 ? PortableExp(log_scale) : 1 / PortableExp(-log_scale);
      least_unknown_ *= scale * (1 - 1e-12);
      most_unknown_ *= scale * (1 + 1e-12);
    }
    count_ = AllCandidates(logits_, ranked());
    const double known = Weigh(greatest), top_p = static_cast<double>(numbers_.top_p);
    const auto all = ranked().first(count_);
    std::sort(all.begin(), all.end());
    double least_total = known + (lowers_unknown_ ? 0 : least_unknown_);
    if (numbers_.top_k > 0) {  // of the tokens that it leaves, those are known which rank before every unknown one
      least_total = 0;
      for (const uint64_t key : all) least_total += key <= least ? workspace_.weights_[IdOf(key)] : 0;
    }
    const double most_total = known + most_unknown_;
    const double least_wanted = top_p * least_total * (1 - kOrderError), most_wanted = top_p * most_total * (1 + kOrderError);
    double sum = 0;
    for (size_t i = 0; i < all.size() && all[i] <= least; ++i) {
      if (i > 0 && sum >= least_wanted) return false;  // by the least it ends before this token, by the most it does not
      sum += workspace_.weights_[IdOf(all[i])];
      if (sum >= most_wanted) {
        unknown_ = (least_total + most_total) / 2 - known;
        return true;
      }
    }
    return false;
  }

  // The logits become ones that may be changed.
  void CopyLogits() {
    if (logits_.data() == workspace_.logits_.data()) return;
    std::copy(logits_.begin(), logits_.end(), workspace_.logits_.begin());
    logits_ = std::span(workspace_.logits_).first(logits_.size());
  }

  bool InRange(int32_t id) const { return id >= 0 && id < workspace_.vocabulary(); }
  // Where its logit is, or past the last where it is not known.
  size_t PlaceOf(int32_t id) const {
    if (ids_.empty()) return static_cast<size_t>(id);
    const auto found = std::lower_bound(ids_.begin(), ids_.end(), id);
    return found != ids_.end() && *found == id ? static_cast<size_t>(found - ids_.begin()) : ids_.size();
  }
  std::span<uint64_t> ranked() { return workspace_.ranked_; }

  // The candidates that top_k leaves, in the order of their ids.
  void Gather() {
    const auto k = static_cast<size_t>(numbers_.top_k);
    if (k == 0) {
      count_ = AllCandidates(logits_, ranked());
    } else if (k * 16 <= logits_.size()) {
      count_ = BestCandidates(logits_, k, ranked());
      SortById();
    } else {  // many of many: partitioning beats a heap of them, and leaves the same
      count_ = AllCandidates(logits_, ranked());
      if (k >= count_) return;
      const auto all = ranked().first(count_);
      std::nth_element(all.begin(), all.begin() + static_cast<std::ptrdiff_t>(k), all.end());
      count_ = k;
      SortById();
    }
  }

  // Sums run in the order of the ids whatever was kept, so that an option which removes nothing changes no bit.
  void SortById() {
    const auto kept = ranked().first(count_);
    std::sort(kept.begin(), kept.end(), [](uint64_t a, uint64_t b) { return IdOf(a) < IdOf(b); });
  }

  double WeightOf(float logit, float greatest) const { return LogitWeight(logit, greatest, numbers_.temperature); }

  // Gives every candidate its weight, the most likely one's being 1, and returns their sum.
  double Weigh(float greatest) {
    double total = 0;
    for (const uint64_t key : ranked().first(count_)) {
      const double weight = WeightOf(logits_[IdOf(key)], greatest);
      workspace_.weights_[IdOf(key)] = weight;
      total += weight;
    }
    return total;
  }

  double Kept(uint64_t key) const {
    const double weight = workspace_.weights_[IdOf(key)];
    return weight >= static_cast<double>(numbers_.min_p) ? weight : 0;
  }

  const SamplingNumbers& numbers_;
  std::span<const float> logits_;
  std::span<const int32_t> ids_;  // empty: of the whole row
  SampleWorkspace& workspace_;
  bool raises_unknown_ = false;  // whether a penalty or a bias may raise a logit that is not known
  bool lowers_unknown_ = false;  // or lower one, or a grammar forbid it
  bool knows_mass_ = false;
  float greatest_before_ = 0;
  double least_unknown_ = 0, most_unknown_ = 0;  // what the tokens that are not known weigh together
  double unknown_ = 0;                           // between them, where it decides
  size_t count_ = 0;                             // of the candidates left in ranked()
};

Result<int32_t> ChooseToken(const SamplingNumbers& numbers, std::span<const float> logits, std::span<const int32_t> window,
                            Generator& generator, SampleWorkspace& workspace, const TokenBiases& biases, AllowedTokens allowed) {
  if (logits.size() != static_cast<size_t>(workspace.vocabulary())) {
    return InvalidArgument("the sampler was made for " + std::to_string(workspace.vocabulary()) + " logits, not " +
                           std::to_string(logits.size()));
  }
  Sampler sampler(numbers, logits, {}, workspace);
  sampler.Allow(allowed);
  sampler.Penalise(window);
  sampler.AddBiases(biases);
  const int32_t token = numbers.temperature == 0 ? sampler.Greedy() : sampler.Draw(generator.Uniform());
  if (token < 0) return NoToken(allowed);
  return token;
}

Result<std::optional<int32_t>> ChooseFromBest(const SamplingNumbers& numbers, const BestLogits& best, std::span<const int32_t> window,
                                              Generator& generator, SampleWorkspace& workspace, const TokenBiases& biases,
                                              AllowedTokens allowed, const RowWeights& weights) {
  if (best.ids.size() != best.logits.size() || best.ids.size() > static_cast<size_t>(workspace.vocabulary())) {
    return InvalidArgument("the best of a row of " + std::to_string(workspace.vocabulary()) + " logits cannot be " +
                           std::to_string(best.logits.size()) + " logits and " + std::to_string(best.ids.size()) + " ids");
  }
  if (best.ids.empty()) {
    if (best.all) return NoToken(allowed);
    return std::optional<int32_t>();
  }
  Sampler sampler(numbers, best.logits, best.ids, workspace);
  sampler.KnowMass(best, weights);
  sampler.Allow(allowed);
  sampler.Penalise(window);
  sampler.AddBiases(biases);
  if (!best.all) {
    size_t bound = 0;
    for (size_t i = 1; i < best.logits.size(); ++i) {
      if (best.logits[i] <= best.logits[bound]) bound = i;
    }
    if (!sampler.Decides(bound, best.logits[bound])) return std::optional<int32_t>();
  }
  const int32_t at = numbers.temperature == 0 ? sampler.Greedy() : sampler.Draw(generator.Uniform());
  if (at < 0) return NoToken(allowed);
  return std::optional(best.ids[static_cast<size_t>(at)]);
}

// The sums of the whole row run in the order of its ids, those of parts and of the known ones otherwise: each is near the exact one, which is what is
// known of the row's own.
Result<std::optional<int32_t>> ChooseFromPart(const SamplingNumbers& numbers, const BestLogits& best, const RowWeights& weights,
                                              RowReader& reader, std::span<const int32_t> window, Generator& generator,
                                              const TokenBiases& biases, AllowedTokens allowed) {
  const std::optional<int32_t> undecided;
  const bool whole = numbers.temperature > 0 && numbers.top_k == 0 && numbers.top_p >= 1 && numbers.min_p <= 0;
  if (!whole || best.ids.empty() || biases.count > 0 || !allowed.empty() || (numbers.Window() != 0 && !window.empty())) return undecided;
  const double total = weights.total();
  if (!(total > 0)) return undecided;
  const float greatest = *std::max_element(best.logits.begin(), best.logits.end());
  Generator next = generator;
  const double point = next.Uniform() * total;
  const double apart =
      2 * total * (weights.error + kOrderError);  // sums in the row's own order are on the same side of its point as these of this one
  double sum = 0;
  size_t part = 0;
  while (part < weights.parts.size() && sum + weights.parts[part] <= point + apart) {
    if (sum + weights.parts[part] >= point - apart) return undecided;
    sum += weights.parts[part++];
  }
  if (part == weights.parts.size()) return undecided;
  const std::span<const float> logits = reader.Read(part * weights.columns, weights.columns);
  for (size_t i = 0; i < logits.size(); ++i) {
    if (!(logits[i] > kNever)) continue;
    sum += LogitWeight(logits[i], greatest, numbers.temperature);
    if (std::abs(sum - point) <= apart) return undecided;
    if (sum > point) {
      generator = next;
      return std::optional(static_cast<int32_t>(part * weights.columns + i));
    }
  }
  return undecided;
}

float WeighingTemperature(const SamplingNumbers& numbers) {
  return numbers.top_p < 1 || (numbers.top_k == 0 && numbers.min_p <= 0) ? numbers.temperature : 0;
}

}  // namespace reprise
