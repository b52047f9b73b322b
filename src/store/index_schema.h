// The tables of the index, version 1: docs/store_format.md says what they mean.
#pragma once

namespace reprise {

inline constexpr const char* kIndexSchema = R"sql(
CREATE TABLE namespaces(
  id INTEGER PRIMARY KEY,
  name BLOB NOT NULL UNIQUE,
  salt BLOB NOT NULL CHECK(length(salt) = 32)
) STRICT;
CREATE TABLE segments(
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  parent INTEGER REFERENCES segments(id),
  namespace INTEGER NOT NULL REFERENCES namespaces(id),
  fingerprint BLOB NOT NULL CHECK(length(fingerprint) = 32),
  first INTEGER NOT NULL,
  last INTEGER NOT NULL,
  token INTEGER NOT NULL,
  object BLOB NOT NULL UNIQUE CHECK(length(object) = 32),
  bytes INTEGER NOT NULL,
  seal INTEGER NOT NULL,
  tokens BLOB NOT NULL,
  CHECK(0 <= first AND first < last AND last < 2147483648 AND (parent IS NULL) = (first = 0)),
  CHECK(length(tokens) = 4 * (last - first))
) STRICT;
CREATE INDEX segments_by_parent ON segments(parent, namespace, fingerprint, token);
CREATE TABLE capsules(
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  segment INTEGER REFERENCES segments(id),
  namespace INTEGER NOT NULL REFERENCES namespaces(id),
  fingerprint BLOB NOT NULL CHECK(length(fingerprint) = 32),
  position INTEGER NOT NULL,
  object BLOB NOT NULL UNIQUE CHECK(length(object) = 32),
  bytes INTEGER NOT NULL,
  seal INTEGER NOT NULL,
  entry INTEGER NOT NULL,
  keep INTEGER NOT NULL,
  pinned INTEGER NOT NULL,
  created INTEGER NOT NULL,
  used INTEGER NOT NULL,
  hits INTEGER NOT NULL,
  name BLOB NOT NULL,
  metadata BLOB NOT NULL,
  CHECK(0 <= position AND position < 2147483648 AND (segment IS NULL) = (position = 0))
) STRICT;
CREATE INDEX capsules_by_segment ON capsules(segment, position);
CREATE UNIQUE INDEX capsules_by_name ON capsules(namespace, fingerprint, name) WHERE length(name) > 0;
CREATE TABLE bundles(id BLOB PRIMARY KEY CHECK(length(id) = 32), seen INTEGER NOT NULL) STRICT;
CREATE TABLE sweeps(id INTEGER PRIMARY KEY CHECK(id = 1), count INTEGER NOT NULL) STRICT;
INSERT INTO sweeps VALUES(1, 0);
)sql";

}  // namespace reprise
