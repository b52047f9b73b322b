#include "store/sqlite.h"

#include <fmt/format.h>

#include <utility>

namespace reprise {

std::string FileUri(const std::string& path, std::string_view parameters) {
  std::string uri = "file:";
  for (const char c : path) {
    if (c == '%' || c == '?' || c == '#') {
      uri += fmt::format("%{:02x}", static_cast<unsigned char>(c));
    } else {
      uri += c;
    }
  }
  return uri + std::string(parameters);
}

Status Database::Open(const char* name, const std::string& uri, const char* vfs, int flags, int busy_milliseconds) {
  Close();
  name_ = name;
  const int code = sqlite3_open_v2(uri.c_str(), &db_, flags, vfs);
  if (code != SQLITE_OK) {
    Status status = Error(code);
    Close();
    return status;
  }
  sqlite3_extended_result_codes(db_, 1);
  sqlite3_busy_timeout(db_, busy_milliseconds);
  return Ok();
}

Status Database::Harden() {
  sqlite3_db_config(db_, SQLITE_DBCONFIG_DEFENSIVE, 1, nullptr);
  sqlite3_db_config(db_, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, nullptr);
  sqlite3_db_config(db_, SQLITE_DBCONFIG_ENABLE_TRIGGER, 0, nullptr);
  sqlite3_db_config(db_, SQLITE_DBCONFIG_ENABLE_VIEW, 0, nullptr);
  return Run("PRAGMA cell_size_check = ON");
}

void Database::Close() {
  for (const auto& [sql, statement] : prepared_) sqlite3_finalize(statement);
  prepared_.clear();
  sqlite3_close(db_);
  db_ = nullptr;
}

Status Database::Error(int code) const {
  std::string message = fmt::format("'{}': {} (SQLite {})", name_, db_ != nullptr ? sqlite3_errmsg(db_) : sqlite3_errstr(code), code);
  switch (code & 0xff) {
    case SQLITE_FULL: return Exhausted(std::move(message));
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB: return Corrupt(std::move(message));
    case SQLITE_CONSTRAINT:
    case SQLITE_MISUSE:
    case SQLITE_ERROR: return Internal(std::move(message));
    default: return IoError(std::move(message));
  }
}

Status Database::Run(const char* sql) {
  const int code = sqlite3_exec(db_, sql, nullptr, nullptr, nullptr);
  return code == SQLITE_OK ? Ok() : Error(code);
}

void Query::Prepare(const char* sql) {
  sqlite3_stmt*& kept = db_.prepared_[sql];
  if (kept == nullptr) error_ = sqlite3_prepare_v3(db_.db_, sql, -1, SQLITE_PREPARE_PERSISTENT, &kept, nullptr);
  statement_ = kept;
}

Query::~Query() {
  if (statement_ == nullptr) return;
  sqlite3_reset(statement_);
  sqlite3_clear_bindings(statement_);
}

void Query::Bind(int at, int64_t value) {
  if (error_ == SQLITE_OK) error_ = sqlite3_bind_int64(statement_, at, value);
}

void Query::Bind(int at, std::span<const std::byte> value) {
  // A null pointer would bind NULL: an empty blob needs an address.
  const void* data = value.empty() ? static_cast<const void*>("") : value.data();
  if (error_ == SQLITE_OK) error_ = sqlite3_bind_blob64(statement_, at, data, value.size(), SQLITE_TRANSIENT);
}

void Query::Bind(int at, std::string_view value) { Bind(at, std::as_bytes(std::span(value))); }

Result<bool> Query::Row() {
  if (error_ != SQLITE_OK) return db_.Error(error_);
  const int code = sqlite3_step(statement_);
  if (code == SQLITE_ROW) return true;
  if (code == SQLITE_DONE) return false;
  return db_.Error(code);
}

Status Query::Done() {
  REPRISE_ASSIGN_OR_RETURN(const bool row, Row());
  return row ? Internal("a statement gave a row that nobody asked for") : Ok();
}

std::span<const std::byte> Query::Blob(int column) const {
  const void* data = sqlite3_column_blob(statement_, column);
  return {static_cast<const std::byte*>(data), static_cast<size_t>(sqlite3_column_bytes(statement_, column))};
}

std::string Query::Text(int column) const {
  const auto bytes = Blob(column);
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

Result<Transaction> Transaction::Begin(Database& db, Kind kind) {
  REPRISE_RETURN_IF_ERROR(db.Run(kind == Kind::kWrite ? "BEGIN IMMEDIATE" : "BEGIN"));
  return Transaction(db);
}

Transaction::~Transaction() {
  if (db_ != nullptr && sqlite3_get_autocommit(db_->handle()) == 0) (void)db_->Run("ROLLBACK");
}

Status Transaction::Commit() {
  Status status = db_->Run("COMMIT");
  if (status.ok()) db_ = nullptr;
  return status;
}

}  // namespace reprise
