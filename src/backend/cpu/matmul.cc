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
    case PackedForm::kNibbleE2M1: return Dot::template Kernel<QuantTiles<Dot, R, C, PackedForm::kNibbleE2M1, kTabled>>;
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
    case PackedForm::kNibbleE2M1: return FillTable<PackedForm::kNibbleE2M1>;
  }
  return nullptr;
}

// Rows of a pass over the tiles: their activations are half of a 1 MB second cache, and their sums of a tile fit the first.
constexpr int kPassRows = 264;
constexpr int kPassBytes = 544 << 10;

// Some rows in groups, and how these share passes.
struct Passes {
  RowGroups groups;
  int count;
  Passes(int rows, int inputs) : groups(ProductGroups(rows)) {
    const int most = std::clamp(kPassBytes / inputs, kProductRows, kPassRows) / kProductRows;
    count = (groups.count + most - 1) / most;
  }
  explicit Passes(const MatMulArgs& args) : Passes(args.domain == Domain::kRows ? args.table->rows : args.table->lanes, args.inputs) {}
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

// Which arranged rows a product takes, and which rows of the result are theirs.
struct ProductRun {
  int first = 0;                 // arranged row
  const int32_t* row = nullptr;  // of the result, for each of the run; null: the same as arranged
};

// Totals of `rows` rows and C tiles; of the last tile there are `last_columns` in the result. row_at(r): where the r-th begins.
template <int C, class RowAtFunction>
HWY_INLINE void StoreTotals(const Floats* totals, int rows, const RowAtFunction& row_at, int last_columns, bool accumulate) {
  for (int r = 0; r < rows; ++r, totals += C) {
    REPRISE_UNROLL for (int c = 0; c < C; ++c) {
      float* const to = row_at(r) + c * kTileColumns;
      const int columns = c == C - 1 ? last_columns : kTileColumns;
      StoreFirst(accumulate ? Add(LoadFirst(to, columns), totals[c]) : totals[c], to, columns);
    }
  }
}

// The groups [first, end) of the run's rows times C tiles of the weight, of which `tile` is the first, for the result from `column` on.
template <class Dot, int C, bool kMany>
void TilesTimesGroups(const MatMulArgs& args, const ProductArgs& product, int tile, int column, const ProductRun& run,
                      const RowGroups& groups, int first, int end) {
  const PackedMatrix& m = *product.weight;
  const int last_columns = std::min(kTileColumns, product.out.width - column - (C - 1) * kTileColumns);
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
    for (int g = first, in_run = row, next; g < end; ++g, in_run = next) {
      next = groups.First(g + 1);
      const int size = next - in_run, at = run.first + in_run;
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
      Floats* const total = totals + (in_run - row) * C;
      if (block == 0) std::fill_n(total, size * C, Zeros());
      // Rows of the result lie far apart: each store would wait for its line.
      const auto row_at = [&, in_run](int r) HWY_ATTR { return RowAt(product.out, run.row ? run.row[in_run + r] : in_run + r) + column; };
      if (last) {
        for (int r = 0; r < size; ++r) {
          REPRISE_UNROLL for (int c = 0; c < C; ++c) FetchToWrite(row_at(r) + c * kTileColumns);
        }
      }
      KernelFor<Dot, C, kMany>(m.form, size)(m, weights, group, panel, tables, total);
      if (last) StoreTotals<C>(total, size, row_at, last_columns, product.accumulate);
    }
  }
}

// The tiles of an item and the rows of a pass. Of a mixture's weights, those of expert `expert`.
template <class Dot>
void MultiplyItem(const MatMulArgs& args, int64_t tile_item, int expert, const ProductRun& run, const Passes& passes, int pass) {
  const int begin = static_cast<int>(tile_item) * kProductTiles, stop = std::min(begin + kProductTiles, args.tiles);
  const ProductArgs* product = args.products;
  for (int tile = begin, count; tile < stop; tile += count) {
    while (product + 1 < args.products + args.count && tile >= product[1].first_tile) ++product;
    const int product_end = product + 1 < args.products + args.count ? product[1].first_tile : args.tiles;
    const bool together = passes.many() && tile + kProductTiles <= std::min(stop, product_end);
    count = together ? kProductTiles : 1;
    const auto multiply = together        ? TilesTimesGroups<Dot, kProductTiles, true>
                          : passes.many() ? TilesTimesGroups<Dot, 1, true>
                                          : TilesTimesGroups<Dot, 1, false>;
    const int own_tile = tile - product->first_tile, of_weight = expert * (product_end - product->first_tile) + own_tile;
    multiply(args, *product, of_weight, own_tile * kTileColumns, run, passes.groups, passes.First(pass), passes.First(pass + 1));
  }
}

// Pass by pass, so that the activations of one stay in the second cache for many tiles.
template <class Dot>
void MatMul(const MatMulArgs& args, int64_t first_item, int64_t last_item, int) {
  const Passes passes(args);
  const int64_t tile_items = TileItems(args);
  for (int64_t item = first_item; item < last_item; ++item) {
    MultiplyItem<Dot>(args, item % tile_items, /*expert=*/0, ProductRun{}, passes, static_cast<int>(item / tile_items));
  }
}

// An item is some tiles of an expert, for all rows that visit it. Experts follow one another, each with its tiles in the order of memory.
Split SplitExpertMatMul(const ExpertMatMulArgs& args) {
  const ExpertVisits& visits = *args.visits;
  if (visits.runs == 0) return {};
  const double rows = static_cast<double>(visits.first[visits.runs]) / visits.runs;
  const double nanoseconds = std::max(args.matmul.tile_bytes / 20.0, rows * kTileColumns * args.matmul.inputs / 300.0);
  return EvenSplit(TileItems(args.matmul) * visits.runs, kProductTiles * nanoseconds, /*unit=*/12000);
}
template <class Dot>
void ExpertMatMul(const ExpertMatMulArgs& args, int64_t first_item, int64_t last_item, int) {
  const ExpertVisits& visits = *args.visits;
  const int64_t tile_items = TileItems(args.matmul);
  for (int64_t item = first_item; item < last_item; ++item) {
    const int64_t run = item / tile_items;
    const int first = visits.first[run];
    const Passes passes(visits.first[run + 1] - first, args.matmul.inputs);
    for (int pass = 0; pass < passes.count; ++pass) {
      MultiplyItem<Dot>(args.matmul, item % tile_items, visits.expert[run], {first, visits.visit + first}, passes, pass);
    }
  }
}

void AddMatMul(ByteDot dot, KernelTable& table) {
  WithDot(dot, [&table]<class Dot>() {
    table.signed_bytes = Dot::kSignedBytes;
    table.matmul = {RunUntyped<MatMulArgs, MatMul<Dot>>, SplitUntyped<MatMulArgs, SplitMatMul>};
    table.expert_matmul = {RunUntyped<ExpertMatMulArgs, ExpertMatMul<Dot>>, SplitUntyped<ExpertMatMulArgs, SplitExpertMatMul>};
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
