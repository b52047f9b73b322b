// Matrix products: arranging the input rows (quantising them where a weight is quantised), and the product itself.
//
// A unit takes a run of weight tiles through every group of rows. Within a tile of 16 columns and a group of R rows, R vectors of sums stay
// in registers over a panel of inputs, and wait in memory between panels, so each output is one sum over its inputs in ascending order,
// whatever R is and wherever panels end.

// clang-format off
#include "backend/cpu/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backend/cpu/matmul.cc"
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

// The blocks [first_block, end_block) of a group of rows, quantised to scale * [-127, 127]. Block by block, because the rows' quants interleave:
// every line is written at once.
void QuantizeGroup(const ArrangeArgs& args, int first, int size, int first_block, int end_block) {
  static_assert(kRowGroup <= 16);
  const Activations& to = args.to;
  const int blocks = args.in.width / kQuantBlock;
  HWY_ALIGN int32_t tops[16] = {};
  HWY_ALIGN float scales[16], inverses[16];
  for (int b = first_block; b < end_block; ++b) {
    for (int r = 0; r < size; ++r) {
      const float* in = RowAt(args.in, first + r) + b * kQuantBlock;
      tops[r] = GreatestBits(Load(in), Load(in + 16));
    }
    ScalesOf(tops, scales, inverses);
    int8_t* const quants = to.quants + static_cast<int64_t>(first) * args.in.width + static_cast<int64_t>(b) * kQuantBlock * size;
    const int64_t at = static_cast<int64_t>(first) * blocks + static_cast<int64_t>(b) * size;
    for (int r = 0; r < size; ++r) {
      const float* in = RowAt(args.in, first + r) + b * kQuantBlock;
      const BlockQuants stored = StoreQuants(Load(in), Load(in + 16), inverses[r], size, quants + r * 4);
      const int32_t sum = stored.sum();
      to.scales[at + r] = scales[r];
      if (to.sums) to.sums[at + r] = scales[r] * static_cast<float>(sum);
      for (int z = 0; z < Activations::kMostZeros && to.shifts[z]; ++z) {
        if (to.halves[z]) {
          const int32_t low = stored.low_sum();
          int32_t* const shift = to.shifts[z] + static_cast<int64_t>(first) * blocks * 2 + static_cast<int64_t>(b) * 2 * size + r;
          shift[0] = -to.zeros[z] * low;
          shift[size] = -to.zeros[z] * (sum - low);
        } else {
          to.shifts[z][at + r] = -to.zeros[z] * sum;
        }
      }
    }
  }
}

int ArrangePieces(const ArrangeArgs& args) { return (args.in.width + args.piece - 1) / args.piece; }

Split SplitArrange(const ArrangeArgs& args, int threads) {
  const int rows = RowCount(*args.table, args.in);
  if (rows == 0) return {};
  const RowGroups groups(rows, kRowGroup);
  const double column = (args.to.quants ? 0.2 : 0.4) + (args.before.run ? 0.2 : 0.0);
  return EvenSplit(int64_t{groups.count} * ArrangePieces(args), column * args.piece * rows / groups.count, threads);
}

// An item is a piece of the columns of a group of rows.
void Arrange(const ArrangeArgs& args, int64_t first_item, int64_t last_item, int thread) {
  const RowGroups groups(RowCount(*args.table, args.in), kRowGroup);
  const int pieces = ArrangePieces(args), width = args.in.width;
  for (int64_t item = first_item; item < last_item; ++item) {
    const int group = static_cast<int>(item / pieces), from = static_cast<int>(item % pieces) * args.piece;
    const int end = std::min(from + args.piece, width);
    const int first = groups.First(group), size = groups.Size(group);
    if (args.before.run) {
      const int columns = args.before_columns;
      const int64_t in_row = (width + columns - 1) / columns;
      for (int row = first; row < first + size; ++row) {
        args.before.run(args.before.args, row * in_row + from / columns, row * in_row + (end + columns - 1) / columns, thread);
      }
    }
    if (args.to.quants) QuantizeGroup(args, first, size, from / kQuantBlock, end / kQuantBlock);
    if (args.to.floats) {
      float* const floats = args.to.floats + static_cast<int64_t>(first) * width;
      for (int r = 0; r < size; ++r) {
        const float* in = RowAt(args.in, first + r);
        for (int k = from; k < end; ++k) floats[static_cast<int64_t>(k) * size + r] = in[k];
      }
    }
  }
}

// What a kernel reads of one group of rows.
struct Group {
  const float* floats;
  const int8_t* quants;
  const float* scales;
  const float* sums;
  const int32_t* shifts;
};

// Blocks of inputs: those of a panel.
struct Panel {
  int first, count;
};

struct LoadF32 {
  using Element = float;
  static HWY_INLINE Floats At(const float* p) { return Load(p); }
};
struct LoadF16 {
  using Element = uint16_t;
  static HWY_INLINE Floats At(const uint16_t* p) { return LoadHalf(p); }
};
struct LoadBF16 {
  using Element = uint16_t;
  static HWY_INLINE Floats At(const uint16_t* p) { return LoadBrain(p); }
};

template <int R, class Loader>
void FloatTile(const PackedMatrix& m, const std::byte* tile, const Group& group, Panel, Floats* total) {
  DotTiles<R, 1, Loader>(reinterpret_cast<const typename Loader::Element*>(tile), 0, group.floats, m.inputs, total);
}

// Weights are fetched this far ahead of the dot products, and no nearer than the second cache: the first one's few miss buffers would be
// full whenever a block takes long to compute. One row hardly notices, eight take a quarter less time.
constexpr int kFetchAhead = 4096;

// The words of group g (0 to 7) of a block.
template <class Words, int kBits, int g>
HWY_INLINE Words GroupWords(const uint8_t* block) {
  if constexpr (kBits == 8) {
    return Words::Load(block + g * 64);
  } else {
    const Words words = Words::Load(block + g % 4 * 64);
    const Words nibbles = g < 4 ? LowNibbles(words) : HighNibbles(words);
    if constexpr (kBits == 4) {
      return nibbles;
    } else {
      constexpr TopBits kTops = TopBitsOf(kBits, g);
      return WithTops<kBits, kTops.bit>(nibbles, Words::Load(block + kTops.line * 64));
    }
  }
}

// DotGroups: dots[r] += the products of R rows with the groups [g, kEnd) of a block.
#if HWY_TARGET == HWY_AVX2 || HWY_TARGET == HWY_SSE4
// Of quants of few bits, the sums of several groups fit 16 bits: 8 groups of nibbles, 4 of five bits, 2 of six.
template <int kBits>
inline constexpr int kShortGroups = 32767 / (2 * 127 * ((1 << kBits) - 1));

template <int R, int kBits, int kFirst, int kEnd, int g = kFirst>
HWY_INLINE void ShortGroups(const uint8_t* block, const int8_t* acts, Ints* shorts) {
  if constexpr (g < kEnd) {
    const ByteWords words = GroupWords<ByteWords, kBits, g>(block);
    REPRISE_UNROLL for (int r = 0; r < R; ++r) {
      const auto four = FourActs(acts + (g * R + r) * 4);
      REPRISE_PARTS shorts[r].v[p] = g == kFirst ? PairSums(words.v[p], four) : AddShorts(shorts[r].v[p], PairSums(words.v[p], four));
    }
    ShortGroups<R, kBits, kFirst, kEnd, g + 1>(block, acts, shorts);
  }
}
template <class Dot, int R, int kBits, int g, int kEnd>
HWY_INLINE void DotGroups(const uint8_t* block, const int8_t* acts, Ints* dots) {
  if constexpr (kBits == 8 && g < kEnd) {
    DotRows<Dot, /*kWide=*/true, R, g * R>(ByteWords::Load(block + g * 64), acts, dots);
    DotGroups<Dot, R, kBits, g + 1, kEnd>(block, acts, dots);
  } else if constexpr (g < kEnd) {
    constexpr int kNext = std::min(g + kShortGroups<kBits>, kEnd);
    Ints shorts[R];
    ShortGroups<R, kBits, g, kNext>(block, acts, shorts);
    REPRISE_UNROLL for (int r = 0; r < R; ++r) { REPRISE_PARTS dots[r].v[p] = hn::Add(dots[r].v[p], AddNeighbours(shorts[r].v[p])); }
    DotGroups<Dot, R, kBits, kNext, kEnd>(block, acts, dots);
  }
}
#else
template <class Dot, int R, int kBits, int g, int kEnd>
HWY_INLINE void DotGroups(const uint8_t* block, const int8_t* acts, Ints* dots) {
  if constexpr (g < kEnd) {
    DotRows<Dot, kBits == 8, R, g * R>(GroupWords<typename Dot::Words, kBits, g>(block), acts, dots);
    DotGroups<Dot, R, kBits, g + 1, kEnd>(block, acts, dots);
  }
}
#endif

// sums[r] += the products of R rows with a panel of the tile.
template <class Dot, int R, PackedForm kForm>
HWY_INLINE void QuantTile(const PackedMatrix& m, const std::byte* tile, const Group& group, Panel panel, Floats* sums_of_rows) {
  constexpr FormTraits kTraits = TraitsOf(kForm);
  constexpr int kHalves = kQuantBlock / kTraits.scale_inputs, kGroups = 8 / kHalves;
  constexpr int kBlockBytes = kTraits.block_bytes();
  constexpr int kScaleBytes = kTileColumns * kTraits.scale_bytes();
  const int64_t first = panel.first, row_first = first * R;
  const std::byte* supers = tile + first / kSuperBlocks * kTraits.super_bytes();
  const std::byte* scales = tile + m.scales_offset + first * kHalves * kScaleBytes;
  const std::byte* mins = tile + m.mins_offset + first * kScaleBytes;
  const uint8_t* quants = reinterpret_cast<const uint8_t*>(tile + m.quants_offset) + first * kBlockBytes;
  const int8_t* acts = group.quants + row_first * kQuantBlock;
  const float* act_scales = group.scales + row_first;
  const float* sums = group.sums + (kTraits.has_min ? row_first : 0);
  const int32_t* shifts = group.shifts + (kTraits.has_min ? 0 : row_first * kHalves);
  Floats super = Zeros(), super_min = Zeros();
  const auto load_scale = [&](const std::byte* p, const Floats& times) HWY_ATTR {
    if constexpr (!kTraits.k_type) return LoadHalf(reinterpret_cast<const uint16_t*>(p));
    if constexpr (kTraits.k_type && kTraits.has_min) return Mul(times, LoadBytes(reinterpret_cast<const uint8_t*>(p)));
    if constexpr (kTraits.k_type && !kTraits.has_min) return Mul(times, LoadBytes(reinterpret_cast<const int8_t*>(p)));
  };

  Floats total[R];
  REPRISE_UNROLL for (int r = 0; r < R; ++r) total[r] = sums_of_rows[r];
  for (int b = 0; b < panel.count; ++b) {
    REPRISE_UNROLL for (int line = 0; line < kBlockBytes; line += 64) FetchFar(quants + kFetchAhead + line);
    if (kTraits.k_type && b % kSuperBlocks == 0) {
      super = LoadHalf(reinterpret_cast<const uint16_t*>(supers));
      if (kTraits.has_min) super_min = Neg(LoadHalf(reinterpret_cast<const uint16_t*>(supers) + kTileColumns));
      supers += kTraits.super_bytes();
    }
    Floats scale[kHalves];
    Ints dots[kHalves][R];
    REPRISE_UNROLL for (int h = 0; h < kHalves; ++h) {
      REPRISE_UNROLL for (int r = 0; r < R; ++r) dots[h][r] = kTraits.has_min ? SetInts(0) : SetInts(shifts[h * R + r]);
      if (h == 0) DotGroups<Dot, R, kTraits.bits, 0, kGroups>(quants, acts, dots[0]);
      if constexpr (kHalves == 2) {
        if (h == 1) DotGroups<Dot, R, kTraits.bits, kGroups, 8>(quants, acts, dots[1]);
      }
      scale[h] = load_scale(scales + h * kScaleBytes, super);
      REPRISE_UNROLL for (int r = 0; r < R; ++r) { total[r] = MulAdd(ToFloats(dots[h][r]), Mul(scale[h], Set(act_scales[r])), total[r]); }
    }
    if constexpr (kTraits.has_min) {
      const Floats min = load_scale(mins, super_min);
      REPRISE_UNROLL for (int r = 0; r < R; ++r) total[r] = MulAdd(min, Set(sums[r]), total[r]);
      mins += kScaleBytes;
      sums += R;
    }
    quants += kBlockBytes;
    scales += kHalves * kScaleBytes;
    acts += kQuantBlock * R;
    act_scales += R;
    shifts += kHalves * R;
  }
  REPRISE_UNROLL for (int r = 0; r < R; ++r) sums_of_rows[r] = total[r];
}

using TileKernel = void (*)(const PackedMatrix&, const std::byte*, const Group&, Panel, Floats*);

template <class Dot, int R>
TileKernel KernelOf(PackedForm form) {
  switch (form) {
    case PackedForm::kF32: return FloatTile<R, LoadF32>;
    case PackedForm::kF16: return FloatTile<R, LoadF16>;
    case PackedForm::kBF16: return FloatTile<R, LoadBF16>;
    case PackedForm::kByte: return Dot::template Kernel<QuantTile<Dot, R, PackedForm::kByte>>;
    case PackedForm::kNibble: return Dot::template Kernel<QuantTile<Dot, R, PackedForm::kNibble>>;
    case PackedForm::kNibbleMin: return Dot::template Kernel<QuantTile<Dot, R, PackedForm::kNibbleMin>>;
    case PackedForm::kNibbleMinK: return Dot::template Kernel<QuantTile<Dot, R, PackedForm::kNibbleMinK>>;
    case PackedForm::kFive: return Dot::template Kernel<QuantTile<Dot, R, PackedForm::kFive>>;
    case PackedForm::kFiveMin: return Dot::template Kernel<QuantTile<Dot, R, PackedForm::kFiveMin>>;
    case PackedForm::kFiveMinK: return Dot::template Kernel<QuantTile<Dot, R, PackedForm::kFiveMinK>>;
    case PackedForm::kSixK: return Dot::template Kernel<QuantTile<Dot, R, PackedForm::kSixK>>;
  }
  return nullptr;
}

template <class Dot, int R = 1>
TileKernel KernelFor(PackedForm form, int rows) {
  if constexpr (R < kRowGroup) {
    return rows == R ? KernelOf<Dot, R>(form) : KernelFor<Dot, R + 1>(form, rows);
  } else {
    return KernelOf<Dot, R>(form);
  }
}

// A unit costs what is slower: streaming its weights (15 GB/s a core) or the dot products (150 G a second and core).
Split SplitMatMul(const MatMulArgs& args, int threads) {
  const int rows = args.domain == Domain::kRows ? args.table->rows : args.table->lanes;
  if (rows == 0) return {};
  const double macs = static_cast<double>(rows) * kTileColumns * args.inputs;
  return EvenSplit(args.tiles, std::max(args.tile_bytes / 15.0, macs / 150.0), threads);
}

// Blocks of a panel: 1,024 inputs of a tile are 17 KB of bytes and scales, and stay in the first cache while the groups' activations stream
// through it. A multiple of kSuperBlocks.
constexpr int kPanelBlocks = 32;
static_assert(kPanelBlocks % kSuperBlocks == 0);
// Rows of a pass over the tiles: the activations of 144 rows of 3,584 inputs are half of a 1 MB second cache.
constexpr int kPassRows = 144;
constexpr int kPassGroups = kPassRows / kRowGroup;

// The groups [first, end) of rows times one tile.
template <class Dot>
void TileTimesGroups(const MatMulArgs& args, const ProductArgs& product, int tile, const RowGroups& groups, int first, int end) {
  const PackedMatrix& m = *product.weight;
  const int column = tile * kTileColumns, columns = std::min(kTileColumns, m.outputs - column);
  const int row = groups.First(first);
  const int halves = m.form == PackedForm::kSixK ? 2 : 1;
  Floats totals[kPassRows];
  // One group reads its weights once, and best in one line. Floats have no blocks: they go in one panel too.
  const int blocks = std::max(m.blocks, 1), panel = end - first > 1 ? kPanelBlocks : blocks;
  for (int block = 0; block < blocks; block += panel) {
    const bool last = block + panel >= blocks;
    for (int g = first; g < end; ++g) {
      const int at = groups.First(g), size = groups.Size(g);
      Group group{};
      if (args.in.floats) group.floats = args.in.floats + int64_t{at} * args.inputs;
      if (m.blocks) {
        group.quants = args.in.quants + int64_t{at} * args.inputs;
        group.scales = args.in.scales + int64_t{at} * m.blocks;
        if (args.in.sums) group.sums = args.in.sums + int64_t{at} * m.blocks;
        if (product.shifts) group.shifts = product.shifts + int64_t{at} * m.blocks * halves;
      }
      Floats* const total = totals + (at - row);
      for (int r = 0; block == 0 && r < size; ++r) total[r] = Zeros();
      // Rows of the result lie far apart: each store would wait for its line.
      for (int r = 0; last && r < size; ++r) FetchToWrite(RowAt(product.out, at + r) + column);
      KernelFor<Dot>(m.form, size)(m, m.tile(tile), group, {block, std::min(panel, blocks - block)}, total);
      for (int r = 0; last && r < size; ++r) {
        float* to = RowAt(product.out, at + r) + column;
        StoreFirst(product.accumulate ? Add(LoadFirst(to, columns), total[r]) : total[r], to, columns);
      }
    }
  }
}

template <class Dot>
void MatMul(const MatMulArgs& args, int64_t first_tile, int64_t last_tile, int) {
  const RowGroups groups(args.domain == Domain::kRows ? args.table->rows : args.table->lanes, kRowGroup);
  const int passes = (groups.count + kPassGroups - 1) / kPassGroups;
  for (int pass = 0; pass < passes; ++pass) {
    const ProductArgs* product = args.products;
    for (int64_t t = first_tile; t < last_tile; ++t) {
      while (product + 1 < args.products + args.count && t >= product[1].first_tile) ++product;
      TileTimesGroups<Dot>(args, *product, static_cast<int>(t) - product->first_tile, groups, groups.count * pass / passes,
                           groups.count * (pass + 1) / passes);
    }
  }
}

void AddMatMul(ByteDot dot, KernelTable& table) {
  table.row_group = kRowGroup;
  table.arrange = {RunUntyped<ArrangeArgs, Arrange>, SplitUntyped<ArrangeArgs, SplitArrange>};
  WithDot(dot, [&table]<class Dot>() {
    table.signed_bytes = Dot::kSignedBytes;
    table.matmul = {RunUntyped<MatMulArgs, MatMul<Dot>>, SplitUntyped<MatMulArgs, SplitMatMul>};
  });
}

}  // namespace HWY_NAMESPACE
}  // namespace reprise
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace reprise {
void AddMatMul(int64_t target, ByteDot dot, KernelTable& table) { REPRISE_DISPATCH(target, AddMatMul(dot, table)) }
}  // namespace reprise
#endif
