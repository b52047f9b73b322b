// What the recurrences over matrices share (the delta rule, Mamba-2): a state [heads][rows][columns], rewritten token by token as
// S = decay S + k d^T and read as S^T q. Columns never meet, so a unit of work is a slice of the columns of one head of one lane.
//
// A slice stays in a buffer that fits the L1 cache through all of a lane's rows; the first token reads the block before the step, the last one
// writes the block after it. Included once a target (Highway's foreach_target).
#if defined(REPRISE_BACKEND_CPU_STATE_SLICES_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef REPRISE_BACKEND_CPU_STATE_SLICES_INL_H_
#undef REPRISE_BACKEND_CPU_STATE_SLICES_INL_H_
#else
#define REPRISE_BACKEND_CPU_STATE_SLICES_INL_H_
#endif

#include <algorithm>
#include <cstring>

#include "backend/cpu/kernels.h"
#include "backend/cpu/simd-inl.h"
#include "hwy/cache_control.h"

HWY_BEFORE_NAMESPACE();
namespace reprise {
namespace HWY_NAMESPACE {

inline constexpr int kSlice = kStateSlice;
inline constexpr int kSliceVectors = kSlice / 16;

// Sums over the rows i of a slice go in four partial sums a column (i mod 4), joined at the end: one chain alone would wait four cycles
// for each addition.
struct SliceSums {
  Floats part[4][kSliceVectors];
  HWY_INLINE void Clear() {
    REPRISE_UNROLL for (int j = 0; j < 4; ++j) { REPRISE_UNROLL for (int c = 0; c < kSliceVectors; ++c) part[j][c] = Zeros(); }
  }
  HWY_INLINE Floats Total(int c) const { return Add(Add(part[0][c], part[1][c]), Add(part[2][c], part[3][c])); }
};

// Where the slice lies that comes after this one, to be fetched while this one is worked on: a row of a slice is too short, and too far from
// the next, for the machine to guess what follows.
struct NextSlice {
  const float* rows = nullptr;
  int64_t stride = 0;
  HWY_INLINE void Fetch(int row, int line) const {
    if (rows) FetchFar(rows + row * stride + line * 16);
  }
};

// A slice of the columns of one head, at one token of a lane.
struct SliceToken {
  int head, row;      // of the state; of the step
  const float* in;    // kSlice of the row's inputs, one a column
  float* out;         // kSlice of the row's results
  const float* from;  // the slice before the token, and where it goes: maybe the same place
  float* to;
  int64_t from_stride, to_stride;
  bool begins, ends;  // the first, and the last, of the lane's rows in this step
  bool stream;        // it goes past the caches
  NextSlice after;    // to be fetched while a pass reads the block, or writes it
};

// seen = S^T k. Fetches the first line of each row of the slice that comes next.
HWY_INLINE void ReadSlice(const SliceToken& token, int rows, const float* k, Floats* seen) {
  SliceSums sums;
  sums.Clear();
  const float* const from = token.from;
  const int64_t stride = token.from_stride;
  const NextSlice after = token.after;
  int i = 0;
  const auto step = [&](int j) HWY_ATTR {
    after.Fetch(i + j, 0);
    const Floats key = Set(k[i + j]);
    REPRISE_UNROLL for (int c = 0; c < kSliceVectors; ++c) {
      sums.part[j][c] = MulAdd(key, Load(from + (i + j) * stride + c * 16), sums.part[j][c]);
    }
  };
  for (; i + 4 <= rows; i += 4) {
    step(0);
    step(1);
    step(2);
    step(3);
  }
  for (; i < rows; ++i) step(0);
  REPRISE_UNROLL for (int c = 0; c < kSliceVectors; ++c) seen[c] = sums.Total(c);
}

// What a token does to a slice: S = decay S + k d^T, and what it reads there, S^T q.
struct SliceUpdate {
  const float* k;
  const float* q;
  const float* next_k;  // of the token that follows, where kNext
  float decay;
};

// With kNext the pass that writes S also forms S^T k of the token that follows, as `seen`, so that S is read once a token; the sums are those
// of ReadSlice. With kStream S goes past the caches, and the slice that comes next is fetched from line kFirstLine of each row on.
template <bool kNext, bool kStream, int kFirstLine>
HWY_INLINE void UpdateSlice(const SliceToken& token, int rows, const SliceUpdate& update, const Floats* delta, Floats* read, Floats* seen) {
  // In registers: for all that the compiler knows, a store to S might change `token` and `update`.
  const float *const k = update.k, *const q = update.q, *const next_k = update.next_k, *const from = token.from;
  float* const to = token.to;
  const int64_t from_stride = token.from_stride, to_stride = token.to_stride;
  const NextSlice after = token.after;
  const Floats decay = Set(update.decay);
  SliceSums sums, next;
  sums.Clear();
  next.Clear();
  int i = 0;
  const auto step = [&](int j) HWY_ATTR {
    if constexpr (kStream) {
      REPRISE_UNROLL for (int line = kFirstLine; line < kSliceVectors; ++line) after.Fetch(i + j, line);
    }
    const Floats key = Set(k[i + j]), query = Set(q[i + j]);
    REPRISE_UNROLL for (int c = 0; c < kSliceVectors; ++c) {
      const Floats s = MulAdd(key, delta[c], Mul(decay, Load(from + (i + j) * from_stride + c * 16)));
      if constexpr (kStream) {
        StreamStore(s, to + (i + j) * to_stride + c * 16);
      } else {
        Store(s, to + (i + j) * to_stride + c * 16);
      }
      sums.part[j][c] = MulAdd(query, s, sums.part[j][c]);
      if constexpr (kNext) next.part[j][c] = MulAdd(Set(next_k[i + j]), s, next.part[j][c]);
    }
  };
  for (; i + 4 <= rows; i += 4) {
    step(0);
    step(1);
    step(2);
    step(3);
  }
  for (; i < rows; ++i) step(0);
  REPRISE_UNROLL for (int c = 0; c < kSliceVectors; ++c) {
    read[c] = sums.Total(c);
    if constexpr (kNext) seen[c] = next.Total(c);
  }
}

// The step's states are too large to be in a cache when the next step reads them: they are fetched ahead and written past the caches, which
// saves reading the lines that are written. Every layer of a model has a state of this size and weights that are larger.
inline bool StreamsState(const SliceArgs& args) {
  return args.state.bytes >= (size_t{256} << 10) && args.state.offset % 64 == 0 && args.columns % kSlice == 0;
}

inline int64_t SliceItems(const SliceArgs& args) {
  return int64_t{args.table->lanes} * args.heads * ((args.columns + kSlice - 1) / kSlice);
}

inline Split SplitSlices(const SliceArgs& args) {
  const int lanes = args.table->lanes;
  if (lanes == 0) return {};
  const int64_t slices = (args.columns + kSlice - 1) / kSlice;
  const double token = args.rows * kSlice * 0.07;
  const double rows = static_cast<double>(args.table->rows) / lanes;
  const int64_t block = rows >= 16 ? std::max<int64_t>(1, slices * kBlockColumns / args.columns) : 0;
  // The first slice of a unit is not fetched ahead.
  return EvenSplit(SliceItems(args), token * rows + 200, StreamsState(args) ? 8000 : 4000, block);
}

// Calls step(token) for every token of the slices [first_item, last_item), in order. `in` and `out` have a column for each of every head.
template <class Step>
HWY_INLINE void WalkSlices(const SliceArgs& args, const Rows& in, const Rows& out, int64_t first_item, int64_t last_item, int thread,
                           const Step& step) {
  const int64_t slices = (args.columns + kSlice - 1) / kSlice;
  float* const local = args.scratch + thread * SliceScratchFloats(args);
  const bool stream = StreamsState(args);
  const auto place = [&](int64_t item) {  // of an item's slice in its block
    return item / slices % args.heads * args.rows * args.columns + item % slices * kSlice;
  };
  const auto before = [&](int64_t item) {
    const LaneBinding& lane = args.table->lane[static_cast<size_t>(item / slices / args.heads)];
    return reinterpret_cast<const float*>(lane.read + args.state.offset) + place(item);
  };
  for (int64_t item = first_item; item < last_item; ++item) {
    const int64_t unit = item / slices;
    const int first = static_cast<int>(item % slices) * kSlice, count = std::min(kSlice, args.columns - first);
    const int head = static_cast<int>(unit % args.heads);
    const LaneBinding& lane = args.table->lane[static_cast<size_t>(unit / args.heads)];
    const float* const read = before(item);
    float* const write = reinterpret_cast<float*>(lane.write + args.state.offset) + place(item);
    const bool whole = count == kSlice;
    NextSlice after;
    if (stream && item + 1 < last_item) after = {before(item + 1), args.columns};
    if (lane.rows == 0 || !whole) {
      // A narrow last slice runs in a padded buffer; a lane without rows only carries its state over.
      std::memset(local, 0, sizeof(float) * kSlice * args.rows);
      for (int i = 0; i < args.rows; ++i) {
        std::memcpy(local + i * kSlice, read + static_cast<int64_t>(i) * args.columns, sizeof(float) * count);
      }
    }
    for (int t = 0; t < lane.rows; ++t) {
      const int row = lane.first_row + t;
      const bool begins = t == 0, ends = t + 1 == lane.rows;
      const bool from_block = begins && whole, to_block = ends && whole;
      const int64_t at = static_cast<int64_t>(head) * args.columns + first;
      const float* const x = RowAt(in, row) + at;
      float* const y = RowAt(out, row) + at;
      // Of the next but one row: a slice's lines of the input and of the result are alone on their pages.
      const int soon = std::min(row + 2, lane.first_row + lane.rows - 1) - row;
      for (int line = 0; line < kSlice; line += 16) {
        FetchFar(x + static_cast<int64_t>(soon) * in.stride + line);
        FetchToWrite(y + static_cast<int64_t>(soon) * out.stride + line);
      }
      HWY_ALIGN float inputs[kSlice] = {}, results[kSlice];
      if (!whole) std::memcpy(inputs, x, sizeof(float) * count);
      step(SliceToken{head, row, whole ? x : inputs, whole ? y : results, from_block ? read : local, to_block ? write : local,
                      from_block ? args.columns : kSlice, to_block ? args.columns : kSlice, begins, ends, stream && ends, after});
      if (!whole) std::memcpy(y, results, sizeof(float) * count);
    }
    if (lane.rows == 0 || !whole) {
      for (int i = 0; i < args.rows; ++i) {
        std::memcpy(write + static_cast<int64_t>(i) * args.columns, local + i * kSlice, sizeof(float) * count);
      }
    }
  }
  if (stream) hwy::FlushStream();
}

}  // namespace HWY_NAMESPACE
}  // namespace reprise
HWY_AFTER_NAMESPACE();

#endif
