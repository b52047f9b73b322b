// Matrix products of rows that arrange.cc has laid out.
//
// A unit takes a run of weight tiles through every group of rows. Within a tile of 16 columns and a group of R rows, R vectors of sums stay
// in registers over a span of inputs (all of them where weights are floats), and are then added to totals in memory, so each output is one
// sum over its inputs in ascending order, whatever R is and wherever panels end.

// clang-format off
#include "backend/cpu/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backend/cpu/matmul.cc"
#include "hwy/foreach_target.h"
// clang-format on

#include <algorithm>

#include "backend/cpu/dispatch.h"
#include "backend/cpu/dot-inl.h"
#include "backend/cpu/kernels.h"
#include "backend/cpu/quant_tile-inl.h"
#include "backend/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace reprise {
namespace HWY_NAMESPACE {

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

template <int R, int C, class Loader>
void FloatTiles(const PackedMatrix& m, const std::byte* tile, const Group& group, Panel, const PanelTable*, Floats* totals) {
  using Element = typename Loader::Element;
  const auto* const weights = reinterpret_cast<const Element*>(tile);
  const auto stride = static_cast<int64_t>(m.tile_bytes / sizeof(Element));
  const auto fetch = [&](int64_t k) HWY_ATTR {
    const auto* const ahead = reinterpret_cast<const std::byte*>(weights + k * kTileColumns) + kFetchAhead;
    REPRISE_UNROLL for (int c = 0; c < C; ++c) FetchFar(ahead + c * m.tile_bytes);
  };
  Floats sums[C * R];
  DotTiles<R, C, Loader>(weights, stride, group.floats, m.inputs, sums, fetch);
  REPRISE_UNROLL for (int r = 0; r < R; ++r) { REPRISE_UNROLL for (int c = 0; c < C; ++c) totals[r * C + c] = sums[c * R + r]; }
}

using TileKernel = void (*)(const PackedMatrix&, const std::byte*, const Group&, Panel, const PanelTable*, Floats*);

template <class Dot, int R, int C, bool kTabled>
TileKernel KernelOf(PackedForm form) {
  switch (form) {
    case PackedForm::kF32: return FloatTiles<R, C, LoadF32>;
    case PackedForm::kF16: return FloatTiles<R, C, LoadF16>;
    case PackedForm::kBF16: return FloatTiles<R, C, LoadBF16>;
    case PackedForm::kByte: return Dot::template Kernel<QuantTiles<Dot, R, C, PackedForm::kByte, kTabled>>;
    case PackedForm::kNibble: return Dot::template Kernel<QuantTiles<Dot, R, C, PackedForm::kNibble, kTabled>>;
    case PackedForm::kNibbleMin: return Dot::template Kernel<QuantTiles<Dot, R, C, PackedForm::kNibbleMin, kTabled>>;
    case PackedForm::kNibbleMinK: return Dot::template Kernel<QuantTiles<Dot, R, C, PackedForm::kNibbleMinK, kTabled>>;
    case PackedForm::kFive: return Dot::template Kernel<QuantTiles<Dot, R, C, PackedForm::kFive, kTabled>>;
    case PackedForm::kFiveMin: return Dot::template Kernel<QuantTiles<Dot, R, C, PackedForm::kFiveMin, kTabled>>;
    case PackedForm::kFiveMinK: return Dot::template Kernel<QuantTiles<Dot, R, C, PackedForm::kFiveMinK, kTabled>>;
    case PackedForm::kSixK: return Dot::template Kernel<QuantTiles<Dot, R, C, PackedForm::kSixK, kTabled>>;
  }
  return nullptr;
}

// Many rows make a table first, and go through kProductTiles tiles together. Fewer are done with their products before the table is.
constexpr int kManyRows = kProductTiles > 1 ? kRowGroup + 1 : 16;

// The kernel for a group of `rows` rows. Many are several groups, of which none is less than half as large as can be.
template <class Dot, int C, bool kMany, int R = kMany ? (kProductRows + 1) / 2 : 1>
TileKernel KernelFor(PackedForm form, int rows) {
  if constexpr (R < (kMany ? kProductRows : kRowGroup)) {
    return rows == R ? KernelOf<Dot, R, C, kMany>(form) : KernelFor<Dot, C, kMany, R + 1>(form, rows);
  } else {
    return KernelOf<Dot, R, C, kMany>(form);
  }
}

using TableKernel = void (*)(const PackedMatrix&, const std::byte*, Panel, PanelTable&);

TableKernel TableKernelOf(PackedForm form) {
  switch (form) {
    case PackedForm::kF32:
    case PackedForm::kF16:
    case PackedForm::kBF16: return nullptr;
    case PackedForm::kByte: return FillTable<PackedForm::kByte>;
    case PackedForm::kNibble: return FillTable<PackedForm::kNibble>;
    case PackedForm::kNibbleMin: return FillTable<PackedForm::kNibbleMin>;
    case PackedForm::kNibbleMinK: return FillTable<PackedForm::kNibbleMinK>;
    case PackedForm::kFive: return FillTable<PackedForm::kFive>;
    case PackedForm::kFiveMin: return FillTable<PackedForm::kFiveMin>;
    case PackedForm::kFiveMinK: return FillTable<PackedForm::kFiveMinK>;
    case PackedForm::kSixK: return FillTable<PackedForm::kSixK>;
  }
  return nullptr;
}

// Rows of a pass over the tiles: their activations are half of a 1 MB second cache, and their sums of a tile fit the first.
constexpr int kPassRows = 264;
constexpr int kPassBytes = 544 << 10;

// The groups of rows of a step, and how they share passes.
struct Passes {
  RowGroups groups;
  int count;
  explicit Passes(const MatMulArgs& args) : groups(ProductGroups(args.domain == Domain::kRows ? args.table->rows : args.table->lanes)) {
    const int most = std::clamp(kPassBytes / args.inputs, kProductRows, kPassRows) / kProductRows;
    count = (groups.count + most - 1) / most;
  }
  int First(int pass) const { return groups.count * pass / count; }
  bool many() const { return groups.rows >= kManyRows; }
};

// The tiles of an item: as many as go together.
int64_t TileItems(const MatMulArgs& args) { return (args.tiles + kProductTiles - 1) / kProductTiles; }

// An item is some tiles in a pass. It costs what is slower: streaming its weights (20 GB/s a core) or the dot products (300 G a second and core).
// Few rows wait for weights, which are best read in one run for each thread; where a run begins, nobody has fetched them. Many rows keep a column
// on its thread.
Split SplitMatMul(const MatMulArgs& args) {
  const Passes passes(args);
  if (passes.count == 0) return {};
  const double macs = static_cast<double>(passes.groups.rows) / passes.count * kTileColumns * args.inputs;
  const double nanoseconds = std::max(static_cast<double>(args.tile_bytes) / 20.0, macs / 300.0);
  const int64_t block = passes.many() ? kBlockColumns / (kProductTiles * kTileColumns) : 0;
  return EvenSplit(TileItems(args) * passes.count, kProductTiles * nanoseconds, /*unit=*/12000, block);
}

// Totals of `rows` rows and C tiles; of the last tile there are `last_columns` in the result.
template <int C>
HWY_INLINE void StoreTotals(const Floats* totals, int rows, float* out, int64_t stride, int last_columns, bool accumulate) {
  for (int r = 0; r < rows; ++r, out += stride, totals += C) {
    REPRISE_UNROLL for (int c = 0; c < C; ++c) {
      float* const to = out + c * kTileColumns;
      const int columns = c == C - 1 ? last_columns : kTileColumns;
      StoreFirst(accumulate ? Add(LoadFirst(to, columns), totals[c]) : totals[c], to, columns);
    }
  }
}

// The groups [first, end) of rows times C tiles, of which `tile` is the first.
template <class Dot, int C, bool kMany>
void TilesTimesGroups(const MatMulArgs& args, const ProductArgs& product, int tile, const RowGroups& groups, int first, int end) {
  const PackedMatrix& m = *product.weight;
  const int column = tile * kTileColumns, last_columns = std::min(kTileColumns, m.outputs - column - (C - 1) * kTileColumns);
  const int row = groups.First(first);
  const int halves = m.form == PackedForm::kSixK ? 2 : 1;
  const std::byte* const weights = m.tile(tile);
  Floats totals[kPassRows * C];
  PanelTable tables[C];
  // Few rows in one group read their weights once, and best in one line; a table is of a panel, even for one group. Floats have no blocks: they
  // go in one panel too.
  const int blocks = std::max(m.blocks, 1), length = kMany || end - first > 1 ? kPanelBlocks : blocks;
  for (int block = 0; block < blocks; block += length) {
    const bool last = block + length >= blocks;
    const Panel panel{block, std::min(length, blocks - block)};
    for (int c = 0; kMany && m.blocks && c < C; ++c) TableKernelOf(m.form)(m, m.tile(tile + c), panel, tables[c]);
    for (int g = first, at = row, next; g < end; ++g, at = next) {
      next = groups.First(g + 1);
      const int size = next - at;
      Group group{};
      if (args.in.floats) group.floats = args.in.floats + int64_t{at} * args.inputs;
      if (m.blocks) {
        const int spans = SpansOf(m.blocks);
        group.quants = args.in.quants + int64_t{at} * args.inputs;
        group.scales = args.in.scales + int64_t{at} * spans;
        group.steps = args.in.steps + int64_t{at} * m.blocks;
        if (args.in.sums) group.sums = args.in.sums + int64_t{at} * m.blocks;
        if (args.in.pairs) group.pairs = args.in.pairs + int64_t{at} * spans * (kSpanBlocks / 2);
        if (product.shifts) group.shifts = product.shifts + int64_t{at} * m.blocks * halves;
      }
      Floats* const total = totals + (at - row) * C;
      if (block == 0) std::fill_n(total, size * C, Zeros());
      // Rows of the result lie far apart: each store would wait for its line.
      float* const out = RowAt(product.out, at) + column;
      const int64_t stride = product.out.stride;
      if (last) {
        for (int r = 0; r < size; ++r) {
          REPRISE_UNROLL for (int c = 0; c < C; ++c) FetchToWrite(out + r * stride + c * kTileColumns);
        }
      }
      KernelFor<Dot, C, kMany>(m.form, size)(m, weights, group, panel, tables, total);
      if (last) StoreTotals<C>(total, size, out, stride, last_columns, product.accumulate);
    }
  }
}

// Pass by pass, so that the activations of one stay in the second cache for many tiles.
template <class Dot>
void MatMul(const MatMulArgs& args, int64_t first_item, int64_t last_item, int) {
  const Passes passes(args);
  const int64_t tile_items = TileItems(args);
  for (int64_t item = first_item; item < last_item; ++item) {
    const int pass = static_cast<int>(item / tile_items), first = passes.First(pass), end = passes.First(pass + 1);
    const int begin = static_cast<int>(item % tile_items) * kProductTiles, stop = std::min(begin + kProductTiles, args.tiles);
    const ProductArgs* product = args.products;
    for (int tile = begin, count; tile < stop; tile += count) {
      while (product + 1 < args.products + args.count && tile >= product[1].first_tile) ++product;
      const int product_end = product + 1 < args.products + args.count ? product[1].first_tile : args.tiles;
      const bool together = passes.many() && tile + kProductTiles <= std::min(stop, product_end);
      count = together ? kProductTiles : 1;
      const auto multiply = together        ? TilesTimesGroups<Dot, kProductTiles, true>
                            : passes.many() ? TilesTimesGroups<Dot, 1, true>
                                            : TilesTimesGroups<Dot, 1, false>;
      multiply(args, *product, tile - product->first_tile, passes.groups, first, end);
    }
  }
}

void AddMatMul(ByteDot dot, KernelTable& table) {
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
