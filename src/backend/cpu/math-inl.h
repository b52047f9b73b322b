// exp, sigmoid, SiLU, GELU and softplus on 16 lanes. Every lane is computed alike, so that a value never depends on its place in a vector.
#if defined(REPRISE_BACKEND_CPU_MATH_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef REPRISE_BACKEND_CPU_MATH_INL_H_
#undef REPRISE_BACKEND_CPU_MATH_INL_H_
#else
#define REPRISE_BACKEND_CPU_MATH_INL_H_
#endif

#include "backend/cpu/simd-inl.h"
#include "backend/ops.h"

HWY_BEFORE_NAMESPACE();
namespace reprise {
namespace HWY_NAMESPACE {

// Within 2 units in the last place; 0 below -87.3 (results that would be subnormal), infinity above 88.72, NaN for NaN.
HWY_INLINE hn::Vec<TagF> ExpPart(hn::Vec<TagF> x) {
  const auto set = [](float c) HWY_ATTR { return hn::Set(kTagF, c); };
  const auto clamped = hn::Min(hn::Max(x, set(-88.0f)), set(88.8f));
  // n, the nearest integer to x / ln 2: added to 1.5 * 2^23 it is the low bits of the sum.
  const auto shifted = hn::Add(hn::Mul(clamped, set(1.44269504f)), set(12582912.0f));
  const auto nf = hn::Sub(shifted, set(12582912.0f));
  // ln 2 in two parts: the first has 11 significant bits, so that its product with n is exact.
  auto r = hn::MulAdd(nf, set(-0.693359375f), clamped);
  r = hn::MulAdd(nf, set(2.12194440e-4f), r);
  // (exp(r) - 1 - r) / r^2 on [-ln2 / 2, ln2 / 2], interpolated at the Chebyshev nodes: 2.3e-10 relative in exact arithmetic.
  auto poly = set(1.9891030647e-4f);
  poly = hn::MulAdd(poly, r, set(1.3933685863e-3f));
  poly = hn::MulAdd(poly, r, set(8.3333108896e-3f));
  poly = hn::MulAdd(poly, r, set(4.1666464602e-2f));
  poly = hn::MulAdd(poly, r, set(1.6666666682e-1f));
  poly = hn::MulAdd(poly, r, set(5.0000000135e-1f));
  poly = hn::Add(hn::MulAdd(poly, hn::Mul(r, r), r), set(1.0f));
  // Times 2^n, by the exponent: within the bounds below it stays one of a normal number, because poly < 1 where n is 128, and > 1 where -126.
  auto y = hn::BitCast(kTagF, hn::Add(hn::BitCast(kTagI, poly), hn::ShiftLeft<23>(hn::BitCast(kTagI, shifted))));
  y = hn::IfThenElse(hn::Lt(x, set(-87.3f)), hn::Zero(kTagF), y);
  y = hn::IfThenElse(hn::Gt(x, set(88.72283f)), hn::Inf(kTagF), y);
  return hn::IfThenElse(hn::Eq(x, x), y, x);
}
HWY_INLINE Floats Exp(Floats x) {
  REPRISE_PARTS x.v[p] = ExpPart(x.v[p]);
  return x;
}
HWY_INLINE Floats Sigmoid(Floats x) { return Div(Set(1.0f), Add(Set(1.0f), Exp(Neg(x)))); }
HWY_INLINE Floats Silu(Floats x) { return Div(x, Add(Set(1.0f), Exp(Neg(x)))); }
// The form with a hyperbolic tangent: x sigmoid(2 sqrt(2 / pi) (x + 0.044715 x^3)).
HWY_INLINE Floats Gelu(Floats x) {
  const Floats bent = MulAdd(Mul(x, x), Set(-1.5957691216f * 0.044715f), Set(-1.5957691216f));
  return Div(x, Add(Set(1.0f), Exp(Mul(x, bent))));
}
// As Activation::kClampedSwiGlu says. A NaN stays one, which the machines' own minima do not all have so.
HWY_INLINE Floats ClampedSwiGlu(Floats gate, Floats up) {
  const auto most = hn::Set(kTagF, kClamp), least = hn::Set(kTagF, -kClamp);
  REPRISE_PARTS {
    gate.v[p] = hn::IfThenElse(hn::Gt(gate.v[p], most), most, gate.v[p]);
    up.v[p] = hn::IfThenElse(hn::Gt(up.v[p], most), most, hn::IfThenElse(hn::Lt(up.v[p], least), least, up.v[p]));
  }
  return Mul(Add(up, Set(1.0f)), Div(gate, Add(Set(1.0f), Exp(Mul(gate, Set(-kGateSlope))))));
}

// log(1 + exp(x)) = max(x, 0) + log1p(y), y = exp(-|x|) in (0, 1]; log1p(y) = 2 atanh(s), s = y / (2 + y) <= 1/3, by its series.
HWY_INLINE Floats Softplus(Floats x) {
  const Floats y = Exp(Neg(Abs(x)));
  const Floats s = Div(y, Add(Set(2.0f), y));
  const Floats z = Mul(s, s);
  Floats poly = Set(1.0f / 17);
  poly = MulAdd(poly, z, Set(1.0f / 15));
  poly = MulAdd(poly, z, Set(1.0f / 13));
  poly = MulAdd(poly, z, Set(1.0f / 11));
  poly = MulAdd(poly, z, Set(1.0f / 9));
  poly = MulAdd(poly, z, Set(1.0f / 7));
  poly = MulAdd(poly, z, Set(1.0f / 5));
  poly = MulAdd(poly, z, Set(1.0f / 3));
  poly = MulAdd(poly, z, Set(1.0f));
  return MulAdd(Add(s, s), poly, Max(x, Zeros()));
}

}  // namespace HWY_NAMESPACE
}  // namespace reprise
HWY_AFTER_NAMESPACE();

#endif
