// The gated delta rule, token by token. A unit is a slice of the value columns of one head of one lane: columns never meet.
//
// The pass over the slice that makes the update also forms S^T q, and S^T k of the token that follows. The slice stays in a buffer that
// fits the L1 cache through all of a lane's rows; the first token reads the block before the step, the last one writes the block after it.

// clang-format off
#include "backend/cpu/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backend/cpu/delta_net.cc"
#include "hwy/foreach_target.h"
// clang-format on

#include <algorithm>
#include <cmath>
#include <limits>

#include "backend/cpu/dispatch.h"
#include "backend/cpu/kernels.h"
#include "backend/cpu/math-inl.h"
#include "backend/cpu/simd-inl.h"
#include "hwy/cache_control.h"

HWY_BEFORE_NAMESPACE();
namespace reprise {
namespace HWY_NAMESPACE {

constexpr int kSlice = 32;  // columns of a unit: 128 x 32 floats are 16 KB

// q and k of a row, for one key head. Rows of a head follow one another, as a unit reads them.
float* UnitQk(const DeltaNetArgs& args, int head, int row) {
  return args.unit_qk + (static_cast<int64_t>(head) * args.table->rows + row) * 2 * args.shape.key_dim;
}

// Per row: q and k normalised by head, and the two gates of each value head.
Split SplitDeltaInputs(const DeltaNetArgs& args, int threads) {
  const Ops::DeltaNetShape& s = args.shape;
  return EvenSplit(args.table->rows, 2.0 * s.key_heads * s.key_dim * 0.1 + s.value_heads * 3, threads);
}
void DeltaInputs(const DeltaNetArgs& args, int64_t first, int64_t last, int) {
  const Ops::DeltaNetShape& s = args.shape;
  const float q_scale = 1.0f / std::sqrt(static_cast<float>(s.key_dim));
  for (int row = static_cast<int>(first); row < last; ++row) {
    const float* in = RowAt(args.qkv, row);
    for (int head = 0; head < 2 * s.key_heads; ++head, in += s.key_dim) {
      float* const out = UnitQk(args, head % s.key_heads, row) + (head < s.key_heads ? 0 : s.key_dim);
      Floats squares = Zeros();
      for (int i = 0; i < s.key_dim; i += 16) {
        const Floats x = LoadFirst(in + i, s.key_dim - i);
        squares = MulAdd(x, x, squares);
      }
      float factor = 1.0f / std::sqrt(Sum(squares) + 1e-6f);
      if (head < s.key_heads) factor *= q_scale;
      for (int i = 0; i < s.key_dim; i += 16) {
        StoreFirst(Mul(LoadFirst(in + i, s.key_dim - i), Set(factor)), out + i, s.key_dim - i);
      }
    }
    const float* alpha = RowAt(args.alpha, row);
    const float* beta = RowAt(args.beta, row);
    float* gates = args.gates + static_cast<int64_t>(row) * 2 * s.value_heads;
    for (int i = 0; i < s.value_heads; i += 16) {
      const int count = s.value_heads - i;
      const Floats step = Softplus(Add(LoadFirst(alpha + i, count), LoadFirst(args.dt + i, count)));
      StoreFirst(Exp(Mul(LoadFirst(args.a + i, count), step)), gates + i, count);
      StoreFirst(Sigmoid(LoadFirst(beta + i, count)), gates + s.value_heads + i, count);
    }
  }
}

// Sums over the inputs i of a slice go in four partial sums a column (i mod 4), joined at the end: one chain alone would wait four cycles
// for each addition.
template <int C>
struct Partial {
  Floats part[4][C];
  HWY_INLINE void Clear() {
    REPRISE_UNROLL for (int j = 0; j < 4; ++j) { REPRISE_UNROLL for (int c = 0; c < C; ++c) part[j][c] = Zeros(); }
  }
  HWY_INLINE Floats Total(int c) const { return Add(Add(part[0][c], part[1][c]), Add(part[2][c], part[3][c])); }
};

// Where the slice lies that comes after this one, to be fetched while this one is worked on: a row of a slice is too short, and too far from
// the next, for the machine to guess what follows. One line in each row of each of the two passes, so that requests come evenly.
struct NextSlice {
  const float* rows = nullptr;
  int64_t stride = 0;
  HWY_INLINE void Fetch(int row, int line) const {
    if (rows) FetchFar(rows + row * stride + line * 16);
  }
};

// seen = S^T k.
template <int C>
void ReadOut(const float* from, int64_t stride, int key_dim, const float* k, const NextSlice& after, Floats* seen) {
  Partial<C> sums;
  sums.Clear();
  int i = 0;
  const auto step = [&](int j) HWY_ATTR {
    after.Fetch(i + j, 0);
    const Floats key = Set(k[i + j]);
    REPRISE_UNROLL for (int c = 0; c < C; ++c) { sums.part[j][c] = MulAdd(key, Load(from + (i + j) * stride + c * 16), sums.part[j][c]); }
  };
  for (; i + 4 <= key_dim; i += 4) {
    step(0);
    step(1);
    step(2);
    step(3);
  }
  for (; i < key_dim; ++i) step(0);
  REPRISE_UNROLL for (int c = 0; c < C; ++c) seen[c] = sums.Total(c);
}

struct Token {
  const float* q;
  const float* k;
  const float* next_k;  // of the token that follows, where kNext
  const float* v;
  float* out;
  float gate, write;  // exp(g) and b
};

// One token on C vectors of columns: seen is S^T k before it. `from` and `to` may be the same place. With kNext the pass that writes S also
// forms S^T k of the token that follows, so that S is read once a token; the sums are those of ReadOut. With kStream S goes past the caches.
template <int C, bool kNext, bool kStream>
void UpdateSlice(const float* from, int64_t from_stride, float* to, int64_t to_stride, int key_dim, const Token& token,
                 const NextSlice& after, Floats* seen) {
  // In registers: for all that the compiler knows, a store to S might change `token`.
  const float* const k = token.k;
  const float* const q = token.q;
  const float* const next_k = token.next_k;
  Floats delta[C];
  const Floats decay = Set(token.gate);
  REPRISE_UNROLL for (int c = 0; c < C; ++c) { delta[c] = Mul(Set(token.write), Sub(Load(token.v + c * 16), Mul(decay, seen[c]))); }
  Partial<C> sums, next;
  sums.Clear();
  next.Clear();
  int i = 0;
  const auto step = [&](int j) HWY_ATTR {
    if constexpr (kStream) after.Fetch(i + j, 1);
    const Floats key = Set(k[i + j]), query = Set(q[i + j]);
    REPRISE_UNROLL for (int c = 0; c < C; ++c) {
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
  for (; i + 4 <= key_dim; i += 4) {
    step(0);
    step(1);
    step(2);
    step(3);
  }
  for (; i < key_dim; ++i) step(0);
  REPRISE_UNROLL for (int c = 0; c < C; ++c) {
    Store(sums.Total(c), token.out + c * 16);
    if constexpr (kNext) seen[c] = next.Total(c);
  }
}

// The step's states are too large to be in a cache when the next step reads them: they are fetched ahead and written past the caches, which
// saves reading the lines that are written. Every layer of a model has a state of this size and weights that are larger.
bool StreamsState(const DeltaNetArgs& args) {
  return args.state.bytes >= (size_t{256} << 10) && args.state.offset % 64 == 0 && args.shape.value_dim % kSlice == 0;
}

Split SplitDeltaNet(const DeltaNetArgs& args, int threads) {
  const Ops::DeltaNetShape& s = args.shape;
  const int lanes = args.table->lanes;
  if (lanes == 0) return {};
  const int64_t slices = (s.value_dim + kSlice - 1) / kSlice;
  const double token = s.key_dim * kSlice * 0.07;
  Split split = EvenSplit(lanes * slices * s.value_heads, token * args.table->rows / lanes + 200, threads);
  // The first slice of a run is not fetched ahead.
  if (StreamsState(args)) split.units = std::max<int64_t>(std::min<int64_t>(split.units, 2 * threads), split.units / 2);
  return split;
}

void DeltaNet(const DeltaNetArgs& args, int64_t first_item, int64_t last_item, int thread) {
  const Ops::DeltaNetShape& s = args.shape;
  const int64_t slices = (s.value_dim + kSlice - 1) / kSlice;
  const int keys = s.key_heads * s.key_dim;
  float* local = args.scratch + thread * args.scratch_floats;
  const bool stream = StreamsState(args);
  const auto place = [&](int64_t item) {  // of an item's slice in its block
    return item / slices % s.value_heads * s.key_dim * s.value_dim + item % slices * kSlice;
  };
  const auto before = [&](int64_t item) {
    const LaneBinding& lane = args.table->lane[static_cast<size_t>(item / slices / s.value_heads)];
    return reinterpret_cast<const float*>(lane.read + args.state.offset) + place(item);
  };
  for (int64_t item = first_item; item < last_item; ++item) {
    const int64_t unit = item / slices;
    const int first = static_cast<int>(item % slices) * kSlice, count = std::min(kSlice, s.value_dim - first);
    const int head = static_cast<int>(unit % s.value_heads);
    const LaneBinding& lane = args.table->lane[static_cast<size_t>(unit / s.value_heads)];
    const float* read = before(item);
    float* write = reinterpret_cast<float*>(lane.write + args.state.offset) + place(item);
    NextSlice after;
    if (stream && item + 1 < last_item) after = {before(item + 1), s.value_dim};
    if (lane.rows == 0 || count < kSlice) {
      // A narrow last slice runs in a padded buffer; a lane without rows only carries its state over.
      std::memset(local, 0, sizeof(float) * kSlice * s.key_dim);
      for (int i = 0; i < s.key_dim; ++i) {
        std::memcpy(local + i * kSlice, read + static_cast<int64_t>(i) * s.value_dim, sizeof(float) * count);
      }
    }
    constexpr int kVectors = kSlice / 16;
    Floats seen[kVectors];
    for (int t = 0; t < lane.rows; ++t) {
      const int row = lane.first_row + t;
      const bool begins = t == 0, ends = t + 1 == lane.rows, whole = count == kSlice;
      const float* gates = args.gates + static_cast<int64_t>(row) * 2 * s.value_heads;
      const float* q = UnitQk(args, head % s.key_heads, row);
      const float* v = RowAt(args.qkv, row) + 2 * keys + static_cast<int64_t>(head) * s.value_dim + first;
      float* out = RowAt(args.out, row) + static_cast<int64_t>(head) * s.value_dim + first;
      const float* from = begins && whole ? read : local;
      float* to = ends && whole ? write : local;
      const int64_t from_stride = begins && whole ? s.value_dim : kSlice, to_stride = ends && whole ? s.value_dim : kSlice;
      // Of the next but one row: a slice's lines of v and of the result are alone on their pages.
      const int soon = std::min(row + 2, lane.first_row + lane.rows - 1) - row;
      for (int line = 0; line < kSlice; line += 16) {
        FetchFar(v + static_cast<int64_t>(soon) * args.qkv.stride + line);
        FetchToWrite(out + static_cast<int64_t>(soon) * args.out.stride + line);
      }
      HWY_ALIGN float values[kSlice] = {}, results[kSlice];
      if (!whole) std::memcpy(values, v, sizeof(float) * count);
      const Token token{
          q, q + s.key_dim, q + 3 * s.key_dim, whole ? v : values, whole ? out : results, gates[head], gates[s.value_heads + head]};
      if (begins) ReadOut<kVectors>(from, from_stride, s.key_dim, token.k, after, seen);
      if (!ends) {
        UpdateSlice<kVectors, true, false>(from, from_stride, to, to_stride, s.key_dim, token, NextSlice{}, seen);
      } else if (stream) {
        UpdateSlice<kVectors, false, true>(from, from_stride, to, to_stride, s.key_dim, token, after, seen);
      } else {
        UpdateSlice<kVectors, false, false>(from, from_stride, to, to_stride, s.key_dim, token, NextSlice{}, seen);
      }
      if (!whole) std::memcpy(out, results, sizeof(float) * count);
    }
    if (lane.rows == 0 || count < kSlice) {
      for (int i = 0; i < s.key_dim; ++i) {
        std::memcpy(write + static_cast<int64_t>(i) * s.value_dim, local + i * kSlice, sizeof(float) * count);
      }
    }
  }
  if (stream) hwy::FlushStream();
}

void AddDeltaNet(KernelTable& table) {
  table.delta_inputs = {RunUntyped<DeltaNetArgs, DeltaInputs>, SplitUntyped<DeltaNetArgs, SplitDeltaInputs>};
  table.delta_net = {RunUntyped<DeltaNetArgs, DeltaNet>, SplitUntyped<DeltaNetArgs, SplitDeltaNet>};
}

}  // namespace HWY_NAMESPACE
}  // namespace reprise
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace reprise {
int64_t DeltaNetScratchFloats(const DeltaNetArgs& args) { return int64_t{args.shape.key_dim} * 32; }
void AddDeltaNet(int64_t target, KernelTable& table) { REPRISE_DISPATCH(target, AddDeltaNet(table)) }
}  // namespace reprise
#endif
