// Bundles: capsules of one namespace and one fingerprint as one file, to carry elsewhere (docs/store_format.md).
//
// A bundle holds objects as they lie in a store: each row once, however many capsules rest on it. Its header says whose they are: fingerprint,
// namespace, origin, and an id drawn at random. A signature (Ed25519) covers the header, and the header a digest of all that follows; encryption
// (XChaCha20-Poly1305, chunk by chunk) is bound to the header. So a bundle that was edited, is another's, or comes a second time is refused, and the
// error says which. Without keys the digests still find damage; who made the file, they cannot tell.
//
// An imported capsule answers for its path from then on, and its rows serve whatever is stored on top of them: import unsigned bundles only from where you
// would run a program.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "reprise/fingerprint.h"
#include "reprise/status.h"
#include "store/disk_tier.h"

namespace reprise {

struct ExportOptions {
  std::string origin = {};          // who exports: a host's name, say; at most 256 bytes
  std::string signing_key = {};     // path of a key that WriteSigningKeys made; "": not signed
  std::string encryption_key = {};  // path of a key that WriteEncryptionKey made; "": readable by anyone
};
// Writes the capsules `ids` (DiskEntry::id), and what they rest on, to `path`, with mode 0600: whole, or not at all.
Status ExportBundle(DiskTier& tier, std::span<const int64_t> ids, const std::string& path, const ExportOptions& options);

struct ImportOptions {
  std::string name_space;                       // into which; the bundle's must be the same
  std::optional<Fingerprint> fingerprint = {};  // if given, the bundle's must be the same
  std::optional<std::string> origin = {};       // likewise
  std::string verification_key = {};            // path of the public half of the signer's key; "": a signature is not asked for
  std::string encryption_key = {};
};
// Everything is verified before anything is listed, and all is listed at once or nothing. Returns the ids, in the order of the file. An automatic capsule
// that the store has at the same place stands for the one in the bundle. kCorrupt: damaged or edited; kMismatch: another's, or not signed by that
// key; kInvalidArgument: imported before; kExhausted.
Result<std::vector<int64_t>> ImportBundle(DiskTier& tier, const std::string& path, const ImportOptions& options);

// What a bundle says of itself, checked as far as that goes without keys.
struct BundleSummary {
  std::string id;  // 64 hexadecimal digits
  Fingerprint fingerprint;
  std::string name_space;
  std::string origin;
  int64_t created = 0;  // seconds since the epoch
  uint32_t objects = 0;
  uint32_t capsules = 0;
  uint64_t bytes = 0;  // of the file
  bool encrypted = false;
  std::string signer;  // the public key in hexadecimal digits; "": not signed
};
Result<BundleSummary> SummariseBundle(const std::string& path);

// New keys, as text, mode 0600. `path` must not exist; the public half of a signing key goes to `path`.pub.
Status WriteSigningKeys(const std::string& path);
Status WriteEncryptionKey(const std::string& path);

}  // namespace reprise
