#include "store/record_file.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace reprise {
namespace {

constexpr int kBusyMilliseconds = 10000;
constexpr char kSchema[] = R"sql(
CREATE TABLE IF NOT EXISTS records(
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  owner BLOB NOT NULL CHECK(length(owner) = 32),
  key BLOB NOT NULL CHECK(length(key) = 32),
  record BLOB NOT NULL,
  bytes INTEGER NOT NULL,
  UNIQUE(owner, key)
) STRICT;
CREATE INDEX IF NOT EXISTS records_by_bytes ON records(bytes);
)sql";

}  // namespace

Result<std::unique_ptr<RecordFile>> RecordFile::Open(FileSystem& files, const Fingerprint& owner, uint64_t most_bytes, bool& begun_anew) {
  begun_anew = false;
  std::unique_ptr<RecordFile> file(new RecordFile(owner, most_bytes));
  Status status = file->Start(files);
  if (status.code() == StatusCode::kCorrupt) {
    file->db_.Close();
    REPRISE_ASSIGN_OR_RETURN(const auto there, files.List(""));
    for (const auto& found : there) {
      if (found.name.starts_with(kFile)) REPRISE_RETURN_IF_ERROR(files.Remove(found.name));
    }
    begun_anew = true;
    status = file->Start(files);
  }
  if (!status.ok()) return status;
  return file;
}

Status RecordFile::Start(FileSystem& files) {
  // Made by the directory's own means, which follow no link.
  REPRISE_ASSIGN_OR_RETURN(const auto there, files.List(""));
  if (std::none_of(there.begin(), there.end(), [](const auto& found) { return found.name == kFile; })) {
    REPRISE_RETURN_IF_ERROR(files.Touch(kFile));
  }
  REPRISE_RETURN_IF_ERROR(db_.Open(kFile, FileUri(files.PathOf(kFile)), files.sqlite_vfs(),
                                   SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_NOFOLLOW | SQLITE_OPEN_URI | SQLITE_OPEN_READWRITE,
                                   kBusyMilliseconds));
  REPRISE_RETURN_IF_ERROR(db_.Harden());
  REPRISE_RETURN_IF_ERROR(db_.Run("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL"));
  REPRISE_RETURN_IF_ERROR(db_.Run("PRAGMA wal_autocheckpoint = 128; PRAGMA journal_size_limit = 1048576"));
  REPRISE_RETURN_IF_ERROR(db_.Run(kSchema));
  Query check(db_, "PRAGMA quick_check(1)");
  REPRISE_ASSIGN_OR_RETURN(const bool row, check.Row());
  return row && check.Text(0) == "ok" ? Ok() : Corrupt(std::string("'") + kFile + "' is damaged");
}

Status RecordFile::ForEachNew(const std::function<void(const Digest& key, std::span<const std::byte> record)>& visit) {
  Query query(db_, "SELECT key, record, id FROM records WHERE owner = ? AND id > ? ORDER BY id", owner_.bytes, seen_);
  while (true) {
    REPRISE_ASSIGN_OR_RETURN(const bool row, query.Row());
    if (!row) return Ok();
    Digest key{};
    const auto bytes = query.Blob(0);
    std::memcpy(key.data(), bytes.data(), std::min(bytes.size(), key.size()));  // 32, by the table's check
    visit(key, query.Blob(1));
    seen_ = query.Integer(2);
  }
}

Status RecordFile::Put(const Digest& key, std::span<const std::byte> record) {
  const uint64_t bytes = record.size() + kOverhead;
  if (bytes > most_bytes_) return Ok();
  REPRISE_ASSIGN_OR_RETURN(Transaction transaction, Transaction::Begin(db_, Transaction::Kind::kWrite));
  REPRISE_RETURN_IF_ERROR(Query(db_, "DELETE FROM records WHERE owner = ? AND key = ?", owner_.bytes, key).Done());
  REPRISE_RETURN_IF_ERROR(Query(db_, "INSERT INTO records(owner, key, record, bytes) VALUES(?, ?, ?, ?)", owner_.bytes, key, record,
                                static_cast<int64_t>(bytes))
                              .Done());
  const int64_t id = sqlite3_last_insert_rowid(db_.handle());
  while (true) {
    Query sum(db_, "SELECT sum(bytes) FROM records");
    REPRISE_RETURN_IF_ERROR(sum.Row().status());
    if (static_cast<uint64_t>(sum.Integer(0)) <= most_bytes_) break;
    REPRISE_RETURN_IF_ERROR(Query(db_, "DELETE FROM records WHERE id = (SELECT min(id) FROM records)").Done());
  }
  REPRISE_RETURN_IF_ERROR(transaction.Commit());
  // Where others have put some in between, this one is visited with them.
  if (id == seen_ + 1) seen_ = id;
  return Ok();
}

}  // namespace reprise
