// How many blocks of threads each launch has for the steps of a bucket, and which kernel serves it.
#pragma once

#include "backend/cuda/attention_cut.h"
#include "backend/cuda/kernel_table.h"
#include "backend/cuda/mma.h"

namespace reprise::cuda {

inline constexpr int kRowThreads = 256;
inline constexpr int kHeadThreads = 128;  // a warp a head
inline int Pieces(int width) { return CeilDiv(width, kRowThreads); }

inline Grid EmbedGrid(const EmbedArgs& args, const Bucket& b) { return {Pieces(args.out.width), b.rows, 1, kRowThreads}; }
inline Grid RmsNormGrid(const RmsNormArgs& args, const Bucket& b) {
  return {b.Of(args.in.domain), 1, 1, kRowThreads, kRowThreads / 32 * 4};
}
inline Grid QuantiseGrid(const QuantiseArgs& args, const Bucket& b) {
  return {Pieces(args.in.width), b.Of(args.in.domain), 1, kRowThreads};
}
inline Grid SwiGluGrid(const SwiGluArgs& args, const Bucket& b) { return {Pieces(args.out.width), b.Of(args.out.domain), 1, kRowThreads}; }
inline Grid MultiplyGrid(const MultiplyArgs& args, const Bucket& b) {
  return {Pieces(args.out.width), b.Of(args.out.domain), 1, kRowThreads};
}
inline Grid AddBiasGrid(const AddBiasArgs& args, const Bucket& b) {
  int width = 0, rows = 0;
  for (int i = 0; i < args.count; ++i) {
    width = args.rows[i].width > width ? args.rows[i].width : width;
    rows = b.Of(args.rows[i].domain) > rows ? b.Of(args.rows[i].domain) : rows;
  }
  return {Pieces(width), rows, args.count, kRowThreads};
}
inline Grid GatedRmsNormGrid(const GatedRmsNormArgs& args, const Bucket& b) {
  return {CeilDiv(args.in.width / args.width, kHeadThreads / 32), b.Of(args.in.domain), 1, kHeadThreads};
}
inline Grid RopeTableGrid(const RopeTableArgs& args, const Bucket& b) { return {CeilDiv(args.dims / 2, 32), b.rows, 1, 32}; }
inline Grid NormRopeGrid(const NormRopeArgs& args, const Bucket& b) {
  int heads = 0;
  for (int i = 0; i < args.count; ++i) heads = args.heads[i].count > heads ? args.heads[i].count : heads;
  return {CeilDiv(heads, kHeadThreads / 32), b.rows, args.count, kHeadThreads};
}
inline Grid ArgMaxPartGrid(const ArgMaxArgs& args, const Bucket& b) {
  return {ArgMaxArgs::kParts, b.Of(args.in.domain), 1, kRowThreads, kRowThreads / 32 * 8};
}
inline Grid ArgMaxGrid(const ArgMaxArgs& args, const Bucket& b) { return {b.Of(args.in.domain), 1, 1, 32}; }

struct BestShared {
  static constexpr int kBins = 2048;  // of the 11 bits of a digit
  uint32_t bins[kBins];
  uint32_t warps[kRowThreads / 32];
  uint32_t digit, wanted;
  int32_t best[kBestValues];
};
inline Grid BestPartGrid(const BestArgs& args, const Bucket& b) {
  const int rows = b.Of(args.in.domain);
  return {args.parts(), rows < args.out.rows ? rows : args.out.rows, 1, kRowThreads, sizeof(BestShared)};
}
inline Grid BestGrid(const BestArgs& args, const Bucket& b) {
  const int rows = b.Of(args.in.domain);
  return {rows < args.out.rows ? rows : args.out.rows, 1, 1, kRowThreads, sizeof(BestShared)};
}

inline Grid AppendGrid(const AppendArgs& args, const Bucket& b) {
  int width = 0;
  for (int i = 0; i < args.count; ++i) width = args.in[i].width > width ? args.in[i].width : width;
  return {Pieces(width), b.rows, args.count, kRowThreads};
}
inline Grid ConvGrid(const ConvArgs& args, const Bucket& b) {
  return {Pieces(args.in.width), b.rows > b.lanes ? b.rows : b.lanes, 2, kRowThreads};
}
inline Grid PreviousGrid(const LastArgs& args, const Bucket& b) { return {Pieces(args.out.width), b.rows, 1, kRowThreads}; }
inline Grid SaveLastGrid(const LastArgs& args, const Bucket& b) { return {Pieces(args.in.width), b.lanes, 1, kRowThreads}; }
inline Grid LoadLastGrid(const LastArgs& args, const Bucket& b) { return {Pieces(args.out.width), b.lanes, 1, kRowThreads}; }

inline constexpr int kStateColumns = 8;  // of a warp
inline constexpr int kMostStateRows = 16 << (kStateChoices - 1);
inline int StateChoice(int rows) {  // the kernel for states of so many rows: its groups of 16 are 1 << choice
  int choice = 0;
  while (16 << choice < rows) ++choice;
  return choice;
}
inline Grid StateGrid(int heads, int rows, int columns, const Bucket& b) {
  return {CeilDiv(columns, kStateColumns), heads, b.lanes, 32, 2 * 2 * (16 << StateChoice(rows)) * 4};
}
inline Grid DeltaInputsGrid(const DeltaNetArgs&, const Bucket& b) { return {b.rows, 1, 1, kRowThreads}; }
inline Grid DeltaNetGrid(const DeltaNetArgs& args, const Bucket& b) {
  return StateGrid(args.shape.value_heads, args.shape.key_dim, args.shape.value_dim, b);
}
inline Grid SsmGrid(const SsmArgs& args, const Bucket& b) {
  return StateGrid(args.shape.heads, args.shape.state_dim, args.shape.head_dim, b);
}

inline Grid AttentionGrid(const AttentionArgs& args, const Bucket& b) {
  const int heads = args.q.count / args.kv_heads, width = args.q.width;
  Grid grid;
  grid.x = 2 * b.multiprocessors;  // as many as run at once; each takes units until there are none
  grid.threads = kAttentionThreads;
  if (args.k.type == ElementType::kF16) {
    const int tiles = b.rows * heads <= b.lanes * HalfAttentionShared::kTileQueries ? 1 : 2;
    grid.shared = HalfAttentionShared::Bytes(tiles * HalfAttentionShared::kTileQueries, width);
    grid.kernel = kHalfAttention + tiles - 1;
    return grid;
  }
  const int queries = b.rows * heads <= kFewQueries ? kFewQueries : kMostQueries;
  const int groups = AttentionGroups(width, queries);
  grid.shared = AttentionShared::Bytes(queries, width);
  grid.kernel = kAttention + (queries == kFewQueries ? 0 : groups == 1 ? 1 : groups == 2 ? 2 : 3);
  return grid;
}
inline Grid JoinGrid(const AttentionArgs& args, const Bucket& b) {
  return {args.q.count, b.rows, 1, kJoinThreads, (4 * kJoinThreads + 2) * 4};
}

// Matrix products. Tiles of a product are counted in groups of `kGroup`.
inline constexpr int kVectorWarps = 8;
inline constexpr int kWindow = 32;     // segments whose sums meet in shared memory at a time
inline constexpr int kVectorRows = 8;  // more rows than these go to the tensor cores, where the form is quantised
template <int kGroup>
REPRISE_HD int TileGroups(const WeightView& w) {
  return (w.tiles() + kGroup - 1) / kGroup;
}
template <int kGroup>
int AllTileGroups(const MatMulArgs& args) {
  int groups = 0;
  for (int i = 0; i < args.products; ++i) groups += TileGroups<kGroup>(args.product[i].weight);
  return groups;
}
inline Grid ShortProductGrid(const MatMulArgs& args, const Bucket& b) {
  const Form form = args.product[0].weight.form;
  const int rows = b.Of(args.in.domain);
  if (rows <= 4 * kShortColumns) {
    const int choice = rows <= kShortColumns ? 0 : 1;
    return {AllTileGroups<1>(args), 1, 1, kVectorWarps * 32, kWindow * kShortColumns * kTileOutputs * 4, MatVecId(form, choice)};
  }
  const int x = CeilDiv(rows, kMmaRows), shared = kMmaStages * kShortStageBytes;
  const int wide = AllTileGroups<2 * kMmaTiles>(args);
  if (x * wide >= b.multiprocessors) return {x, wide, 1, kMmaThreads, shared, MatVecId(form, 3)};
  return {x, AllTileGroups<kMmaTiles>(args), 1, kMmaThreads, shared, MatVecId(form, 2)};
}
inline Grid ProductGrid(const MatMulArgs& args, const Bucket& b) {
  const Form form = args.product[0].weight.form;
  const int rows = b.Of(args.in.domain);
  if (IsShort(form)) return ShortProductGrid(args, b);
  if (!IsFloat(form) && rows > kVectorRows) {
    return {CeilDiv(rows, kMmaRows), AllTileGroups<kMmaTiles>(args), 1, kMmaThreads, kMmaStages * StageBytes(form), MatMulId(form)};
  }
  const int choice = rows <= 1 ? 0 : rows <= 2 ? 1 : rows <= 4 ? 2 : 3;
  return {AllTileGroups<1>(args), CeilDiv(rows, 1 << choice),       1,
          kVectorWarps * 32,      kWindow * (1 << choice) * 32 * 4, MatVecId(form, choice)};
}

}  // namespace reprise::cuda
