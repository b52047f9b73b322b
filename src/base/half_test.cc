#include "base/half.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace reprise {
namespace {

static_assert(FloatToHalf(1.0f) == 0x3c00);
static_assert(HalfToFloat(0x3c00) == 1.0f);
static_assert(HalfToFloat(0x0001) == 0x1p-24f);
static_assert(FloatToBFloat16(1.0f) == 0x3f80);

bool IsHalfNan(uint16_t half) { return (half & 0x7fff) > 0x7c00; }

TEST(Half, EveryHalfSurvivesTheRoundTrip) {
  for (uint32_t bits = 0; bits <= 0xffff; ++bits) {
    const auto half = static_cast<uint16_t>(bits);
    const float value = HalfToFloat(half);
    if (IsHalfNan(half)) {
      EXPECT_TRUE(std::isnan(value)) << bits;
      EXPECT_EQ(FloatToHalf(value), half | 0x200) << bits;
    } else {
      EXPECT_EQ(FloatToHalf(value), half) << bits;
    }
  }
}

// Between two neighbouring halves: below the middle goes down, above it up, the middle itself to the even one.
TEST(Half, RoundsToNearestEven) {
  for (uint32_t bits = 0; bits < 0x7c00; ++bits) {
    const auto low = static_cast<uint16_t>(bits);
    const auto high = static_cast<uint16_t>(bits + 1);
    const float above = high == 0x7c00 ? 65536.0f : HalfToFloat(high);
    const float middle = (HalfToFloat(low) + above) / 2;  // exact: one more bit of precision than a half
    const uint16_t even = bits % 2 == 0 ? low : high;
    EXPECT_EQ(FloatToHalf(middle), even) << bits;
    EXPECT_EQ(FloatToHalf(std::nextafter(middle, 0.0f)), low) << bits;
    EXPECT_EQ(FloatToHalf(std::nextafter(middle, above)), high) << bits;
    EXPECT_EQ(FloatToHalf(-middle), even | 0x8000) << bits;
  }
}

TEST(Half, OverflowsToInfinityAndUnderflowsToZero) {
  const float infinity = std::numeric_limits<float>::infinity();
  EXPECT_EQ(FloatToHalf(infinity), 0x7c00);
  EXPECT_EQ(FloatToHalf(-infinity), 0xfc00);
  EXPECT_EQ(FloatToHalf(std::numeric_limits<float>::max()), 0x7c00);
  EXPECT_EQ(FloatToHalf(std::numeric_limits<float>::denorm_min()), 0);
  EXPECT_EQ(FloatToHalf(-0.0f), 0x8000);
  EXPECT_TRUE(IsHalfNan(FloatToHalf(std::numeric_limits<float>::quiet_NaN())));
  EXPECT_TRUE(IsHalfNan(FloatToHalf(std::bit_cast<float>(0x7f800001u)))) << "a payload in the bits that are cut off stays a NaN";
}

TEST(BFloat16, RoundTripsAndRoundsToNearestEven) {
  for (uint32_t bits = 0; bits <= 0xffff; ++bits) {
    const auto b = static_cast<uint16_t>(bits);
    const float value = BFloat16ToFloat(b);
    EXPECT_EQ(FloatToBFloat16(value), std::isnan(value) ? b | 0x40 : b) << bits;
  }
  for (uint32_t bits = 0; bits < 0x7f80; ++bits) {
    const uint32_t middle = bits << 16 | 0x8000;
    EXPECT_EQ(FloatToBFloat16(std::bit_cast<float>(middle)), bits % 2 == 0 ? bits : bits + 1);
    EXPECT_EQ(FloatToBFloat16(std::bit_cast<float>(middle - 1)), bits);
    EXPECT_EQ(FloatToBFloat16(std::bit_cast<float>(middle + 1)), bits + 1);
  }
}

}  // namespace
}  // namespace reprise
