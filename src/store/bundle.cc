#include "store/bundle.h"

#include <fmt/format.h>
#include <sodium.h>

#include <algorithm>
#include <cstring>
#include <ctime>
#include <memory>
#include <utility>

#include "base/atomic_file.h"
#include "base/checked.h"
#include "store/bundle_format.h"
#include "store/bundle_keys.h"
#include "store/object_file.h"

namespace reprise {

using namespace bundle_format;

namespace {

unsigned char* Raw(std::byte* bytes) { return reinterpret_cast<unsigned char*>(bytes); }
const unsigned char* Raw(const std::byte* bytes) { return reinterpret_cast<const unsigned char*>(bytes); }

// The body on its way out: through the encryption, if there is one, and the digest.
class BodyWriter {
 public:
  BodyWriter(AtomicFile& file, uint64_t plain_bytes) : file_(file), left_(plain_bytes) {
    chunk_.reserve(kChunkBytes);
    crypto_generichash_init(&digest_, nullptr, 0, sizeof(Bytes32));
  }
  void Encrypt(const SecretKey& key, Header& header) {
    encrypted_ = true;
    crypto_secretstream_xchacha20poly1305_init_push(&stream_, header.stream.data(), key.data());
  }
  void BindTo(std::span<const std::byte> header) { bound_ = header; }

  Status Write(std::span<const std::byte> bytes) {
    if (bytes.size() > left_) return Corrupt("an object became longer while it was exported");
    while (!bytes.empty()) {
      const size_t n = std::min(bytes.size(), kChunkBytes - chunk_.size());
      chunk_.insert(chunk_.end(), bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(n));
      bytes = bytes.subspan(n);
      left_ -= n;
      if (chunk_.size() == kChunkBytes || left_ == 0) REPRISE_RETURN_IF_ERROR(Flush());
    }
    return Ok();
  }
  Result<Bytes32> Finish() {
    if (left_ != 0) return Corrupt("an object became shorter while it was exported");
    Bytes32 digest;
    crypto_generichash_final(&digest_, digest.data(), digest.size());
    return digest;
  }

 private:
  Status Flush() {
    std::vector<std::byte> out(chunk_.size() + kChunkOverhead);
    if (encrypted_) {
      const unsigned char tag = left_ == 0 ? crypto_secretstream_xchacha20poly1305_TAG_FINAL : 0;
      crypto_secretstream_xchacha20poly1305_push(&stream_, Raw(out.data()), nullptr, Raw(chunk_.data()), chunk_.size(), Raw(bound_.data()),
                                                 bound_.size(), tag);
      chunk_.swap(out);
    }
    crypto_generichash_update(&digest_, Raw(chunk_.data()), chunk_.size());
    Status status = file_.Write(chunk_);
    chunk_.clear();
    return status;
  }

  AtomicFile& file_;
  uint64_t left_;
  bool encrypted_ = false;
  crypto_secretstream_xchacha20poly1305_state stream_{};
  crypto_generichash_state digest_{};
  std::span<const std::byte> bound_;
  std::vector<std::byte> chunk_;
};

// And on its way in.
class BodyReader : public ObjectStream {
 public:
  BodyReader(std::unique_ptr<ReadableFile> file, const Header& header, std::vector<std::byte> header_bytes, const Bytes32& digest)
      : file_(std::move(file)), header_(header), header_bytes_(std::move(header_bytes)), expected_(digest), left_(header.plain_bytes) {
    crypto_generichash_init(&digest_, nullptr, 0, sizeof(Bytes32));
  }
  Status Decrypt(const SecretKey& key) {
    const bool started = crypto_secretstream_xchacha20poly1305_init_pull(&stream_, header_.stream.data(), key.data()) == 0;
    return started ? Ok() : Corrupt("its encryption cannot be begun");
  }
  Status ReadSizes() {
    sizes_.resize(header_.objects);  // at most the body's bytes, as its header was checked
    REPRISE_RETURN_IF_ERROR(Read(std::as_writable_bytes(std::span(sizes_))));
    uint64_t sum = sizes_.size() * sizeof(uint64_t);
    for (const uint64_t size : sizes_) {
      const auto more = CheckedAdd(sum, size);
      if (!more) return Corrupt("the sizes of its objects are impossible");
      sum = *more;
    }
    return sum == header_.plain_bytes ? Ok() : Corrupt("the sizes of its objects are not what its body holds");
  }

  std::span<const uint64_t> sizes() const override { return sizes_; }
  Status Read(std::span<std::byte> bytes) override {
    while (!bytes.empty()) {
      if (used_ == chunk_.size()) REPRISE_RETURN_IF_ERROR(NextChunk());
      const size_t n = std::min(bytes.size(), chunk_.size() - used_);
      std::memcpy(bytes.data(), chunk_.data() + used_, n);
      used_ += n;
      bytes = bytes.subspan(n);
    }
    return Ok();
  }
  Status Finish() override {
    if (left_ != 0 || used_ != chunk_.size()) return Corrupt("it goes on after its last object");
    Bytes32 digest;
    crypto_generichash_final(&digest_, digest.data(), digest.size());
    return digest == expected_ ? Ok() : Corrupt("its body was damaged or edited: the digest does not match");
  }

 private:
  Status NextChunk() {
    if (left_ == 0) return Corrupt("its objects go beyond its end");
    const size_t plain = static_cast<size_t>(std::min<uint64_t>(left_, kChunkBytes));
    const size_t stored = plain + (header_.encrypted() ? kChunkOverhead : 0);
    std::vector<std::byte> bytes(stored);
    REPRISE_RETURN_IF_ERROR(file_->ReadAt(at_, bytes));
    at_ += stored;
    left_ -= plain;
    used_ = 0;
    crypto_generichash_update(&digest_, Raw(bytes.data()), bytes.size());
    if (!header_.encrypted()) {
      chunk_ = std::move(bytes);
      return Ok();
    }
    chunk_.resize(plain);
    unsigned char tag = 0;
    const int opened = crypto_secretstream_xchacha20poly1305_pull(&stream_, Raw(chunk_.data()), nullptr, &tag, Raw(bytes.data()),
                                                                  bytes.size(), Raw(header_bytes_.data()), header_bytes_.size());
    const unsigned char expected = left_ == 0 ? crypto_secretstream_xchacha20poly1305_TAG_FINAL : 0;
    if (opened != 0 || tag != expected) return Corrupt("it was encrypted with another key, or edited");
    return Ok();
  }

  std::unique_ptr<ReadableFile> file_;
  Header header_;
  std::vector<std::byte> header_bytes_;
  Bytes32 expected_;
  uint64_t left_;
  uint64_t at_ = kHeaderBytes;
  crypto_secretstream_xchacha20poly1305_state stream_{};
  crypto_generichash_state digest_{};
  std::vector<std::byte> chunk_;
  size_t used_ = 0;
  std::vector<uint64_t> sizes_;
};

struct Opened {
  std::unique_ptr<ReadableFile> file;
  std::vector<std::byte> header_bytes;
  Header header;
  Bytes32 body_digest{};
};

// Header and trailer, and the signature by whoever the header names.
Result<Opened> OpenBundle(const std::string& path) {
  if (::sodium_init() < 0) return Internal("libsodium cannot be used on this machine");
  Opened opened;
  REPRISE_ASSIGN_OR_RETURN(opened.file, FileSystem::OpenPath(path));
  const uint64_t total = opened.file->size();
  opened.header_bytes.resize(static_cast<size_t>(std::min<uint64_t>(total, kHeaderBytes)));
  REPRISE_RETURN_IF_ERROR(opened.file->ReadAt(0, opened.header_bytes));
  REPRISE_ASSIGN_OR_RETURN(opened.header, ParseHeader(opened.header_bytes, total));
  std::vector<std::byte> trailer(kTrailerBytes);
  REPRISE_RETURN_IF_ERROR(opened.file->ReadAt(total - kTrailerBytes, trailer));
  std::memcpy(opened.body_digest.data(), trailer.data(), opened.body_digest.size());
  const auto signature = std::span(trailer).subspan(sizeof(Bytes32));
  if (opened.header.is_signed()) {
    const auto message = SignedBytes(opened.header_bytes, opened.body_digest);
    if (crypto_sign_verify_detached(Raw(signature.data()), message.data(), message.size(), opened.header.signer.data()) != 0) {
      return Corrupt("it was edited after it was signed: the signature does not fit");
    }
  } else if (std::any_of(signature.begin(), signature.end(), [](std::byte b) { return b != std::byte{0}; })) {
    return Corrupt("it is not signed, and has a signature");
  }
  return opened;
}

Status CheckPurpose(const Header& header, const ImportOptions& options) {
  if (header.name_space != options.name_space) return Mismatch("it is of another namespace");
  if (options.fingerprint && header.fingerprint != *options.fingerprint) {
    return Mismatch(fmt::format("it is of another model, quantisation or kernel version: its fingerprint is {}, not {}",
                                header.fingerprint.ShortHex(), options.fingerprint->ShortHex()));
  }
  if (options.origin && header.origin != *options.origin) return Mismatch("it is of another origin");
  if (!options.verification_key.empty()) {
    REPRISE_ASSIGN_OR_RETURN(const PublicKey key, ReadPublicKey(options.verification_key));
    if (!header.is_signed()) return Mismatch("it is not signed, and a signature was asked for");
    if (header.signer != key) return Mismatch(fmt::format("it is signed by another key, {}", Fingerprint{header.signer}.Hex()));
  }
  if (header.encrypted() == options.encryption_key.empty()) {
    return Mismatch(header.encrypted() ? "it is encrypted, and no key was given" : "it is not encrypted, and a key was given");
  }
  return Ok();
}

Status Export(DiskTier& tier, std::span<const int64_t> ids, const std::string& path, const ExportOptions& options) {
  if (::sodium_init() < 0) return Internal("libsodium cannot be used on this machine");
  if (options.origin.size() > kTextBytes) return InvalidArgument(fmt::format("an origin has at most {} bytes", kTextBytes));
  REPRISE_ASSIGN_OR_RETURN(const auto shipment, tier.PlanExport(ids));
  std::vector<std::unique_ptr<ReadableFile>> files;
  std::vector<uint64_t> sizes;
  Header header;
  for (const auto& object : shipment.objects) {
    REPRISE_ASSIGN_OR_RETURN(auto file, tier.OpenExported(object));
    sizes.push_back(file->size());
    header.plain_bytes += sizeof(uint64_t) + file->size();
  }
  header.objects = static_cast<uint32_t>(sizes.size());
  header.capsules = shipment.capsules;
  header.fingerprint = shipment.fingerprint;
  header.name_space = shipment.name_space;
  header.origin = options.origin;
  header.created = std::time(nullptr);
  ::randombytes_buf(header.id.data(), header.id.size());

  REPRISE_ASSIGN_OR_RETURN(AtomicFile out, AtomicFile::Create(path, 0600));
  BodyWriter body(out, header.plain_bytes);
  SigningKey signing_key{};
  if (!options.signing_key.empty()) {
    REPRISE_ASSIGN_OR_RETURN(signing_key, ReadSigningKey(options.signing_key));
    header.flags |= kSigned;
    ::crypto_sign_ed25519_sk_to_pk(header.signer.data(), signing_key.data());
  }
  if (!options.encryption_key.empty()) {
    REPRISE_ASSIGN_OR_RETURN(SecretKey key, ReadSecretKey(options.encryption_key));
    header.flags |= kEncrypted;
    body.Encrypt(key, header);
    ::sodium_memzero(key.data(), key.size());
  }
  const std::vector<std::byte> header_bytes = EncodeHeader(header);
  body.BindTo(header_bytes);
  REPRISE_RETURN_IF_ERROR(out.Write(header_bytes));
  REPRISE_RETURN_IF_ERROR(body.Write(std::as_bytes(std::span(sizes))));
  std::vector<std::byte> buffer;
  for (size_t i = 0; i < sizes.size(); ++i) {
    REPRISE_ASSIGN_OR_RETURN(const auto file, tier.OpenExported(shipment.objects[i]));
    crypto_generichash_state digest;
    crypto_generichash_init(&digest, nullptr, 0, sizeof(Bytes32));
    for (uint64_t at = 0; at < sizes[i]; at += buffer.size()) {
      buffer.resize(std::min<uint64_t>(sizes[i] - at, size_t{1} << 19));
      REPRISE_RETURN_IF_ERROR(file->ReadAt(at, buffer));
      crypto_generichash_update(&digest, Raw(buffer.data()), buffer.size());
      REPRISE_RETURN_IF_ERROR(body.Write(buffer));
    }
    Bytes32 name;
    crypto_generichash_final(&digest, name.data(), name.size());
    if (name != shipment.objects[i]) return Corrupt(fmt::format("object {} is damaged, and is not exported", HexOf(shipment.objects[i])));
  }
  REPRISE_ASSIGN_OR_RETURN(const Bytes32 digest, body.Finish());
  std::vector<std::byte> trailer(kTrailerBytes);
  std::memcpy(trailer.data(), digest.data(), digest.size());
  if (header.is_signed()) {
    const auto message = SignedBytes(header_bytes, digest);
    ::crypto_sign_detached(Raw(trailer.data() + digest.size()), nullptr, message.data(), message.size(), signing_key.data());
    ::sodium_memzero(signing_key.data(), signing_key.size());
  }
  REPRISE_RETURN_IF_ERROR(out.Write(trailer));
  return out.Commit();
}

Result<std::vector<int64_t>> Import(DiskTier& tier, const std::string& path, const ImportOptions& options) {
  REPRISE_ASSIGN_OR_RETURN(Opened opened, OpenBundle(path));
  REPRISE_RETURN_IF_ERROR(CheckPurpose(opened.header, options));
  const Header& header = opened.header;
  BodyReader body(std::move(opened.file), header, std::move(opened.header_bytes), opened.body_digest);
  if (header.encrypted()) {
    REPRISE_ASSIGN_OR_RETURN(SecretKey key, ReadSecretKey(options.encryption_key));
    Status status = body.Decrypt(key);
    ::sodium_memzero(key.data(), key.size());
    if (!status.ok()) return status;
  }
  REPRISE_RETURN_IF_ERROR(body.ReadSizes());
  return tier.Import({header.id, header.name_space, header.fingerprint, header.capsules}, body);
}

}  // namespace

Status ExportBundle(DiskTier& tier, std::span<const int64_t> ids, const std::string& path, const ExportOptions& options) {
  Status status = Export(tier, ids, path, options);
  return status.ok() ? status : status.Within("'" + path + "' was not written");
}

Result<std::vector<int64_t>> ImportBundle(DiskTier& tier, const std::string& path, const ImportOptions& options) {
  auto ids = Import(tier, path, options);
  if (!ids.ok()) return ids.status().Within("'" + path + "' was not imported");
  return ids;
}

Result<BundleSummary> SummariseBundle(const std::string& path) {
  auto opened = OpenBundle(path);
  if (!opened.ok()) return opened.status().Within("'" + path + "'");
  const Header& header = opened->header;
  BundleSummary summary;
  summary.id = Fingerprint{header.id}.Hex();
  summary.fingerprint = header.fingerprint;
  summary.name_space = header.name_space;
  summary.origin = header.origin;
  summary.created = header.created;
  summary.objects = header.objects;
  summary.capsules = header.capsules;
  summary.bytes = header.total_bytes();
  summary.encrypted = header.encrypted();
  if (header.is_signed()) summary.signer = Fingerprint{header.signer}.Hex();
  return summary;
}

}  // namespace reprise
