#include "reprise/layout.h"

#include <gtest/gtest.h>

#include <limits>

namespace reprise {
namespace {

TEST(LayoutTest, ABlockOfBytesIsOneElement) {
  StateLayout layout;
  const int k = layout.Append("k", ElementType::kQ8_0, {2, 8});
  ASSERT_TRUE(layout.Check().ok());
  EXPECT_EQ(layout[k].bytes, 2u * 8u * 34u);
}

TEST(LayoutTest, PlacesStatesOnAlignedOffsetsOfTheirSpace) {
  StateLayout layout;
  const int a = layout.Recurrent("a", ElementType::kF32, {3, 5});
  const int b = layout.Recurrent("b", ElementType::kBytes, {65});
  const int h = layout.Recurrent("h", ElementType::kI64, {}, Space::kHost);
  const int k = layout.Append("k", ElementType::kF16, {3});
  const int v = layout.Append("v", ElementType::kF16, {3});
  ASSERT_TRUE(layout.Check().ok());
  EXPECT_EQ(layout[a].bytes, 60u);
  EXPECT_EQ(layout[a].offset, 0u);
  EXPECT_EQ(layout[b].offset, 64u);
  EXPECT_EQ(layout[h].bytes, 8u);
  EXPECT_EQ(layout[h].offset, 0u);
  EXPECT_EQ(layout.block_bytes(Space::kDevice), 64u + 128u);
  EXPECT_EQ(layout.block_bytes(Space::kHost), 64u);
  EXPECT_EQ(layout[k].bytes, 6u);
  EXPECT_EQ(layout[v].offset, 384u);
  EXPECT_EQ(layout.extent_bytes(Space::kDevice), 768u);
  EXPECT_EQ(layout.extent_bytes(Space::kHost), 0u);
  EXPECT_EQ(layout.row_bytes(), 12u);
  EXPECT_EQ(layout.recurrent_bytes(), 60u + 65u + 8u);
  EXPECT_EQ(layout.Find("v"), v);
  EXPECT_EQ(layout.Find("w"), -1);
}

std::string Refusal(const StateLayout& layout) {
  EXPECT_FALSE(layout.Check().ok());
  EXPECT_EQ(layout.Check().code(), StatusCode::kInvalidArgument);
  return layout.Check().message();
}

TEST(LayoutTest, RefusesWhatCannotBe) {
  constexpr int64_t kMost = std::numeric_limits<int64_t>::max();
  for (const auto& shape :
       {std::vector<int64_t>{0}, {-1}, {4, 0, 4}, {kMost}, {kMost, kMost}, {int64_t{1} << 32, int64_t{1} << 32}, {int64_t{1} << 39}}) {
    StateLayout layout;
    layout.Recurrent("s", ElementType::kF32, shape);
    EXPECT_NE(Refusal(layout).find("'s'"), std::string::npos);
  }
  StateLayout rows;
  rows.Append("s", ElementType::kBytes, {int64_t{1} << 35});  // 64 rows of it pass the bound
  EXPECT_NE(Refusal(rows).find("2^40"), std::string::npos);

  StateLayout sum;
  for (int i = 0; i < 3; ++i) sum.Recurrent(std::string(1, static_cast<char>('0' + i)), ElementType::kBytes, {int64_t{1} << 39});
  EXPECT_NE(Refusal(sum).find("'2'"), std::string::npos);

  StateLayout twice;
  twice.Recurrent("s", ElementType::kF32, {1});
  twice.Append("s", ElementType::kF32, {1});
  EXPECT_NE(Refusal(twice).find("twice"), std::string::npos);

  for (const std::string& name :
       {std::string(), std::string("a b"), std::string("a\n"), std::string("\x1b[2J"), std::string(257, 'x'), std::string("a\0b", 3)}) {
    StateLayout layout;
    layout.Recurrent(name, ElementType::kF32, {1});
    const std::string message = Refusal(layout);
    for (const char c : message) EXPECT_TRUE(c >= ' ' && c < 127) << "a message must be fit for a terminal";
  }

  StateLayout dimensions;
  dimensions.Recurrent("s", ElementType::kF32, {1, 1, 1, 1, 1, 1, 1, 1, 1});
  EXPECT_NE(Refusal(dimensions).find("9 dimensions"), std::string::npos);

  StateLayout type;
  type.Recurrent("s", static_cast<ElementType>(99), {1});
  EXPECT_NE(Refusal(type).find("type"), std::string::npos);

  StateLayout many;
  for (size_t i = 0; i < kMaxStates; ++i) many.Recurrent(std::to_string(i), ElementType::kBytes, {1});
  EXPECT_TRUE(many.Check().ok());
  many.Recurrent("one.more", ElementType::kBytes, {1});
  EXPECT_NE(Refusal(many).find("4096"), std::string::npos);
}

TEST(LayoutTest, TheFirstViolationIsTheOneReported) {
  StateLayout layout;
  layout.Recurrent("first", ElementType::kF32, {0});
  layout.Recurrent("second", ElementType::kF32, {-4});
  EXPECT_NE(Refusal(layout).find("'first'"), std::string::npos);
}

TEST(LayoutTest, EqualityIsOfDeclarations) {
  const auto make = [](ElementType type, Space space, bool swap) {
    StateLayout layout;
    if (swap) layout.Append("b", ElementType::kF32, {2});
    layout.Recurrent("a", type, {2}, space);
    if (!swap) layout.Append("b", ElementType::kF32, {2});
    return layout;
  };
  const StateLayout base = make(ElementType::kF32, Space::kDevice, false);
  EXPECT_TRUE(base == make(ElementType::kF32, Space::kDevice, false));
  EXPECT_FALSE(base == make(ElementType::kI32, Space::kDevice, false));
  EXPECT_FALSE(base == make(ElementType::kF32, Space::kHost, false));
  EXPECT_FALSE(base == make(ElementType::kF32, Space::kDevice, true));
}

}  // namespace
}  // namespace reprise
