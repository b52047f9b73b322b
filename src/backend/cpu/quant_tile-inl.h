// Products of quantised rows with tiles of quantised weights.
//
// A row's sum over a span is made in units of the span's scale: of each block the sum of the byte products, which is exact, times the weight's
// scale times the factor of the row's step, in ascending order. Many rows find those scales multiplied with every factor in a table; few make
// the same product as they go. The span's sum times its scale is then added to the row's total.
#if defined(REPRISE_BACKEND_CPU_QUANT_TILE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef REPRISE_BACKEND_CPU_QUANT_TILE_INL_H_
#undef REPRISE_BACKEND_CPU_QUANT_TILE_INL_H_
#else
#define REPRISE_BACKEND_CPU_QUANT_TILE_INL_H_
#endif

#include <algorithm>

#include "backend/cpu/dot-inl.h"
#include "backend/cpu/kernels.h"
#include "backend/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace reprise {
namespace HWY_NAMESPACE {

// What a kernel reads of one group of rows (Activations).
struct Group {
  const float* floats;
  const int8_t* quants;
  const float* scales;
  const uint16_t* steps;
  const float* sums;
  const int32_t* pairs;
  const int32_t* shifts;
};

// Blocks of inputs: those of a panel. `first` begins a span.
struct Panel {
  int first, count;
};

// Weights are fetched at least this far ahead of the dot products: a tile's quants, and at the same pace, by the end of a tile, the scales and
// minima that the next one begins with, and its first quants. A line that is left out is waited for. No nearer than the second cache: the first
// one's few miss buffers would be full whenever a block takes long to compute. One row hardly notices, eight take a quarter less time.
constexpr int kFetchAhead = 4096;

// The words of group g (0 to 7) of a block.
template <class Words, PackedForm kForm, int g>
HWY_INLINE Words GroupWords(const uint8_t* block) {
  constexpr int kBits = TraitsOf(kForm).bits;
  if constexpr (kBits == 8) {
    return Words::Load(block + g * 64);
  } else {
    const Words words = Words::Load(block + g % 4 * 64);
    const Words nibbles = g < 4 ? LowNibbles(words) : HighNibbles(words);
    if constexpr (TraitsOf(kForm).e2m1) {
      return E2M1Quants(nibbles);
    } else if constexpr (kBits == 4) {
      return nibbles;
    } else {
      constexpr TopBits kTops = TopBitsOf(kBits, g);
      return WithTops<kBits, kTops.bit>(nibbles, Words::Load(block + kTops.line * 64));
    }
  }
}

// DotGroups: dots[c][r] += the products of R rows with the groups [g, kEnd) of a block of each of C tiles.
#if HWY_TARGET == HWY_AVX2 || HWY_TARGET == HWY_SSE4
// Of small quants, the sums of several groups fit 16 bits: 8 groups of nibbles, 5 of 4-bit floats, 4 of five bits, 2 of six.
template <PackedForm kForm>
inline constexpr int kShortGroups = 32767 / (2 * 127 * TraitsOf(kForm).most());

template <int R, PackedForm kForm, int kFirst, int kEnd, int g = kFirst>
HWY_INLINE void ShortGroups(const uint8_t* block, const int8_t* acts, Ints* shorts) {
  if constexpr (g < kEnd) {
    const ByteWords words = GroupWords<ByteWords, kForm, g>(block);
    REPRISE_UNROLL for (int r = 0; r < R; ++r) {
      const auto four = FourActs(acts + (g * R + r) * 4);
      REPRISE_PARTS shorts[r].v[p] = g == kFirst ? PairSums(words.v[p], four) : AddShorts(shorts[r].v[p], PairSums(words.v[p], four));
    }
    ShortGroups<R, kForm, kFirst, kEnd, g + 1>(block, acts, shorts);
  }
}
template <class Dot, int R, int C, PackedForm kForm, int g, int kEnd>
HWY_INLINE void DotGroups(const uint8_t* const* blocks, const int8_t* acts, Ints (*dots)[R]) {
  static_assert(C == 1);
  if constexpr (TraitsOf(kForm).bits == 8 && g < kEnd) {
    DotRows<Dot, /*kWide=*/true, R, g * R>(ByteWords::Load(blocks[0] + g * 64), acts, dots[0]);
    DotGroups<Dot, R, C, kForm, g + 1, kEnd>(blocks, acts, dots);
  } else if constexpr (g < kEnd) {
    constexpr int kNext = std::min(g + kShortGroups<kForm>, kEnd);
    Ints shorts[R];
    ShortGroups<R, kForm, g, kNext>(blocks[0], acts, shorts);
    REPRISE_UNROLL for (int r = 0; r < R; ++r) { REPRISE_PARTS dots[0][r].v[p] = hn::Add(dots[0][r].v[p], AddNeighbours(shorts[r].v[p])); }
    DotGroups<Dot, R, C, kForm, kNext, kEnd>(blocks, acts, dots);
  }
}
#else
template <class Dot, int R, int C, PackedForm kForm, int g, int kEnd>
HWY_INLINE void DotGroups(const uint8_t* const* blocks, const int8_t* acts, Ints (*dots)[R]) {
  if constexpr (g < kEnd) {
    typename Dot::Words words[C];
    REPRISE_UNROLL for (int c = 0; c < C; ++c) words[c] = GroupWords<typename Dot::Words, kForm, g>(blocks[c]);
    DotRowsOfTiles<Dot, TraitsOf(kForm).bits == 8, R, C, g * R>(words, acts, dots);
    DotGroups<Dot, R, C, kForm, g + 1, kEnd>(blocks, acts, dots);
  }
}
#endif

// The factors of the steps, as the lines that Activations::steps tell apart.
struct FactorLines {
  alignas(64) float line[kSteps][kTileColumns];
  constexpr FactorLines() : line() {
    for (int s = 0; s < kSteps; ++s) {
      for (float& factor : line[s]) factor = kStepFactors[s];
    }
  }
};
inline constexpr FactorLines kFactorLines;
HWY_INLINE Floats LineAt(const float (*lines)[kTileColumns], uint16_t step) {
  return Load(reinterpret_cast<const float*>(reinterpret_cast<const std::byte*>(lines) + step));
}

// Reads the scales and the half minima of a tile, line by line.
template <PackedForm kForm>
class TileScales {
 public:
  static constexpr FormTraits kTraits = TraitsOf(kForm);
  static constexpr int kHalves = kQuantBlock / kTraits.scale_inputs;
  static constexpr int kLineBytes = kTileColumns * kTraits.scale_bytes();

  HWY_INLINE TileScales() : super_(Zeros()) {}
  HWY_INLINE void BeginAt(const PackedMatrix& m, const std::byte* tile, int64_t first_block) {
    supers_ = tile + first_block / kSuperBlocks * kTraits.super_bytes();
    scales_ = tile + m.scales_offset + first_block * kHalves * kLineBytes;
    mins_ = tile + m.mins_offset + first_block * kLineBytes;
  }

  // To be called where a span begins.
  HWY_INLINE void BeginSpan() {
    static_assert(kSuperBlocks == kSpanBlocks);
    if constexpr (kTraits.k_type) super_ = LoadHalf(reinterpret_cast<const uint16_t*>(supers_));
    if constexpr (kTraits.k_type) supers_ += kTraits.super_bytes();
  }
  HWY_INLINE Floats NextScale() {
    const std::byte* const line = scales_;
    scales_ += kLineBytes;
    if constexpr (kTraits.e2m1) return LoadHalfScales(reinterpret_cast<const uint8_t*>(line));
    if constexpr (!kTraits.k_type && !kTraits.e2m1) return LoadHalf(reinterpret_cast<const uint16_t*>(line));
    if constexpr (kTraits.k_type && kTraits.has_min) return Mul(super_, LoadBytes(reinterpret_cast<const uint8_t*>(line)));
    if constexpr (kTraits.k_type && !kTraits.has_min) return Mul(super_, LoadBytes(reinterpret_cast<const int8_t*>(line)));
  }
  HWY_INLINE Floats NextMin() {
    const std::byte* const line = mins_;
    mins_ += kLineBytes;
    return LoadHalf(reinterpret_cast<const uint16_t*>(line));
  }

 private:
  const std::byte *supers_ = nullptr, *scales_ = nullptr, *mins_ = nullptr;
  Floats super_;
};

// The minima of a span of a K type: bytes in pairs of blocks, as 16-bit integers, and what their products with sums in eighths are multiplied
// with.
struct SpanMins {
  alignas(64) int32_t pairs[kSpanBlocks / 2][kTileColumns];
  alignas(64) float times[kTileColumns];
};
template <PackedForm kForm>
HWY_INLINE void ReadSpanMins(const PackedMatrix& m, const std::byte* tile, int64_t first_block, SpanMins& to) {
  constexpr FormTraits kTraits = TraitsOf(kForm);
  const auto* const bytes = reinterpret_cast<const uint8_t*>(tile + m.mins_offset + first_block * kTileColumns);
  const std::byte* const super = tile + first_block / kSuperBlocks * kTraits.super_bytes();
  REPRISE_UNROLL for (int i = 0; i < kSpanBlocks / 2; ++i) {
    Store(BytePairs(bytes + 2 * i * kTileColumns, bytes + (2 * i + 1) * kTileColumns), to.pairs[i]);
  }
  Store(Mul(LoadHalf(reinterpret_cast<const uint16_t*>(super) + kTileColumns), Set(-0.125f)), to.times);
}

// What all groups of rows read of a panel of a tile, made once for them: in the first cache it leaves as much for quants and activations.
inline constexpr int kPanelSpans = 2, kPanelBlocks = kPanelSpans * kSpanBlocks;
struct PanelTable {
  alignas(64) float scales[kPanelBlocks * 2][kSteps][kTileColumns];  // those of a block, times each factor
  SpanMins mins[kPanelSpans];
};
template <PackedForm kForm>
void FillTable(const PackedMatrix& m, const std::byte* tile, Panel panel, PanelTable& table) {
  using Scales = TileScales<kForm>;
  Scales scales;
  scales.BeginAt(m, tile, panel.first);
  for (int b = 0; b < panel.count; ++b) {
    if (b % kSpanBlocks == 0) {
      scales.BeginSpan();
      if constexpr (Scales::kTraits.has_min && Scales::kTraits.k_type) {
        ReadSpanMins<kForm>(m, tile, panel.first + b, table.mins[b / kSpanBlocks]);
      }
    }
    for (int h = 0; h < Scales::kHalves; ++h) {
      const Floats scale = scales.NextScale();
      for (int s = 0; s < kSteps; ++s) Store(Mul(scale, Set(kStepFactors[s])), table.scales[b * Scales::kHalves + h][s]);
    }
  }
}

// totals[r][c] += the products of R rows with a panel of the C tiles from `tile` on, whose tables they are; without them, the panel may be of any
// length.
template <class Dot, int R, int C, PackedForm kForm, bool kTabled>
HWY_INLINE void QuantTiles(const PackedMatrix& m, const std::byte* tile, const Group& group, Panel panel, const PanelTable* tables,
                           Floats* totals) {
  constexpr FormTraits kTraits = TraitsOf(kForm);
  constexpr int kHalves = kQuantBlock / kTraits.scale_inputs, kGroups = 8 / kHalves;
  constexpr int kBlockBytes = kTraits.block_bytes();
  constexpr bool kHalfMins = kTraits.has_min && !kTraits.k_type, kByteMins = kTraits.has_min && kTraits.k_type;
  const int64_t row_first = int64_t{panel.first} * R, span_first = int64_t{panel.first / kSpanBlocks} * R;
  TileScales<kForm> scales[C];
  const uint8_t* quants[C];
  REPRISE_UNROLL for (int c = 0; c < C; ++c) {
    const std::byte* const at = tile + c * m.tile_bytes;
    scales[c].BeginAt(m, at, panel.first);
    quants[c] = reinterpret_cast<const uint8_t*>(at + m.quants_offset) + int64_t{panel.first} * kBlockBytes;
  }
  const int8_t* acts = group.quants + row_first * kQuantBlock;
  const uint16_t* steps = group.steps + row_first;
  const float* act_scales = group.scales + span_first;
  const float* sums = group.sums + (kHalfMins ? row_first : 0);
  const int32_t* pairs = group.pairs + (kByteMins ? span_first * (kSpanBlocks / 2) : 0);
  const int32_t* shifts = group.shifts + (kTraits.has_min ? 0 : row_first * kHalves);
  int line = 0;  // of the tables' scales
  const int64_t block_bytes = m.block_bytes();
  const std::byte* ahead = tile + m.quants_offset + panel.first * block_bytes + kFetchAhead;
  const std::byte* const tile_end = tile + m.tile_bytes;

  for (int span = 0; span < panel.count; span += kSpanBlocks) {
    Floats partial[C][R];
    REPRISE_UNROLL for (int c = 0; c < C; ++c) {
      REPRISE_UNROLL for (int r = 0; r < R; ++r) partial[c][r] = Zeros();
      if constexpr (!kTabled) scales[c].BeginSpan();
    }
    if constexpr (kByteMins) {
      REPRISE_UNROLL for (int c = 0; c < C; ++c) {
        SpanMins read;
        if constexpr (!kTabled) ReadSpanMins<kForm>(m, tile + c * m.tile_bytes, panel.first + span, read);
        const SpanMins& mins = kTabled ? tables[c].mins[span / kSpanBlocks] : read;
        Ints dots[R];
        REPRISE_UNROLL for (int r = 0; r < R; ++r) dots[r] = SetInts(0);
        REPRISE_UNROLL for (int i = 0; i < kSpanBlocks / 2; ++i) {
          const PairWords words = LoadPairs(mins.pairs[i]);
          REPRISE_UNROLL for (int r = 0; r < R; ++r) dots[r] = AddPairs(dots[r], words, pairs + i * R + r);
        }
        const Floats times = Load(mins.times);
        REPRISE_UNROLL for (int r = 0; r < R; ++r) partial[c][r] = Mul(ToFloats(dots[r]), times);
      }
      pairs += kSpanBlocks / 2 * R;
    }
    const int end = std::min(span + kSpanBlocks, panel.count);
    for (int b = span; b < end; ++b) {
      // The tile after this one is another of these: what comes next lies beyond them all.
      const std::byte* const fetched = C > 1 && ahead >= tile_end ? ahead + (C - 1) * m.tile_bytes : ahead;
      REPRISE_UNROLL for (int c = 0; c < C; ++c) {
        REPRISE_UNROLL for (int bytes = 0; bytes <= kBlockBytes; bytes += 64) FetchFar(fetched + c * m.tile_bytes + bytes);
      }
      ahead += block_bytes;
      REPRISE_UNROLL for (int h = 0; h < kHalves; ++h) {
        Ints dots[C][R];
        REPRISE_UNROLL for (int r = 0; r < R; ++r) {
          const Ints shift = kTraits.has_min ? SetInts(0) : SetInts(shifts[h * R + r]);
          REPRISE_UNROLL for (int c = 0; c < C; ++c) dots[c][r] = shift;
        }
        if (h == 0) DotGroups<Dot, R, C, kForm, 0, kGroups>(quants, acts, dots);
        if constexpr (kHalves == 2) {
          if (h == 1) DotGroups<Dot, R, C, kForm, kGroups, 8>(quants, acts, dots);
        }
        REPRISE_UNROLL for (int c = 0; c < C; ++c) {
          if constexpr (kTabled) {
            const auto* const lines = tables[c].scales[line];
            REPRISE_UNROLL for (int r = 0; r < R; ++r) {
              partial[c][r] = MulAdd(ToFloats(dots[c][r]), LineAt(lines, steps[r]), partial[c][r]);
            }
          } else {
            const Floats scale = scales[c].NextScale();
            REPRISE_UNROLL for (int r = 0; r < R; ++r) {
              partial[c][r] = MulAdd(ToFloats(dots[c][r]), Mul(scale, LineAt(kFactorLines.line, steps[r])), partial[c][r]);
            }
          }
        }
        ++line;
      }
      if constexpr (kHalfMins) {
        REPRISE_UNROLL for (int c = 0; c < C; ++c) {
          const Floats min = scales[c].NextMin();
          REPRISE_UNROLL for (int r = 0; r < R; ++r) partial[c][r] = MulAdd(min, Set(sums[r]), partial[c][r]);
        }
        sums += R;
      }
      REPRISE_UNROLL for (int c = 0; c < C; ++c) quants[c] += kBlockBytes;
      acts += kQuantBlock * R;
      steps += R;
      shifts += kHalves * R;
    }
    REPRISE_UNROLL for (int r = 0; r < R; ++r) {
      const Floats scale = Set(act_scales[r]);
      REPRISE_UNROLL for (int c = 0; c < C; ++c) totals[r * C + c] = MulAdd(partial[c][r], scale, totals[r * C + c]);
    }
    act_scales += R;
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace reprise
HWY_AFTER_NAMESPACE();

#endif
