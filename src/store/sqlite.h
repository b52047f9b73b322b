// Database and Query: as much of SQLite as the store needs. Every statement is prepared once and kept; no text is ever built into one.
//
// One thread at a time. Errors carry the file's name: kExhausted (the disk is full), kCorrupt, kIo.
#pragma once

#include <sqlite3.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>

#include "reprise/status.h"

namespace reprise {

// A file as a URI: what would end the path or start an escape is escaped.
std::string FileUri(const std::string& path, std::string_view parameters = "");

class Database {
 public:
  Database() = default;
  Database(const Database&) = delete;
  Database& operator=(const Database&) = delete;
  ~Database() { Close(); }

  // `name` is what errors call it.
  Status Open(const char* name, const std::string& uri, const char* vfs, int flags, int busy_milliseconds);
  // For a file that may have been edited by anyone who could write it: it gets no way to run anything.
  Status Harden();
  void Close();
  Status Run(const char* sql);  // statements without results, once
  Status Error(int code) const;
  sqlite3* handle() const { return db_; }

 private:
  friend class Query;
  sqlite3* db_ = nullptr;
  std::string name_;
  std::unordered_map<const char*, sqlite3_stmt*> prepared_;
};

// A statement in use. `sql` is a literal: its address is what it is kept under.
class Query {
 public:
  template <class... T>
  Query(Database& db, const char* sql, const T&... values) : db_(db) {
    Prepare(sql);
    int at = 0;
    (Bind(++at, values), ...);
  }
  Query(const Query&) = delete;
  Query& operator=(const Query&) = delete;
  ~Query();

  Result<bool> Row();  // the next row: false when there is none
  Status Done();       // for statements without rows

  int64_t Integer(int column) const { return sqlite3_column_int64(statement_, column); }
  std::span<const std::byte> Blob(int column) const;  // until the next call
  std::string Text(int column) const;
  bool IsNull(int column) const { return sqlite3_column_type(statement_, column) == SQLITE_NULL; }

 private:
  void Prepare(const char* sql);
  void Bind(int at, int64_t value);
  void Bind(int at, std::string_view value);  // as a blob: what clients name things with is bytes
  void Bind(int at, std::span<const std::byte> value);
  void Bind(int at, std::span<const uint8_t> value) { Bind(at, std::as_bytes(value)); }

  Database& db_;
  sqlite3_stmt* statement_ = nullptr;
  int error_ = SQLITE_OK;
};

// BEGIN ... COMMIT, or ROLLBACK by the destructor.
class Transaction {
 public:
  enum class Kind { kRead, kWrite };  // kWrite waits until no other process writes
  static Result<Transaction> Begin(Database& db, Kind kind);
  Transaction(Transaction&& other) noexcept : db_(std::exchange(other.db_, nullptr)) {}
  Transaction& operator=(Transaction&&) = delete;
  ~Transaction();
  Status Commit();

 private:
  explicit Transaction(Database& db) : db_(&db) {}
  Database* db_;
};

}  // namespace reprise
