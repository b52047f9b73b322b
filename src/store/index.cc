#include "store/index.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/checked.h"
#include "store/index_schema.h"

namespace reprise {
namespace {

constexpr int kApplication = 0x52505253;  // "RPRS"
constexpr int kBusyMilliseconds = 10000;

Digest DigestAt(const Query& query, int column) {
  Digest digest{};
  const auto bytes = query.Blob(column);
  std::memcpy(digest.data(), bytes.data(), std::min(bytes.size(), digest.size()));  // 32, by the table's check
  return digest;
}

IndexedObject ObjectAt(const Query& query, int column) {
  return {DigestAt(query, column), static_cast<uint64_t>(query.Integer(column + 1)), static_cast<uint64_t>(query.Integer(column + 2))};
}

IndexedSegment SegmentAt(const Query& query) {
  return {query.Integer(0),
          query.Integer(1),
          query.Integer(2),
          Fingerprint{DigestAt(query, 3)},
          static_cast<int32_t>(query.Integer(4)),
          static_cast<int32_t>(query.Integer(5)),
          ObjectAt(query, 6)};
}

IndexedCapsule CapsuleAt(const Query& query) {
  IndexedCapsule capsule;
  capsule.id = query.Integer(0);
  capsule.segment = query.Integer(1);
  capsule.name_space = query.Integer(2);
  capsule.fingerprint.bytes = DigestAt(query, 3);
  capsule.position = static_cast<int32_t>(query.Integer(4));
  capsule.object = ObjectAt(query, 5);
  capsule.note.id = static_cast<uint64_t>(query.Integer(8));
  capsule.note.keep = static_cast<Keep>(std::clamp<int64_t>(query.Integer(9), 0, static_cast<int64_t>(Keep::kStride)));
  capsule.note.pinned = query.Integer(10) != 0;
  capsule.note.created = query.Integer(11);
  capsule.note.used = query.Integer(12);
  capsule.note.hits = query.Integer(13);
  capsule.note.name = query.Text(14);
  capsule.note.metadata = query.Text(15);
  return capsule;
}

// As SegmentAt and CapsuleAt read them.
#define REPRISE_SEGMENT_COLUMNS "SELECT id, ifnull(parent, 0), namespace, fingerprint, first, last, object, bytes, seal"
#define REPRISE_CAPSULE_COLUMNS \
  "SELECT id, ifnull(segment, 0), namespace, fingerprint, position, object, bytes, seal, entry, keep, pinned, created, used, hits, name, "

Result<std::vector<IndexedCapsule>> AllCapsules(Query& query) {
  std::vector<IndexedCapsule> capsules;
  while (true) {
    REPRISE_ASSIGN_OR_RETURN(const bool row, query.Row());
    if (!row) return capsules;
    capsules.push_back(CapsuleAt(query));
  }
}

Result<std::vector<IndexedSegment>> AllSegments(Query& query) {
  std::vector<IndexedSegment> segments;
  while (true) {
    REPRISE_ASSIGN_OR_RETURN(const bool row, query.Row());
    if (!row) return segments;
    segments.push_back(SegmentAt(query));
  }
}

Status AllDigests(Query&& query, std::vector<Digest>& digests) {
  while (true) {
    REPRISE_ASSIGN_OR_RETURN(const bool row, query.Row());
    if (!row) return Ok();
    digests.push_back(DigestAt(query, 0));
  }
}

Result<int64_t> OneInteger(Query&& query) {
  REPRISE_ASSIGN_OR_RETURN(const bool row, query.Row());
  return row ? query.Integer(0) : int64_t{0};
}

}  // namespace

Result<std::unique_ptr<Index>> Index::Open(const FileSystem& files, bool read_only) {
  auto index = std::make_unique<Index>();
  const std::string path = files.PathOf(kFile);
  const int flags = SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_NOFOLLOW | SQLITE_OPEN_URI;
  const auto open = [&](std::string_view parameters) -> Status {
    REPRISE_RETURN_IF_ERROR(index->db_.Open(kFile, FileUri(path, parameters), files.sqlite_vfs(),
                                            flags | (read_only ? SQLITE_OPEN_READONLY : SQLITE_OPEN_READWRITE), kBusyMilliseconds));
    return index->Prepare(read_only);
  };
  Status status = open("");
  if (!status.ok() && read_only && status.code() == StatusCode::kIo) {
    // A log needs shared memory beside it, which a directory that cannot be written does not give. Without a log none is needed.
    status = open("?immutable=1");
  }
  if (!status.ok()) return status;
  return index;
}

Status Index::Prepare(bool read_only) {
  REPRISE_RETURN_IF_ERROR(db_.Harden());
  sqlite3_db_config(db_.handle(), SQLITE_DBCONFIG_ENABLE_FKEY, 1, nullptr);
  if (!read_only) {
    REPRISE_RETURN_IF_ERROR(db_.Run("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL"));
    // The log counts towards the budget: it is kept short.
    REPRISE_RETURN_IF_ERROR(db_.Run("PRAGMA wal_autocheckpoint = 128; PRAGMA journal_size_limit = 1048576"));
    REPRISE_RETURN_IF_ERROR(CreateSchema());
  }
  REPRISE_ASSIGN_OR_RETURN(const int64_t version, OneInteger(Query(db_, "PRAGMA user_version")));
  REPRISE_ASSIGN_OR_RETURN(const int64_t application, OneInteger(Query(db_, "PRAGMA application_id")));
  if (application != kApplication) return Unsupported(fmt::format("'{}' is the database of another program", kFile));
  if (version != kSchema) {
    return Unsupported(
        fmt::format("'{}' has the schema of version {}, which this build does not know; it knows version {}", kFile, version, kSchema));
  }
  Query check(db_, "PRAGMA quick_check(1)");
  REPRISE_ASSIGN_OR_RETURN(const bool row, check.Row());
  if (!row || check.Text(0) != "ok")
    return Corrupt(fmt::format("'{}' is damaged: {}", kFile, row ? check.Text(0) : "it cannot be checked"));
  return Ok();
}

Status Index::CreateSchema() {
  REPRISE_ASSIGN_OR_RETURN(Transaction transaction, Write());
  REPRISE_ASSIGN_OR_RETURN(const int64_t tables, OneInteger(Query(db_, "SELECT count(*) FROM sqlite_schema")));
  REPRISE_ASSIGN_OR_RETURN(const int64_t version, OneInteger(Query(db_, "PRAGMA user_version")));
  if (tables != 0 || version != 0) return Ok();
  REPRISE_RETURN_IF_ERROR(db_.Run(kIndexSchema));
  REPRISE_RETURN_IF_ERROR(db_.Run(fmt::format("PRAGMA application_id = {}; PRAGMA user_version = {}", kApplication, kSchema).c_str()));
  return transaction.Commit();
}

Result<int64_t> Index::Version() { return OneInteger(Query(db_, "PRAGMA data_version")); }

Status Index::Overwrite() {
  REPRISE_ASSIGN_OR_RETURN(Transaction transaction, Write());
  REPRISE_RETURN_IF_ERROR(Query(db_, "UPDATE sweeps SET count = count + 1").Done());
  return transaction.Commit();
}

void Index::Shrink() { (void)db_.Run("PRAGMA wal_checkpoint(TRUNCATE)"); }

Status Index::Verify() {
  Query pages(db_, "PRAGMA integrity_check(1)");
  REPRISE_ASSIGN_OR_RETURN(const bool row, pages.Row());
  if (!row || pages.Text(0) != "ok")
    return Corrupt(fmt::format("'{}' is damaged: {}", kFile, row ? pages.Text(0) : "it cannot be checked"));
  Query references(db_, "PRAGMA foreign_key_check");
  REPRISE_ASSIGN_OR_RETURN(const bool broken, references.Row());
  return broken ? Corrupt(fmt::format("'{}' is damaged: something rests on what is not there", kFile)) : Ok();
}

Result<std::optional<IndexedNamespace>> Index::FindNamespace(std::string_view name) {
  Query query(db_, "SELECT id, salt FROM namespaces WHERE name = ?", name);
  REPRISE_ASSIGN_OR_RETURN(const bool row, query.Row());
  if (!row) return std::optional<IndexedNamespace>();
  return std::optional<IndexedNamespace>({query.Integer(0), std::string(name), DigestAt(query, 1)});
}

Result<IndexedNamespace> Index::AddNamespace(std::string_view name, const Digest& salt) {
  REPRISE_RETURN_IF_ERROR(Query(db_, "INSERT INTO namespaces(name, salt) VALUES(?, ?)", name, salt).Done());
  return IndexedNamespace{sqlite3_last_insert_rowid(db_.handle()), std::string(name), salt};
}

Result<std::vector<IndexedNamespace>> Index::Namespaces() {
  Query query(db_, "SELECT id, name, salt FROM namespaces");
  std::vector<IndexedNamespace> all;
  while (true) {
    REPRISE_ASSIGN_OR_RETURN(const bool row, query.Row());
    if (!row) return all;
    all.push_back({query.Integer(0), query.Text(1), DigestAt(query, 2)});
  }
}

Result<std::vector<Index::Step>> Index::Walk(int64_t name_space, const Fingerprint& fingerprint, std::span<const int32_t> tokens) {
  std::vector<Step> path;
  int64_t at = 0;
  int32_t known = 0;
  while (known < tokens.size()) {
    // Of the children whose first row is known, the one that agrees farthest. More than one may agree, when two processes wrote at once.
    Step best;
    best.until = known;
    Query query(db_,
                REPRISE_SEGMENT_COLUMNS
                ", token, tokens FROM segments "
                "WHERE parent IS nullif(?, 0) AND namespace = ? AND fingerprint = ? AND first <= ?",
                at, name_space, fingerprint.bytes, known);
    while (true) {
      REPRISE_ASSIGN_OR_RETURN(const bool row, query.Row());
      if (!row) break;
      const int64_t first = query.Integer(4);
      if (first < 0 || first > known || query.Integer(9) != tokens[static_cast<size_t>(first)]) continue;
      const auto stored = query.Blob(10);
      int32_t until = static_cast<int32_t>(first);
      for (size_t i = 0; i < stored.size() / sizeof(int32_t) && until < tokens.size(); ++i, ++until) {
        int32_t token;
        std::memcpy(&token, stored.data() + i * sizeof(token), sizeof(token));
        if (token != tokens[static_cast<size_t>(until)]) break;
      }
      if (until > best.until) best = {SegmentAt(query), until};
    }
    if (best.until == known) return path;
    known = best.until;
    at = best.segment.id;
    path.push_back(best);
  }
  return path;
}

Result<std::vector<IndexedSegment>> Index::Chain(int64_t segment) {
  std::vector<IndexedSegment> chain;
  while (segment != 0) {
    Query query(db_, REPRISE_SEGMENT_COLUMNS " FROM segments WHERE id = ?", segment);
    REPRISE_ASSIGN_OR_RETURN(const bool row, query.Row());
    if (!row) return Corrupt(fmt::format("'{}' is damaged: segment {} is missing", kFile, segment));
    chain.push_back(SegmentAt(query));
    const bool rests = chain.size() < 2 || chain[chain.size() - 2].first <= chain.back().last;
    // Along a chain first rows strictly fall, since a child stores at least one row beyond its parent's use; so it ends.
    const bool falls = chain.size() < 2 || chain.back().first < chain[chain.size() - 2].first;
    if (!rests || !falls) return Corrupt(fmt::format("'{}' is damaged: segment {} cannot rest where it does", kFile, segment));
    segment = chain.back().parent;
  }
  std::reverse(chain.begin(), chain.end());
  return chain;
}

Result<std::vector<int32_t>> Index::Tokens(int64_t segment) {
  Query query(db_, "SELECT tokens FROM segments WHERE id = ?", segment);
  REPRISE_ASSIGN_OR_RETURN(const bool row, query.Row());
  if (!row) return NotFound(fmt::format("segment {} is not in '{}'", segment, kFile));
  const auto bytes = query.Blob(0);
  std::vector<int32_t> tokens(bytes.size() / sizeof(int32_t));
  if (!tokens.empty()) std::memcpy(tokens.data(), bytes.data(), tokens.size() * sizeof(int32_t));
  return tokens;
}

Result<std::vector<IndexedSegment>> Index::Segments() {
  Query query(db_, REPRISE_SEGMENT_COLUMNS " FROM segments ORDER BY id");
  return AllSegments(query);
}

Result<bool> Index::HasSegment(int64_t id) {
  Query query(db_, "SELECT 1 FROM segments WHERE id = ?", id);
  return query.Row();
}

Result<int64_t> Index::SegmentOf(const Digest& object) {
  return OneInteger(Query(db_, "SELECT id FROM segments WHERE object = ?", object));
}

Result<std::optional<IndexedCapsule>> Index::Capsule(int64_t id) {
  Query query(db_, REPRISE_CAPSULE_COLUMNS "metadata FROM capsules WHERE id = ?", id);
  REPRISE_ASSIGN_OR_RETURN(const bool row, query.Row());
  if (!row) return std::optional<IndexedCapsule>();
  return std::optional<IndexedCapsule>(CapsuleAt(query));
}

Result<int64_t> Index::CapsuleOf(const Digest& object) {
  return OneInteger(Query(db_, "SELECT id FROM capsules WHERE object = ?", object));
}

Result<std::vector<IndexedCapsule>> Index::Capsules() {
  Query query(db_, REPRISE_CAPSULE_COLUMNS "x'' FROM capsules ORDER BY id");
  return AllCapsules(query);
}

Result<std::vector<Fingerprint>> Index::Fingerprints() {
  Query query(db_, "SELECT DISTINCT fingerprint FROM capsules ORDER BY fingerprint");
  std::vector<Fingerprint> fingerprints;
  while (true) {
    REPRISE_ASSIGN_OR_RETURN(const bool row, query.Row());
    if (!row) return fingerprints;
    fingerprints.push_back({DigestAt(query, 0)});
  }
}

Result<std::vector<IndexedCapsule>> Index::CapsulesOf(const Fingerprint& fingerprint) {
  Query query(db_, REPRISE_CAPSULE_COLUMNS "metadata FROM capsules WHERE fingerprint = ? ORDER BY id", fingerprint.bytes);
  return AllCapsules(query);
}

Result<std::optional<int64_t>> Index::AutomaticAt(const std::vector<Step>& path, int64_t name_space, const Fingerprint& fingerprint,
                                                  int32_t position) {
  const auto look = [&](int64_t segment) -> Result<std::optional<int64_t>> {
    Query query(
        db_,
        "SELECT id FROM capsules WHERE segment IS nullif(?, 0) AND position = ? AND namespace = ? AND fingerprint = ? AND keep <> 0 "
        "AND length(name) = 0 ORDER BY id LIMIT 1",
        segment, position, name_space, fingerprint.bytes);
    REPRISE_ASSIGN_OR_RETURN(const bool row, query.Row());
    return row ? std::optional<int64_t>(query.Integer(0)) : std::nullopt;
  };
  if (position == 0) return look(0);
  for (const Step& step : path) {
    if (step.until < position || step.segment.first >= position) continue;
    REPRISE_ASSIGN_OR_RETURN(const auto found, look(step.segment.id));
    if (found) return found;
  }
  return std::optional<int64_t>();
}

Result<int64_t> Index::Insert(const IndexedSegment& segment, std::span<const int32_t> tokens) {
  REPRISE_RETURN_IF_ERROR(Query(db_,
                                "INSERT INTO segments(parent, namespace, fingerprint, first, last, token, object, bytes, seal, tokens) "
                                "VALUES(nullif(?, 0), ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                                segment.parent, segment.name_space, segment.fingerprint.bytes, segment.first, segment.last, tokens[0],
                                segment.object.name, segment.object.bytes, segment.object.seal, std::as_bytes(tokens))
                              .Done());
  return sqlite3_last_insert_rowid(db_.handle());
}

Status Index::ReleaseName(const IndexedCapsule& capsule) {
  if (capsule.note.name.empty()) return Ok();
  return Query(db_, "UPDATE capsules SET name = x'' WHERE namespace = ? AND fingerprint = ? AND name = ? AND id <> ?", capsule.name_space,
               capsule.fingerprint.bytes, capsule.note.name, capsule.id)
      .Done();
}

Result<int64_t> Index::Insert(const IndexedCapsule& capsule) {
  REPRISE_RETURN_IF_ERROR(ReleaseName(capsule));
  const DiskNote& note = capsule.note;
  REPRISE_RETURN_IF_ERROR(
      Query(db_,
            "INSERT INTO capsules(segment, namespace, fingerprint, position, object, bytes, seal, entry, keep, pinned, created, used, "
            "hits, name, metadata) VALUES(nullif(?, 0), ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            capsule.segment, capsule.name_space, capsule.fingerprint.bytes, capsule.position, capsule.object.name, capsule.object.bytes,
            capsule.object.seal, note.id, static_cast<int64_t>(note.keep), note.pinned, note.created, note.used, note.hits, note.name,
            note.metadata)
          .Done());
  return sqlite3_last_insert_rowid(db_.handle());
}

Status Index::Update(const IndexedCapsule& capsule) {
  REPRISE_RETURN_IF_ERROR(ReleaseName(capsule));
  const DiskNote& note = capsule.note;
  return Query(db_, "UPDATE capsules SET pinned = ?, used = ?, hits = ?, name = ?, metadata = ? WHERE id = ?", note.pinned, note.used,
               note.hits, note.name, note.metadata, capsule.id)
      .Done();
}

Status Index::RemoveUnused(int64_t segment, std::vector<Digest>& objects) {
  while (segment != 0) {
    REPRISE_ASSIGN_OR_RETURN(const int64_t used, OneInteger(Query(db_,
                                                                  "SELECT EXISTS(SELECT 1 FROM capsules WHERE segment = ?1) OR "
                                                                  "EXISTS(SELECT 1 FROM segments WHERE parent = ?1)",
                                                                  segment)));
    if (used != 0) return Ok();
    int64_t parent = 0;
    {
      Query query(db_, "SELECT ifnull(parent, 0), object FROM segments WHERE id = ?", segment);
      REPRISE_ASSIGN_OR_RETURN(const bool row, query.Row());
      if (!row) return Ok();
      parent = query.Integer(0);
      objects.push_back(DigestAt(query, 1));
    }
    REPRISE_RETURN_IF_ERROR(Query(db_, "DELETE FROM segments WHERE id = ?", segment).Done());
    segment = parent;
  }
  return Ok();
}

Status Index::RemoveCapsule(int64_t id, std::vector<Digest>& objects) {
  REPRISE_ASSIGN_OR_RETURN(const auto capsule, Capsule(id));
  if (!capsule) return Ok();
  objects.push_back(capsule->object.name);
  REPRISE_RETURN_IF_ERROR(Query(db_, "DELETE FROM capsules WHERE id = ?", id).Done());
  return RemoveUnused(capsule->segment, objects);
}

Status Index::RemoveSegment(int64_t id, std::vector<Digest>& objects, std::vector<int64_t>& capsules) {
  // Breadth first; then from the leaves up, since a segment that something rests on cannot be removed.
  std::vector<int64_t> segments = {id};
  for (size_t i = 0; i < segments.size(); ++i) {
    Query query(db_, "SELECT id FROM segments WHERE parent = ?", segments[i]);
    while (true) {
      REPRISE_ASSIGN_OR_RETURN(const bool row, query.Row());
      if (!row) break;
      segments.push_back(query.Integer(0));
    }
  }
  int64_t parent = 0;
  for (auto segment = segments.rbegin(); segment != segments.rend(); ++segment) {
    {
      Query query(db_, "SELECT id, object FROM capsules WHERE segment = ?", *segment);
      while (true) {
        REPRISE_ASSIGN_OR_RETURN(const bool row, query.Row());
        if (!row) break;
        capsules.push_back(query.Integer(0));
        objects.push_back(DigestAt(query, 1));
      }
    }
    REPRISE_RETURN_IF_ERROR(Query(db_, "DELETE FROM capsules WHERE segment = ?", *segment).Done());
    {
      Query query(db_, "SELECT ifnull(parent, 0), object FROM segments WHERE id = ?", *segment);
      REPRISE_ASSIGN_OR_RETURN(const bool row, query.Row());
      if (!row) continue;
      parent = query.Integer(0);
      objects.push_back(DigestAt(query, 1));
    }
    REPRISE_RETURN_IF_ERROR(Query(db_, "DELETE FROM segments WHERE id = ?", *segment).Done());
  }
  return RemoveUnused(parent, objects);
}

Result<bool> Index::HasName(const IndexedCapsule& capsule) {
  Query query(db_, "SELECT 1 FROM capsules WHERE namespace = ? AND fingerprint = ? AND name = ? AND length(name) > 0", capsule.name_space,
              capsule.fingerprint.bytes, capsule.note.name);
  return query.Row();
}

Result<bool> Index::HasBundle(const Digest& id) {
  Query query(db_, "SELECT 1 FROM bundles WHERE id = ?", id);
  return query.Row();
}

Status Index::AddBundle(const Digest& id, int64_t now) { return Query(db_, "INSERT INTO bundles(id, seen) VALUES(?, ?)", id, now).Done(); }

Result<bool> Index::Lists(const Digest& object) {
  REPRISE_ASSIGN_OR_RETURN(const int64_t listed, OneInteger(Query(db_,
                                                                  "SELECT EXISTS(SELECT 1 FROM capsules WHERE object = ?1) OR "
                                                                  "EXISTS(SELECT 1 FROM segments WHERE object = ?1)",
                                                                  object)));
  return listed != 0;
}

Result<std::vector<Digest>> Index::Objects() {
  std::vector<Digest> digests;
  REPRISE_RETURN_IF_ERROR(AllDigests(Query(db_, "SELECT object FROM capsules"), digests));
  REPRISE_RETURN_IF_ERROR(AllDigests(Query(db_, "SELECT object FROM segments"), digests));
  std::sort(digests.begin(), digests.end());
  return digests;
}

Result<uint64_t> Index::ObjectBytes() {
  REPRISE_ASSIGN_OR_RETURN(const int64_t pages, OneInteger(Query(db_,
                                                                 "SELECT (SELECT ifnull(sum((bytes + 4095) / 4096), 0) FROM capsules) + "
                                                                 "(SELECT ifnull(sum((bytes + 4095) / 4096), 0) FROM segments)")));
  return static_cast<uint64_t>(pages) * kDiskPage;
}

Status Index::StartIdsAt(int64_t id) { return Query(db_, "INSERT INTO sqlite_sequence(name, seq) VALUES('capsules', ?)", id).Done(); }

}  // namespace reprise
