#include "store/object_file.h"

#include <fmt/format.h>
#include <sodium.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/bytes.h"
#include "base/checked.h"
#include "store/object_format.h"

namespace reprise {

using namespace object_format;

uint64_t object_format::Checksum(std::span<const std::byte> bytes) { return XXH3_64bits(bytes.data(), bytes.size()); }

std::string HexOf(const Digest& digest) { return Fingerprint{digest}.Hex(); }

std::optional<Digest> DigestFromHex(std::string_view hex) {
  Digest digest;
  if (hex.size() != digest.size() * 2) return std::nullopt;
  const auto value = [](char c) { return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1; };
  for (size_t i = 0; i < digest.size(); ++i) {
    const int high = value(hex[2 * i]);
    const int low = value(hex[2 * i + 1]);
    if (high < 0 || low < 0) return std::nullopt;
    digest[i] = static_cast<uint8_t>(high << 4 | low);
  }
  return digest;
}

Digest LayoutDigest(const StateLayout& layout) {
  FingerprintBuilder builder;
  for (const StateDecl& state : layout.states()) {
    ByteWriter entry;
    entry.Put(state.growth);
    entry.Put(state.space);
    entry.Put(state.type);
    for (const int64_t dimension : state.shape) entry.Put(dimension);
    builder.Add(state.name, entry.bytes());
  }
  return builder.Finish().bytes;
}

std::vector<uint64_t> SizesOf(const StateLayout& layout, ObjectKind kind) {
  const Growth growth = kind == ObjectKind::kBlock ? Growth::kRecurrent : Growth::kAppend;
  std::vector<uint64_t> sizes;
  for (const StateDecl& state : layout.states()) {
    if (state.growth == growth) sizes.push_back(state.bytes);
  }
  return sizes;
}

RowRange RowsOfSection(const ObjectHead& head, size_t section) {
  const int64_t extent = head.first / kExtentRows + static_cast<int64_t>(section);
  return {static_cast<int32_t>(std::max<int64_t>(head.first, extent * kExtentRows)),
          static_cast<int32_t>(std::min<int64_t>(head.last, (extent + 1) * kExtentRows))};
}

namespace {

size_t DetailsBytes(const ObjectHead& head) {
  const size_t sizes = sizeof(uint32_t) + head.sizes.size() * sizeof(uint64_t);
  if (head.kind == ObjectKind::kSegment) return sizes + head.tokens.size() * sizeof(int32_t);
  return sizes + 2 * sizeof(uint32_t) + sizeof(uint64_t) + sizeof(int64_t) + 3 * sizeof(uint32_t) + head.name_space.size() +
         head.note.name.size() + head.note.metadata.size();
}

}  // namespace

Result<ObjectShape> ObjectShape::Of(const ObjectHead& head) {
  uint64_t all = 0;
  for (const uint64_t size : head.sizes) {
    if (size > kMostStateBytes || (all += size) > kMostStateBytes) return Corrupt("its states are larger than any state may be");
  }
  ObjectShape shape;
  uint64_t at = AlignUp(kHeaderBytes + DetailsBytes(head), kAlignment);
  const auto add = [&](uint64_t bytes) {
    shape.sections.push_back({at, bytes});
    at += AlignUp(bytes, kAlignment);
  };
  if (head.kind == ObjectKind::kBlock) {
    for (const uint64_t size : head.sizes) add(size);
  } else {
    // At most 2^31 rows of 2^40 bytes: more than 64 bits hold.
    const auto rows = CheckedMul(all, static_cast<uint64_t>(head.last - head.first));
    if (!rows || *rows > uint64_t{1} << 62) return Corrupt("its rows are larger than any file");
    const int32_t extents = head.last > head.first ? (head.last - 1) / kExtentRows - head.first / kExtentRows + 1 : 0;
    for (int32_t i = 0; i < extents; ++i) {
      const RowRange range = RowsOfSection(head, static_cast<size_t>(i));
      add(static_cast<uint64_t>(range.last - range.first) * all);
    }
  }
  shape.table = at;
  shape.total = AlignUp(at + (shape.sections.size() + 1) * sizeof(uint64_t), kAlignment);
  return shape;
}

std::vector<std::byte> object_format::EncodeDetails(const ObjectHead& head) {
  ByteWriter details;
  details.Put<uint32_t>(static_cast<uint32_t>(head.sizes.size()));
  for (const uint64_t size : head.sizes) details.Put(size);
  if (head.kind == ObjectKind::kSegment) {
    details.Bytes(std::as_bytes(std::span(head.tokens)));
  } else {
    details.Put(head.note.id);
    details.Put(head.note.keep);
    details.Put<uint32_t>(head.note.pinned ? 1 : 0);
    details.Put(head.note.created);
    for (const std::string* text : {&head.name_space, &head.note.name, &head.note.metadata}) {
      details.Put<uint32_t>(static_cast<uint32_t>(text->size()));
      details.Text(*text);
    }
  }
  return std::move(details.out());
}

std::vector<std::byte> object_format::EncodeHeader(const ObjectHead& head, const ObjectShape& shape, std::span<const std::byte> details) {
  ByteWriter header;
  header.Bytes(std::as_bytes(std::span(kMagic)));
  header.Put(kVersion);
  header.Put(head.kind);
  header.Put(shape.total);
  header.Put(head.first);
  header.Put(head.last);
  for (const Digest* digest : {&head.fingerprint.bytes, &head.layout, &head.salt, &head.below})
    header.Bytes(std::as_bytes(std::span(*digest)));
  header.Put<uint64_t>(details.size());
  header.Put(Checksum(details));
  static_assert(8 + 4 + 4 + 8 + 4 + 4 + 4 * 32 + 8 + 8 <= kReservedOffset);
  header.PadTo(kHeaderBytes);
  header.PutAt(kChecksumOffset, Checksum(header.bytes().first(kChecksumOffset)));
  return std::move(header.out());
}

// ---- writing

struct ObjectWriter::Impl {
  WritableFile& file;
  ObjectShape shape;
  std::vector<std::byte> header;
  std::vector<std::byte> waiting;  // written to the file when it is large enough to be worth a call
  crypto_generichash_state digest{};
  RunningChecksum checksum;
  std::vector<uint64_t> table;
  uint64_t left = 0;  // of the section being written

  explicit Impl(WritableFile& f) : file(f) {
    waiting.reserve(kPieceBytes + kAlignment);
    crypto_generichash_init(&digest, nullptr, 0, sizeof(Digest));
  }

  Status Put(std::span<const std::byte> bytes) {
    while (!bytes.empty()) {
      const size_t n = std::min(bytes.size(), kPieceBytes - waiting.size());
      waiting.insert(waiting.end(), bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(n));
      bytes = bytes.subspan(n);
      if (waiting.size() == kPieceBytes) REPRISE_RETURN_IF_ERROR(Flush());
    }
    return Ok();
  }
  Status Flush() {
    crypto_generichash_update(&digest, reinterpret_cast<const unsigned char*>(waiting.data()), waiting.size());
    Status status = file.Append(waiting);
    waiting.clear();
    return status;
  }
  Status Pad(uint64_t bytes) {
    const std::byte zeros[kAlignment] = {};
    return Put(std::span(zeros).first(AlignUp(bytes, kAlignment) - bytes));
  }
  // Ends the section that is complete, and empty ones after it.
  Status NextSection() {
    while (left == 0 && table.size() < shape.sections.size()) {
      table.push_back(checksum.value());
      REPRISE_RETURN_IF_ERROR(Pad(shape.sections[table.size() - 1].bytes));
      checksum.Reset();
      if (table.size() < shape.sections.size()) left = shape.sections[table.size()].bytes;
    }
    return Ok();
  }
};

ObjectWriter::ObjectWriter(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
ObjectWriter::ObjectWriter(ObjectWriter&&) noexcept = default;
ObjectWriter& ObjectWriter::operator=(ObjectWriter&&) noexcept = default;
ObjectWriter::~ObjectWriter() = default;

Result<ObjectWriter> ObjectWriter::Start(const ObjectHead& head, WritableFile& file) {
  auto impl = std::make_unique<Impl>(file);
  REPRISE_ASSIGN_OR_RETURN(impl->shape, ObjectShape::Of(head));
  const std::vector<std::byte> details = EncodeDetails(head);
  impl->header = EncodeHeader(head, impl->shape, details);
  REPRISE_RETURN_IF_ERROR(impl->Put(impl->header));
  REPRISE_RETURN_IF_ERROR(impl->Put(details));
  REPRISE_RETURN_IF_ERROR(impl->Pad(details.size()));
  if (!impl->shape.sections.empty()) impl->left = impl->shape.sections[0].bytes;
  REPRISE_RETURN_IF_ERROR(impl->NextSection());
  return ObjectWriter(std::move(impl));
}

Status ObjectWriter::Write(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const size_t n = std::min<uint64_t>(bytes.size(), impl_->left);
    if (n == 0) return Internal("more payload was given than the object's head announces");
    impl_->checksum.Add(bytes.first(n));
    REPRISE_RETURN_IF_ERROR(impl_->Put(bytes.first(n)));
    impl_->left -= n;
    bytes = bytes.subspan(n);
    REPRISE_RETURN_IF_ERROR(impl_->NextSection());
  }
  return Ok();
}

Result<ObjectId> ObjectWriter::Finish() {
  if (impl_->table.size() != impl_->shape.sections.size()) return Internal("less payload was given than the object's head announces");
  ByteWriter table;
  for (const uint64_t checksum : impl_->table) table.Put(checksum);
  table.Put(Checksum(table.bytes()));
  const uint64_t table_bytes = table.size();
  std::vector<std::byte>& sealed = impl_->header;
  sealed.insert(sealed.end(), table.bytes().begin(), table.bytes().end());
  ObjectId id;
  id.seal = Checksum(sealed);
  REPRISE_RETURN_IF_ERROR(impl_->Put(table.bytes()));
  REPRISE_RETURN_IF_ERROR(impl_->Pad(table_bytes));
  REPRISE_RETURN_IF_ERROR(impl_->Flush());
  crypto_generichash_final(&impl_->digest, id.name.data(), id.name.size());
  return id;
}

}  // namespace reprise
