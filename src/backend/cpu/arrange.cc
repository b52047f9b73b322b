// Arranging the input rows of matrix products: quantising them where a weight is quantised, and making them first where the plan says so.

// clang-format off
#include "backend/cpu/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backend/cpu/arrange.cc"
#include "hwy/foreach_target.h"
// clang-format on

#include <algorithm>
#include <cmath>

#include "backend/cpu/dispatch.h"
#include "backend/cpu/dot-inl.h"
#include "backend/cpu/kernels.h"
#include "backend/cpu/quantize-inl.h"
#include "backend/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace reprise {
namespace HWY_NAMESPACE {

// Numbers of the blocks of a span, for a group of rows: two rows fill the 16 lanes.
template <class T>
struct OfBlocks {
  static_assert(2 * kSpanBlocks == 16 && kRowGroup <= 16);
  HWY_ALIGN T of[16][kSpanBlocks];
};

// How the blocks of two rows are quantised, from the greatest magnitudes of the blocks and, eight times each, of their rows' spans. A step is
// the last whose factor leaves 127 of it no less than the block's greatest magnitude. What is broken or nothing has no inverse, as in ScalesOf.
HWY_INLINE void StepsOf(const float* tops, const float* span_tops, const float* span_inverses, int32_t* steps, float* inverses) {
  const Floats top = Load(tops), span = Load(span_tops), live = Load(span_inverses);
  Floats reach = span;
  Ints step = SetInts(0);
  for (int s = 1; s < kSteps; ++s) {
    const Floats lower = Mul(span, Set(kStepFactors[s]));
    REPRISE_PARTS {
      const auto fits = hn::Ge(lower.v[p], top.v[p]);
      reach.v[p] = hn::IfThenElse(fits, lower.v[p], reach.v[p]);
      step.v[p] = hn::IfThenElse(hn::RebindMask(kTagI, fits), hn::Set(kTagI, s), step.v[p]);
    }
  }
  Floats inverse = Div(Set(127.0f), reach);
  REPRISE_PARTS inverse.v[p] = hn::IfThenElseZero(hn::Ne(live.v[p], hn::Zero(kTagF)), inverse.v[p]);
  Store(step, steps);
  Store(inverse, inverses);
}

// The sums of the blocks' quants, in eighths of what the span's scale is the unit of: no more than 8 * 32 * 127, which 16 bits hold.
void StorePairs(const OfBlocks<int32_t>& steps, const OfBlocks<int32_t>& sums, int size, int32_t* pairs) {
  for (int r = 0; r < size; ++r) {
    for (int b = 0; b < kSpanBlocks; b += 2) {
      const auto eighths = [&](int block) {
        return static_cast<uint32_t>(std::lrintf(8.0f * kStepFactors[steps.of[r][block]] * static_cast<float>(sums.of[r][block])));
      };
      pairs[b / 2 * size + r] = static_cast<int32_t>((eighths(b) & 0xffff) | eighths(b + 1) << 16);
    }
  }
}

// Where the rows of a group are, and where the group begins among all.
struct InputGroup {
  int first, size;
  int index[kRowGroup];  // of `in`
};

// The groups of a step.
class InputGroups {
 public:
  explicit InputGroups(const ArrangeArgs& args) : args_(args), rows_(ProductGroups(args.visits ? 0 : RowCount(*args.table, args.in))) {}
  int count() const { return args_.visits ? args_.visits->groups : rows_.count; }
  int rows() const { return args_.visits ? args_.visits->first[args_.visits->runs] : rows_.rows; }
  InputGroup At(int g) const {
    InputGroup group{};
    group.first = args_.visits ? args_.visits->group[g] : rows_.First(g);
    group.size = args_.visits ? args_.visits->group[g + 1] - group.first : rows_.Size(g);
    for (int r = 0; r < group.size; ++r) group.index[r] = args_.visits ? args_.source[group.first + r] : group.first + r;
    return group;
  }

 private:
  const ArrangeArgs& args_;
  const RowGroups rows_;
};

// A span of a group of rows, of `blocks` blocks from block `first_block` on. Block by block, because the rows' quants interleave: every line is
// written at once.
void QuantizeSpan(const ArrangeArgs& args, const InputGroup& group, int first_block, int blocks) {
  const Activations& to = args.to;
  const int64_t row_blocks = args.in.width / kQuantBlock, row_spans = SpansOf(args.in.width / kQuantBlock);
  OfBlocks<int32_t> tops = {}, span_tops, steps, sums;
  OfBlocks<float> span_inverses, inverses;
  HWY_ALIGN int32_t most[16] = {};
  HWY_ALIGN float scales[16], most_inverses[16];
  const int first = group.first, size = group.size;
  const float* begin[kRowGroup];
  for (int r = 0; r < size; ++r) begin[r] = RowAt(args.in, group.index[r]) + first_block * kQuantBlock;
  const auto in = [&begin](int r, int b) { return begin[r] + b * kQuantBlock; };
  const bool halves = std::any_of(to.halves, to.halves + Activations::kMostZeros, [](bool half) { return half; });
  for (int r = 0; r < size; ++r) {
    for (int b = 0; b < blocks; ++b) tops.of[r][b] = GreatestBits(Load(in(r, b)), Load(in(r, b) + 16));
    most[r] = *std::max_element(tops.of[r], tops.of[r] + blocks);
  }
  ScalesOf(most, scales, most_inverses);
  for (int r = 0; r < size; ++r) {
    std::fill_n(span_tops.of[r], kSpanBlocks, most[r]);
    std::fill_n(span_inverses.of[r], kSpanBlocks, most_inverses[r]);
  }
  for (int r = 0; r < size; r += 2) {
    StepsOf(reinterpret_cast<const float*>(tops.of[r]), reinterpret_cast<const float*>(span_tops.of[r]), span_inverses.of[r], steps.of[r],
            inverses.of[r]);
  }
  const int64_t at_span = first * row_spans + int64_t{first_block / kSpanBlocks} * size;
  std::copy_n(scales, size, to.scales + at_span);
  for (int b = 0; b < blocks; ++b) {
    const int64_t at = first * row_blocks + int64_t{first_block + b} * size;
    int8_t* const quants = to.quants + at * kQuantBlock;
    uint16_t* const block_steps = to.steps + at;
    HWY_ALIGN int32_t low_sums[16];
    for (int r = 0; r < size; ++r) {
      const BlockQuants stored = StoreQuants(Load(in(r, b)), Load(in(r, b) + 16), inverses.of[r][b], size, quants + r * 4);
      sums.of[r][b] = stored.sum();
      if (halves) low_sums[r] = stored.low_sum();
      block_steps[r] = static_cast<uint16_t>(steps.of[r][b] * 64);
    }
    for (int r = 0; to.sums && r < size; ++r) to.sums[at + r] = kStepFactors[steps.of[r][b]] * static_cast<float>(sums.of[r][b]);
    for (int z = 0; z < Activations::kMostZeros && to.shifts[z]; ++z) {
      const int32_t zero = to.zeros[z];
      int32_t* const shifts = to.shifts[z] + (to.halves[z] ? 2 * at : at);
      for (int r = 0; r < size; ++r) {
        if (to.halves[z]) {
          shifts[r] = -zero * low_sums[r];
          shifts[size + r] = -zero * (sums.of[r][b] - low_sums[r]);
        } else {
          shifts[r] = -zero * sums.of[r][b];
        }
      }
    }
  }
  if (to.pairs) StorePairs(steps, sums, size, to.pairs + at_span * (kSpanBlocks / 2));
}

// The columns [from, end) of a group of rows, of which `from` begins a span.
void QuantizeGroup(const ArrangeArgs& args, const InputGroup& group, int from, int end) {
  for (int k = from; k < end; k += kSpanInputs) QuantizeSpan(args, group, k / kQuantBlock, std::min(kSpanInputs, end - k) / kQuantBlock);
}

int ArrangePieces(const ArrangeArgs& args) { return (args.in.width + args.piece - 1) / args.piece; }

Split SplitArrange(const ArrangeArgs& args) {
  const InputGroups groups(args);
  if (groups.count() == 0) return {};
  const double column = (args.to.quants ? 0.2 : 0.4) + (args.before.run ? 0.2 : 0.0);
  const int64_t block = args.piece < args.in.width ? int64_t{groups.count()} * std::max(1, kBlockColumns / args.piece) : 0;
  return EvenSplit(int64_t{groups.count()} * ArrangePieces(args), column * args.piece * groups.rows() / groups.count(), /*unit=*/4000,
                   block);
}

// An item is a piece of the columns of a group of rows. Pieces of the same columns follow one another.
void Arrange(const ArrangeArgs& args, int64_t first_item, int64_t last_item, int thread) {
  const InputGroups groups(args);
  const int count = std::max(1, groups.count()), width = args.in.width;
  for (int64_t item = first_item; item < last_item; ++item) {
    const InputGroup group = groups.At(static_cast<int>(item % count));
    const int from = static_cast<int>(item / count) * args.piece, end = std::min(from + args.piece, width);
    if (args.before.run) {
      const int columns = args.before_columns;
      const int64_t in_row = (width + columns - 1) / columns;
      for (int r = 0; r < group.size; ++r) {
        const int64_t row = group.index[r];
        args.before.run(args.before.args, row * in_row + from / columns, row * in_row + (end + columns - 1) / columns, thread);
      }
    }
    if (args.to.quants) QuantizeGroup(args, group, from, end);
    if (args.to.floats) {
      float* const floats = args.to.floats + static_cast<int64_t>(group.first) * width;
      for (int r = 0; r < group.size; ++r) {
        const float* in = RowAt(args.in, group.index[r]);
        for (int k = from; k < end; ++k) floats[static_cast<int64_t>(k) * group.size + r] = in[k];
      }
    }
  }
}

void AddArrange(KernelTable& table) { table.arrange = {RunUntyped<ArrangeArgs, Arrange>, SplitUntyped<ArrangeArgs, SplitArrange>}; }

}  // namespace HWY_NAMESPACE
}  // namespace reprise
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace reprise {
void AddArrange(int64_t target, KernelTable& table) { REPRISE_DISPATCH(target, AddArrange(table)) }
}  // namespace reprise
#endif
