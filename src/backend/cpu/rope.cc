// Rotary positions, with the RMS norm of a head that comes before them in some models.

// clang-format off
#include "backend/cpu/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backend/cpu/rope.cc"
#include "hwy/foreach_target.h"
// clang-format on

#include <algorithm>
#include <cmath>
#include <limits>

#include "backend/cpu/dispatch.h"
#include "backend/cpu/kernels.h"
#include "backend/cpu/math-inl.h"
#include "backend/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace reprise {
namespace HWY_NAMESPACE {

Split SplitNormRope(const NormRopeArgs& args) {
  return EvenSplit(int64_t{args.heads.count} * RowCount(*args.table, args.heads.rows), args.heads.width * 0.3 + 10);
}

// The rotation rounds each product and the difference by itself, which is the same on every machine.
void NormRope(const NormRopeArgs& args, int64_t first, int64_t last, int) {
  const int width = args.heads.width, half = args.dims / 2;
  for (int64_t item = first; item < last; ++item) {
    const int row = static_cast<int>(item / args.heads.count), head = static_cast<int>(item % args.heads.count);
    float* x = RowAt(args.heads.rows, row) + static_cast<int64_t>(head) * args.heads.stride;
    if (args.weight) {
      Floats squares = Zeros();
      for (int i = 0; i < width; i += 16) {
        const Floats v = LoadFirst(x + i, width - i);
        squares = MulAdd(v, v, squares);
      }
      const Floats factor = Set(1.0f / std::sqrt(Sum(squares) / static_cast<float>(width) + args.eps));
      for (int i = 0; i < width; i += 16) {
        StoreFirst(Mul(Mul(LoadFirst(x + i, width - i), factor), LoadFirst(args.weight + i, width - i)), x + i, width - i);
      }
    }
    const float* cosine = args.angles + static_cast<int64_t>(row) * args.dims;
    const float* sine = cosine + half;
    if (args.interleaved) {
      for (int i = 0; i < half; ++i) {
        const float a = x[2 * i], b = x[2 * i + 1];
        x[2 * i] = a * cosine[i] - b * sine[i];
        x[2 * i + 1] = b * cosine[i] + a * sine[i];
      }
    } else {
      for (int i = 0; i < half; i += 16) {
        const int count = half - i;
        const Floats a = LoadFirst(x + i, count), b = LoadFirst(x + half + i, count);
        const Floats c = LoadFirst(cosine + i, count), s = LoadFirst(sine + i, count);
        StoreFirst(Sub(Mul(a, c), Mul(b, s)), x + i, count);
        StoreFirst(Add(Mul(b, c), Mul(a, s)), x + half + i, count);
      }
    }
  }
}

void AddRope(KernelTable& table) { table.norm_rope = {RunUntyped<NormRopeArgs, NormRope>, SplitUntyped<NormRopeArgs, SplitNormRope>}; }

}  // namespace HWY_NAMESPACE
}  // namespace reprise
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace reprise {
void AddRope(int64_t target, KernelTable& table) { REPRISE_DISPATCH(target, AddRope(table)) }
}  // namespace reprise
#endif
