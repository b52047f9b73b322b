// Matrix products of weights of blocks and of 32-bit floats: for few rows on the ordinary cores, a thread an output, and for many on the tensor
// cores (32-bit floats are on the ordinary cores for any number). Weights of 16-bit floats have short_matmul_kernels.h, blocks and one row
// fused_kernels.h.
//
// Promise 3: both sum as packed_weight.h says. A segment of an output is summed whole by one thread, from zero, by AddBlock; segments are added
// in ascending order to a sum that starts at zero. The integer product of a block has one value however it is formed.
#pragma once

#include "backend/cuda/language.h"
#include "backend/cuda/mma.h"

namespace reprise::cuda {

// Which product a tile of a launch belongs to. Tiles of a product are counted in groups of `kGroup`.
struct TileOfProduct {
  int product, tile;  // tile: the first of the group
};
template <int kGroup>
REPRISE_HD TileOfProduct FindTile(const MatMulArgs& args, int group) {
  int product = 0;
  while (product + 1 < args.products) {
    const int groups = TileGroups<kGroup>(args.product[product].weight);
    if (group < groups) break;
    group -= groups;
    ++product;
  }
  return {product, group * kGroup};
}
// By a warp. Weights are nobody's output: they can be on their way before the kernel before this one has ended.
template <Form kForm>
REPRISE_DEVICE void PrefetchSegment(const WeightView& w, int tile, int segment) {
  if (segment >= w.segments) return;
  const int lane = ThreadId() % 32;
  const std::byte* bytes = w.data + (static_cast<int64_t>(tile) * w.segments + segment) * SegmentBytes(kForm);
  REPRISE_UNROLLED for (int line = 0; line < SegmentBytes(kForm); line += 32 * 128) {
    if (line + lane * 128 < SegmentBytes(kForm)) PrefetchToL2(bytes + line + lane * 128);
  }
}
REPRISE_DEVICE void StoreSum(const ProductView& product, int row, int output, float sum) {
  if (output >= product.weight.outputs) return;
  float* to = RowAt(product.out, row) + output;
  *to = product.accumulate ? *to + sum : sum;
}

// ---- Few rows ----
//
// A block has a tile of 32 outputs, a lane one of them, and up to kRows rows; warps share the segments. The sums of a window of segments meet in
// shared memory, where one thread an output and row adds them in order.

// A block of 32 inputs of this lane's output, and the bytes of a segment that it is taken from.
struct WeightBlock {
  uint32_t quants[8];
  BlockScale scale;
};
template <Form kForm>
struct SegmentWeights {
  uint32_t header[HeaderWords(kForm)];
  Words4 chunks[Chunks(kForm)];

  REPRISE_DEVICE void Load(const std::byte* bytes) {
    // From the lane's own place on, all distances are constants, which need no arithmetic of their own.
    const std::byte* own_header = bytes + HeaderAt(0, ThreadId() % 32);
    const std::byte* own_chunks = bytes + ChunkAt(kForm, 0, ThreadId() % 32);
    REPRISE_UNROLLED for (int i = 0; i < HeaderWords(kForm); ++i) header[i] = LoadConstant4(own_header + HeaderAt(i, 0));
    REPRISE_UNROLLED for (int i = 0; i < Chunks(kForm); ++i) {
      chunks[i] = LoadConstant16(own_chunks + (ChunkAt(kForm, i, 0) - ChunkAt(kForm, 0, 0)));
    }
  }
  REPRISE_DEVICE WeightBlock Block(int b) const {
    WeightBlock block;
    block.scale = ScaleOf<kForm>(header, 1, b);
    REPRISE_UNROLLED for (int i = 0; i < 4; ++i) {
      if constexpr (IsNibble(kForm)) {
        const NibblePair pair = Nibbles<kForm>(chunks[b].w[i]);
        block.quants[i] = pair.low;
        block.quants[4 + i] = pair.high;
      } else {
        block.quants[i] = chunks[2 * b].w[i];
        block.quants[4 + i] = chunks[2 * b + 1].w[i];
      }
    }
    return block;
  }
};
// sum + the block times 32 activations, of which `act_sum` is read where the form has minima.
template <Form kForm>
REPRISE_DEVICE float AddActivations(float sum, const WeightBlock& weights, const int8_t* acts, const float* scale, const float* act_sum) {
  const Words4 low = Load16(acts), high = Load16(acts + 16);
  BlockDot dot{0, 0};
  REPRISE_UNROLLED for (int i = 0; i < 4; ++i) dot.first = Dot4(weights.quants[i], low.w[i], dot.first);
  REPRISE_UNROLLED for (int i = 0; i < 4; ++i) {
    int& half = kForm == Form::kByteK16 ? dot.second : dot.first;
    half = Dot4(weights.quants[4 + i], high.w[i], half);
  }
  return AddBlock<kForm>(sum, dot, weights.scale, *scale, HasMin(kForm) ? *act_sum : 0.0f);
}

// The sums of a segment of 32-bit floats, which lies at `bytes`, for each row, of this lane's output; `in`: the rows' floats of the segment, of which
// there are `left`.
template <int kRows>
REPRISE_DEVICE void FloatSegmentSums(const std::byte* bytes, int left, const float* const (&in)[kRows], float* sums) {
  const int lane = ThreadId() % 32;
  REPRISE_ROLLED for (int chunk = 0; chunk < Chunks(Form::kF32); ++chunk) {
    if (chunk * 4 >= left) break;
    const Words4 words = LoadConstant16(bytes + ChunkAt(Form::kF32, chunk, lane));
    REPRISE_UNROLLED for (int i = 0; i < 4; ++i) {
      if (chunk * 4 + i >= left) break;
      const float weight = FloatOf(words.w[i]);
      REPRISE_UNROLLED for (int r = 0; r < kRows; ++r) { sums[r] = fmaf(weight, in[r][chunk * 4 + i], sums[r]); }
    }
  }
}

// The segment's sums for each row, of this lane's output. Rows past the last of the step are computed on what lies there, and dropped.
template <Form kForm, int kRows>
REPRISE_DEVICE void SegmentSums(const MatMulArgs& args, const WeightView& w, int tile, int segment, int first_row, int rows, float* sums) {
  const std::byte* bytes = w.data + (static_cast<int64_t>(tile) * w.segments + segment) * SegmentBytes(kForm);
  REPRISE_UNROLLED for (int r = 0; r < kRows; ++r) sums[r] = 0.0f;
  if constexpr (kForm == Form::kF32) {
    const float* in[kRows];
    REPRISE_UNROLLED for (int r = 0; r < kRows; ++r) {
      in[r] = RowAt(args.in, first_row + r < rows ? first_row + r : rows - 1) + segment * kSegment;
    }
    FloatSegmentSums<kRows>(bytes, w.inputs - segment * kSegment, in, sums);  // inputs past the last are in no row
  } else {
    SegmentWeights<kForm> weights;
    weights.Load(bytes);
    // One number finds a block's quants, scale and sum: 64-bit addresses of each, for every row, would not fit the registers beside the weights.
    const uint32_t blocks = static_cast<uint32_t>(args.quant.stride / kBlock);
    const uint32_t first = static_cast<uint32_t>(first_row) * blocks + static_cast<uint32_t>(segment * kSegmentBlocks);
    REPRISE_UNROLLED for (int b = 0; b < kSegmentBlocks; ++b) {
      const WeightBlock block = weights.Block(b);
      REPRISE_UNROLLED for (int r = 0; r < kRows; ++r) {
        const uint32_t at = first + static_cast<uint32_t>(r) * blocks + static_cast<uint32_t>(b);
        sums[r] = AddActivations<kForm>(sums[r], block, args.quant.quants + at * static_cast<uint32_t>(kBlock), args.quant.scales + at,
                                        args.quant.sums + at);
      }
    }
  }
}

template <Form kForm, int kRows>
REPRISE_KERNEL_OF(kVectorWarps * 32, 2, MatVecKernel, MatMulArgs) {
  const TileOfProduct at = FindTile<1>(args, BlockX());
  const ProductView& product = args.product[at.product];
  const WeightView& w = product.weight;
  const int warp = ThreadId() / 32, lane = ThreadId() % 32;
  PrefetchSegment<kForm>(w, at.tile, warp);
  BeginKernel();
  const int rows = RowCount(args.step, args.in.domain), first_row = BlockY() * kRows;
  if (first_row >= rows) return;
  float* shared = reinterpret_cast<float*>(SharedMemory());  // [kWindow][kRows][32]
  float total = 0.0f;
  for (int window = 0; window < w.segments; window += kWindow) {
    const int end = window + kWindow < w.segments ? window + kWindow : w.segments;
    for (int segment = window + warp; segment < end; segment += kVectorWarps) {
      float sums[kRows];
      SegmentSums<kForm, kRows>(args, w, at.tile, segment, first_row, rows, sums);
      REPRISE_UNROLLED for (int r = 0; r < kRows; ++r) shared[((segment - window) * kRows + r) * 32 + lane] = sums[r];
    }
    SyncBlock();
    if (warp < kRows) {
      for (int segment = window; segment < end; ++segment) total = total + shared[((segment - window) * kRows + warp) * 32 + lane];
    }
    SyncBlock();
  }
  if (warp < kRows && first_row + warp < rows) StoreSum(product, first_row + warp, at.tile * kTileOutputs + lane, total);
}

// ---- Many rows ----
//
// A block has 64 rows and 128 outputs; each of its 8 warps 32 rows and one tile of 32 outputs. Segments come through three stages of shared
// memory, two of them on their way while the third is multiplied.

// What a thread brings of each stage: always the same pieces of 16 bytes, a segment further on each time, so that a stage costs it an addition a piece.
template <Form kForm>
struct StageFetch {
  static constexpr int kPieces = kMmaTiles * SegmentBytes(kForm) / 16, kRounds = (kPieces + kMmaThreads - 1) / kMmaThreads;
  static constexpr int kRowPieces = kSegment / 16, kRowRounds = kMmaRows * kRowPieces / kMmaThreads;
  const std::byte* weights;    // of the group of tiles, in the next segment
  uint32_t of_group[kRounds];  // where in it the thread's pieces are: 32 bits, for registers are short
  const int8_t* quants;
  const float *scales, *sums;
  int32_t round_stride;  // from the quants of one round to those of the next

  REPRISE_DEVICE StageFetch(const MatMulArgs& args, const WeightView& w, int tile, int first_row) {
    const int thread = ThreadId();
    const uint32_t tile_bytes = static_cast<uint32_t>(w.segments) * SegmentBytes(kForm);
    weights = w.data + static_cast<int64_t>(tile) * tile_bytes;
    REPRISE_UNROLLED for (int i = 0; i < kRounds; ++i) {
      constexpr int kOfTile = SegmentBytes(kForm) / 16;
      const int piece = i * kMmaThreads + thread, wanted = piece / kOfTile, last = w.tiles() - 1 - tile;
      // Where there is no such tile, nobody keeps what becomes of it.
      of_group[i] = static_cast<uint32_t>(wanted < last ? wanted : last) * tile_bytes + static_cast<uint32_t>(piece % kOfTile * 16);
    }
    // The rows' buffers hold whole groups of 64 rows, so rows past the last are there to be read, whatever is in them.
    const int stride = args.quant.stride, row = first_row + thread / kRowPieces;
    quants = args.quant.quants + static_cast<int64_t>(row) * stride + thread % kRowPieces * 16;
    round_stride = kMmaThreads / kRowPieces * stride;
    const int64_t at = static_cast<int64_t>(first_row + thread % kMmaRows) * (stride / kBlock);
    scales = args.quant.scales + at;
    sums = args.quant.sums + at;
  }
  REPRISE_DEVICE void Bring(std::byte* stage) {
    const int thread = ThreadId();
    REPRISE_UNROLLED for (int i = 0; i < kRounds; ++i) {
      const int piece = i * kMmaThreads + thread;
      if (piece < kPieces) CopyAsync16(stage + piece * 16, weights + of_group[i]);
    }
    weights += SegmentBytes(kForm);
    REPRISE_UNROLLED for (int i = 0; i < kRowRounds; ++i) {
      std::byte* to = stage + StageQuantAt(kForm, thread % kRowPieces, thread / kRowPieces + i * (kMmaThreads / kRowPieces));
      CopyAsync16(to, reinterpret_cast<const std::byte*>(quants + i * round_stride));
    }
    quants += kSegment;
    if (thread < kMmaRows) CopyAsync16(stage + StageScales(kForm) + thread * 16, reinterpret_cast<const std::byte*>(scales));
    scales += kSegmentBlocks;
    if constexpr (HasMin(kForm)) {
      if (thread < kMmaRows) CopyAsync16(stage + StageSums(kForm) + thread * 16, reinterpret_cast<const std::byte*>(sums));
      sums += kSegmentBlocks;
    }
  }
};

// Adds block `b` of the stage, at `stage` in shared memory, to a warp's sums: [2 tiles of 16 rows][4 tiles of 8 outputs][4]. The second tile of rows
// begins kApart rows after the first; `row_tiles`: how many of the two there are.
template <Form kForm, int kApart = 16>
REPRISE_DEVICE void AddStageBlock(const std::byte* shared, int stage, const std::byte* tile, int b, int warp_row, float (&sums)[2][4][4],
                                  int row_tiles = 2) {
  const int lane = ThreadId() % 32;
  const auto word = [](const std::byte* p) { return *reinterpret_cast<const uint32_t*>(p); };
  static_assert(StageBytes(kForm) % kSegment == 0 && StageQuants(kForm) % kSegment == 0);  // what ChunkOf asks for
  // The lane's first row, from which its others are 8, 16 and 24 away.
  const int quants = stage + StageQuantAt(kForm, 0, warp_row + ActivationWord(lane, 0).row);
  const std::byte* scales_from = shared + stage + StageScales(kForm) + (warp_row + SumRow(lane, 0)) * kSegmentBlocks * 4 + b * 4;
  uint32_t acts[2][4];
  float scales[2][2], act_sums[2][2];
  REPRISE_UNROLLED for (int m = 0; m < 2; ++m) {
    if (m >= row_tiles) break;
    REPRISE_UNROLLED for (int i = 0; i < 4; ++i) {
      const TilePlace place = ActivationWord(0, i);
      acts[m][i] = word(shared + ChunkOf(quants, 2 * b + place.chunk) + WordInputs(lane) + (m * kApart + place.row) * kSegment);
    }
    REPRISE_UNROLLED for (int half = 0; half < 2; ++half) {
      const std::byte* at = scales_from + (m * kApart + SumRow(0, 2 * half)) * kSegmentBlocks * 4;
      scales[m][half] = *reinterpret_cast<const float*>(at);
      act_sums[m][half] = HasMin(kForm) ? *reinterpret_cast<const float*>(at + StageSums(kForm) - StageScales(kForm)) : 0.0f;
    }
  }
  REPRISE_UNROLLED for (int n = 0; n < 4; ++n) {
    uint32_t weights[2];
    const int output = n * 8 + WeightWord(lane, 0).row;
    if constexpr (IsNibble(kForm)) {
      const NibblePair pair = Nibbles<kForm>(word(tile + ChunkAt(kForm, b, output) + WordInputs(lane)));
      weights[0] = pair.low;
      weights[1] = pair.high;
    } else {
      REPRISE_UNROLLED for (int i = 0; i < 2; ++i) {
        weights[i] = word(tile + ChunkAt(kForm, 2 * b + WeightWord(lane, i).chunk, output) + WordInputs(lane));
      }
    }
    BlockScale scale[2];
    REPRISE_UNROLLED for (int i = 0; i < 2; ++i) {
      scale[i] = ScaleOf<kForm>(reinterpret_cast<const uint32_t*>(tile) + n * 8 + SumColumn(lane, i), kTileOutputs, b);
    }
    REPRISE_UNROLLED for (int m = 0; m < 2; ++m) {
      if (m >= row_tiles) break;
      int first[4], second[4] = {0, 0, 0, 0};
      if constexpr (kForm == Form::kByteK16) {
        MultiplyHalfTiles(first, acts[m], weights[0]);
        MultiplyHalfTiles(second, acts[m] + 2, weights[1]);
      } else {
        MultiplyTiles(first, acts[m], weights);
      }
      REPRISE_UNROLLED for (int i = 0; i < 4; ++i) {
        sums[m][n][i] = AddBlock<kForm>(sums[m][n][i], {first[i], second[i]}, scale[i % 2], scales[m][i / 2], act_sums[m][i / 2]);
      }
    }
  }
}

template <Form kForm>
REPRISE_KERNEL_OF(kMmaThreads, 2, MatMulKernel, MatMulArgs) {
  BeginKernel();
  const int rows = RowCount(args.step, args.in.domain), first_row = BlockX() * kMmaRows;
  if (first_row >= rows) return;
  const TileOfProduct at = FindTile<kMmaTiles>(args, BlockY());
  const ProductView& product = args.product[at.product];
  const WeightView& w = product.weight;
  const int tiles = w.tiles() - at.tile < kMmaTiles ? w.tiles() - at.tile : kMmaTiles;
  const int warp = ThreadId() / 32, lane = ThreadId() % 32;
  const int warp_row = warp / kMmaTiles * 32, warp_tile = warp % kMmaTiles;
  std::byte* shared = SharedMemory();

  StageFetch<kForm> fetch(args, w, at.tile, first_row);
  REPRISE_UNROLLED for (int i = 0; i < kMmaStages - 1; ++i) {
    if (i < w.segments) fetch.Bring(shared + i * StageBytes(kForm));
    CommitCopies();
  }
  float totals[2][4][4] = {};
  REPRISE_ROLLED for (int segment = 0; segment < w.segments; ++segment) {
    WaitCopies<kMmaStages - 2>();
    SyncBlock();  // the segment is there for all, and everybody has left the stage that comes next
    const int ahead = segment + kMmaStages - 1;
    if (ahead < w.segments) fetch.Bring(shared + ahead % kMmaStages * StageBytes(kForm));
    CommitCopies();
    if (warp_tile >= tiles) continue;
    const int stage = segment % kMmaStages * StageBytes(kForm);
    float sums[2][4][4] = {};
    REPRISE_UNROLLED for (int b = 0; b < kSegmentBlocks; ++b) {
      AddStageBlock<kForm>(shared, stage, shared + stage + warp_tile * SegmentBytes(kForm), b, warp_row, sums);
    }
    REPRISE_UNROLLED for (int i = 0; i < 32; ++i) totals[i / 16][i / 4 % 4][i % 4] =
        totals[i / 16][i / 4 % 4][i % 4] + sums[i / 16][i / 4 % 4][i % 4];
  }
  WaitCopies<0>();
  if (warp_tile >= tiles) return;
  REPRISE_UNROLLED for (int m = 0; m < 2; ++m) {
    REPRISE_UNROLLED for (int n = 0; n < 4; ++n) {
      REPRISE_UNROLLED for (int i = 0; i < 4; ++i) {
        const int row = first_row + warp_row + m * 16 + SumRow(lane, i);
        if (row >= rows) continue;
        StoreSum(product, row, (at.tile + warp_tile) * kTileOutputs + n * 8 + SumColumn(lane, i), totals[m][n][i]);
      }
    }
  }
}

}  // namespace reprise::cuda
