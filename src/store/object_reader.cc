#include <fmt/format.h>
#include <sodium.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/bytes.h"
#include "base/checked.h"
#include "reprise/capsule.h"
#include "store/object_file.h"
#include "store/object_format.h"

namespace reprise {

using namespace object_format;

namespace {

bool AllZero(std::span<const std::byte> bytes) {
  return std::all_of(bytes.begin(), bytes.end(), [](std::byte b) { return b == std::byte{0}; });
}

Result<std::string> ReadText(ByteReader& reader, size_t most, std::string_view what) {
  REPRISE_ASSIGN_OR_RETURN(const auto count, reader.Get<uint32_t>(what));
  if (count > most) return Corrupt(fmt::format("{} of {} bytes is too long", what, count));
  REPRISE_ASSIGN_OR_RETURN(const auto bytes, reader.Bytes(count, what));
  return std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size());
}

Status ReadNote(ByteReader& reader, ObjectHead& head) {
  REPRISE_ASSIGN_OR_RETURN(head.note.id, reader.Get<uint64_t>("its id"));
  REPRISE_ASSIGN_OR_RETURN(head.note.keep, reader.Get<Keep>("the reason it was kept"));
  if (static_cast<uint32_t>(head.note.keep) > static_cast<uint32_t>(Keep::kStride)) return Corrupt("the reason it was kept is not known");
  REPRISE_ASSIGN_OR_RETURN(const auto pinned, reader.Get<uint32_t>("whether it is pinned"));
  if (pinned > 1) return Corrupt("whether it is pinned is neither yes nor no");
  head.note.pinned = pinned == 1;
  REPRISE_ASSIGN_OR_RETURN(head.note.created, reader.Get<int64_t>("when it was made"));
  head.note.used = head.note.created;
  REPRISE_ASSIGN_OR_RETURN(head.name_space, ReadText(reader, kMaxStoreName, "the namespace"));
  REPRISE_ASSIGN_OR_RETURN(head.note.name, ReadText(reader, kMaxStoreName, "the name"));
  REPRISE_ASSIGN_OR_RETURN(head.note.metadata, ReadText(reader, Capsule::kMaxMetadata, "the metadata"));
  return Ok();
}

// The header but for what it says of the details, which are returned.
struct Announced {
  uint64_t total;
  uint64_t details_bytes;
  uint64_t details_checksum;
};

Result<Announced> ParseHeader(std::span<const std::byte> header, ObjectHead& head) {
  if (header.size() != kHeaderBytes) return Corrupt("it is shorter than the header of an object");
  if (std::memcmp(header.data(), kMagic, sizeof(kMagic)) != 0) return Corrupt("it is no object of a store");
  ByteReader reader(header.subspan(sizeof(kMagic)));
  REPRISE_ASSIGN_OR_RETURN(const auto version, reader.Get<uint32_t>("the version"));
  if (version != kVersion) {
    return Unsupported(fmt::format("object format version {} is not known; this build reads version {}", version, kVersion));
  }
  uint64_t stored;
  std::memcpy(&stored, header.data() + kChecksumOffset, sizeof(stored));
  if (stored != Checksum(header.first(kChecksumOffset))) return Corrupt("its header is damaged: the checksum does not match");
  REPRISE_ASSIGN_OR_RETURN(head.kind, reader.Get<ObjectKind>("the kind"));
  if (head.kind != ObjectKind::kBlock && head.kind != ObjectKind::kSegment) return Corrupt("its kind is not known");
  Announced announced{};
  REPRISE_ASSIGN_OR_RETURN(announced.total, reader.Get<uint64_t>("the size"));
  REPRISE_ASSIGN_OR_RETURN(head.first, reader.Get<int32_t>("the first row"));
  REPRISE_ASSIGN_OR_RETURN(head.last, reader.Get<int32_t>("the last row"));
  const bool ordered = head.kind == ObjectKind::kBlock ? head.first == head.last : head.first < head.last;
  if (head.first < 0 || !ordered) return Corrupt(fmt::format("rows {} to {} are impossible", head.first, head.last));
  for (Digest* digest : {&head.fingerprint.bytes, &head.layout, &head.salt, &head.below}) {
    REPRISE_ASSIGN_OR_RETURN(*digest, reader.Get<Digest>("a digest"));
  }
  if ((head.below == Digest{}) != (head.first == 0)) return Corrupt("it rests on nothing, or on something that it cannot rest on");
  REPRISE_ASSIGN_OR_RETURN(announced.details_bytes, reader.Get<uint64_t>("the size of its details"));
  REPRISE_ASSIGN_OR_RETURN(announced.details_checksum, reader.Get<uint64_t>("the checksum of its details"));
  const size_t end = sizeof(kMagic) + reader.offset();
  if (!AllZero(header.subspan(end, kChecksumOffset - end))) return Corrupt("its reserved bytes are not zero");
  return announced;
}

Status ParseDetails(std::span<const std::byte> details, ObjectHead& head) {
  ByteReader reader(details);
  REPRISE_ASSIGN_OR_RETURN(const auto states, reader.Get<uint32_t>("the number of states"));
  if (states > kMaxStates) return Corrupt(fmt::format("it says that it has {} states", states));
  for (uint32_t i = 0; i < states; ++i) {
    REPRISE_ASSIGN_OR_RETURN(const auto size, reader.Get<uint64_t>("the size of a state"));
    head.sizes.push_back(size);
  }
  if (head.kind == ObjectKind::kBlock) {
    REPRISE_RETURN_IF_ERROR(ReadNote(reader, head));
  } else {
    const auto rows = static_cast<uint64_t>(head.last - head.first);
    REPRISE_ASSIGN_OR_RETURN(const auto tokens, reader.Bytes(rows * sizeof(int32_t), "the tokens"));
    head.tokens.resize(rows);
    std::memcpy(head.tokens.data(), tokens.data(), tokens.size());
    if (std::any_of(head.tokens.begin(), head.tokens.end(), [](int32_t t) { return t < 0; })) return Corrupt("it has a negative token");
  }
  if (reader.remaining() != 0) return Corrupt("its details go on after their end");
  return Ok();
}

}  // namespace

Result<uint64_t> AnnouncedDetails(std::span<const std::byte> header, uint64_t total) {
  ObjectHead head;
  REPRISE_ASSIGN_OR_RETURN(const Announced announced, ParseHeader(header, head));
  if (announced.total != total) return Corrupt(fmt::format("an object says that it has {} bytes; it has {}", announced.total, total));
  if (announced.details_bytes > total - kHeaderBytes) return Corrupt("an object's details go beyond its end");
  return announced.details_bytes;
}

Result<ObjectHead> ParseObjectHead(std::span<const std::byte> header, std::span<const std::byte> details) {
  ObjectHead head;
  REPRISE_ASSIGN_OR_RETURN(const Announced announced, ParseHeader(header, head));
  if (announced.details_bytes != details.size() || announced.details_checksum != Checksum(details)) {
    return Corrupt("its details are damaged: size or checksum do not match");
  }
  REPRISE_RETURN_IF_ERROR(ParseDetails(details, head));
  return head;
}

Status ObjectReader::Damaged(std::string_view what) const { return Corrupt(fmt::format("object '{}' is damaged: {}", name_, what)); }

Result<ObjectReader> ObjectReader::Open(std::unique_ptr<ReadableFile> file, std::string name) {
  ObjectReader reader(std::move(file), std::move(name));
  for (const auto part : {&ObjectReader::ReadHead, &ObjectReader::ReadTable}) {
    if (Status status = (reader.*part)(); !status.ok()) return status.Within("'" + reader.name_ + "'");
  }
  return reader;
}

Status ObjectReader::ReadHead() {
  const uint64_t size = file_->size();
  header_.resize(std::min<uint64_t>(size, kHeaderBytes));
  REPRISE_RETURN_IF_ERROR(file_->ReadAt(0, header_));
  REPRISE_ASSIGN_OR_RETURN(const Announced announced, ParseHeader(header_, head_));
  if (announced.total != size) return Corrupt(fmt::format("it says that it has {} bytes; it has {}", announced.total, size));
  if (announced.details_bytes > size - kHeaderBytes) return Corrupt("its details go beyond its end");
  std::vector<std::byte> details(announced.details_bytes);
  REPRISE_RETURN_IF_ERROR(file_->ReadAt(kHeaderBytes, details));
  if (Checksum(details) != announced.details_checksum) return Corrupt("its details are damaged: the checksum does not match");
  REPRISE_RETURN_IF_ERROR(ParseDetails(details, head_));
  REPRISE_ASSIGN_OR_RETURN(shape_, ObjectShape::Of(head_));
  if (shape_.total != size) return Corrupt(fmt::format("its states take {} bytes; it has {}", shape_.total, size));
  return CheckPadding(kHeaderBytes + details.size(), AlignUp(kHeaderBytes + details.size(), kAlignment));
}

Status ObjectReader::ReadTable() {
  const size_t count = shape_.sections.size();
  std::vector<std::byte> table((count + 1) * sizeof(uint64_t));
  REPRISE_RETURN_IF_ERROR(file_->ReadAt(shape_.table, table));
  uint64_t stored;
  std::memcpy(&stored, table.data() + count * sizeof(uint64_t), sizeof(stored));
  if (Checksum(std::span(table).first(count * sizeof(uint64_t))) != stored) return Corrupt("its table of checksums is damaged");
  checksums_.resize(count);
  if (count > 0) std::memcpy(checksums_.data(), table.data(), count * sizeof(uint64_t));
  header_.insert(header_.end(), table.begin(), table.end());
  seal_ = Checksum(header_);
  header_ = {};
  return CheckPadding(shape_.table + table.size(), shape_.total);
}

Status ObjectReader::CheckPadding(uint64_t begin, uint64_t end) {
  std::byte padding[kAlignment];
  const auto bytes = std::span(padding).first(end - begin);
  REPRISE_RETURN_IF_ERROR(file_->ReadAt(begin, bytes));
  return AllZero(bytes) ? Ok() : Corrupt(fmt::format("the padding at offset {} is not zero", begin));
}

Status ObjectReader::ReadSection(size_t section, std::span<const std::span<std::byte>> pieces) {
  const ObjectShape::Section& where = shape_.sections[section];
  RunningChecksum checksum;
  uint64_t at = where.offset;
  const uint64_t end = where.offset + where.bytes;
  std::byte padding[kAlignment];
  // In pieces that stay in the cache between being read and being digested.
  std::vector<std::span<std::byte>> batch;
  size_t batch_bytes = 0;
  const auto flush = [&]() -> Status {
    REPRISE_RETURN_IF_ERROR(file_->ReadAt(at, batch));
    for (const auto& piece : batch) checksum.Add(piece);
    at += batch_bytes;
    batch.clear();
    batch_bytes = 0;
    return Ok();
  };
  for (std::span<std::byte> piece : pieces) {
    while (!piece.empty()) {
      const size_t n = std::min(piece.size(), kPieceBytes - batch_bytes);
      batch.push_back(piece.first(n));
      batch_bytes += n;
      piece = piece.subspan(n);
      if (batch_bytes == kPieceBytes) REPRISE_RETURN_IF_ERROR(flush());
    }
  }
  REPRISE_RETURN_IF_ERROR(flush());
  if (at != end) return Internal("a section was read into memory of another size");
  if (checksum.value() != checksums_[section]) {
    return Damaged(fmt::format("the checksum of the {} bytes from offset {} does not match", where.bytes, where.offset));
  }
  const auto pad = std::span(padding).first(AlignUp(where.bytes, kAlignment) - where.bytes);
  if (pad.empty()) return Ok();
  REPRISE_RETURN_IF_ERROR(file_->ReadAt(end, pad));
  return AllZero(pad) ? Ok() : Damaged(fmt::format("the padding at offset {} is not zero", end));
}

Status ObjectReader::ScanSection(size_t section, const std::function<Status(std::span<const std::byte>)>& use) {
  const ObjectShape::Section& where = shape_.sections[section];
  RunningChecksum checksum;
  std::vector<std::byte> buffer(std::min<uint64_t>(where.bytes, kPieceBytes));
  for (uint64_t done = 0; done < where.bytes; done += buffer.size()) {
    buffer.resize(std::min<uint64_t>(where.bytes - done, kPieceBytes));
    REPRISE_RETURN_IF_ERROR(file_->ReadAt(where.offset + done, buffer));
    checksum.Add(buffer);
    REPRISE_RETURN_IF_ERROR(use(buffer));
  }
  if (checksum.value() != checksums_[section]) {
    return Damaged(fmt::format("the checksum of the {} bytes from offset {} does not match", where.bytes, where.offset));
  }
  if (Status status = CheckPadding(where.offset + where.bytes, AlignUp(where.offset + where.bytes, kAlignment)); !status.ok())
    return status.Within("'" + name_ + "'");
  return Ok();
}

Result<Digest> ObjectReader::ComputeName() {
  crypto_generichash_state state;
  crypto_generichash_init(&state, nullptr, 0, sizeof(Digest));
  std::vector<std::byte> buffer(kPieceBytes);
  for (uint64_t at = 0; at < shape_.total; at += buffer.size()) {
    buffer.resize(std::min<uint64_t>(shape_.total - at, kPieceBytes));
    REPRISE_RETURN_IF_ERROR(file_->ReadAt(at, buffer));
    crypto_generichash_update(&state, reinterpret_cast<const unsigned char*>(buffer.data()), buffer.size());
  }
  Digest name;
  crypto_generichash_final(&state, name.data(), name.size());
  return name;
}

}  // namespace reprise
