#include "formats/gguf.h"

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <limits>

#include "formats/gguf_writer.h"

namespace reprise {
namespace {

// A file in memory with the metadata that `fill` adds.
class File {
 public:
  template <class Fill>
  explicit File(Fill fill) {
    GgufWriter writer;
    fill(writer);
    std::vector<std::vector<std::byte>> data;
    for (const GgufDeclaration& tensor : writer.tensors()) data.emplace_back(tensor.bytes, std::byte(data.size() + 1));
    auto bytes = writer.ToBytes(std::vector<std::span<const std::byte>>(data.begin(), data.end()));
    EXPECT_TRUE(bytes.ok()) << bytes.status().message();
    bytes_ = *std::move(bytes);
    EXPECT_EQ(bytes_.size(), writer.FileSize());
    auto parsed = GgufFile::Parse(bytes_);
    EXPECT_TRUE(parsed.ok()) << parsed.status().message();
    file_.emplace(*std::move(parsed));
  }
  const GgufFile& operator*() const { return *file_; }
  const GgufFile* operator->() const { return &*file_; }

 private:
  std::vector<std::byte> bytes_;
  std::optional<GgufFile> file_;
};

#define EXPECT_ERROR(result, expected_code, words)                                                      \
  do {                                                                                                  \
    const auto outcome = (result);                                                                      \
    EXPECT_FALSE(outcome.ok());                                                                         \
    EXPECT_EQ(outcome.status().code(), expected_code);                                                  \
    EXPECT_NE(outcome.status().message().find(words), std::string::npos) << outcome.status().message(); \
  } while (false)

TEST(Gguf, IntegersOfEveryTypeAreReadWhenTheyFit) {
  const File file([](GgufWriter& w) {
    w.Number<uint8_t>("u8", 200).Number<uint16_t>("u16", 60000).Number<uint32_t>("u32", 4000000000u).Number<uint64_t>("u64", UINT64_MAX);
    w.Number<int8_t>("i8", -1).Number<int16_t>("i16", 7).Number<int32_t>("i32", -70000).Number<int64_t>("i64", INT64_MIN);
  });
  EXPECT_EQ(*file->GetUint("u8"), 200u);
  EXPECT_EQ(*file->GetUint("u16"), 60000u);
  EXPECT_EQ(*file->GetUint("u32"), 4000000000u);
  EXPECT_EQ(*file->GetUint("u64"), UINT64_MAX);
  EXPECT_EQ(*file->GetUint("i16"), 7u);
  EXPECT_EQ(*file->GetInt("i8"), -1);
  EXPECT_EQ(*file->GetInt("i32"), -70000);
  EXPECT_EQ(*file->GetInt("i64"), INT64_MIN);
  EXPECT_EQ(*file->GetInt("u32"), 4000000000);
  EXPECT_ERROR(file->GetUint("i8"), StatusCode::kCorrupt, "key 'i8' is -1; at least 0 was expected");
  EXPECT_ERROR(file->GetInt("u64"), StatusCode::kCorrupt, "key 'u64' is 18446744073709551615, more than 63 bits hold");
  EXPECT_ERROR(file->GetUint("u16", {1, 512}), StatusCode::kCorrupt, "key 'u16' is 60000; 1 to 512 was expected");
  EXPECT_ERROR(file->GetUint("none"), StatusCode::kNotFound, "no key 'none'");
}

TEST(Gguf, FallbacksStandInForAbsentKeysOnly) {
  const File file([](GgufWriter& w) { w.String("text", "x").Number<int32_t>("negative", -5).Number<float>("nan", NAN).Bool("yes", true); });
  EXPECT_EQ(*file->GetUintOr("none", 9), 9u);
  EXPECT_EQ(*file->GetIntOr("none", -9), -9);
  EXPECT_EQ(*file->GetFloatOr("none", 0.5), 0.5);
  EXPECT_EQ(*file->GetBoolOr("none", true), true);
  EXPECT_EQ(*file->GetBoolOr("yes", false), true);
  EXPECT_EQ(*file->GetStringOr("none", "y"), "y");
  EXPECT_ERROR(file->GetUintOr("text", 9), StatusCode::kCorrupt, "key 'text' is string; an integer was expected");
  EXPECT_ERROR(file->GetUintOr("negative", 9), StatusCode::kCorrupt, "is -5");
  EXPECT_ERROR(file->GetIntOr("yes", 9), StatusCode::kCorrupt, "key 'yes' is bool");
  EXPECT_ERROR(file->GetFloatOr("nan", 1), StatusCode::kCorrupt, "key 'nan' is not a finite number");
  EXPECT_ERROR(file->GetFloatOr("negative", 1), StatusCode::kCorrupt, "a float was expected");
  EXPECT_ERROR(file->GetBoolOr("negative", true), StatusCode::kCorrupt, "a bool was expected");
  EXPECT_ERROR(file->GetStringOr("yes", "y"), StatusCode::kCorrupt, "a string was expected");
}

TEST(Gguf, FloatsStringsAndArrays) {
  const std::vector<std::string> words = {"plain", "", "caf\xc3\xa9", std::string("nul\0in", 6)};
  const File file([&](GgufWriter& w) {
    w.Number<float>("f32", 0.1f).Number<double>("f64", 1e-300).String("name", "a \xf0\x9f\x99\x82");
    w.Strings("words", words)
        .Numbers<int32_t>("ints", std::vector<int32_t>{1, -2, 3})
        .Numbers<float>("floats", std::vector<float>{0.5f, 2});
    w.Bools("bools", {true, false, true}).Numbers<uint8_t>("none", {}).Numbers<uint32_t>("heads", std::vector<uint32_t>{0, 2, 0});
    w.Numbers<float>("holes", std::vector<float>{1, std::numeric_limits<float>::infinity()});
  });
  EXPECT_EQ(*file->GetFloat("f32"), 0.1f);
  EXPECT_EQ(*file->GetFloat("f64"), 1e-300);
  EXPECT_EQ(*file->GetString("name"), "a \xf0\x9f\x99\x82");
  EXPECT_EQ(*file->GetStrings("words"), std::vector<std::string_view>(words.begin(), words.end()));
  EXPECT_EQ(*file->GetInts("ints"), (std::vector<int64_t>{1, -2, 3}));
  EXPECT_EQ(*file->GetFloats("floats"), (std::vector<double>{0.5, 2}));
  EXPECT_EQ(*file->GetBools("bools"), (std::vector<uint8_t>{1, 0, 1}));
  EXPECT_TRUE(file->GetStrings("none")->empty());
  EXPECT_TRUE(file->GetUints("none")->empty());
  EXPECT_EQ(*file->GetUintPerLayer("heads", 3), (std::vector<uint64_t>{0, 2, 0}));
  EXPECT_ERROR(file->GetUintPerLayer("heads", 4), StatusCode::kCorrupt, "is array of 3 uint32; an integer or an array of 4 was expected");
  EXPECT_ERROR(file->GetUintPerLayer("name", 4), StatusCode::kCorrupt, "an integer was expected");
  EXPECT_ERROR(file->GetUints("ints"), StatusCode::kCorrupt, "element 1 of key 'ints' is -2");
  EXPECT_ERROR(file->GetUints("heads", {0, 1}), StatusCode::kCorrupt, "element 1 of key 'heads' is 2; 0 to 1 was expected");
  EXPECT_ERROR(file->GetFloats("holes"), StatusCode::kCorrupt, "element 1 of key 'holes'");
  EXPECT_ERROR(file->GetFloats("words"), StatusCode::kCorrupt, "array of 4 string");
  EXPECT_ERROR(file->GetStrings("ints"), StatusCode::kCorrupt, "an array of strings was expected");
  EXPECT_ERROR(file->GetStrings("name"), StatusCode::kCorrupt, "an array was expected");
  EXPECT_ERROR(file->GetInt("ints"), StatusCode::kCorrupt, "an integer was expected");
  EXPECT_ERROR(file->GetString("words"), StatusCode::kCorrupt, "a string was expected");
}

TEST(Gguf, OneNumberStandsForAllLayers) {
  const File file([](GgufWriter& w) { w.Number<uint32_t>("heads", 8); });
  EXPECT_EQ(*file->GetUintPerLayer("heads", 3), (std::vector<uint64_t>{8, 8, 8}));
}

TEST(Gguf, TensorsAreFoundAndTheirShapesChecked) {
  const File file([](GgufWriter& w) {
    w.Tensor("z.weight", TensorType::kQ8_0, {64, 3}).Tensor("a.bias", TensorType::kF32, {5}).Tensor("c", TensorType::kF16, {4, 1, 2});
  });
  ASSERT_EQ(file->tensors().size(), 3u);
  EXPECT_EQ(file->tensors()[0].name, "z.weight");
  const GgufTensor* z = file->Find("z.weight");
  ASSERT_NE(z, nullptr);
  EXPECT_EQ(z->type, TensorType::kQ8_0);
  EXPECT_EQ(z->elements(), 192u);
  EXPECT_EQ(z->rows(), 3u);
  EXPECT_EQ(z->data.size(), 3u * 2 * 34);
  EXPECT_EQ(z->data.front(), std::byte{1});
  EXPECT_EQ(z->data.back(), std::byte{1});
  EXPECT_EQ(file->Find("a.bias")->data[19], std::byte{2});
  EXPECT_EQ((file->Find("c")->data.data() - file->bytes().data()) % 32, 0);
  EXPECT_EQ(file->Find("b"), nullptr);
  EXPECT_TRUE(file->Require("z.weight", {64, 3}).ok());
  EXPECT_TRUE(file->Require("z.weight", {64, 3, 1}).ok());
  EXPECT_TRUE(file->Require("c", {4, 1, 2, 1}).ok());
  EXPECT_ERROR(file->Require("z.weight", {3, 64}), StatusCode::kCorrupt, "tensor 'z.weight' is [64, 3]; [3, 64] was expected");
  EXPECT_ERROR(file->Require("a.bias", {5, 2}), StatusCode::kCorrupt, "is [5]; [5, 2] was expected");
  EXPECT_ERROR(file->Require("b", {1}), StatusCode::kNotFound, "no tensor 'b'");
}

TEST(Gguf, EntriesDescribeThemselves) {
  const File file([](GgufWriter& w) {
    w.Number<float>("f", 0.5f).String("s", "line\nbreak").Numbers<int16_t>("n", std::vector<int16_t>(1000, -3)).Bool("b", false);
    w.Strings("w", std::vector<std::string>{"x", "y"}).String("long", std::string(500, 'a'));
  });
  const auto show = [&](const char* key) { return file->FindEntry(key)->TypeName() + " " + file->FindEntry(key)->ShortValue(20); };
  EXPECT_EQ(show("f"), "float32 0.5");
  EXPECT_EQ(show("s"), "string \"line\\x0abreak\"");
  EXPECT_EQ(show("n"), "array of 1000 int16 [-3, -3, -3, -3, -3, ...]");
  EXPECT_EQ(show("b"), "bool false");
  EXPECT_EQ(show("w"), "array of 2 string [\"x\", \"y\"]");
  EXPECT_EQ(show("long"), "string \"aaaaaaaaaaaaaaaaaaaa...\"");
  EXPECT_EQ(file->metadata().size(), 6u);
}

TEST(GgufWriter, MistakesAreReported) {
  const auto error = [](auto fill) {
    GgufWriter writer;
    fill(writer);
    return writer.ToBytes({}).status().message();
  };
  EXPECT_EQ(error([](GgufWriter& w) { w.Bool("k", true).Bool("k", true); }), "key 'k' is given twice");
  EXPECT_EQ(error([](GgufWriter& w) { w.Bool("", true); }), "key '': a key is 1 to 65535 characters of printable ASCII");
  EXPECT_EQ(error([](GgufWriter& w) { w.Tensor("w", TensorType::kF32, {1}).Tensor("w", TensorType::kF32, {1}); }),
            "tensor 'w' is declared twice");
  EXPECT_EQ(error([](GgufWriter& w) {
              w.Tensor("w", TensorType::kF32, {1, 0});
            }),
            "tensor 'w': [1, 0] are not 1 to 4 dimensions of at least 1");
  EXPECT_EQ(error([](GgufWriter& w) { w.Tensor("w", TensorType::kQ4_0, {48}); }),
            "tensor 'w': rows of 48 elements are no whole number of Q4_0 blocks of 32");
  EXPECT_EQ(error([](GgufWriter& w) {
              w.Tensor("w", TensorType::kF32, {1ull << 40, 1ull << 40});
            }),
            "tensor 'w': 1099511627776 rows of 1099511627776 elements of F32 are more bytes than 64 bits can count");
  EXPECT_EQ(error([](GgufWriter& w) { w.Tensor("w", TensorType::kF32, {4}); }), "1 tensors were declared and the data of 0 given");
  EXPECT_EQ(GgufWriter(48).ToBytes({}).status().message(), "an alignment of 48 is no power of two from 8 to 65536");
}

class GgufStreamTest : public testing::Test {
 protected:
  std::string path_ = testing::TempDir() + "gguf_stream_test.gguf";
  void TearDown() override { std::filesystem::remove(path_); }
};

TEST_F(GgufStreamTest, PiecesOfAnySizeMakeTheSameFile) {
  for (const uint64_t alignment : {8u, 32u, 4096u}) {
    GgufWriter writer(alignment);
    writer.Tensor("a", TensorType::kF32, {3}).Tensor("b", TensorType::kF16, {5, 5}).Tensor("c", TensorType::kF32, {alignment});
    std::vector<std::byte> all;
    for (const GgufDeclaration& tensor : writer.tensors()) all.resize(all.size() + tensor.bytes);
    for (size_t i = 0; i < all.size(); ++i) all[i] = static_cast<std::byte>(i * 7 + 1);
    for (const size_t piece : {1, 7, 12, 13, 1000000}) {
      auto stream = writer.WriteTo(path_);
      ASSERT_TRUE(stream.ok()) << stream.status().message();
      for (size_t at = 0; at < all.size(); at += piece) {
        ASSERT_TRUE(stream->Append(std::span(all).subspan(at, std::min(piece, all.size() - at))).ok());
      }
      ASSERT_TRUE(stream->Finish().ok());
      const auto file = GgufFile::Open(path_);
      ASSERT_TRUE(file.ok()) << file.status().message();
      EXPECT_EQ(file->alignment(), alignment);
      EXPECT_EQ(file->bytes().size(), writer.FileSize());
      std::vector<std::byte> read;
      for (const GgufTensor& tensor : file->tensors()) read.insert(read.end(), tensor.data.begin(), tensor.data.end());
      EXPECT_EQ(read, all);
    }
  }
}

TEST_F(GgufStreamTest, TooLittleAndTooMuchDataAreRefusedAndLeaveNoFile) {
  GgufWriter writer;
  writer.Tensor("a", TensorType::kF32, {3});
  const std::vector<std::byte> data(13);
  {
    auto stream = writer.WriteTo(path_);
    ASSERT_TRUE(stream->Append(std::span(data).first(11)).ok());
    EXPECT_EQ(stream->Finish().message(), "tensor 'a' was declared with 12 bytes and given 11");
  }
  {
    auto stream = writer.WriteTo(path_);
    EXPECT_EQ(stream->Append(data).message(), "1 bytes more than the declared tensors hold");
  }
  EXPECT_FALSE(std::filesystem::exists(path_));
  EXPECT_EQ(writer.WriteTo("/nonexistent/file.gguf").status().code(), StatusCode::kNotFound);
}

TEST(TensorTypes, AreFoundByIdAndName) {
  for (const TensorTypeTraits& t : TensorTypes()) {
    EXPECT_EQ(*TensorTypeFromId(static_cast<uint32_t>(t.type)), t.type);
    EXPECT_EQ(*TensorTypeFromName(t.name), t.type);
    EXPECT_EQ(TensorTypeName(t.type), t.name);
  }
  EXPECT_EQ(*TensorTypeFromName("q4_k"), TensorType::kQ4_K);
  EXPECT_ERROR(TensorTypeFromName("q9_0"), StatusCode::kInvalidArgument, "'q9_0' is unknown");
  EXPECT_ERROR(TensorTypeFromId(1000), StatusCode::kUnsupported, "id 1000");
  EXPECT_EQ(*TensorBytes(TensorType::kQ6_K, 512, 3), 512u / 256 * 210 * 3);
}

}  // namespace
}  // namespace reprise
