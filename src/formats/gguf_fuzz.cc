// libFuzzer: GGUF files that lie.
//
// Whatever Parse accepts is read whole: every key through every getter, every byte of every tensor, every row that can be dequantised.
// Written again by GgufWriter, it must parse again, and mean the same. The mutator makes sound files of random content now and then, and
// damages those, so that the fuzzer starts behind the first checks. Run: -DREPRISE_FUZZERS=ON with clang, better with
// -DREPRISE_SANITIZE=address,undefined; then gguf_fuzz CORPUS_FOLDER.
#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "formats/gguf.h"
#include "formats/gguf_writer.h"
#include "formats/quantize.h"

extern "C" size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t max_size);

namespace reprise {
namespace {

void Require(bool condition) {
  if (!condition) std::abort();
}

uint64_t sink;  // keeps reads from being optimised away

void ReadEntry(const GgufFile& file, const GgufEntry& entry) {
  const std::string_view key = entry.key;
  Require(file.FindEntry(key) == &entry);
  Require(file.GetUint(key).ok() == file.GetUintOr(key, 1).ok());
  Require(file.GetInt(key).ok() == file.GetIntOr(key, 1).ok());
  Require(file.GetFloat(key).ok() == file.GetFloatOr(key, 1).ok());
  Require(file.GetBool(key).ok() == file.GetBoolOr(key, true).ok());
  Require(file.GetString(key).ok() == file.GetStringOr(key, "").ok());
  Require(file.GetString(key).ok() == (entry.type == GgufType::kString));
  Require(file.GetBool(key).ok() == (entry.type == GgufType::kBool));
  sink += file.GetUints(key).ok() + file.GetInts(key).ok() + file.GetFloats(key).ok() + file.GetBools(key).ok();
  sink += file.GetUintPerLayer(key, 4, {1, 512}).ok();
  if (const auto strings = file.GetStrings(key); strings.ok()) {
    Require(strings->size() == entry.count);
    for (const std::string_view text : *strings) {
      for (const char c : text) sink += static_cast<unsigned char>(c);
    }
  }
  for (const char c : entry.ShortValue(40)) Require(c >= 0x20 && c <= 0x7e);
  sink += entry.TypeName().size();
}

void ReadTensor(const GgufFile& file, const GgufTensor& tensor) {
  Require(file.Find(tensor.name) == &tensor);
  Require(file.Require(tensor.name, {tensor.dims[0], tensor.dims[1], tensor.dims[2], tensor.dims[3]}).ok());
  Require(!file.Require(tensor.name, {tensor.dims[0] + 1}).ok());
  Require(*TensorBytes(tensor.type, tensor.dims[0], tensor.rows()) == tensor.data.size());
  for (const std::byte b : tensor.data) sink += static_cast<uint64_t>(b);
  if (!CanDequantize(tensor.type)) return;
  std::vector<float> row(tensor.dims[0]);
  const size_t row_bytes = tensor.data.size() / tensor.rows();
  for (uint64_t r = 0; r < tensor.rows(); ++r) Require(DequantizeRow(tensor.type, tensor.data.subspan(r * row_bytes, row_bytes), row).ok());
}

template <class T>
void CopyNumber(GgufWriter& out, const GgufEntry& entry) {
  std::vector<T> values(entry.count);
  if (entry.count > 0) std::memcpy(values.data(), entry.values, entry.count * sizeof(T));
  if (entry.type == GgufType::kArray) {
    out.Numbers<T>(entry.key, values);
  } else {
    out.Number<T>(entry.key, values[0]);
  }
}

void CopyEntry(GgufWriter& out, const GgufFile& file, const GgufEntry& entry) {
  const bool array = entry.type == GgufType::kArray;
  switch (entry.element_type) {
    case GgufType::kUint8: return CopyNumber<uint8_t>(out, entry);
    case GgufType::kInt8: return CopyNumber<int8_t>(out, entry);
    case GgufType::kUint16: return CopyNumber<uint16_t>(out, entry);
    case GgufType::kInt16: return CopyNumber<int16_t>(out, entry);
    case GgufType::kUint32: return CopyNumber<uint32_t>(out, entry);
    case GgufType::kInt32: return CopyNumber<int32_t>(out, entry);
    case GgufType::kFloat32: return CopyNumber<float>(out, entry);
    case GgufType::kUint64: return CopyNumber<uint64_t>(out, entry);
    case GgufType::kInt64: return CopyNumber<int64_t>(out, entry);
    case GgufType::kFloat64: return CopyNumber<double>(out, entry);
    case GgufType::kBool: {
      if (!array) return void(out.Bool(entry.key, *file.GetBool(entry.key)));
      const auto values = *file.GetBools(entry.key);
      return void(out.Bools(entry.key, std::vector<bool>(values.begin(), values.end())));
    }
    case GgufType::kString: {
      if (!array) return void(out.String(entry.key, *file.GetString(entry.key)));
      const auto values = *file.GetStrings(entry.key);
      return void(out.Strings(entry.key, std::vector<std::string>(values.begin(), values.end())));
    }
    case GgufType::kArray: std::abort();
  }
}

void WriteAndReadAgain(const GgufFile& file) {
  GgufWriter out;
  for (const GgufEntry& entry : file.metadata()) {
    if (entry.key != "general.alignment") CopyEntry(out, file, entry);
  }
  std::vector<std::span<const std::byte>> data;
  for (const GgufTensor& tensor : file.tensors()) {
    out.Tensor(tensor.name, tensor.type, {tensor.dims.begin(), tensor.dims.begin() + tensor.n_dims});
    data.push_back(tensor.data);
  }
  const auto bytes = out.ToBytes(data);
  Require(bytes.ok());
  const auto again = GgufFile::Parse(*bytes);
  Require(again.ok());
  Require(again->tensors().size() == file.tensors().size());
  for (size_t i = 0; i < data.size(); ++i) {
    const GgufTensor& tensor = again->tensors()[i];
    Require(tensor.name == file.tensors()[i].name && tensor.type == file.tensors()[i].type && tensor.dims == file.tensors()[i].dims);
    Require(std::ranges::equal(tensor.data, data[i]));
  }
  for (const GgufEntry& entry : file.metadata()) {
    if (entry.key == "general.alignment") continue;
    const GgufEntry* copy = again->FindEntry(entry.key);
    Require(copy != nullptr && copy->TypeName() == entry.TypeName() && copy->ShortValue(400) == entry.ShortValue(400));
  }
}

// Sound files of random content.
class FileMaker {
 public:
  explicit FileMaker(uint64_t seed) : state_(seed * 0x9e3779b97f4a7c15 + 1) {}

  std::vector<std::byte> Make() {
    constexpr uint64_t kAlignments[] = {8, 32, 32, 64};
    GgufWriter out(kAlignments[Below(4)]);
    for (uint64_t i = 0, n = Below(8); i < n; ++i) AddKey(out, fmt::format("key.{}", i));
    std::vector<std::vector<std::byte>> data;
    for (uint64_t i = 0, n = Below(4); i < n; ++i) {
      const TensorTypeTraits& t = TensorTypes()[Below(TensorTypes().size())];
      std::vector<uint64_t> dims = {t.block_elements * (1 + Below(2))};
      while (dims.size() < 4 && Below(2) == 0) dims.push_back(1 + Below(3));
      out.Tensor(fmt::format("t{}", i), t.type, dims);
      data.emplace_back(out.tensors().back().bytes);
      for (std::byte& b : data.back()) b = static_cast<std::byte>(Below(256));
    }
    auto bytes = out.ToBytes(std::vector<std::span<const std::byte>>(data.begin(), data.end()));
    Require(bytes.ok());
    return *std::move(bytes);
  }

 private:
  uint64_t Below(uint64_t n) {
    state_ = state_ * 6364136223846793005 + 1442695040888963407;
    return (state_ >> 33) % n;
  }
  std::string Word() {
    std::string word;
    for (uint64_t i = 0, n = Below(6); i < n; ++i) word += static_cast<char>(Below(256));
    return word;
  }
  void AddKey(GgufWriter& out, const std::string& key) {
    switch (Below(8)) {
      case 0: out.Number<uint32_t>(key, static_cast<uint32_t>(Below(600))); break;
      case 1: out.Number<int64_t>(key, static_cast<int64_t>(Below(100)) - 50); break;
      case 2: out.Number<float>(key, static_cast<float>(Below(100)) / 8); break;
      case 3: out.Bool(key, Below(2) == 0); break;
      case 4: out.String(key, Word()); break;
      case 5: out.Strings(key, std::vector<std::string>{Word(), Word(), Word()}); break;
      case 6: out.Numbers<int16_t>(key, std::vector<int16_t>(Below(5), 7)); break;
      case 7: out.Bools(key, std::vector<bool>(Below(5), true)); break;
    }
  }

  uint64_t state_;
};

}  // namespace
}  // namespace reprise

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size, unsigned seed) {
  if (seed % 16 == 0) {
    const auto file = reprise::FileMaker(seed).Make();
    size = std::min(file.size(), max_size);
    std::memcpy(data, file.data(), size);
    if (seed % 32 == 0) return size;
  }
  return LLVMFuzzerMutate(data, size, max_size);
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto file = reprise::GgufFile::Parse(std::as_bytes(std::span(data, size)));
  if (!file.ok()) {
    reprise::Require(!file.status().message().empty());
    return 0;
  }
  for (const reprise::GgufEntry& entry : file->metadata()) reprise::ReadEntry(*file, entry);
  for (const reprise::GgufTensor& tensor : file->tensors()) reprise::ReadTensor(*file, tensor);
  reprise::WriteAndReadAgain(*file);
  return 0;
}
