// RecordFile: small records under digests, kept in a file of the store's directory beside what they are about. Bounded: the oldest go first.
//
// Its losses cost a little work and nothing else, so it is a database of its own (SQLite, WAL) and not part of the index: a commit is not synced
// (a process that is killed loses nothing, a power failure perhaps the latest records), and a file that is damaged is begun anew.
//
// One thread at a time. Several processes may share a directory; each sees the others' records when it asks for new ones.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>

#include "reprise/fingerprint.h"
#include "reprise/status.h"
#include "store/file_system.h"
#include "store/object_file.h"
#include "store/sqlite.h"

namespace reprise {

class RecordFile {
 public:
  static constexpr const char* kFile = "answers.sqlite";
  static constexpr uint64_t kOverhead = 160;  // bytes that a record takes beside its own

  // Records of `owner`, whose bytes together with all others' in the file stay below `most_bytes`. `begun_anew` says whether a damaged file was removed.
  static Result<std::unique_ptr<RecordFile>> Open(FileSystem& files, const Fingerprint& owner, uint64_t most_bytes, bool& begun_anew);

  // Every record of the owner's that this has not visited yet, whoever put it, the oldest first; valid during the call. What it put itself is
  // among them only where others had put something before.
  Status ForEachNew(const std::function<void(const Digest& key, std::span<const std::byte> record)>& visit);
  // In place of one of the same key, and as the latest.
  Status Put(const Digest& key, std::span<const std::byte> record);

 private:
  RecordFile(const Fingerprint& owner, uint64_t most_bytes) : owner_(owner), most_bytes_(most_bytes) {}
  Status Start(FileSystem& files);

  const Fingerprint owner_;
  const uint64_t most_bytes_;
  Database db_;
  int64_t seen_ = 0;  // no record up to this id is new
};

}  // namespace reprise
