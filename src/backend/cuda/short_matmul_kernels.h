// Matrix products of weights of 16-bit floats, on the tensor cores for one row and for many.
//
// Weights are the 16 rows of such a product and rows of activations its 8 columns; they meet 16 inputs at a time. An activation is a float of 24 bits,
// so it comes in parts of the weights' type, and each part is multiplied: for bfloat16 three, which lose nothing (two would lose 8 bits, and results
// would be further from the CPU's than floats are); for halves two, of activations times a power of two that brings the greatest of a row's segment
// near the end of what halves reach. One row fills the other columns with copies of itself: decoding waits for weights, which are read once.
//
// Promise 3: a segment of an output is summed from zero by one warp, 16 inputs at a time in ascending order, and of those the first part before the
// others; then it is scaled back; segments are added in ascending order to a sum that starts at zero. The scale is that of the row's segment alone.
// Which column a row takes, and what stands in the others, depends on how work was cut. So this is asked of the tensor cores: an element of their product
// depends on its row, its column and its accumulator alone, and in the same way wherever in the tile it stands. How they round within one product is
// their own affair (half_attention_kernels.h says the same).
//
// Inputs past the last count as zeros in both operands.
#pragma once

#include "backend/cuda/matmul_kernels.h"

namespace reprise::cuda {

template <Form kForm>
REPRISE_DEVICE void MultiplyShorts(float d[4], const uint32_t a[4], const uint32_t b[2]) {
  if constexpr (kForm == Form::kF16) {
    MultiplyHalves(d, a, b);
  } else {
    MultiplyBFloats(d, a, b);
  }
}

REPRISE_DEVICE bool RowsAreAligned(const Rows& in) { return in.stride % 4 == 0 && reinterpret_cast<uintptr_t>(in.data) % 16 == 0; }

// Four floats of a row from `input` on, zero past the last, wherever they lie.
REPRISE_DEVICE Words4 LoadInputs(const float* row, int input, int inputs) {
  Words4 words{};
  REPRISE_UNROLLED for (int i = 0; i < 4; ++i) {
    if (input + i < inputs) words.w[i] = BitsOf(row[input + i]);
  }
  return words;
}

// A lane's four inputs of a step, in parts: four times two 16-bit floats of its column.
template <Form kForm>
struct InputParts {
  static constexpr int kCount = kForm == Form::kF16 ? 2 : 3;
  uint32_t w[kCount][2];

  REPRISE_DEVICE InputParts(const Words4& inputs, float up) {
    REPRISE_UNROLLED for (int pair = 0; pair < 2; ++pair) {
      const float first = FloatOf(inputs.w[2 * pair]), second = FloatOf(inputs.w[2 * pair + 1]);
      uint32_t parts[kCount];
      if constexpr (kForm == Form::kF16) {
        SplitToHalves(first * up, second * up, parts);
      } else {
        SplitToBFloats(first, second, parts);
      }
      REPRISE_UNROLLED for (int part = 0; part < kCount; ++part) w[part][pair] = parts[part];
    }
  }
};

// Of the column that this lane brings, over a segment; `inputs_of(step)`: the lane's four of a step. Every lane of the warp calls.
template <Form kForm, class InputsOf>
REPRISE_DEVICE PowerScale ScaleOfColumn(InputsOf&& inputs_of) {
  if constexpr (kForm == Form::kF16) {
    uint32_t top = 0;
    REPRISE_UNROLLED for (int step = 0; step < kSegmentSteps; ++step) {
      const Words4 inputs = inputs_of(step);
      REPRISE_UNROLLED for (int i = 0; i < 4; ++i) top = Greater(top, inputs.w[i] & 0x7fffffffu);
    }
    REPRISE_UNROLLED for (int mask = 1; mask < 4; mask *= 2) top =
        Greater(top, ShuffleXor(top, mask));  // lanes 4g to 4g + 3 have the column
    return PowerOfTop(top);
  } else {
    return {1.0f, 1.0f};
  }
}
// What brings sum `i` of those that this lane gets back to its size.
template <Form kForm>
REPRISE_DEVICE float ScaleOfSum(const PowerScale& mine, int i) {
  if constexpr (kForm == Form::kF16) {
    return Shuffle(mine.down, SumColumn(ThreadId() % 32, i) * 4);
  } else {
    return 1.0f;
  }
}

// ---- Up to 8 rows, or 32 ----
//
// A block has a tile of 32 outputs; warps share the segments, whose sums meet in shared memory as in MatVecKernel. A lane asks for all of its weights of
// a segment at once, 256 bytes, and keeps them while it goes through the rows, 8 at a time.

// Gives the segment's sums away: store(row, output, sum), for whole groups of 8 rows. in_of(row): the row's floats.
template <Form kForm, int kTiles, class InOf, class Store>
REPRISE_DEVICE void ShortSegmentSums(const WeightView& w, int tile, int segment, int rows, bool aligned, const InOf& in_of,
                                     const Store& store) {
  const int lane = ThreadId() % 32;
  const std::byte* bytes = w.data + (static_cast<int64_t>(tile) * w.segments + segment) * SegmentBytes(kForm);
  Words4 weights[kSegmentSteps][2];
  REPRISE_UNROLLED for (int i = 0; i < 2 * kSegmentSteps; ++i) weights[i / 2][i % 2] = LoadConstant16(bytes + ChunkAt(kForm, i, lane));
  REPRISE_ROLLED for (int n = 0; n < kTiles; ++n) {
    if (n * kShortColumns >= rows) break;
    const int column = n * kShortColumns + lane / 4;
    const float* in = in_of(column < rows ? column : rows - 1);
    const int first = segment * kSegment + lane % 4 * 4;
    Words4 inputs[kSegmentSteps];
    if (aligned && (segment + 1) * kSegment <= w.inputs) {
      REPRISE_UNROLLED for (int step = 0; step < kSegmentSteps; ++step) inputs[step] = Load16(in + first + step * kStepInputs);
    } else {
      REPRISE_UNROLLED for (int step = 0; step < kSegmentSteps; ++step) inputs[step] = LoadInputs(in, first + step * kStepInputs, w.inputs);
    }
    const PowerScale scale = ScaleOfColumn<kForm>([&](int step) { return inputs[step]; });
    float sums[2][4] = {};
    REPRISE_UNROLLED for (int step = 0; step < kSegmentSteps; ++step) {
      const InputParts<kForm> parts(inputs[step], scale.up);
      REPRISE_UNROLLED for (int part = 0; part < parts.kCount; ++part) {
        REPRISE_UNROLLED for (int m = 0; m < 2; ++m) MultiplyShorts<kForm>(sums[m], weights[step][m].w, parts.w[part]);
      }
    }
    const float back[2] = {ScaleOfSum<kForm>(scale, 0), ScaleOfSum<kForm>(scale, 1)};
    REPRISE_UNROLLED for (int m = 0; m < 2; ++m) {
      REPRISE_UNROLLED for (int i = 0; i < 4; ++i) {
        store(n * kShortColumns + SumColumn(lane, i), m * 16 + SumRow(lane, i), sums[m][i] * back[i % 2]);
      }
    }
  }
}

// totals[n] = the sum of this thread's output, ThreadId() / 8, for row 8 n + ThreadId() % 8. By a block of kVectorWarps.
template <Form kForm, int kTiles, class InOf>
REPRISE_DEVICE void ShortTotals(const WeightView& w, int tile, int rows, bool aligned, const InOf& in_of, float (&totals)[kTiles]) {
  constexpr int kThreads = kVectorWarps * 32, kSegments = kWindow / kTiles;
  static_assert(kThreads == kTileOutputs * kShortColumns, "a thread adds the segments of one output, and of one row of each 8");
  const int thread = ThreadId(), warp = thread / 32, row = thread % kShortColumns;
  float* shared = reinterpret_cast<float*>(SharedMemory());  // [kSegments][kTiles][kThreads]
  REPRISE_UNROLLED for (int n = 0; n < kTiles; ++n) totals[n] = 0.0f;
  for (int window = 0; window < w.segments; window += kSegments) {
    const int end = window + kSegments < w.segments ? window + kSegments : w.segments;
    REPRISE_ROLLED for (int segment = window + warp; segment < end; segment += kVectorWarps) {
      float* to = shared + (segment - window) * kTiles * kThreads;  // [rows / 8][output][row % 8]
      ShortSegmentSums<kForm, kTiles>(w, tile, segment, rows, aligned, in_of, [&](int of_row, int output, float sum) {
        to[(of_row / kShortColumns * kTileOutputs + output) * kShortColumns + of_row % kShortColumns] = sum;
      });
    }
    SyncBlock();
    REPRISE_UNROLLED for (int n = 0; n < kTiles; ++n) {
      if (n * kShortColumns + row >= rows) continue;
      for (int segment = window; segment < end; ++segment) {
        totals[n] = totals[n] + shared[((segment - window) * kTiles + n) * kThreads + thread];
      }
    }
    SyncBlock();
  }
}

template <Form kForm, int kTiles>
REPRISE_KERNEL_OF(kVectorWarps * 32, 2, ShortMatVecKernel, MatMulArgs) {
  const TileOfProduct at = FindTile<1>(args, BlockX());
  const ProductView& product = args.product[at.product];
  const WeightView& w = product.weight;
  const int thread = ThreadId(), warp = thread / 32;
  PrefetchSegment<kForm>(w, at.tile, warp);
  BeginKernel();
  const int rows = RowCount(args.step, args.in.domain);
  const int output = thread / kShortColumns, row = thread % kShortColumns;
  float totals[kTiles];
  ShortTotals<kForm, kTiles>(
      w, at.tile, rows, RowsAreAligned(args.in), [&](int i) { return RowAt(args.in, i); }, totals);
  REPRISE_UNROLLED for (int n = 0; n < kTiles; ++n) {
    if (n * kShortColumns + row < rows) StoreSum(product, n * kShortColumns + row, at.tile * kTileOutputs + output, totals[n]);
  }
}

// ---- More rows ----
//
// A block has 64 rows and 4 kTiles tiles; each of its 8 warps 32 rows and kTiles tiles of 32 outputs: two where there is enough to do for all
// multiprocessors, since each of them splits and fetches the same rows. The rows' segments come through three stages of shared
// memory, two of them on their way while the third is multiplied; weights come straight to the lanes that multiply them, a step ahead.

REPRISE_DEVICE void FetchRows(const MatMulArgs& args, int inputs, int first_row, int rows, bool aligned, int segment, std::byte* stage) {
  REPRISE_UNROLLED for (int at = ThreadId(); at < kMmaRows * kRowPieces; at += kMmaThreads) {
    const int row = at / kRowPieces, piece = at % kRowPieces, input = segment * kSegment + piece * 4;
    if (first_row + row >= rows) break;  // nobody keeps what becomes of it
    const float* from = RowAt(args.in, first_row + row);
    std::byte* to = stage + ShortStageAt(row, piece);
    if (aligned && input + 4 <= inputs) {
      CopyAsync16(to, reinterpret_cast<const std::byte*>(from + input));
    } else {
      *reinterpret_cast<Words4*>(to) = LoadInputs(from, input, inputs);
    }
  }
}

template <Form kForm, int kTiles>
REPRISE_KERNEL_OF(kMmaThreads, 1, ShortMatMulKernel, MatMulArgs) {
  constexpr int kHalfTiles = 2 * kTiles;  // of 16 outputs
  BeginKernel();
  const int rows = RowCount(args.step, args.in.domain), first_row = BlockX() * kMmaRows;
  if (first_row >= rows) return;
  const TileOfProduct at = FindTile<kMmaTiles * kTiles>(args, BlockY());
  const ProductView& product = args.product[at.product];
  const WeightView& w = product.weight;
  const bool aligned = RowsAreAligned(args.in);
  const int warp = ThreadId() / 32, lane = ThreadId() % 32;
  const int warp_row = warp / kMmaTiles * 32, warp_tile = at.tile + warp % kMmaTiles * kTiles;
  const int warp_rows = warp_tile < w.tiles() ? rows - first_row - warp_row : 0;  // that it is to compute, where they are fewer than 32
  std::byte* shared = SharedMemory();
  const auto fetch = [&](int segment) {
    if (segment < w.segments) {
      FetchRows(args, w.inputs, first_row, rows, aligned, segment, shared + segment % kMmaStages * kShortStageBytes);
    }
    CommitCopies();
  };
  // A tile's steps lie one after another over all of its segments.
  constexpr int kStepBytes = SegmentBytes(kForm) / kSegmentSteps;
  const int steps = w.segments * kSegmentSteps;
  const std::byte* tiles[kTiles];
  REPRISE_UNROLLED for (int i = 0; i < kTiles; ++i) {
    const int tile = warp_tile + i < w.tiles() ? warp_tile + i : w.tiles() - 1;
    tiles[i] = w.data + static_cast<int64_t>(tile) * steps * kStepBytes + lane * 16;
  }
  Words4 next[kHalfTiles];
  const auto load = [&](int step) {
    REPRISE_UNROLLED for (int m = 0; m < kHalfTiles; ++m) next[m] =
        LoadConstant16(tiles[m / 2] + step * kStepBytes + m % 2 * (kStepBytes / 2));
  };

  load(0);
  REPRISE_UNROLLED for (int i = 0; i < kMmaStages - 1; ++i) fetch(i);
  float totals[kHalfTiles][4][4] = {};  // [16 outputs][8 rows]
  REPRISE_ROLLED for (int segment = 0; segment < w.segments; ++segment) {
    WaitCopies<kMmaStages - 2>();
    SyncBlock();  // the segment is there for all, and everybody has left the stage that comes next
    fetch(segment + kMmaStages - 1);
    if (warp_rows <= 0) continue;
    const std::byte* stage = shared + segment % kMmaStages * kShortStageBytes;
    const auto inputs_of = [&](int n, int step) {
      return Load16(stage + ShortStageAt(warp_row + n * kShortColumns + lane / 4, step * 4 + lane % 4));
    };
    float sums[kHalfTiles][4][4] = {};
    PowerScale scales[4] = {};
    REPRISE_UNROLLED for (int n = 0; n < 4; ++n) {
      if (n * kShortColumns < warp_rows) scales[n] = ScaleOfColumn<kForm>([&](int step) { return inputs_of(n, step); });
    }
    REPRISE_ROLLED for (int step = 0; step < kSegmentSteps; ++step) {
      Words4 weights[kHalfTiles];
      REPRISE_UNROLLED for (int m = 0; m < kHalfTiles; ++m) weights[m] = next[m];
      if (segment * kSegmentSteps + step + 1 < steps) load(segment * kSegmentSteps + step + 1);
      REPRISE_UNROLLED for (int n = 0; n < 4; ++n) {
        if (n * kShortColumns >= warp_rows) continue;
        const InputParts<kForm> parts(inputs_of(n, step), scales[n].up);
        REPRISE_UNROLLED for (int part = 0; part < parts.kCount; ++part) {
          REPRISE_UNROLLED for (int m = 0; m < kHalfTiles; ++m) MultiplyShorts<kForm>(sums[m][n], weights[m].w, parts.w[part]);
        }
      }
    }
    REPRISE_UNROLLED for (int n = 0; n < 4; ++n) {
      if (n * kShortColumns >= warp_rows) continue;
      const float back[2] = {ScaleOfSum<kForm>(scales[n], 0), ScaleOfSum<kForm>(scales[n], 1)};
      REPRISE_UNROLLED for (int m = 0; m < kHalfTiles; ++m) {
        REPRISE_UNROLLED for (int i = 0; i < 4; ++i) totals[m][n][i] = totals[m][n][i] + sums[m][n][i] * back[i % 2];
      }
    }
  }
  WaitCopies<0>();
  REPRISE_UNROLLED for (int n = 0; n < 4; ++n) {
    REPRISE_UNROLLED for (int i = 0; i < 4; ++i) {
      const int row = n * kShortColumns + SumColumn(lane, i);
      if (row >= warp_rows) continue;
      REPRISE_UNROLLED for (int m = 0; m < kHalfTiles; ++m) {
        StoreSum(product, first_row + warp_row + row, warp_tile * kTileOutputs + m * 16 + SumRow(lane, i), totals[m][n][i]);
      }
    }
  }
}

}  // namespace reprise::cuda
