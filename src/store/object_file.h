// Objects: the files in which a store keeps state (docs/store_format.md).
//
// A *block* holds every recurrent state of one capsule; a *segment* holds the rows [first, last) of every append-only state on one path, cut where
// extents are cut, so that the beginning of a segment can be read and verified alone. Both are one format: a head that says everything there is to
// know without an index, sections of payload, and a table of their checksums at the end, so that a file is written in one pass. An object is named
// by the BLAKE2b-256 digest of all its bytes. The salt of its namespace is among them, so that equal state of two namespaces has two names.
//
// The bytes are hostile until proven: sizes are checked against each other and against the file before anything is allocated by them.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "reprise/fingerprint.h"
#include "reprise/layout.h"
#include "reprise/status.h"
#include "store/disk_note.h"
#include "store/file_system.h"

namespace reprise {

using Digest = std::array<uint8_t, 32>;
std::string HexOf(const Digest& digest);
std::optional<Digest> DigestFromHex(std::string_view hex);  // 64 lower-case digits
Digest LayoutDigest(const StateLayout& layout);             // of every declaration, in order

enum class ObjectKind : uint32_t { kBlock = 1, kSegment = 2 };

inline constexpr size_t kMaxStoreName = 256;  // bytes of a namespace, or of a capsule's name

struct ObjectHead {
  ObjectKind kind = ObjectKind::kBlock;
  Fingerprint fingerprint;
  Digest layout{};
  Digest salt{};
  Digest below{};     // the segment on which it rests, or zero
  int32_t first = 0;  // of a block, both are its position
  int32_t last = 0;
  std::vector<uint64_t> sizes;  // a block: of each recurrent state; a segment: of a row of each append-only state
  std::vector<int32_t> tokens;  // a segment: of its rows
  std::string name_space;       // a block: whose it is, and how it was kept when it was written
  DiskNote note;

  bool operator==(const ObjectHead& other) const = delete;
};

// The sizes of a layout's states, as a head of that kind lists them.
std::vector<uint64_t> SizesOf(const StateLayout& layout, ObjectKind kind);

// Where everything lies in the file: it follows from the head.
struct ObjectShape {
  struct Section {
    uint64_t offset;
    uint64_t bytes;
  };
  std::vector<Section> sections;  // a block: one a state; a segment: one for each extent that it touches, its states one after another
  uint64_t table = 0;             // offset
  uint64_t total = 0;

  static Result<ObjectShape> Of(const ObjectHead& head);
};

// Rows [first, last) of a segment that lie in its section `i`, all within one extent.
struct RowRange {
  int32_t first;
  int32_t last;
};
RowRange RowsOfSection(const ObjectHead& head, size_t section);

struct ObjectId {
  Digest name{};
  uint64_t seal = 0;  // a checksum over head and table. The index keeps it, so that a sound file in another one's place is noticed
};

// Writes an object in one pass. One thread.
class ObjectWriter {
 public:
  // `file` must outlive it. The head is written with the first piece of payload.
  static Result<ObjectWriter> Start(const ObjectHead& head, WritableFile& file);
  ObjectWriter(ObjectWriter&&) noexcept;
  ObjectWriter& operator=(ObjectWriter&&) noexcept;
  ~ObjectWriter();

  // The next bytes of payload. Sections end by themselves; padding is the writer's.
  Status Write(std::span<const std::byte> bytes);
  // Once all of the payload was given. The file is not synced yet.
  Result<ObjectId> Finish();

 private:
  struct Impl;
  explicit ObjectWriter(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// An object opened to be read: its head, shape and table are verified. One thread.
class ObjectReader {
 public:
  // `name` is for errors.
  static Result<ObjectReader> Open(std::unique_ptr<ReadableFile> file, std::string name);

  const ObjectHead& head() const { return head_; }
  ObjectHead& head() { return head_; }
  const ObjectShape& shape() const { return shape_; }
  uint64_t seal() const { return seal_; }

  // Fills `pieces`, which together have the section's size, and verifies them; what was read is undefined after an error.
  Status ReadSection(size_t section, std::span<const std::span<std::byte>> pieces);
  // The same in small memory: `use` sees every piece before the section is verified.
  Status ScanSection(size_t section, const std::function<Status(std::span<const std::byte>)>& use);
  // The digest of all bytes: what the file should be called. Reads everything.
  Result<Digest> ComputeName();

 private:
  ObjectReader(std::unique_ptr<ReadableFile> file, std::string name) : file_(std::move(file)), name_(std::move(name)) {}
  Status ReadHead();
  Status ReadTable();
  Status CheckPadding(uint64_t begin, uint64_t end);
  Status Damaged(std::string_view what) const;

  std::unique_ptr<ReadableFile> file_;
  std::string name_;
  std::vector<std::byte> header_;
  ObjectHead head_;
  ObjectShape shape_;
  std::vector<uint64_t> checksums_;
  uint64_t seal_ = 0;
};

// Only the head, of bytes that may be anything: the header, which says how many bytes of details follow (of `total` bytes in all), and both.
Result<uint64_t> AnnouncedDetails(std::span<const std::byte> header, uint64_t total);
Result<ObjectHead> ParseObjectHead(std::span<const std::byte> header, std::span<const std::byte> details);

}  // namespace reprise
