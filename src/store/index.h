// Index: which objects are capsules, and on what they rest. SQLite in WAL mode; what it says is committed and synced, or it was never said.
//
// A *path* is a namespace, a fingerprint and tokens. Segments form a tree over paths: a child rests on the rows of its parent below its own first
// row. A capsule rests on the rows below its position of one segment (of none at position 0). One thread at a time; callers hold transactions.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "reprise/fingerprint.h"
#include "reprise/status.h"
#include "store/disk_note.h"
#include "store/object_file.h"
#include "store/sqlite.h"

namespace reprise {

// An object as the index knows it.
struct IndexedObject {
  Digest name{};
  uint64_t bytes = 0;
  uint64_t seal = 0;
};

struct IndexedSegment {
  int64_t id = 0;
  int64_t parent = 0;  // 0: none
  int64_t name_space = 0;
  Fingerprint fingerprint;
  int32_t first = 0;
  int32_t last = 0;
  IndexedObject object;
};

struct IndexedCapsule {
  int64_t id = 0;
  int64_t segment = 0;  // 0: none
  int64_t name_space = 0;
  Fingerprint fingerprint;
  int32_t position = 0;
  IndexedObject object;
  DiskNote note;
};

struct IndexedNamespace {
  int64_t id = 0;
  std::string name;
  Digest salt{};
};

class Index {
 public:
  static constexpr const char* kFile = "index.sqlite";
  static constexpr int kSchema = 1;

  // kCorrupt: it cannot be used, and should be moved aside. kUnsupported: it is of another version, and sound.
  static Result<std::unique_ptr<Index>> Open(const FileSystem& files, bool read_only);

  Result<Transaction> Read() { return Transaction::Begin(db_, Transaction::Kind::kRead); }
  Result<Transaction> Write() { return Transaction::Begin(db_, Transaction::Kind::kWrite); }
  Result<int64_t> Version();  // changes when another connection has committed
  Status Verify();            // SQLite's own check of every page, and of the references
  // A commit that failed may have left its frames in the log, where a recovery would find them whole. One that succeeds overwrites them; only then may
  // files be removed that the lost transaction listed.
  Status Overwrite();
  void Shrink();  // empties the log, if no other process reads it

  Result<std::optional<IndexedNamespace>> FindNamespace(std::string_view name);
  Result<IndexedNamespace> AddNamespace(std::string_view name, const Digest& salt);
  Result<std::vector<IndexedNamespace>> Namespaces();

  // The segments along `tokens`, each resting on the one before, to the deepest point that is stored. `until`: how far the tokens agree with it.
  struct Step {
    IndexedSegment segment;
    int32_t until = 0;
  };
  Result<std::vector<Step>> Walk(int64_t name_space, const Fingerprint& fingerprint, std::span<const int32_t> tokens);
  Result<std::vector<IndexedSegment>> Chain(int64_t segment);  // from the root to it
  Result<std::vector<int32_t>> Tokens(int64_t segment);        // its own
  Result<std::vector<IndexedSegment>> Segments();              // all, parents before children
  Result<bool> HasSegment(int64_t id);
  Result<int64_t> SegmentOf(const Digest& object);  // which it is, or 0

  Result<std::optional<IndexedCapsule>> Capsule(int64_t id);
  Result<int64_t> CapsuleOf(const Digest& object);  // whose block it is, or 0
  Result<std::vector<IndexedCapsule>> Capsules();   // all, without metadata
  Result<std::vector<Fingerprint>> Fingerprints();  // of capsules
  Result<std::vector<IndexedCapsule>> CapsulesOf(const Fingerprint& fingerprint);
  Result<std::optional<int64_t>> AutomaticAt(const std::vector<Step>& path, int64_t name_space, const Fingerprint& fingerprint,
                                             int32_t position);

  Result<int64_t> Insert(const IndexedSegment& segment, std::span<const int32_t> tokens);
  Result<int64_t> Insert(const IndexedCapsule& capsule);  // takes its name from whoever has it
  Status Update(const IndexedCapsule& capsule);           // its note, but for keep and created; likewise
  // Removes capsules, and the segments on which nothing rests any more; adds the objects' names to `objects`.
  Status RemoveCapsule(int64_t id, std::vector<Digest>& objects);
  // Removes a segment and everything that rests on it.
  Status RemoveSegment(int64_t id, std::vector<Digest>& objects, std::vector<int64_t>& capsules);

  Result<bool> HasName(const IndexedCapsule& capsule);  // whether a capsule of its namespace and fingerprint has its name
  Result<bool> HasBundle(const Digest& id);
  Status AddBundle(const Digest& id, int64_t now);

  Result<bool> Lists(const Digest& object);
  Result<std::vector<Digest>> Objects();  // the names of all, sorted
  Result<uint64_t> ObjectBytes();         // on disk, in whole pages
  Status StartIdsAt(int64_t id);          // ids that follow are above it

 private:
  Status Prepare(bool read_only);
  Status CreateSchema();
  Status ReleaseName(const IndexedCapsule& capsule);
  Status RemoveUnused(int64_t segment, std::vector<Digest>& objects);

  Database db_;
};

inline constexpr uint64_t kDiskPage = 4096;  // files are counted in whole pages, as file systems give them out
inline constexpr uint64_t kIndexMargin =
    32 * kDiskPage;  // what a transaction may add to the index and its log, apart from what it is given to keep

}  // namespace reprise
