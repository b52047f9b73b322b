// DiskTier: capsules in a directory, whole or not there.
//
// A capsule on disk is one *block* object (its recurrent states) and a chain of *segments*: the rows of a run of positions, each resting on
// the one before. By promise 3 the tokens of a path determine its rows, so a capsule that is written stores only the rows past the deepest point of
// its path that is already stored, whoever computed them. Objects are files named by a digest of their content (BLAKE2b-256; a salt of the
// namespace's own is part of it, so that namespaces share nothing and tell each other nothing), written, synced and renamed before the index (SQLite,
// WAL) lists them. Object layout: docs/store_format.md.
//
// Several processes may share a directory. Thread-safe; Put and Load hold no lock while they read and write state. State that is not in ordinary
// memory (DeviceMemory::ordinary) is copied on the calling thread, which must then be that of the steps.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <unordered_set>
#include <vector>

#include "exec/state_space.h"
#include "reprise/capsule.h"
#include "reprise/store.h"
#include "store/disk_note.h"
#include "store/file_system.h"

namespace reprise {

struct DiskOptions {
  uint64_t budget = uint64_t{8} << 30;
  bool read_only = false;
};

struct DiskEntry {
  int64_t id = 0;  // the index's; never used twice
  Fingerprint fingerprint;
  std::string name_space;
  std::vector<int32_t> tokens;  // its path; the position is their number. Empty where ListAgain left it out
  DiskNote note;
  uint64_t bytes = 0;  // that removing it would free: its block, and the segments that nothing else rests on
};

// Memory that a capsule is to be read into. Its first `shared` extents are those of a capsule on the same path, and hold their rows already.
struct Landing {
  HeldState held;
  int32_t shared = 0;

  // Memory of the pools for a state at `position`, on the thread that may take it. `base`: a capsule on the same path, or an invalid one.
  static Result<Landing> At(StateSpace& space, int32_t position, const Capsule& base);
};

// Objects that arrive one after another, from bytes that are not to be trusted (bundle.h).
class ObjectStream {
 public:
  virtual ~ObjectStream() = default;
  virtual std::span<const uint64_t> sizes() const = 0;  // of each object, in their order
  virtual Status Read(std::span<std::byte> bytes) = 0;  // the next ones
  virtual Status Finish() = 0;                          // after the last: whether all of it was what its maker had written
};

class DiskTier {
 public:
  static Result<std::unique_ptr<DiskTier>> Open(std::shared_ptr<FileSystem> files, const DiskOptions& options);
  virtual ~DiskTier() = default;

  virtual bool read_only() const = 0;

  // Of the models that capsules are listed of.
  virtual Result<std::vector<Fingerprint>> Fingerprints() = 0;
  // Every whole capsule of the fingerprint, in all namespaces.
  Result<std::vector<DiskEntry>> List(const Fingerprint& fingerprint) { return ListAgain(fingerprint, {}); }
  // The same for whoever has seen some of them, by their ids: those come without their tokens, which are most of what there is to read. A path never
  // changes.
  virtual Result<std::vector<DiskEntry>> ListAgain(const Fingerprint& fingerprint, const std::unordered_set<int64_t>& known) = 0;
  // Whether another process has changed the index since the last List. A few microseconds.
  virtual bool Changed() = 0;

  // Makes `capsule` durable and returns its id. Evicts what is worth least to stay within the budget; `evicted` gets the ids, whatever the outcome.
  // kExhausted when the budget has no room that is worth it, or the disk none at all. An automatic entry at the same place of the same namespace is kept,
  // and its id returned.
  virtual Result<int64_t> Put(std::string_view name_space, std::span<const int32_t> tokens, const Capsule& capsule, const DiskNote& note,
                              std::vector<int64_t>& evicted) = 0;
  // The capsule, every checksum verified. Rows that `base` (a capsule on the same path, or an invalid one) holds are shared with it and not read. kCorrupt:
  // a file was damaged; it and everything that rests on it has been moved to quarantine/ and is no longer listed.
  virtual Result<Capsule> Load(int64_t id, const std::shared_ptr<StateSpace>& space, const Capsule& base) = 0;
  // The same for a thread that may not take memory of the pools: into `landing`, which is of the capsule's position. kCancelled soon after `stop`.
  virtual Result<Capsule> LoadInto(int64_t id, const std::shared_ptr<StateSpace>& space, const Landing& landing,
                                   const std::atomic<bool>& stop) = 0;

  virtual Status Update(int64_t id, const DiskNote& note) = 0;  // not its id, keep or created
  virtual Status Remove(int64_t id) = 0;

  virtual uint64_t bytes() const = 0;          // of objects and index, as the file system counts them
  virtual uint64_t bytes_written() const = 0;  // since Open
  virtual uint64_t rows_written() const = 0;

  struct CheckReport {
    int64_t capsules = 0, objects = 0;
    uint64_t bytes = 0;
    std::vector<std::string> faults;   // one sentence each: which capsule, which file, what is wrong
    std::vector<std::string> orphans;  // files that nothing lists: of writes that a crash ended
  };
  // Reads and verifies everything; changes nothing.
  virtual Result<CheckReport> Check() = 0;
  // Verifies everything, quarantines what is damaged and unlists what rests on it; removes orphans, and what earlier calls left in quarantine. Returns the
  // bytes freed.
  virtual Result<uint64_t> CollectGarbage() = 0;

  // For bundle.h. What capsules of one namespace and one fingerprint consist of: segments, each after what it rests on, then blocks.
  struct Shipment {
    std::string name_space;
    Fingerprint fingerprint;
    std::vector<std::array<uint8_t, 32>> objects;  // their names: BLAKE2b-256 of their bytes
    uint32_t capsules = 0;
  };
  virtual Result<Shipment> PlanExport(std::span<const int64_t>) { return Unsupported("this tier has no files to export"); }
  virtual Result<std::unique_ptr<ReadableFile>> OpenExported(const std::array<uint8_t, 32>&) {
    return Unsupported("this tier has no files to export");
  }
  // Takes in what a stream holds: verified in full, then listed at once or not at all. `id` is remembered, and refused a second time.
  struct Arrival {
    std::array<uint8_t, 32> id;
    std::string name_space;
    Fingerprint fingerprint;
    uint32_t capsules = 0;
  };
  virtual Result<std::vector<int64_t>> Import(const Arrival&, ObjectStream&) { return Unsupported("this tier takes in no bundles"); }

  // What a person should know (an index that was damaged and made anew, a file in quarantine): each is given once.
  virtual std::vector<std::string> TakeNotices() { return {}; }
};

}  // namespace reprise
