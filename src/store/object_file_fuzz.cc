// Hostile object files (docs/store_format.md). What the reader accepts is written again as the same bytes; what it refuses is refused with a sentence, and
// nothing is allocated by a size that the file does not have. Half of the inputs get their checksums made right, so that the checks behind them are reached.
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include "store/object_file.h"
#include "store/object_format.h"

namespace {

using namespace reprise;

void Require(bool condition) {
  if (!condition) std::abort();
}

class Bytes : public ReadableFile {
 public:
  explicit Bytes(std::vector<std::byte> bytes) : bytes_(std::move(bytes)) {}
  uint64_t size() const override { return bytes_.size(); }
  Status ReadAt(uint64_t offset, std::span<const std::span<std::byte>> into) override {
    for (const auto piece : into) {
      if (offset > bytes_.size() || piece.size() > bytes_.size() - offset) return Corrupt("the bytes end");
      if (!piece.empty()) std::memcpy(piece.data(), bytes_.data() + offset, piece.size());
      offset += piece.size();
    }
    return Ok();
  }
  using ReadableFile::ReadAt;

 private:
  std::vector<std::byte> bytes_;
};

class Sink : public WritableFile {
 public:
  Status Append(std::span<const std::byte> more) override {
    bytes.insert(bytes.end(), more.begin(), more.end());
    return Ok();
  }
  Status Sync() override { return Ok(); }
  std::vector<std::byte> bytes;
};

void Try(const std::vector<std::byte>& bytes) {
  auto reader = ObjectReader::Open(std::make_unique<Bytes>(bytes), "fuzz");
  if (!reader.ok()) {
    Require(!reader.status().message().empty());
    return;
  }
  Sink sink;
  auto writer = ObjectWriter::Start(reader->head(), sink);
  Require(writer.ok());
  for (size_t i = 0; i < reader->shape().sections.size(); ++i) {
    std::vector<std::byte> section(reader->shape().sections[i].bytes);
    const std::span<std::byte> piece(section);
    if (!reader->ReadSection(i, std::span(&piece, 1)).ok()) {
      Require(!reader->ScanSection(i, [](std::span<const std::byte>) { return Ok(); }).ok());
      return;
    }
    Require(writer->Write(section).ok());
  }
  const auto id = writer->Finish();
  Require(id.ok() && sink.bytes == bytes && id->seal == reader->seal() && id->name == *reader->ComputeName());
}

template <class T>
T Field(const std::vector<std::byte>& bytes, size_t at) {
  T value;
  std::memcpy(&value, bytes.data() + at, sizeof(T));
  return value;
}

// The checksums of details, header and table made right, where the bytes have that much shape.
std::vector<std::byte> Sealed(std::vector<std::byte> bytes) {
  using namespace object_format;
  if (bytes.size() < kHeaderBytes) return bytes;
  constexpr size_t kTotal = 16;
  constexpr size_t kDetailsBytes = 160;
  const uint64_t total = bytes.size();
  std::memcpy(bytes.data() + kTotal, &total, sizeof(total));
  const auto details = Field<uint64_t>(bytes, kDetailsBytes);
  if (details <= bytes.size() - kHeaderBytes) {
    const uint64_t checksum = Checksum(std::span(bytes).subspan(kHeaderBytes, details));
    std::memcpy(bytes.data() + kDetailsBytes + 8, &checksum, sizeof(checksum));
  }
  const uint64_t checksum = Checksum(std::span(bytes).first(kChecksumOffset));
  std::memcpy(bytes.data() + kChecksumOffset, &checksum, sizeof(checksum));
  return bytes;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto* const begin = reinterpret_cast<const std::byte*>(data);
  const std::vector<std::byte> bytes(begin, begin + size);
  Try(bytes);
  Try(Sealed(bytes));
  return 0;
}
