// One test for each way in which a GGUF file has been known to lie: an error that names the lie, and no access outside the bytes (the
// sanitizer builds watch). The fuzzer (gguf_fuzz.cc) looks for the ways that nobody has thought of.
#include <gtest/gtest.h>

#include <fstream>
#include <limits>

#include "formats/gguf.h"
#include "formats/gguf_test_support.h"
#include "formats/gguf_writer.h"

namespace reprise {
namespace {

constexpr uint64_t kHuge = std::numeric_limits<uint64_t>::max();

// Parses a copy of exactly these bytes on the heap, so that a read past the end is seen by the address sanitizer.
Status ParseError(const std::vector<std::byte>& bytes) {
  const std::vector<std::byte> exact(bytes.begin(), bytes.end());
  const auto file = GgufFile::Parse(exact);
  return file.ok() ? Ok() : file.status();
}

#define EXPECT_REFUSED(bytes, expected_code, words)                               \
  do {                                                                            \
    const Status error = ParseError(bytes);                                       \
    EXPECT_EQ(error.code(), expected_code) << error.message();                    \
    EXPECT_NE(error.message().find(words), std::string::npos) << error.message(); \
  } while (false)

std::vector<std::byte> OneTensor(const std::vector<uint64_t>& dims, uint32_t type, uint64_t offset, size_t data_bytes) {
  return RawGguf(1, 0).Tensor("w", dims, type, offset).PadTo(32).Zeros(data_bytes).bytes();
}

TEST(GgufHostile, TheHelperMakesSoundFiles) { EXPECT_TRUE(ParseError(OneTensor({32, 2}, kQ8_0Id, 0, 68)).ok()); }

TEST(GgufHostile, EmptyForeignAndTruncatedFiles) {
  EXPECT_REFUSED({}, StatusCode::kCorrupt, "the GGUF magic");
  EXPECT_REFUSED(RawGguf(0, 0, "ggjt").bytes(), StatusCode::kCorrupt, "begins with 'ggjt'");
  EXPECT_REFUSED(RawGguf(0, 0, std::string_view("\x1b[2J", 4)).bytes(), StatusCode::kCorrupt, "'\\x1b[2J'");
  EXPECT_REFUSED(RawGguf(0, 0, "GGUF", 1).bytes(), StatusCode::kUnsupported, "version 1 is unknown");
  EXPECT_REFUSED(RawGguf(0, 0, "GGUF", 4).bytes(), StatusCode::kUnsupported, "version 4 is unknown");
  EXPECT_REFUSED(RawGguf(0, 0, "GGUF", 0x03000000).bytes(), StatusCode::kUnsupported, "big-endian");
}

// Every prefix of a file with a bit of everything is refused, and none reads past its end.
TEST(GgufHostile, EveryPrefixIsRefused) {
  GgufWriter writer;
  writer.String("general.architecture", "llama").Number<uint16_t>("a.small", 7).Bools("a.bools", {true, false});
  writer.Strings("a.words", std::vector<std::string>{"one", "", "three"}).Numbers<float>("a.floats", std::vector<float>{1, 2, 3});
  writer.Tensor("x.weight", TensorType::kQ8_0, {64, 3}).Tensor("x.bias", TensorType::kF32, {3});
  const std::vector<std::byte> x(3 * 68), bias(12);
  const auto bytes = writer.ToBytes(std::vector<std::span<const std::byte>>{x, bias});
  ASSERT_TRUE(bytes.ok()) << bytes.status().message();
  ASSERT_TRUE(ParseError(*bytes).ok());
  const size_t end_of_data = bytes->size() - 20;  // 12 bytes of bias, padded to 32
  for (size_t size = 0; size < bytes->size(); ++size) {
    const bool whole = size >= end_of_data;  // the last padding may be missing
    EXPECT_EQ(ParseError({bytes->begin(), bytes->begin() + static_cast<ptrdiff_t>(size)}).ok(), whole) << size;
  }
}

TEST(GgufHostile, CountsBeyondTheFile) {
  EXPECT_REFUSED(RawGguf(kHuge, 0).bytes(), StatusCode::kCorrupt, "claims 18446744073709551615 tensors");
  EXPECT_REFUSED(RawGguf(0, kHuge).bytes(), StatusCode::kCorrupt, "claims 18446744073709551615 keys");
  EXPECT_REFUSED(RawGguf(kHuge / 33 + 2, 0).bytes(), StatusCode::kCorrupt, "tensors");  // the product with an entry's size wraps
  EXPECT_REFUSED(RawGguf(0, 2).Uint32Key("a", 1).Zeros(13).bytes(), StatusCode::kCorrupt, "key 1");
  EXPECT_REFUSED(RawGguf(0, 1 << 17).Zeros(2 << 20).bytes(), StatusCode::kUnsupported, "at most 65536");
}

TEST(GgufHostile, StringsAndArraysBeyondTheFile) {
  EXPECT_REFUSED(RawGguf(0, 1).Put(kHuge).Zeros(64).bytes(), StatusCode::kCorrupt, "18446744073709551615 bytes; 1 to 65535");
  EXPECT_REFUSED(RawGguf(0, 1).Put(uint64_t{200}).Zeros(64).bytes(), StatusCode::kCorrupt, "key 0");
  const auto value = [](GgufType type) { return RawGguf(0, 1).Text("k").Put(type); };
  EXPECT_REFUSED(value(GgufType::kString).Put(kHuge).Zeros(16).bytes(), StatusCode::kCorrupt, "key 'k': string 0 at byte 37 claims");
  EXPECT_REFUSED(value(GgufType::kString).Put(kHuge - 7).Zeros(16).bytes(), StatusCode::kCorrupt, "16 remain");  // size + 8 wraps
  const auto array = [&](GgufType type, uint64_t count) { return value(GgufType::kArray).Put(type).Put(count).Zeros(64); };
  EXPECT_REFUSED(array(GgufType::kUint8, 65).bytes(), StatusCode::kCorrupt, "its 65 values of uint8");
  EXPECT_REFUSED(array(GgufType::kUint64, (kHuge >> 3) + 2).bytes(), StatusCode::kCorrupt, "values of uint64");  // x 8 wraps to 8
  EXPECT_REFUSED(array(GgufType::kString, 9).bytes(), StatusCode::kCorrupt, "its 9 strings");
  EXPECT_REFUSED(array(GgufType::kString, kHuge / 2).bytes(), StatusCode::kCorrupt, "strings");
  EXPECT_REFUSED(value(GgufType::kUint64).Zeros(7).bytes(), StatusCode::kCorrupt, "its 1 values of uint64");
}

TEST(GgufHostile, TypesOutOfRangeOrNested) {
  const auto value = [](uint32_t type) { return RawGguf(0, 1).Text("k").Put(type).Zeros(64); };
  EXPECT_REFUSED(value(13).bytes(), StatusCode::kCorrupt, "key 'k': value type id 13 at byte 33 is unknown");
  EXPECT_REFUSED(value(0xffffffff).bytes(), StatusCode::kCorrupt, "value type id 4294967295");
  EXPECT_REFUSED(RawGguf(0, 1).Text("k").Put(GgufType::kArray).Put(GgufType::kArray).Put(kHuge).Zeros(64).bytes(), StatusCode::kUnsupported,
                 "array of arrays");
  EXPECT_REFUSED(RawGguf(0, 1).Text("k").Put(GgufType::kBool).Put(uint8_t{2}).Zeros(64).bytes(), StatusCode::kCorrupt, "a bool is 2");
  for (const uint32_t id : {4u, 5u, 9u, 15u, 31u, 38u, 40u, 0xffffffffu}) {
    EXPECT_REFUSED(OneTensor({32}, id, 0, 64), StatusCode::kUnsupported,
                   "tensor 'w': tensor type id " + std::to_string(id) + " is unknown");
  }
}

TEST(GgufHostile, DimensionsThatAreZeroOrOverflow) {
  EXPECT_REFUSED(OneTensor({}, kF32Id, 0, 64), StatusCode::kCorrupt, "tensor 'w': it has 0 dimensions");
  EXPECT_REFUSED(OneTensor({1, 1, 1, 1, 1}, kF32Id, 0, 64), StatusCode::kCorrupt, "it has 5 dimensions");
  EXPECT_REFUSED(OneTensor({32, 0}, kF32Id, 0, 64), StatusCode::kCorrupt, "dimension 1 is 0");
  EXPECT_REFUSED(OneTensor({kHuge, kHuge}, kF32Id, 0, 64), StatusCode::kCorrupt, "product of its dimensions overflows");
  EXPECT_REFUSED(OneTensor({1ull << 32, 1ull << 32}, kF32Id, 0, 64), StatusCode::kCorrupt, "product of its dimensions overflows");
  EXPECT_REFUSED(OneTensor({1ull << 63}, kF32Id, 0, 64), StatusCode::kCorrupt, "product of its dimensions overflows");  // negative as int64
  EXPECT_REFUSED(OneTensor({1ull << 62}, kF32Id, 0, 64), StatusCode::kCorrupt, "more bytes than 64 bits can count");
  EXPECT_REFUSED(OneTensor({1ull << 61}, kF32Id, 0, 64), StatusCode::kCorrupt, "end beyond the file");
  EXPECT_REFUSED(OneTensor({33}, kQ8_0Id, 0, 68), StatusCode::kCorrupt, "rows of 33 elements are no whole number of Q8_0 blocks of 32");
  EXPECT_REFUSED(OneTensor({16, 2}, kQ8_0Id, 0, 68), StatusCode::kCorrupt, "rows of 16 elements");  // whole in all, not by row
}

TEST(GgufHostile, Alignments) {
  const auto aligned = [](uint32_t alignment) { return RawGguf(0, 1).Uint32Key("general.alignment", alignment).Zeros(64).bytes(); };
  for (const uint32_t alignment : {0u, 1u, 4u, 24u, 33u, 131072u, 0x80000000u, 0xffffffffu}) {
    EXPECT_REFUSED(aligned(alignment), StatusCode::kCorrupt, "'general.alignment' is " + std::to_string(alignment));
  }
  EXPECT_REFUSED(RawGguf(0, 1).Text("general.alignment").Put(GgufType::kUint64).Put(kHuge).bytes(), StatusCode::kCorrupt,
                 "general.alignment");
  EXPECT_REFUSED(RawGguf(0, 1).Text("general.alignment").Put(GgufType::kInt32).Put(-32).bytes(), StatusCode::kCorrupt, "is -32");
  EXPECT_REFUSED(RawGguf(0, 1).Text("general.alignment").Put(GgufType::kString).Put(uint64_t{0}).bytes(), StatusCode::kCorrupt,
                 "is string; an integer was expected");
}

TEST(GgufHostile, OffsetsThatOverlapLeaveGapsOrWrap) {
  const auto two = [](uint64_t first, uint64_t second) {
    return RawGguf(2, 0).Tensor("a", {16}, kF32Id, first).Tensor("b", {16}, kF32Id, second).PadTo(32).Zeros(256).bytes();
  };
  EXPECT_REFUSED(two(0, 0), StatusCode::kCorrupt, "tensor 'b': its data starts at offset 0 of the data section; 64 was expected");
  EXPECT_REFUSED(two(0, 32), StatusCode::kCorrupt, "offset 32");
  EXPECT_REFUSED(two(0, 96), StatusCode::kCorrupt, "offset 96");
  EXPECT_REFUSED(two(64, 0), StatusCode::kCorrupt, "tensor 'a': its data starts at offset 64");
  EXPECT_REFUSED(two(0, 65), StatusCode::kCorrupt, "offset 65");
  EXPECT_REFUSED(two(0, kHuge - 31), StatusCode::kCorrupt, "offset 18446744073709551584");
}

TEST(GgufHostile, DataBeyondTheFileAndBytesAfterIt) {
  EXPECT_REFUSED(OneTensor({16}, kF32Id, 0, 63), StatusCode::kCorrupt, "tensor 'w' lies at bytes 64 to 128, but the file has 127");
  EXPECT_REFUSED(OneTensor({1024}, kF32Id, 0, 64), StatusCode::kCorrupt, "end beyond the file");
  EXPECT_TRUE(ParseError(OneTensor({3}, kF32Id, 0, 12)).ok());
  EXPECT_TRUE(ParseError(OneTensor({3}, kF32Id, 0, 32)).ok());
  EXPECT_REFUSED(OneTensor({3}, kF32Id, 0, 33), StatusCode::kCorrupt, "21 bytes follow the end of the data at byte 76");
  EXPECT_REFUSED(RawGguf(0, 0).Zeros(9).bytes(), StatusCode::kCorrupt, "9 bytes follow");
}

TEST(GgufHostile, TwoReadingsOfOneFile) {
  EXPECT_REFUSED(RawGguf(0, 3).Uint32Key("k", 1).Uint32Key("a", 1).Uint32Key("k", 2).bytes(), StatusCode::kCorrupt, "key 'k' occurs twice");
  EXPECT_REFUSED(RawGguf(2, 0).Tensor("w", {8}, kF32Id, 0).Tensor("w", {8}, kF32Id, 32).PadTo(32).Zeros(64).bytes(), StatusCode::kCorrupt,
                 "tensor 'w' occurs twice");
}

TEST(GgufHostile, NamesThatAreEmptyLongOrUnprintable) {
  EXPECT_REFUSED(RawGguf(0, 1).Uint32Key("", 1).bytes(), StatusCode::kCorrupt, "key 0 at byte 24 has 0 bytes");
  EXPECT_REFUSED(RawGguf(0, 1).Uint32Key(std::string(70000, 'k'), 1).bytes(), StatusCode::kCorrupt, "has 70000 bytes; 1 to 65535");
  EXPECT_REFUSED(RawGguf(0, 1).Uint32Key(std::string_view("a\0b", 3), 1).bytes(), StatusCode::kCorrupt, "not printable ASCII: 'a\\x00b'");
  EXPECT_REFUSED(RawGguf(0, 1).Uint32Key("\x1b]0;owned\x07", 1).bytes(), StatusCode::kCorrupt, "'\\x1b]0;owned\\x07'");
  const auto named = [](std::string_view name) { return RawGguf(1, 0).Tensor(name, {8}, kF32Id, 0).PadTo(32).Zeros(32).bytes(); };
  EXPECT_TRUE(ParseError(named(std::string(64, 'w'))).ok());
  EXPECT_REFUSED(named(std::string(65, 'w')), StatusCode::kCorrupt, "the name of tensor 0");
  EXPECT_REFUSED(named(""), StatusCode::kCorrupt, "has 0 bytes");
  EXPECT_REFUSED(named("w\n"), StatusCode::kCorrupt, "'w\\x0a'");
}

TEST(GgufHostile, AFileThatIsNone) {
  EXPECT_EQ(GgufFile::Open("/nonexistent/model.gguf").status().code(), StatusCode::kNotFound);
  EXPECT_EQ(GgufFile::Open("/").status().code(), StatusCode::kInvalidArgument);
  const std::string path = testing::TempDir() + "gguf_hostile_empty.gguf";
  std::ofstream(path).flush();
  const Status error = GgufFile::Open(path).status();
  EXPECT_EQ(error.code(), StatusCode::kCorrupt);
  EXPECT_NE(error.message().find("gguf_hostile_empty.gguf'"), std::string::npos) << error.message();
  std::remove(path.c_str());
}

}  // namespace
}  // namespace reprise
