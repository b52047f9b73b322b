// Matrix products: arranging the input rows (quantising them where a weight is quantised), and the product itself.
//
// A unit takes a run of weight tiles through every group of rows. Within a tile of 16 columns and a group of R rows, R vectors of sums stay
// in registers over all inputs, so each output is one sum over its inputs in ascending order, whatever R is.

// clang-format off
#include "backend/cpu/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backend/cpu/matmul.cc"
#include "hwy/foreach_target.h"
// clang-format on

#include <algorithm>
#include <cmath>
#include <limits>

#include "backend/cpu/dispatch.h"
#include "backend/cpu/dot-inl.h"
#include "backend/cpu/kernels.h"
#include "backend/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace reprise {
namespace HWY_NAMESPACE {

// Blocks are quantised to scale * [-127, 127]. A block that holds a NaN or an infinity gets the scale NaN: what was broken stays visible,
// and no conversion is undefined.
void QuantizeInput(const Activations& to, const float* in, int inputs, int first, int size, int member) {
  const int blocks = inputs / kQuantBlock;
  int8_t* quants = to.quants + static_cast<int64_t>(first) * inputs + member * 4;
  const int64_t at = static_cast<int64_t>(first) * blocks + member;
  const Ints magnitude = SetInts(0x7fffffff);
  for (int b = 0; b < blocks; ++b) {
    const Floats x0 = Load(in + b * kQuantBlock), x1 = Load(in + b * kQuantBlock + 16);
    // Ordered as integers, magnitudes keep their order, and infinities and NaNs come out on top.
    Ints most;
    REPRISE_PARTS {
      const auto a = hn::And(hn::BitCast(kTagI, x0.v[p]), magnitude.v[p]);
      const auto c = hn::And(hn::BitCast(kTagI, x1.v[p]), magnitude.v[p]);
      most.v[p] = hn::Max(a, c);
    }
    const int32_t top_bits = MaxLane(most);
    float top;
    std::memcpy(&top, &top_bits, sizeof(top));
    float scale = top / 127.0f, inverse = 127.0f / top;
    if (top_bits >= 0x7f800000) {
      scale = std::numeric_limits<float>::quiet_NaN();
      inverse = 0.0f;
    } else if (top < 1e-30f) {
      scale = inverse = 0.0f;
    }
    Ints q0 = SetInts(0), q1 = q0;
    if (inverse != 0.0f) {
      q0 = Nearest(Mul(x0, Set(inverse)));
      q1 = Nearest(Mul(x1, Set(inverse)));
    }
    HWY_ALIGN int8_t bytes[kQuantBlock];
    const hn::Rebind<int8_t, TagI> d8;
    REPRISE_PARTS {
      hn::StoreU(hn::DemoteTo(d8, q0.v[p]), d8, bytes + p * kPartLanes);
      hn::StoreU(hn::DemoteTo(d8, q1.v[p]), d8, bytes + 16 + p * kPartLanes);
    }
    for (int g = 0; g < 8; ++g) std::memcpy(quants + static_cast<int64_t>(b * 8 + g) * size * 4, bytes + g * 4, 4);
    const int32_t sum0 = Sum(q0), sum1 = Sum(q1);
    to.scales[at + static_cast<int64_t>(b) * size] = scale;
    if (to.sums) to.sums[at + static_cast<int64_t>(b) * size] = scale * static_cast<float>(sum0 + sum1);
    for (int z = 0; z < Activations::kMostZeros && to.shifts[z]; ++z) {
      if (to.halves[z]) {
        int32_t* shift = to.shifts[z] + static_cast<int64_t>(first) * blocks * 2 + member + static_cast<int64_t>(b) * 2 * size;
        shift[0] = -to.zeros[z] * sum0;
        shift[size] = -to.zeros[z] * sum1;
      } else {
        to.shifts[z][at + static_cast<int64_t>(b) * size] = -to.zeros[z] * (sum0 + sum1);
      }
    }
  }
}

Split SplitArrange(const ArrangeArgs& args, int threads) {
  return EvenSplit(RowCount(*args.table, args.in), args.in.width * (args.to.quants ? 0.2 : 0.4), threads);
}

void Arrange(const ArrangeArgs& args, int64_t first_row, int64_t last_row, int) {
  const RowGroups groups(RowCount(*args.table, args.in), kRowGroup);
  for (int row = static_cast<int>(first_row); row < last_row; ++row) {
    const int group = groups.Of(row);
    const int first = groups.First(group), size = groups.Size(group), member = row - first;
    const float* in = RowAt(args.in, row);
    if (args.to.quants) QuantizeInput(args.to, in, args.in.width, first, size, member);
    if (args.to.floats) {
      float* floats = args.to.floats + static_cast<int64_t>(first) * args.in.width + member;
      for (int k = 0; k < args.in.width; ++k) floats[static_cast<int64_t>(k) * size] = in[k];
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
void FloatTile(const PackedMatrix& m, const std::byte* tile, const Group& group, Floats* out) {
  DotTiles<R, 1, Loader>(reinterpret_cast<const typename Loader::Element*>(tile), 0, group.floats, m.inputs, out);
}

// Weights are fetched this far ahead of the dot products, and no nearer than the second cache: the first one's few miss buffers would be
// full whenever a block takes long to compute. One row hardly notices, eight take a quarter less time.
constexpr int kFetchAhead = 4096;

// The words of group g (0 to 7) of a block.
template <int kBits, int g>
HWY_INLINE PackedWords GroupWords(const uint8_t* block) {
  if constexpr (kBits == 8) {
    return LoadWords(block + g * 64);
  } else {
    const PackedWords words = LoadWords(block + g % 4 * 64);
    const PackedWords nibbles = g < 4 ? LowNibbles(words) : HighNibbles(words);
    if constexpr (kBits == 4) return nibbles;
    if constexpr (kBits == 6) return WithTops<g % 4>(nibbles, LoadWords(block + (4 + g / 4) * 64));
  }
}

// dots[r] += the products of R rows with the groups [g, kEnd) of a block.
template <int R, int kBits, bool kWide, int g, int kEnd>
HWY_INLINE void DotGroups(const uint8_t* block, const int8_t* acts, Ints* dots) {
  if constexpr (g < kEnd) {
    const PackedWords words = GroupWords<kBits, g>(block);
    REPRISE_UNROLL for (int r = 0; r < R; ++r) {
      dots[r] = kWide ? DotWide(dots[r], words, acts + (g * R + r) * 4) : DotBytes(dots[r], words, acts + (g * R + r) * 4);
    }
    DotGroups<R, kBits, kWide, g + 1, kEnd>(block, acts, dots);
  }
}

#if HWY_TARGET == HWY_AVX2 || HWY_TARGET == HWY_SSE4
// Of nibbles, the sums of a whole block fit 16 bits: 8 * 2 * 15 * 127.
template <int R, int g = 0>
HWY_INLINE void ShortGroups(const uint8_t* block, const int8_t* acts, Ints* shorts) {
  if constexpr (g < 8) {
    const PackedWords words = GroupWords<4, g>(block);
    REPRISE_UNROLL for (int r = 0; r < R; ++r) {
      const auto four = FourActs(acts + (g * R + r) * 4);
      REPRISE_PARTS shorts[r].v[p] = g == 0 ? PairSums(words.v[p], four) : AddShorts(shorts[r].v[p], PairSums(words.v[p], four));
    }
    ShortGroups<R, g + 1>(block, acts, shorts);
  }
}
template <int R>
HWY_INLINE void DotNibbles(const uint8_t* block, const int8_t* acts, Ints* dots) {
  Ints shorts[R];
  ShortGroups<R>(block, acts, shorts);
  REPRISE_UNROLL for (int r = 0; r < R; ++r) { REPRISE_PARTS dots[r].v[p] = hn::Add(dots[r].v[p], AddPairs(shorts[r].v[p])); }
}
#else
template <int R>
HWY_INLINE void DotNibbles(const uint8_t* block, const int8_t* acts, Ints* dots) {
  DotGroups<R, 4, false, 0, 8>(block, acts, dots);
}
#endif

template <int R, PackedForm kForm>
void QuantTile(const PackedMatrix& m, const std::byte* tile, const Group& group, Floats* out) {
  constexpr FormTraits kTraits = TraitsOf(kForm);
  constexpr int kHalves = kQuantBlock / kTraits.scale_inputs, kGroups = 8 / kHalves;
  constexpr int kBlockBytes = kTraits.block_bytes();
  constexpr int kScaleBytes = kTileColumns * kTraits.scale_bytes();
  const std::byte* supers = tile;
  const std::byte* scales = tile + m.scales_offset;
  const std::byte* mins = tile + m.mins_offset;
  const uint8_t* quants = reinterpret_cast<const uint8_t*>(tile + m.quants_offset);
  const int8_t* acts = group.quants;
  const float* act_scales = group.scales;
  const float* sums = group.sums;
  const int32_t* shifts = group.shifts;
  Floats super = Zeros(), super_min = Zeros();
  const auto load_scale = [&](const std::byte* p, const Floats& times) HWY_ATTR {
    if constexpr (!kTraits.k_type) return LoadHalf(reinterpret_cast<const uint16_t*>(p));
    if constexpr (kTraits.k_type && kTraits.has_min) return Mul(times, LoadBytes(reinterpret_cast<const uint8_t*>(p)));
    if constexpr (kTraits.k_type && !kTraits.has_min) return Mul(times, LoadBytes(reinterpret_cast<const int8_t*>(p)));
  };

  Floats total[R];
  REPRISE_UNROLL for (int r = 0; r < R; ++r) total[r] = Zeros();
  for (int b = 0; b < m.blocks; ++b) {
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
      if constexpr (kTraits.bits == 4) {
        DotNibbles<R>(quants, acts, dots[0]);
      } else {
        if (h == 0) DotGroups<R, kTraits.bits, kForm == PackedForm::kByte, 0, kGroups>(quants, acts, dots[0]);
        if constexpr (kHalves == 2) {
          if (h == 1) DotGroups<R, kTraits.bits, false, kGroups, 8>(quants, acts, dots[1]);
        }
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
  REPRISE_UNROLL for (int r = 0; r < R; ++r) out[r] = total[r];
}

using TileKernel = void (*)(const PackedMatrix&, const std::byte*, const Group&, Floats*);

template <int R>
TileKernel KernelOf(PackedForm form) {
  switch (form) {
    case PackedForm::kF32: return FloatTile<R, LoadF32>;
    case PackedForm::kF16: return FloatTile<R, LoadF16>;
    case PackedForm::kBF16: return FloatTile<R, LoadBF16>;
    case PackedForm::kByte: return QuantTile<R, PackedForm::kByte>;
    case PackedForm::kByteMin: return QuantTile<R, PackedForm::kByteMin>;
    case PackedForm::kNibble: return QuantTile<R, PackedForm::kNibble>;
    case PackedForm::kNibbleMin: return QuantTile<R, PackedForm::kNibbleMin>;
    case PackedForm::kByteMinK: return QuantTile<R, PackedForm::kByteMinK>;
    case PackedForm::kNibbleMinK: return QuantTile<R, PackedForm::kNibbleMinK>;
    case PackedForm::kSixK: return QuantTile<R, PackedForm::kSixK>;
  }
  return nullptr;
}

template <int R = 1>
TileKernel KernelFor(PackedForm form, int rows) {
  if constexpr (R < kRowGroup) {
    return rows == R ? KernelOf<R>(form) : KernelFor<R + 1>(form, rows);
  } else {
    return KernelOf<R>(form);
  }
}

// A unit costs what is slower: streaming its weights (15 GB/s a core) or the dot products (150 G a second and core).
Split SplitMatMul(const MatMulArgs& args, int threads) {
  const int rows = args.domain == Domain::kRows ? args.table->rows : args.table->lanes;
  if (rows == 0) return {};
  const double macs = static_cast<double>(rows) * kTileColumns * args.inputs;
  return EvenSplit(args.tiles, std::max(args.tile_bytes / 15.0, macs / 150.0), threads);
}

void MatMul(const MatMulArgs& args, int64_t first_tile, int64_t last_tile, int) {
  const int rows = args.domain == Domain::kRows ? args.table->rows : args.table->lanes;
  const RowGroups groups(rows, kRowGroup);
  const ProductArgs* product = args.products;
  for (int64_t t = first_tile; t < last_tile; ++t) {
    while (product + 1 < args.products + args.count && t >= product[1].first_tile) ++product;
    const PackedMatrix& m = *product->weight;
    const int tile = static_cast<int>(t) - product->first_tile;
    const int column = tile * kTileColumns;
    const int columns = std::min(kTileColumns, m.outputs - column);
    const bool halves = m.form == PackedForm::kSixK;
    for (int g = 0; g < groups.count; ++g) {
      const int first = groups.First(g), size = groups.Size(g);
      const int64_t at = static_cast<int64_t>(first) * m.blocks;
      Group group{};
      if (args.in.floats) group.floats = args.in.floats + static_cast<int64_t>(first) * args.inputs;
      if (m.blocks) {
        group.quants = args.in.quants + static_cast<int64_t>(first) * args.inputs;
        group.scales = args.in.scales + at;
        if (args.in.sums) group.sums = args.in.sums + at;
        if (product->shifts) group.shifts = product->shifts + (halves ? 2 * at : at);
      }
      Floats out[kRowGroup];
      KernelFor(m.form, size)(m, m.tile(tile), group, out);
      for (int r = 0; r < size; ++r) {
        float* to = RowAt(product->out, first + r) + column;
        if (product->accumulate) out[r] = Add(LoadFirst(to, columns), out[r]);
        StoreFirst(out[r], to, columns);
      }
    }
  }
}

void AddMatMul(KernelTable& table) {
  table.row_group = kRowGroup;
  table.signed_bytes = kSignedBytes;
  table.arrange = {RunUntyped<ArrangeArgs, Arrange>, SplitUntyped<ArrangeArgs, SplitArrange>};
  table.matmul = {RunUntyped<MatMulArgs, MatMul>, SplitUntyped<MatMulArgs, SplitMatMul>};
}

}  // namespace HWY_NAMESPACE
}  // namespace reprise
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace reprise {
void AddMatMul(int64_t target, KernelTable& table) { REPRISE_DISPATCH(target, AddMatMul(table)) }
}  // namespace reprise
#endif
