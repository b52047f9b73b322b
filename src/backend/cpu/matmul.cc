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

template <int R, class Loader>
void FloatTile(const PackedMatrix& m, const std::byte* tile, const Group& group, Panel, const PanelTable*, Floats* total) {
  DotTiles<R, 1, Loader>(reinterpret_cast<const typename Loader::Element*>(tile), 0, group.floats, m.inputs, total);
}

using TileKernel = void (*)(const PackedMatrix&, const std::byte*, const Group&, Panel, const PanelTable*, Floats*);

template <class Dot, int R, bool kTabled>
TileKernel KernelOf(PackedForm form) {
  switch (form) {
    case PackedForm::kF32: return FloatTile<R, LoadF32>;
    case PackedForm::kF16: return FloatTile<R, LoadF16>;
    case PackedForm::kBF16: return FloatTile<R, LoadBF16>;
    case PackedForm::kByte: return Dot::template Kernel<QuantTile<Dot, R, PackedForm::kByte, kTabled>>;
    case PackedForm::kNibble: return Dot::template Kernel<QuantTile<Dot, R, PackedForm::kNibble, kTabled>>;
    case PackedForm::kNibbleMin: return Dot::template Kernel<QuantTile<Dot, R, PackedForm::kNibbleMin, kTabled>>;
    case PackedForm::kNibbleMinK: return Dot::template Kernel<QuantTile<Dot, R, PackedForm::kNibbleMinK, kTabled>>;
    case PackedForm::kFive: return Dot::template Kernel<QuantTile<Dot, R, PackedForm::kFive, kTabled>>;
    case PackedForm::kFiveMin: return Dot::template Kernel<QuantTile<Dot, R, PackedForm::kFiveMin, kTabled>>;
    case PackedForm::kFiveMinK: return Dot::template Kernel<QuantTile<Dot, R, PackedForm::kFiveMinK, kTabled>>;
    case PackedForm::kSixK: return Dot::template Kernel<QuantTile<Dot, R, PackedForm::kSixK, kTabled>>;
  }
  return nullptr;
}

// Fewer rows than these are done with their products before the table is.
constexpr int kTableRows = 16;

// Tables are for several groups, of which none is less than half as large as can be.
static_assert(kTableRows > kRowGroup);
template <class Dot, bool kTabled, int R = kTabled ? (kRowGroup + 1) / 2 : 1>
TileKernel KernelFor(PackedForm form, int rows) {
  if constexpr (R < kRowGroup) {
    return rows == R ? KernelOf<Dot, R, kTabled>(form) : KernelFor<Dot, kTabled, R + 1>(form, rows);
  } else {
    return KernelOf<Dot, R, kTabled>(form);
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

// Rows of a pass over the tiles: the activations of 144 rows of 3,584 inputs are half of a 1 MB second cache.
constexpr int kPassRows = 144;
constexpr int kPassGroups = kPassRows / kRowGroup;

// The groups of rows of a step, and how they share passes.
struct Passes {
  RowGroups groups;
  int count;
  explicit Passes(const MatMulArgs& args)
      : groups(args.domain == Domain::kRows ? args.table->rows : args.table->lanes, kRowGroup),
        count((groups.count + kPassGroups - 1) / kPassGroups) {}
  int First(int pass) const { return groups.count * pass / count; }
};

// An item is a tile in a pass. It costs what is slower: streaming its weights (15 GB/s a core) or the dot products (170 G a second and core).
Split SplitMatMul(const MatMulArgs& args, int threads) {
  const Passes passes(args);
  if (passes.count == 0) return {};
  const double macs = static_cast<double>(passes.groups.rows) / passes.count * kTileColumns * args.inputs;
  return EvenSplit(int64_t{args.tiles} * passes.count, std::max(args.tile_bytes / 15.0, macs / 170.0), threads);
}

// The groups [first, end) of rows times one tile.
template <class Dot>
void TileTimesGroups(const MatMulArgs& args, const ProductArgs& product, int tile, const RowGroups& groups, int first, int end) {
  const PackedMatrix& m = *product.weight;
  const int column = tile * kTileColumns, columns = std::min(kTileColumns, m.outputs - column);
  const int row = groups.First(first);
  const int halves = m.form == PackedForm::kSixK ? 2 : 1;
  Floats totals[kPassRows];
  PanelTable table;
  // One group reads its weights once, and best in one line. Floats have no blocks: they go in one panel too.
  const int blocks = std::max(m.blocks, 1), length = end - first > 1 ? kPanelBlocks : blocks;
  const bool tabled = m.blocks && groups.First(end) - row >= kTableRows;
  for (int block = 0; block < blocks; block += length) {
    const bool last = block + length >= blocks;
    const Panel panel{block, std::min(length, blocks - block)};
    if (tabled) TableKernelOf(m.form)(m, m.tile(tile), panel, table);
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
      Floats* const total = totals + (at - row);
      for (int r = 0; block == 0 && r < size; ++r) total[r] = Zeros();
      // Rows of the result lie far apart: each store would wait for its line.
      for (int r = 0; last && r < size; ++r) FetchToWrite(RowAt(product.out, at + r) + column);
      const TileKernel kernel = tabled ? KernelFor<Dot, true>(m.form, size) : KernelFor<Dot, false>(m.form, size);
      kernel(m, m.tile(tile), group, panel, &table, total);
      for (int r = 0; last && r < size; ++r) {
        float* to = RowAt(product.out, at + r) + column;
        StoreFirst(product.accumulate ? Add(LoadFirst(to, columns), total[r]) : total[r], to, columns);
      }
    }
  }
}

// Pass by pass, so that the activations of one stay in the second cache for many tiles.
template <class Dot>
void MatMul(const MatMulArgs& args, int64_t first_item, int64_t last_item, int) {
  const Passes passes(args);
  for (int64_t item = first_item; item < last_item; ++item) {
    const int pass = static_cast<int>(item / args.tiles), tile = static_cast<int>(item % args.tiles);
    const ProductArgs* product = args.products;
    while (product + 1 < args.products + args.count && tile >= product[1].first_tile) ++product;
    TileTimesGroups<Dot>(args, *product, tile - product->first_tile, passes.groups, passes.First(pass), passes.First(pass + 1));
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
