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
  return {b.Of(args.in.domain), args.in.width / args.width, 1, kRowThreads, kRowThreads / 32 * 4};
}
inline Grid ScaleByPositionGrid(const ScaleByPositionArgs& args, const Bucket& b) {
  return {Pieces(args.rows.width), b.rows, 1, kRowThreads};
}
inline Grid SoftCapGrid(const SoftCapArgs& args, const Bucket& b) {
  return {Pieces(args.rows.width), b.Of(args.rows.domain), 1, kRowThreads};
}
inline Grid QuantiseGrid(const QuantiseArgs& args, const Bucket& b) {
  return {Pieces(args.in.width), b.Of(args.in.domain), 1, kRowThreads};
}
inline Grid ReluSquaredGrid(const ReluSquaredArgs& args, const Bucket& b) {
  return {Pieces(args.out.width), b.Of(args.out.domain), 1, kRowThreads};
}
inline Grid GluGrid(const GluArgs& args, const Bucket& b) { return {Pieces(args.out.width), b.Of(args.out.domain), 1, kRowThreads}; }
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
  // The ranks follow, where they are no more than these.
  static constexpr int kMostRanks = 16384;
  static constexpr int Bytes(int count) { return static_cast<int>(sizeof(BestShared)) + (count <= kMostRanks ? count : 0) * 4; }
};
inline Grid BestPartGrid(const BestArgs& args, const Bucket& b) {
  const int rows = b.Of(args.in.domain);
  return {args.parts(), rows < args.out.rows ? rows : args.out.rows, 1, kRowThreads, BestShared::Bytes(BestArgs::kPart)};
}
inline Grid BestGrid(const BestArgs& args, const Bucket& b) {
  const int rows = b.Of(args.in.domain);
  return {rows < args.out.rows ? rows : args.out.rows, 1, 1, kRowThreads, BestShared::Bytes(args.parts() * kBestValues)};
}

inline Grid WeighGrid(const WeighArgs& args, const Bucket&) {
  return {CeilDiv(args.in.width, kWeighedPart), 1, 1, kRowThreads, kRowThreads / 32 * 8};
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
inline Grid LogGrid(const LogArgs& args, const Bucket& b) {
  int width = 0;
  for (int i = 0; i < args.count; ++i) width = args.parts[i].rows.width > width ? args.parts[i].rows.width : width;
  return {Pieces(width), b.rows, args.count, kRowThreads};
}
inline Grid LoadLastGrid(const LastArgs& args, const Bucket& b) { return {Pieces(args.out.width), b.lanes, 1, kRowThreads}; }

inline constexpr int kMostStateRows = 32 << (kStateChoices - 1);
inline int StateChoice(int rows) {  // the kernel for states of so many rows
  int choice = 0;
  while (32 << choice < rows) ++choice;
  return choice;
}
REPRISE_HD int StateRows(int rows) {  // that it computes
  int most = 32;
  while (most < rows) most *= 2;
  return most;
}
// Where in unit_qk a head's q begins, after which comes its k; `padded`: StateRows of their width.
REPRISE_HD int64_t DeltaUnitAt(const Ops::DeltaNetShape& s, int padded, int row, int key_head) {
  return (static_cast<int64_t>(row) * s.key_heads + key_head) * 2 * padded;
}
inline constexpr int kDeltaColumns = 16;  // of a block of threads, eight of them a column
inline constexpr int kDeltaTokens = 8;    // that come to shared memory together
template <int kRows>
struct alignas(16) DeltaToken {
  float q[kRows], k[kRows];
  DeltaGates gates;
  float v[kDeltaColumns];
  static constexpr int kPieces = (2 * kRows + 4) / 4;  // of 16 bytes, without v
};
inline Grid DeltaInputsGrid(const DeltaNetArgs& args, const Bucket& b) {
  return {CeilDiv(args.shape.key_heads, kHeadThreads / 32), b.rows, 1, kHeadThreads};
}
inline Grid DeltaNetGrid(const DeltaNetArgs& args, const Bucket& b) {
  const int rows = StateRows(args.shape.key_dim);
  const int token = static_cast<int>(sizeof(DeltaToken<32>)) + 2 * (rows - 32) * 4;
  return {CeilDiv(args.shape.value_dim, kDeltaColumns), args.shape.value_heads, b.lanes, kDeltaColumns * 8, 2 * kDeltaTokens * token};
}
inline constexpr int kSsmColumns = 8;  // of a warp, four threads a column
inline Grid SsmGrid(const SsmArgs& args, const Bucket& b) {
  return {CeilDiv(args.shape.head_dim, kSsmColumns), args.shape.heads, b.lanes, 32, 2 * 2 * StateRows(args.shape.state_dim) * 4};
}

// Of the selective scan, threads that share a channel, and the states that each of them keeps.
inline constexpr int kScanThreads = 4, kScanOwn = 4, kMostScanStates = kScanThreads * kScanOwn;
inline Grid ScanGrid(const ScanArgs& args, const Bucket& b) {
  return {args.x.width / Ops::kScanChannels, b.lanes, 1, Ops::kScanChannels * kScanThreads};
}

inline Grid AttentionGrid(const AttentionArgs& args, const Bucket& b) {
  const int heads = args.q.count / args.spec.kv_heads, width = args.q.width;
  Grid grid;
  grid.x = 2 * b.multiprocessors;  // no fewer than run at once; each takes units until there are none
  grid.threads = kAttentionThreads;
  if (args.k.type != ElementType::kF32) {
    const int tiles = b.rows * heads <= b.lanes * HalfAttentionShared::kTileQueries ? 1 : HalfAttentionShared::MostTiles(width);
    grid.shared = HalfAttentionShared::Bytes(tiles * HalfAttentionShared::kTileQueries, width);
    // Eight numbers are read at once; every state begins on 16 bytes.
    const bool bytes = args.k.type == ElementType::kQ8_0;
    const size_t at_once = bytes ? 8 : 16;
    const bool aligned = width % 8 == 0 && args.k.bytes % at_once == 0 && args.v.bytes % at_once == 0;
    const KeyForm form = bytes ? (aligned ? KeyForm::kBytes : KeyForm::kLooseBytes) : aligned ? KeyForm::kHalves : KeyForm::kLooseHalves;
    grid.kernel = HalfAttentionId(form, tiles);
    return grid;
  }
  const int queries = b.rows * heads <= kFewQueries ? kFewQueries : kMostQueries;
  const int groups = AttentionGroups(width, queries);
  grid.shared = AttentionShared::Bytes(queries, width);
  grid.kernel = kAttention + (queries == kFewQueries ? 0 : groups == 1 ? 1 : groups == 2 ? 2 : 3);
  return grid;
}
inline Grid JoinGrid(const AttentionArgs& args, const Bucket& b) {
  return {args.q.count, b.rows, CeilDiv(args.q.width, kJoinThreads), kJoinThreads, (4 * kJoinThreads + 2) * 4};
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
  const int choice = rows <= 1 && IsFloat(form) ? 0 : rows <= 2 ? 1 : rows <= 4 ? 2 : 3;
  return {AllTileGroups<1>(args), CeilDiv(rows, 1 << choice),       1,
          kVectorWarps * 32,      kWindow * (1 << choice) * 32 * 4, MatVecId(form, choice)};
}

// One row. A block of threads takes tiles until there are none, and of each the segments of one product or, gated, of both in turns: its items.
inline constexpr int kFusedItems = 64;  // whose sums meet in shared memory at a time; there are two such places
struct FusedShared {
  REPRISE_HD static constexpr int Sums() { return 2 * kFusedItems * kTileOutputs * 4; }
  // Then the row's quants, scales and sums, where they are made here.
  REPRISE_HD static int Scales(int stride) { return Sums() + stride; }
  REPRISE_HD static int ActSums(int stride) { return Scales(stride) + stride / kBlock * 4; }
  REPRISE_HD static int Bytes(int stride) { return ActSums(stride) + stride / kBlock * 4; }
};
REPRISE_HD int FusedItems(const FusedMatMulArgs& args) { return args.matmul.product[0].weight.segments * (args.gated() ? 2 : 1); }
REPRISE_HD int FusedTiles(const FusedMatMulArgs& args) {
  int tiles = 0;
  for (int i = 0; i < (args.gated() ? 1 : args.matmul.products); ++i) tiles += args.matmul.product[i].weight.tiles();
  return tiles;
}
// Where tiles are so few that a multiprocessor has one, more warps share it: twice as much of it is on its way at a time.
inline constexpr int kMostFusedWarps = 2 * kVectorWarps;
inline Grid FusedMatMulGrid(const FusedMatMulArgs& args, const Bucket& b) {
  const int tiles = FusedTiles(args);
  const bool few = tiles <= b.multiprocessors && FusedItems(args) > kVectorWarps;
  const int most = few ? b.multiprocessors : 2 * b.multiprocessors;
  const int shared = args.input == FusedInput::kMade ? FusedShared::Sums() : FusedShared::Bytes(args.matmul.quant.stride);
  return {tiles < most ? tiles : most, 1, 1, (few ? kMostFusedWarps : kVectorWarps) * 32, shared};
}

// Of the norm that a product begins with: what each of eight warps sums of the squares of a group; then, of several groups, a factor each.
inline constexpr int kMostFusedGroups = 64;
struct FusedNormShared {
  static constexpr int kWarps = kRowThreads / 32, kFactors = kMostFusedGroups * kWarps, kFloats = kFactors + kMostFusedGroups;
};
// Of weights of 16-bit floats: the window of ShortTotals, then the row, where it is normed here.
struct FusedShortShared {
  static constexpr int kRow = kWindow * kShortColumns * kTileOutputs * 4, kMostRow = 48 << 10;
};
inline Grid FusedShortGrid(const FusedMatMulArgs& args, const Bucket& b) {
  const int tiles = FusedTiles(args), most = 2 * b.multiprocessors;
  const int row = args.input == FusedInput::kNorm ? args.matmul.in.width * 4 : 0;
  return {tiles < most ? tiles : most, 1, 1, kVectorWarps * 32, FusedShortShared::kRow + row};
}

// Mixtures of experts. Of more rows than kVectorRows the visits of an expert are computed together, run by run, but where weights are 32-bit floats. A
// launch that a bucket has no use for has no blocks, and is left out (cuda_plan.cc).
inline constexpr int kShortRunRows = 4 * kShortColumns;  // of a run, for a block of threads, where weights are 16-bit floats
inline bool InRuns(Form form, int rows) { return rows > kVectorRows && form != Form::kF32; }
inline int MostRuns(int visits, int experts) { return visits / ExpertRun::kMost + (visits < experts ? visits : experts); }

inline Grid SigmoidGateGrid(const SigmoidGateArgs& args, const Bucket& b) {
  return {Pieces(args.rows.width), b.Of(args.rows.domain), 1, kRowThreads};
}
inline Grid RouteExpertsGrid(const ExpertsArgs& args, const Bucket& b) { return {b.Of(args.in.domain), 1, 1, kRowThreads, args.count * 8}; }
inline Grid GroupExpertsGrid(const ExpertsArgs& args, const Bucket& b) {
  const int rows = b.Of(args.in.domain);
  const bool runs = InRuns(args.gate.form, rows) || InRuns(args.up.form, rows) || InRuns(args.down.form, rows);
  return {runs ? 1 : 0, 1, 1, kRowThreads, (args.count + kRowThreads / 32) * 4};
}
inline Grid VisitGrid(int x, int tiles, int items, int kernel, const Bucket& b) {
  const bool few = x * tiles <= b.multiprocessors && items > kVectorWarps;
  return {x, tiles, 1, (few ? kMostFusedWarps : kVectorWarps) * 32, FusedShared::Sums(), kernel};
}
inline Grid RunGrid(const ExpertsArgs& args, Form form, int rows, int tiles, int block_tiles, int kernel) {
  const int runs = MostRuns(rows * args.used, args.count);
  if (!IsShort(form)) return {runs, CeilDiv(tiles, block_tiles), 1, kMmaThreads, kMmaStages * StageBytes(form), kernel};
  constexpr int kShared = kWindow * kShortColumns * kTileOutputs * 4;
  return {runs, tiles, ExpertRun::kMost / kShortRunRows, kVectorWarps * 32, kShared, kernel};
}
inline Grid ExpertGateUpGrid(const ExpertsArgs& args, const Bucket& b) {
  const Form form = args.gate.form;
  const int rows = b.Of(args.in.domain), tiles = args.inner / kTileOutputs;
  if (InRuns(form, rows)) return RunGrid(args, form, rows, tiles, kMmaTiles / 2, RunGateUpId(form));
  return VisitGrid(rows * args.used, tiles, (args.pairs() ? 2 : 1) * args.gate.segments, ExpertGateUpId(form), b);
}
inline Grid ExpertActivateGrid(const ExpertsArgs& args, const Bucket& b) {
  return {b.Of(args.in.domain) * args.used, Pieces(args.inner), 1, kRowThreads};
}
inline Grid ExpertDownGrid(const ExpertsArgs& args, const Bucket& b) {
  const Form form = args.down.form;
  const int rows = b.Of(args.in.domain), tiles = args.out.width / kTileOutputs;
  if (InRuns(form, rows)) return RunGrid(args, form, rows, tiles, kMmaTiles, RunDownId(form));
  return VisitGrid(rows, tiles, args.used * args.down.segments, ExpertDownId(form), b);
}
inline Grid JoinExpertsGrid(const ExpertsArgs& args, const Bucket& b) {
  const int rows = b.Of(args.in.domain);
  return {InRuns(args.down.form, rows) ? Pieces(args.out.width) : 0, rows, 1, kRowThreads};
}

inline Grid FusedAppendGrid(const FusedAppendArgs& args, const Bucket& b) {
  Grid grid = NormRopeGrid(args.turn, b);
  const int pieces = CeilDiv(args.append.in[1].width, kHeadThreads);
  grid.x = grid.x > pieces ? grid.x : pieces;
  ++grid.z;  // the values
  return grid;
}

inline constexpr int kMostFusedColumns = 128;  // of a head's values, each of which has four threads
struct FusedDeltaShared {  // floats: the head's convolved q, k and v; q and k at unit length; their product; what is read
  REPRISE_HD static int Unit(const Ops::DeltaNetShape& s) { return (2 * s.key_dim + s.value_dim + 3) / 4 * 4; }
  REPRISE_HD static int Product(const Ops::DeltaNetShape& s) { return Unit(s) + 2 * StateRows(s.key_dim); }
  REPRISE_HD static int Out(const Ops::DeltaNetShape& s) { return Product(s) + 1; }
  REPRISE_HD static int Bytes(const Ops::DeltaNetShape& s) { return (Out(s) + s.value_dim) * 4; }
};
inline Grid FusedDeltaGrid(const FusedDeltaArgs& args, const Bucket& b) {
  const Ops::DeltaNetShape& s = args.delta.shape;
  return {s.value_heads, 1, b.lanes, 32 * CeilDiv(s.value_dim, 8), FusedDeltaShared::Bytes(s)};
}

inline constexpr int kFusedSsmColumns = 32;  // of a block of threads: what is quantised together
struct FusedSsmShared {  // floats: C and B of the head's group, each as StateRows; the columns convolved; what is read of the state
  REPRISE_HD static int X(int rows) { return 2 * rows; }
  REPRISE_HD static int Out(int rows) { return X(rows) + kFusedSsmColumns; }
  REPRISE_HD static int Bytes(int rows) { return (Out(rows) + kFusedSsmColumns) * 4; }
};
inline Grid FusedSsmGrid(const FusedSsmArgs& args, const Bucket& b) {
  const Ops::SsmShape& s = args.ssm.shape;
  return {CeilDiv(s.head_dim, kFusedSsmColumns), s.heads, b.lanes, 4 * kFusedSsmColumns, FusedSsmShared::Bytes(StateRows(s.state_dim))};
}
inline Grid FusedScanGrid(const FusedScanArgs& args, const Bucket& b) {
  return {args.scan.x.width / 32, b.lanes, 1, 32 * kScanThreads, 2 * 32 * 4};  // 32 channels, which are quantised together, of two tokens
}
inline Grid RmsNormsGrid(const RmsNormsArgs& args, const Bucket& b) {
  Grid grid = RmsNormGrid(args.norm[0], b);
  for (int i = 1; i < args.count; ++i) {
    const Grid other = RmsNormGrid(args.norm[i], b);
    grid.y = grid.y > other.y ? grid.y : other.y;
  }
  grid.z = args.count;
  return grid;
}
inline Grid FusedShortConvGrid(const FusedShortConvArgs& args, const Bucket& b) {
  return {Pieces(args.conv.in.width), b.lanes, 1, kRowThreads};
}

}  // namespace reprise::cuda
