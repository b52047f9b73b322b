// Mixtures of experts: which experts a row goes to, the order in which experts find their rows, what comes between their products, and the sum of what
// they made. The products are in matmul.cc.

// clang-format off
#include "backend/cpu/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backend/cpu/experts.cc"
#include "hwy/foreach_target.h"
// clang-format on

#include <algorithm>
#include <limits>

#include "backend/cpu/dispatch.h"
#include "backend/cpu/dot-inl.h"
#include "backend/cpu/kernels.h"
#include "backend/cpu/math-inl.h"
#include "backend/cpu/simd-inl.h"
#include "backend/expert_weights.h"

HWY_BEFORE_NAMESPACE();
namespace reprise {
namespace HWY_NAMESPACE {

// Sorted by counting, by whoever opens the launch: some microseconds for 2,048 visits.
Split SplitGroupVisits(const GroupVisitsArgs&) { return {1}; }
void GroupVisits(const GroupVisitsArgs& args, int64_t, int64_t, int) {
  ExpertVisits& visits = *args.visits;
  const int count = (args.domain == Domain::kRows ? args.table->rows : args.table->lanes) * visits.used;
  std::fill_n(visits.places, visits.count, 0);
  for (int i = 0; i < count; ++i) ++visits.places[visits.choice[i]];
  visits.runs = visits.groups = 0;
  int place = 0;
  for (int e = 0; e < visits.count; ++e) {
    const int of_expert = visits.places[e];
    visits.places[e] = place;
    if (of_expert == 0) continue;
    visits.expert[visits.runs] = e;
    visits.first[visits.runs++] = place;
    const RowGroups groups = ProductGroups(of_expert);
    for (int g = 0; g < groups.count; ++g) visits.group[visits.groups++] = place + groups.First(g);
    place += of_expert;
  }
  visits.first[visits.runs] = visits.group[visits.groups] = place;
  for (int i = 0; i < count; ++i) {
    const int at = visits.places[visits.choice[i]]++;
    visits.visit[at] = i;
    visits.row[at] = i / visits.used;
  }
}

// Items are runs of kPairColumns columns of a visit. `element` makes 16 of them from those of the gate and of the up.
template <class Element>
HWY_INLINE void ActivateWith(const ActivateVisitsArgs& args, int64_t first, int64_t last, const Element& element) {
  const int width = args.up.width;
  const bool gated = HasGate(args.activation);
  const int64_t pieces = (width + kPairColumns - 1) / kPairColumns;
  for (int64_t item = first; item < last; ++item) {
    const int visit = static_cast<int>(item / pieces), from = static_cast<int>(item % pieces) * kPairColumns;
    const int64_t of_expert = int64_t{args.visits->choice[visit]} * width;
    const auto biased = [&](const float* row, const float* bias, int i)
                            HWY_ATTR { return bias ? Add(Load(row + i), Load(bias + of_expert + i)) : Load(row + i); };
    float* const up = RowAt(args.up, visit);
    float* const gate = gated ? RowAt(args.gate, visit) : up;
    for (int i = from; i < std::min(from + kPairColumns, width); i += 16) {  // an inner width is a multiple of 16
      const Floats upper = biased(up, args.up_bias, i);
      Store(element(gated ? biased(gate, args.gate_bias, i) : upper, upper), gate + i);
    }
  }
}
void ActivateVisits(const ActivateVisitsArgs& args, int64_t first, int64_t last, int) {
  switch (args.activation) {
    case Activation::kSwiGlu: return ActivateWith(args, first, last, [](Floats gate, Floats up) HWY_ATTR { return Mul(Silu(gate), up); });
    case Activation::kGeGlu: return ActivateWith(args, first, last, [](Floats gate, Floats up) HWY_ATTR { return Mul(Gelu(gate), up); });
    case Activation::kClampedSwiGlu:
      return ActivateWith(args, first, last, [](Floats gate, Floats up) HWY_ATTR { return ClampedSwiGlu(gate, up); });
    case Activation::kReluSquared: return ActivateWith(args, first, last, [](Floats, Floats up) HWY_ATTR { return SquarePositive(up); });
  }
}

// Items are runs of kPairColumns columns of a row.
int MixPieces(const MixVisitsArgs& args) { return (args.out.width + kPairColumns - 1) / kPairColumns; }
Split SplitMixVisits(const MixVisitsArgs& args) {
  return EvenSplit(RowCount(*args.table, args.out) * int64_t{MixPieces(args)}, kPairColumns * 0.1 * args.visits->used);
}
void MixVisits(const MixVisitsArgs& args, int64_t first, int64_t last, int) {
  const ExpertVisits& visits = *args.visits;
  const int pieces = MixPieces(args), width = args.out.width;
  for (int64_t item = first; item < last; ++item) {
    const int64_t row = item / pieces;
    const int from = static_cast<int>(item % pieces) * kPairColumns, to = std::min(from + kPairColumns, width);
    const float* const weights = visits.weight + row * visits.used;
    const int32_t* const choice = visits.choice + row * visits.used;
    const float* const parts = args.parts + row * visits.used * width;
    float* const out = RowAt(args.out, static_cast<int>(row));
    for (int i = from; i < to; i += 16) {
      Floats sum = args.adds ? LoadFirst(out + i, to - i) : Zeros();
      for (int e = 0; e < visits.used; ++e) {
        Floats part = LoadFirst(parts + int64_t{e} * width + i, to - i);
        if (args.bias) part = Add(part, LoadFirst(args.bias + int64_t{choice[e]} * width + i, to - i));
        sum = MulAdd(Set(weights[e]), part, sum);
      }
      StoreFirst(sum, out + i, to - i);
    }
  }
}

void AddExperts(KernelTable& table) {
  table.group_visits = {RunUntyped<GroupVisitsArgs, GroupVisits>, SplitUntyped<GroupVisitsArgs, SplitGroupVisits>};
  table.activate_visits = RunUntyped<ActivateVisitsArgs, ActivateVisits>;
  table.mix_visits = {RunUntyped<MixVisitsArgs, MixVisits>, SplitUntyped<MixVisitsArgs, SplitMixVisits>};
}

}  // namespace HWY_NAMESPACE
}  // namespace reprise
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace reprise {
namespace {

Split SplitRoute(const RouteArgs& args) { return EvenSplit(RowCount(*args.table, args.scores), 2.0 * args.visits->count); }

// The experts of a row, from the greatest on: an insertion into as many as are used.
void RouteRow(const RouteArgs& args, int row) {
  const ExpertVisits& visits = *args.visits;
  const float* const scores = RowAt(args.scores, row);
  const auto score_of = [&](int e) { return args.score_bias ? scores[e] + args.score_bias[e] : scores[e]; };
  double merits[kMostExpertsUsed];
  int32_t* const chosen = visits.choice + int64_t{row} * visits.used;
  int size = 0;
  for (int e = 0; e < visits.count; ++e) {
    double merit = args.sigmoid ? ExpertSigmoid(score_of(e)) : static_cast<double>(score_of(e));
    if (args.choice_bias) merit += static_cast<double>(args.choice_bias[e]);
    if (!(merit == merit)) merit = -std::numeric_limits<double>::infinity();
    int at = size;
    while (at > 0 && merit > merits[at - 1]) --at;
    if (at == visits.used) continue;
    size = std::min(size + 1, visits.used);
    for (int i = size - 1; i > at; --i) {
      merits[i] = merits[i - 1];
      chosen[i] = chosen[i - 1];
    }
    merits[at] = merit;
    chosen[at] = e;
  }

  double shares[kMostExpertsUsed], sum = 0;
  for (int i = 0; i < visits.used; ++i) {
    const float score = score_of(chosen[i]);
    shares[i] = args.sigmoid ? ExpertSigmoid(score) : ExpertShare(score, score_of(chosen[0]));
    sum += shares[i];
  }
  const auto of_all = [&] {  // what their softmax divides by
    double all = 0;
    for (int e = 0; e < visits.count; ++e) all += ExpertShare(score_of(e), score_of(chosen[0]));
    return all;
  };
  if (!args.normed) sum = args.sigmoid ? 1.0 : of_all();
  float* const weights = visits.weight + int64_t{row} * visits.used;
  for (int i = 0; i < visits.used; ++i) {
    weights[i] = static_cast<float>(static_cast<double>(args.scale) * shares[i] / sum);
    if (args.weight_scale) weights[i] *= args.weight_scale[chosen[i]];
  }
}

void Route(const RouteArgs& args, int64_t first, int64_t last, int) {
  for (int64_t row = first; row < last; ++row) RouteRow(args, static_cast<int>(row));
}

}  // namespace

Kernel RouteKernel() { return {RunUntyped<RouteArgs, Route>, SplitUntyped<RouteArgs, SplitRoute>}; }

void AddExperts(int64_t target, KernelTable& table) { REPRISE_DISPATCH(target, AddExperts(table)) }
}  // namespace reprise
#endif
