#include "decode/generator.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "base/portable_exp.h"

namespace reprise {
namespace {

// The published known answers of philox4x32-10 (Random123, kat_vectors).
TEST(Philox, KnownAnswers) {
  EXPECT_EQ(Philox4x32({0, 0, 0, 0}, {0, 0}), (PhiloxBlock{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(Philox4x32({0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}, {0xffffffff, 0xffffffff}),
            (PhiloxBlock{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(Philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (PhiloxBlock{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(Generator, UniformFillsTheUnitIntervalEvenly) {
  Generator generator{12345, 0};
  std::vector<int> bins(100);
  constexpr int kDraws = 100000;
  for (int i = 0; i < kDraws; ++i) {
    const double u = generator.Uniform();
    ASSERT_GE(u, 0);
    ASSERT_LT(u, 1);
    ++bins[static_cast<size_t>(u * 100)];
  }
  EXPECT_EQ(generator.drawn, kDraws);
  double chi_square = 0;
  for (const int count : bins) chi_square += (count - 1000.0) * (count - 1000.0) / 1000.0;
  EXPECT_LT(chi_square, 148.2);  // 99 degrees of freedom: exceeded once in a thousand seeds
}

TEST(Generator, GoesOnFromItsTwoNumbersAlone) {
  Generator generator{~uint64_t{0}, ~uint64_t{0} - 3};  // across the counter's end too
  for (int i = 0; i < 8; ++i) {
    Generator copy{generator.seed, generator.drawn};
    EXPECT_EQ(copy.Uniform(), generator.Uniform());
  }
}

TEST(Generator, NeighbouringSeedsDrawDifferentStreams) {
  for (uint64_t seed = 0; seed < 100; ++seed) {
    Generator a{seed, 0};
    Generator b{seed + 1, 0};
    EXPECT_NE(a.Uniform(), b.Uniform());
  }
}

TEST(PortableExp, AgreesWithTheLibrary) {
  EXPECT_EQ(PortableExp(0), 1);
  for (int i = 0; i < 95000; ++i) {
    const double x = i * -0.00731;
    const double expected = std::exp(x);
    ASSERT_NEAR(PortableExp(x) / expected, 1, 5e-16) << x;
  }
}

// Pinned bits: a machine on which these differ would draw other tokens.
TEST(PortableExp, IsTheSameEverywhere) {
  EXPECT_EQ(PortableExp(-0.5), 0x1.368b2fc6f960ap-1);
  EXPECT_EQ(PortableExp(-1), 0x1.78b56362cef38p-2);
  EXPECT_EQ(PortableExp(-50), 0x1.d257d547e083fp-73);
}

}  // namespace
}  // namespace reprise
