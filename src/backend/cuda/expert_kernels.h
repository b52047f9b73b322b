// Mixtures of experts: who goes to whom, the experts' products, and their sum.
//
// Steps of few rows take three launches: the router's choice (and the quantised row), gate and up and the SwiGLU of them, down and the weighted sum. A
// block of threads has a tile of 32 outputs of one visit, or of the visits of one row, so that the weights of the experts that are met are read once,
// by many at a time. Steps of many rows take five: visits are sorted by expert, so that those of one expert, up to 64 of them a run, are multiplied
// together and read its weights once. Which of a launch's blocks have a run is read from memory: it depends on the scores. Where gate and up are not of
// one form, each of them and their activation are launches of their own. Where experts have no gate, up takes its place, alone.
//
// Promise 3: a visit's row of `hidden`, and what down makes of it, depend on the row and the expert alone. Of quantised weights a segment is summed by
// AddBlock from zero, and segments are added in ascending order to a sum that starts at zero, whoever does it (packed_weight.h); of 16-bit floats
// as short_matmul_kernels.h says, one visit or many; of 32-bit floats visits are computed one by one. A row's visits are added to `out` in the order
// in which they were chosen, each by one fmaf of its weight and what it made. In which order a run has its visits changes nothing.
#pragma once

#include <bit>

#include "backend/cuda/best_kernels.h"
#include "backend/cuda/matmul_kernels.h"
#include "backend/cuda/row_kernels.h"
#include "backend/cuda/short_matmul_kernels.h"
#include "backend/expert_weights.h"

namespace reprise::cuda {

// ---- The choice ----

// What is chosen first has the greater key, or of equal ones the smaller number. A NaN has the least key, -0 and 0 have one.
struct RankedExpert {
  uint64_t key;
  int32_t expert;
};
REPRISE_HD uint64_t ExpertKey(double x) {
  if (x != x) return 0;
  const auto bits = std::bit_cast<uint64_t>(x + 0.0);
  return bits >> 63 ? ~bits : bits | uint64_t{1} << 63;
}
REPRISE_HD bool Before(const RankedExpert& a, const RankedExpert& b) { return a.key > b.key || (a.key == b.key && a.expert < b.expert); }

inline constexpr RankedExpert kNoExpert{0, INT32_MAX};  // comes after all, NaNs among them
// Of what the lanes of a warp bring, what comes first.
REPRISE_DEVICE RankedExpert FirstOfWarp(const RankedExpert& mine) {
  const auto high = static_cast<uint32_t>(mine.key >> 32), low = static_cast<uint32_t>(mine.key);
  const uint32_t top = ReduceMax(high), rest = ReduceMax(high == top ? low : 0);
  const uint32_t number = ReduceMax(high == top && low == rest ? ~static_cast<uint32_t>(mine.expert) : 0);
  return {uint64_t{top} << 32 | rest, static_cast<int32_t>(~number)};
}

// By a warp, for one row. A lane has every 32nd expert and knows the first of its own that is not chosen yet. The first of all is chosen, and its lane
// is told its next, for which every lane looks at one of them: a choice takes as long, however many experts there are.
REPRISE_DEVICE void ChooseExperts(const ExpertsArgs& args, int row) {
  const int lane = ThreadId() % 32;
  const float* scores = RowAt(args.scores, row);
  const auto score_of = [&](int e) { return args.score_bias ? scores[e] + args.score_bias[e] : scores[e]; };
  auto* keys = reinterpret_cast<uint64_t*>(SharedMemory());
  static_assert(kMostExperts <= 32 * 32);
  RankedExpert best = kNoExpert;
  for (int e = lane; e < args.count; e += 32) {
    double x = score_of(e);
    if (args.sigmoid) {
      x = ExpertSigmoid(score_of(e));
      if (args.choice_bias) x = x + static_cast<double>(args.choice_bias[e]);
    }
    const RankedExpert here{ExpertKey(x), e};
    keys[e] = here.key;
    if (Before(here, best)) best = here;
  }
  SyncWarp();
  int mine = 0;
  for (int rank = 0; rank < args.used; ++rank) {
    const RankedExpert first = FirstOfWarp(best);
    if (lane == rank) mine = first.expert;
    const int owner = first.expert % 32, e = owner + 32 * lane;
    RankedExpert here = kNoExpert;
    if (e < args.count && Before(first, {keys[e], e})) here = {keys[e], e};
    here = FirstOfWarp(here);
    if (lane == owner) best = here;
  }
  const bool used = lane < args.used;
  const float score = used ? score_of(mine) : 0.0f, greatest = Shuffle(score, 0);
  double p = 0.0;
  if (used) p = args.sigmoid ? ExpertSigmoid(score) : ExpertShare(score, greatest);
  double sum = 0.0;
  for (int rank = 0; rank < args.used; ++rank) sum = sum + Shuffle(p, rank);
  const auto of_all = [&] {  // what their softmax divides by, summed in the order of experts
    double all = 0.0;
    for (int first = 0; first < args.count; first += 32) {
      const double share = first + lane < args.count ? ExpertShare(score_of(first + lane), greatest) : 0.0;
      for (int i = 0; i < 32; ++i) all = all + Shuffle(share, i);
    }
    return all;
  };
  if (!args.normed) sum = args.sigmoid ? 1.0 : of_all();
  if (!used) return;
  const int64_t visit = static_cast<int64_t>(row) * args.used + lane;
  args.chosen[visit] = mine;
  const auto weight = static_cast<float>(static_cast<double>(args.scale) * p / sum);
  args.weights[visit] = args.weight_scale ? weight * args.weight_scale[mine] : weight;
}

// The first warp of a row's block chooses; the others quantise the row meanwhile.
REPRISE_KERNEL(RouteExpertsKernel, ExpertsArgs) {
  BeginKernel();
  const int row = BlockX(), thread = ThreadId();
  if (row >= RowCount(args.step, args.in.domain)) return;
  if (thread < 32) {
    ChooseExperts(args, row);
    return;
  }
  if (args.quant.quants == nullptr) return;
  const float* in = RowAt(args.in, row);
  for (int i = thread - 32; i < args.in.width; i += kRowThreads - 32) QuantiseBlock(args.quant, row, i / kBlock, in[i]);  // whole blocks
}

// ---- Visits one by one ----

// A segment of one output tile, and which row of the activations meets it.
struct ExpertItem {
  const WeightView* weight;
  int tile, segment;
  int64_t row;
};
// Sums `items`, each by one warp, a lane an output; the first warp takes their sums in ascending order: take(item, sum). item_of may be asked by whole
// warps alone. `floats` or `quants`: the activations, as the form wants them.
template <Form kForm, class ItemOf, class Take>
REPRISE_DEVICE void SumItems(int items, const Rows& floats, const QuantRows& quants, const ItemOf& item_of, const Take& take) {
  const int warp = ThreadId() / 32, lane = ThreadId() % 32, warps = ThreadCount() / 32;
  struct Nothing {};
  // A warp's next item is on its way while it sums the one before.
  [[maybe_unused]] std::conditional_t<IsFloat(kForm), Nothing, SegmentWeights<kForm>> next;
  [[maybe_unused]] int ahead = warp;
  const auto load = [&] {
    if constexpr (!IsFloat(kForm)) {
      if (ahead < items) {
        const ExpertItem at = item_of(ahead);
        next.Load(at.weight->data + (static_cast<int64_t>(at.tile) * at.weight->segments + at.segment) * SegmentBytes(kForm));
      }
      ahead += warps;
    }
  };
  load();
  const bool aligned = RowsAreAligned(floats);
  int side = 0;
  for (int first = 0; first < items; first += kFusedItems) {
    const int end = first + kFusedItems < items ? first + kFusedItems : items;
    float* sums = reinterpret_cast<float*>(SharedMemory()) + side * kFusedItems * kTileOutputs;
    REPRISE_ROLLED for (int item = first + warp; item < end; item += warps) {
      const ExpertItem at = item_of(item);
      float* to = sums + (item - first) * kTileOutputs;
      if constexpr (IsShort(kForm)) {
        const float* in = floats.data + at.row * floats.stride;
        ShortSegmentSums<kForm, 1>(
            *at.weight, at.tile, at.segment, 1, aligned, [&](int) { return in; },
            [&](int row, int output, float sum) {
              if (row == 0) to[output] = sum;
            });
      } else if constexpr (IsFloat(kForm)) {
        const WeightView& w = *at.weight;
        const float* in[1] = {floats.data + at.row * floats.stride + at.segment * kSegment};
        float sum[1] = {0.0f};
        FloatSegmentSums<1>(w.data + (static_cast<int64_t>(at.tile) * w.segments + at.segment) * SegmentBytes(kForm),
                            w.inputs - at.segment * kSegment, in, sum);
        to[lane] = sum[0];
      } else {
        const SegmentWeights<kForm> weights = next;
        load();
        const int64_t block = at.row * (quants.stride / kBlock) + at.segment * kSegmentBlocks;
        float sum = 0.0f;
        REPRISE_UNROLLED for (int b = 0; b < kSegmentBlocks; ++b) {
          sum = AddActivations<kForm>(sum, weights.Block(b), quants.quants + (block + b) * kBlock, quants.scales + block + b,
                                      quants.sums + block + b);
        }
        to[lane] = sum;
      }
    }
    // The first warp adds them up while the others go on in the other place, to which it must come before they can be back in this one.
    SyncBlock();
    side ^= 1;
    if (warp != 0) continue;
    for (int item = first; item < end; ++item) take(item, sums[(item - first) * kTileOutputs + lane]);
  }
}

// By a warp, of a visit: column 32 tile + lane of gate or of up alone, and of the row that down meets, of which 32 columns are a block.
REPRISE_DEVICE void StoreAlone(const ExpertsArgs& args, int visit, int tile, float sum) {
  args.alone[static_cast<int64_t>(visit) * args.inner + tile * kTileOutputs + ThreadId() % 32] = sum;
}
// Of experts without a gate, `gate` is what up makes, and there is no `up`.
REPRISE_DEVICE void StoreHidden(const ExpertsArgs& args, int visit, int tile, float gate, float up) {
  if (args.gate_bias || args.up_bias) {
    const int64_t at = static_cast<int64_t>(args.chosen[visit]) * args.inner + tile * kTileOutputs + ThreadId() % 32;
    if (args.gate_bias) gate = gate + args.gate_bias[at];
    if (args.up_bias) up = up + args.up_bias[at];
  }
  const float y = args.activation == Activation::kSwiGlu          ? Silu(gate) * up
                  : args.activation == Activation::kGeGlu         ? Gelu(gate) * up
                  : args.activation == Activation::kClampedSwiGlu ? ClampedSwiGlu(gate, up)
                                                                  : SquarePositive(gate);
  if (args.hidden.data) RowAt(args.hidden, visit)[tile * kTileOutputs + ThreadId() % 32] = y;
  if (args.hidden_quant.quants) QuantiseBlock(args.hidden_quant, visit, tile, y);
}

// The weights that a visit meets next: until the next launch begins nobody else asks for memory. The blocks of a visit share them, and of each all
// threads but the first warp's, which still adds up.
REPRISE_DEVICE void PrefetchDown(const ExpertsArgs& args, int expert, int block, int blocks) {
  const WeightView& w = args.down;
  const int64_t bytes = static_cast<int64_t>(args.out.width / kTileOutputs) * w.segments * SegmentBytes(w.form);
  const std::byte* from = w.data + expert * bytes;
  const int threads = ThreadCount() - 32;
  for (int64_t line = block * threads + ThreadId() - 32; line * 128 < bytes; line += blocks * threads) PrefetchToL2(from + line * 128);
}

template <Form kForm>
REPRISE_KERNEL_OF(kMostFusedWarps * 32, 1, ExpertGateUpKernel, ExpertsArgs) {
  BeginKernel();
  const int visit = BlockX(), tile = BlockY(), row = visit / args.used;
  if (row >= RowCount(args.step, args.in.domain)) return;
  const int expert = args.chosen[visit], tiles = args.inner / kTileOutputs, of_expert = expert * tiles + tile;
  float gate = 0.0f, up = 0.0f;
  const int pair = args.pairs() ? 1 : 0;
  SumItems<kForm>(
      args.gate.segments << pair, args.in, args.quant,
      [&](int item) {
        return ExpertItem{item & pair ? &args.up : &args.gate, of_expert, item >> pair, row};
      },
      [&](int item, float sum) {
        if (item & pair) {
          up = up + sum;
        } else {
          gate = gate + sum;
        }
      });
  if (ThreadId() >= 32) {
    if (GridX() == args.used) PrefetchDown(args, expert, tile, tiles);  // of one row: those of more may not find room in the cache
    return;
  }
  if (args.alone) {
    StoreAlone(args, visit, tile, gate);
  } else {
    StoreHidden(args, visit, tile, gate, up);
  }
}

REPRISE_KERNEL(ExpertActivateKernel, ExpertsArgs) {
  BeginKernel();
  const int visit = BlockX(), i = BlockY() * kRowThreads + ThreadId();
  if (visit / args.used >= RowCount(args.step, args.in.domain) || i >= args.inner) return;  // an inner width is whole warps
  const int64_t at = static_cast<int64_t>(visit) * args.inner + i;
  StoreHidden(args, visit, i / kTileOutputs, args.gates[at], args.ups[at]);
}

template <Form kForm>
REPRISE_KERNEL_OF(kMostFusedWarps * 32, 1, ExpertDownKernel, ExpertsArgs) {
  BeginKernel();
  const int row = BlockX(), tile = BlockY(), lane = ThreadId() % 32, segments = args.down.segments;
  if (row >= RowCount(args.step, args.in.domain)) return;
  const int64_t visit = static_cast<int64_t>(row) * args.used;
  // A lane knows one choice.
  const int chosen = lane < args.used ? args.chosen[visit + lane] : 0;
  const float weight = lane < args.used ? args.weights[visit + lane] : 0.0f;
  const int column = tile * kTileOutputs + lane;
  float* out = RowAt(args.out, row) + column;
  float total = args.adds ? *out : 0.0f, value = 0.0f;
  int rank = 0, segment = 0;  // of the next sum that is taken
  SumItems<kForm>(
      args.used * segments, args.hidden, args.hidden_quant,
      [&](int item) {
        const int of = item / segments;
        return ExpertItem{&args.down, Shuffle(chosen, of) * (args.out.width / kTileOutputs) + tile, item % segments, visit + of};
      },
      [&](int, float sum) {
        value = value + sum;
        if (++segment < segments) return;
        if (args.down_bias) value = value + args.down_bias[static_cast<int64_t>(Shuffle(chosen, rank)) * args.out.width + column];
        total = fmaf(Shuffle(weight, rank), value, total);
        value = 0.0f;
        segment = 0;
        ++rank;
      });
  if (ThreadId() < 32) *out = total;
}

// ---- Runs of visits ----

// Sorts the visits by expert and cuts them into runs; one block of threads. Within an expert they come in any order.
REPRISE_KERNEL(GroupExpertsKernel, ExpertsArgs) {
  BeginKernel();
  const int visits = RowCount(args.step, args.in.domain) * args.used, thread = ThreadId();
  auto* places = reinterpret_cast<uint32_t*>(SharedMemory());  // [count]: how many visits; then where the next goes
  uint32_t* warps = places + args.count;
  for (int e = thread; e < args.count; e += kRowThreads) places[e] = 0;
  SyncBlock();
  for (int visit = thread; visit < visits; visit += kRowThreads) AddShared(places + args.chosen[visit], 1);
  SyncBlock();
  constexpr uint32_t kMost = ExpertRun::kMost;
  const int each = (args.count + kRowThreads - 1) / kRowThreads;
  const int first = thread * each, end = first + each < args.count ? first + each : args.count;
  uint32_t met = 0, runs = 0, all_met, all_runs;
  for (int e = first; e < end; ++e) {
    met += places[e];
    runs += (places[e] + kMost - 1) / kMost;
  }
  uint32_t place = SumBefore(met, warps, all_met);
  SyncBlock();
  uint32_t run = SumBefore(runs, warps, all_runs);
  for (int e = first; e < end; ++e) {
    const uint32_t count = places[e];
    places[e] = place;
    for (uint32_t at = 0; at < count; at += kMost) {
      const uint32_t left = count - at;
      args.runs[run++] = {e, static_cast<int32_t>(place + at), static_cast<int32_t>(left < kMost ? left : kMost), 0};
    }
    place += count;
  }
  if (thread == 0) *args.run_count = static_cast<int32_t>(all_runs);
  SyncBlock();
  for (int visit = thread; visit < visits; visit += kRowThreads) args.order[AddShared(places + args.chosen[visit], 1)] = visit;
}

// Four tiles of weights and up to 64 rows come through the stages of shared memory that mma.h lays out, as in MatMulKernel, but the rows are
// those of a run, wherever they lie. tile_of(slot): the tile's bytes, null where there is none; row_of(i): the row of quants of visit i of the run.
template <Form kForm>
struct RunFetch {
  static constexpr int kOfTile = SegmentBytes(kForm) / 16, kSlotThreads = kMmaThreads / kMmaTiles;
  static constexpr int kRounds = (kOfTile + kSlotThreads - 1) / kSlotThreads;
  static constexpr int kRowPieces = kSegment / 16, kRowRounds = kMmaRows * kRowPieces / kMmaThreads;
  const std::byte* weights;  // of the tile that the thread brings with 63 others, its first piece of the next segment
  const int8_t* quants[kRowRounds];
  const float *scales, *sums;

  template <class TileOf, class RowOf>
  REPRISE_DEVICE RunFetch(const QuantRows& from, int count, const TileOf& tile_of, const RowOf& row_of) {
    const int thread = ThreadId();
    weights = tile_of(thread / kSlotThreads);
    if (weights) weights += thread % kSlotThreads * 16;
    REPRISE_UNROLLED for (int i = 0; i < kRowRounds; ++i) {
      const int row = i * (kMmaThreads / kRowPieces) + thread / kRowPieces;
      quants[i] = row < count ? from.quants + row_of(row) * from.stride + thread % kRowPieces * 16 : nullptr;
    }
    const int64_t at = thread < count ? row_of(thread) * (from.stride / kBlock) : 0;
    scales = thread < count ? from.scales + at : nullptr;
    sums = from.sums + at;
  }
  REPRISE_DEVICE void Bring(std::byte* stage) {
    const int thread = ThreadId();
    if (weights) {
      std::byte* to = stage + thread / kSlotThreads * SegmentBytes(kForm) + thread % kSlotThreads * 16;
      REPRISE_UNROLLED for (int i = 0; i < kRounds; ++i) {
        const int at = i * kSlotThreads;
        if (at + kSlotThreads <= kOfTile || at + thread % kSlotThreads < kOfTile) CopyAsync16(to + at * 16, weights + at * 16);
      }
      weights += SegmentBytes(kForm);
    }
    REPRISE_UNROLLED for (int i = 0; i < kRowRounds; ++i) {
      if (quants[i] == nullptr) continue;  // nobody keeps what becomes of it
      std::byte* to = stage + StageQuantAt(kForm, thread % kRowPieces, thread / kRowPieces + i * (kMmaThreads / kRowPieces));
      CopyAsync16(to, reinterpret_cast<const std::byte*>(quants[i]));
      quants[i] += kSegment;
    }
    if (scales == nullptr) return;
    CopyAsync16(stage + StageScales(kForm) + thread * 16, reinterpret_cast<const std::byte*>(scales));
    scales += kSegmentBlocks;
    if constexpr (HasMin(kForm)) {
      CopyAsync16(stage + StageSums(kForm) + thread * 16, reinterpret_cast<const std::byte*>(sums));
      sums += kSegmentBlocks;
    }
  }
};

// Of a block's 8 warps, four share the run's tiles of 16 rows 0 and 2, and four 1 and 3: runs are short, and both halves are to have some.
inline constexpr int kRunTilesApart = 32;
REPRISE_DEVICE int RunRow(int m, int i) {  // of a lane's sum i of its m-th tile of rows
  return ThreadId() / 32 / kMmaTiles * 16 + m * kRunTilesApart + SumRow(ThreadId() % 32, i);
}
// The totals of the warp's tile, which is slot warp % 4; `slots`: how many there are. Every thread of the block calls; afterwards shared memory is free.
template <Form kForm>
REPRISE_DEVICE void RunTotals(RunFetch<kForm>& fetch, int segments, int count, int slots, float (&totals)[2][4][4]) {
  const int warp = ThreadId() / 32, slot = warp % kMmaTiles, first_row = warp / kMmaTiles * 16;
  const int row_tiles = slot >= slots || first_row >= count ? 0 : first_row + kRunTilesApart < count ? 2 : 1;
  std::byte* shared = SharedMemory();
  REPRISE_UNROLLED for (int i = 0; i < kMmaStages - 1; ++i) {
    if (i < segments) fetch.Bring(shared + i * StageBytes(kForm));
    CommitCopies();
  }
  REPRISE_UNROLLED for (int i = 0; i < 32; ++i) totals[i / 16][i / 4 % 4][i % 4] = 0.0f;
  REPRISE_ROLLED for (int segment = 0; segment < segments; ++segment) {
    WaitCopies<kMmaStages - 2>();
    SyncBlock();  // the segment is there for all, and everybody has left the stage that comes next
    const int ahead = segment + kMmaStages - 1;
    if (ahead < segments) fetch.Bring(shared + ahead % kMmaStages * StageBytes(kForm));
    CommitCopies();
    if (row_tiles == 0) continue;
    const int stage = segment % kMmaStages * StageBytes(kForm);
    float sums[2][4][4] = {};
    REPRISE_UNROLLED for (int b = 0; b < kSegmentBlocks; ++b) {
      AddStageBlock<kForm, kRunTilesApart>(shared, stage, shared + stage + slot * SegmentBytes(kForm), b, first_row, sums, row_tiles);
    }
    REPRISE_UNROLLED for (int i = 0; i < 32; ++i) totals[i / 16][i / 4 % 4][i % 4] =
        totals[i / 16][i / 4 % 4][i % 4] + sums[i / 16][i / 4 % 4][i % 4];
  }
  WaitCopies<0>();
  SyncBlock();
}

inline constexpr int kRunPlaceColumns = 2 * kTileOutputs + 8;

// Two tiles of gates and the same two of ups, which meet in shared memory.
template <Form kForm>
REPRISE_KERNEL_OF(kMmaThreads, 2, RunGateUpKernel, ExpertsArgs) {
  BeginKernel();
  if (BlockX() >= *args.run_count) return;
  const ExpertRun run = args.runs[BlockX()];
  const int32_t* order = args.order + run.first;
  const int tiles = args.inner / kTileOutputs, tile = BlockY() * 2, mine = tiles - tile < 2 ? tiles - tile : 2;
  RunFetch<kForm> fetch(
      args.quant, run.count,
      [&](int slot) -> const std::byte* {
        if (slot % 2 >= mine || (slot >= 2 && !args.pairs())) return nullptr;
        const WeightView& w = slot < 2 ? args.gate : args.up;
        return w.data + (static_cast<int64_t>(run.expert) * tiles + tile + slot % 2) * w.segments * SegmentBytes(kForm);
      },
      [&](int i) { return static_cast<int64_t>(order[i] / args.used); });
  float totals[2][4][4];
  RunTotals<kForm>(fetch, args.gate.segments, run.count, args.pairs() ? kMmaTiles : 2, totals);
  const int warp = ThreadId() / 32, lane = ThreadId() % 32, slot = warp % kMmaTiles;
  static_assert(2 * kMmaRows * kRunPlaceColumns * 4 <= kMmaStages * StageBytes(kForm));
  float* places = reinterpret_cast<float*>(SharedMemory());  // [gate and up][64 rows][2 tiles], rows in banks of their own
  const auto place_of = [&](int which, int row, int column) { return (which * kMmaRows + row) * kRunPlaceColumns + column; };
  REPRISE_UNROLLED for (int m = 0; m < 2; ++m) {
    REPRISE_UNROLLED for (int n = 0; n < 4; ++n) {
      REPRISE_UNROLLED for (int i = 0; i < 4; ++i) {
        const int column = slot % 2 * kTileOutputs + n * 8 + SumColumn(lane, i);
        if (RunRow(m, i) < run.count) places[place_of(slot / 2, RunRow(m, i), column)] = totals[m][n][i];
      }
    }
  }
  SyncBlock();
  for (int pair = warp; pair < run.count * mine; pair += kMmaThreads / 32) {
    const int row = pair / mine, which = pair % mine, column = which * kTileOutputs + lane;
    const float gate = places[place_of(0, row, column)];
    if (args.alone) {
      StoreAlone(args, order[row], tile + which, gate);
    } else {
      StoreHidden(args, order[row], tile + which, gate, args.gated() ? places[place_of(1, row, column)] : 0.0f);
    }
  }
}

template <Form kForm>
REPRISE_KERNEL_OF(kMmaThreads, 2, RunDownKernel, ExpertsArgs) {
  BeginKernel();
  if (BlockX() >= *args.run_count) return;
  const ExpertRun run = args.runs[BlockX()];
  const int32_t* order = args.order + run.first;
  const int width = args.out.width, tiles = width / kTileOutputs, tile = BlockY() * kMmaTiles;
  const int mine = tiles - tile < kMmaTiles ? tiles - tile : kMmaTiles;
  RunFetch<kForm> fetch(
      args.hidden_quant, run.count,
      [&](int slot) -> const std::byte* {
        if (slot >= mine) return nullptr;
        return args.down.data + (static_cast<int64_t>(run.expert) * tiles + tile + slot) * args.down.segments * SegmentBytes(kForm);
      },
      [&](int i) { return static_cast<int64_t>(order[i]); });
  float totals[2][4][4];
  RunTotals<kForm>(fetch, args.down.segments, run.count, mine, totals);
  const int lane = ThreadId() % 32, slot = ThreadId() / 32 % kMmaTiles;
  if (slot >= mine) return;
  REPRISE_UNROLLED for (int m = 0; m < 2; ++m) {
    REPRISE_UNROLLED for (int half = 0; half < 2; ++half) {
      const int row = RunRow(m, 2 * half);
      if (row >= run.count) continue;
      float* to = args.values + static_cast<int64_t>(order[row]) * width + (tile + slot) * kTileOutputs;
      REPRISE_UNROLLED for (int n = 0; n < 4; ++n) {
        REPRISE_UNROLLED for (int i = 0; i < 2; ++i) to[n * 8 + SumColumn(lane, i)] = totals[m][n][2 * half + i];
      }
    }
  }
}

// Of 16-bit floats: a block has one tile, and 32 visits of a run.
struct ShortRun {
  int expert, count;
  const int32_t* order;
};
REPRISE_DEVICE ShortRun ShortRunOf(const ExpertsArgs& args) {
  if (BlockX() >= *args.run_count) return {0, 0, nullptr};
  const ExpertRun run = args.runs[BlockX()];
  const int first = BlockZ() * kShortRunRows, left = run.count - first;
  return {run.expert, left < kShortRunRows ? left : kShortRunRows, args.order + run.first + first};
}

template <Form kForm>
REPRISE_KERNEL_OF(kVectorWarps * 32, 2, ShortRunGateUpKernel, ExpertsArgs) {
  constexpr int kTiles = kShortRunRows / kShortColumns;
  BeginKernel();
  const ShortRun run = ShortRunOf(args);
  if (run.count <= 0) return;
  const int tile = BlockY(), of_expert = run.expert * (args.inner / kTileOutputs) + tile;
  const bool aligned = RowsAreAligned(args.in);
  const auto in_of = [&](int i) { return RowAt(args.in, run.order[i] / args.used); };
  float gate[kTiles], up[kTiles];
  ShortTotals<kForm, kTiles>(args.gate, of_expert, run.count, aligned, in_of, gate);
  if (args.pairs()) ShortTotals<kForm, kTiles>(args.up, of_expert, run.count, aligned, in_of, up);
  // A warp is to have one row's 32 columns; here it has 4 columns of 8 rows.
  const int thread = ThreadId(), column = thread / kShortColumns;
  float* places = reinterpret_cast<float*>(SharedMemory());  // [gate and up][32 rows][32 columns and one that keeps banks apart]
  constexpr int kStride = kTileOutputs + 1;
  REPRISE_UNROLLED for (int n = 0; n < kTiles; ++n) {
    const int row = n * kShortColumns + thread % kShortColumns;
    places[row * kStride + column] = gate[n];
    if (args.pairs()) places[(kShortRunRows + row) * kStride + column] = up[n];
  }
  SyncBlock();
  for (int row = thread / 32; row < run.count; row += kVectorWarps) {
    const int at = row * kStride + thread % 32;
    if (args.alone) {
      StoreAlone(args, run.order[row], tile, places[at]);
    } else {
      StoreHidden(args, run.order[row], tile, places[at], args.gated() ? places[kShortRunRows * kStride + at] : 0.0f);
    }
  }
}

template <Form kForm>
REPRISE_KERNEL_OF(kVectorWarps * 32, 2, ShortRunDownKernel, ExpertsArgs) {
  constexpr int kTiles = kShortRunRows / kShortColumns;
  BeginKernel();
  const ShortRun run = ShortRunOf(args);
  if (run.count <= 0) return;
  const int width = args.out.width, tile = BlockY(), thread = ThreadId();
  float totals[kTiles];
  ShortTotals<kForm, kTiles>(
      args.down, run.expert * (width / kTileOutputs) + tile, run.count, RowsAreAligned(args.hidden),
      [&](int i) { return RowAt(args.hidden, run.order[i]); }, totals);
  REPRISE_UNROLLED for (int n = 0; n < kTiles; ++n) {
    const int row = n * kShortColumns + thread % kShortColumns;
    if (row >= run.count) continue;
    args.values[static_cast<int64_t>(run.order[row]) * width + tile * kTileOutputs + thread / kShortColumns] = totals[n];
  }
}

// The weighted sum of what runs made, as ExpertDownKernel makes it.
REPRISE_KERNEL(JoinExpertsKernel, ExpertsArgs) {
  BeginKernel();
  const int row = BlockY(), i = BlockX() * kRowThreads + ThreadId(), width = args.out.width;
  if (row >= RowCount(args.step, args.in.domain) || i >= width) return;
  float* out = RowAt(args.out, row) + i;
  float total = args.adds ? *out : 0.0f;
  for (int rank = 0; rank < args.used; ++rank) {
    const int64_t visit = static_cast<int64_t>(row) * args.used + rank;
    float value = args.values[visit * width + i];
    if (args.down_bias) value = value + args.down_bias[static_cast<int64_t>(args.chosen[visit]) * width + i];
    total = fmaf(args.weights[visit], value, total);
  }
  *out = total;
}

}  // namespace reprise::cuda
