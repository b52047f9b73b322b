#include "store/bundle_format.h"

#include <fmt/format.h>
#include <sodium.h>

#include <algorithm>
#include <cstring>

#include "base/bytes.h"
#include "base/checked.h"
#include "store/object_format.h"

namespace reprise::bundle_format {

static_assert(kChunkOverhead == crypto_secretstream_xchacha20poly1305_ABYTES);
static_assert(sizeof(Header::stream) == crypto_secretstream_xchacha20poly1305_HEADERBYTES);
static_assert(sizeof(Bytes32) == crypto_sign_PUBLICKEYBYTES && kTrailerBytes == sizeof(Bytes32) + crypto_sign_BYTES);

uint64_t Header::body_bytes() const { return encrypted() ? plain_bytes + CeilDiv(plain_bytes, kChunkBytes) * kChunkOverhead : plain_bytes; }

std::vector<std::byte> EncodeHeader(const Header& header) {
  ByteWriter writer;
  writer.out().reserve(kHeaderBytes);  // and so GCC 12 does not warn, wrongly, of small blocks that it outgrows
  writer.Bytes(std::as_bytes(std::span(kMagic)));
  writer.Put(kVersion);
  writer.Put(header.flags);
  writer.Put(header.total_bytes());
  writer.Put(header.plain_bytes);
  writer.Bytes(std::as_bytes(std::span(header.id)));
  writer.Bytes(std::as_bytes(std::span(header.fingerprint.bytes)));
  writer.Put(header.objects);
  writer.Put(header.capsules);
  writer.Put(header.created);
  writer.Bytes(std::as_bytes(std::span(header.signer)));
  writer.Bytes(std::as_bytes(std::span(header.stream)));
  for (const std::string* text : {&header.name_space, &header.origin}) {
    writer.Put<uint32_t>(static_cast<uint32_t>(text->size()));
    writer.Text(*text);
    writer.out().resize(writer.size() + kTextBytes - text->size());
  }
  writer.PadTo(kHeaderBytes);
  writer.PutAt(kChecksumOffset, object_format::Checksum(writer.bytes().first(kChecksumOffset)));
  return std::move(writer.out());
}

Result<Header> ParseHeader(std::span<const std::byte> bytes, uint64_t total) {
  if (bytes.size() < kHeaderBytes || total < kHeaderBytes + kTrailerBytes) return Corrupt("it is shorter than any bundle");
  bytes = bytes.first(kHeaderBytes);
  if (std::memcmp(bytes.data(), kMagic, sizeof(kMagic)) != 0) return Corrupt("it is no bundle of capsules");
  ByteReader reader(bytes.subspan(sizeof(kMagic)));
  REPRISE_ASSIGN_OR_RETURN(const auto version, reader.Get<uint32_t>("the version"));
  if (version != kVersion) {
    return Unsupported(fmt::format("bundle format version {} is not known; this build reads version {}", version, kVersion));
  }
  uint64_t stored;
  std::memcpy(&stored, bytes.data() + kChecksumOffset, sizeof(stored));
  if (stored != object_format::Checksum(bytes.first(kChecksumOffset))) return Corrupt("its header is damaged: the checksum does not match");
  Header header;
  REPRISE_ASSIGN_OR_RETURN(header.flags, reader.Get<uint32_t>("the flags"));
  REPRISE_ASSIGN_OR_RETURN(const auto says, reader.Get<uint64_t>("the size"));
  REPRISE_ASSIGN_OR_RETURN(header.plain_bytes, reader.Get<uint64_t>("the size of the body"));
  REPRISE_ASSIGN_OR_RETURN(header.id, reader.Get<Bytes32>("the id"));
  REPRISE_ASSIGN_OR_RETURN(header.fingerprint.bytes, reader.Get<Bytes32>("the fingerprint"));
  REPRISE_ASSIGN_OR_RETURN(header.objects, reader.Get<uint32_t>("the number of objects"));
  REPRISE_ASSIGN_OR_RETURN(header.capsules, reader.Get<uint32_t>("the number of capsules"));
  REPRISE_ASSIGN_OR_RETURN(header.created, reader.Get<int64_t>("when it was made"));
  REPRISE_ASSIGN_OR_RETURN(header.signer, reader.Get<Bytes32>("the signer"));
  REPRISE_ASSIGN_OR_RETURN(header.stream, (reader.Get<std::array<uint8_t, 24>>("the start of the encryption")));
  const auto zero = [](auto range) { return std::all_of(range.begin(), range.end(), [](auto b) { return b == decltype(b){0}; }); };
  for (std::string* text : {&header.name_space, &header.origin}) {
    REPRISE_ASSIGN_OR_RETURN(const auto size, reader.Get<uint32_t>("the size of a text"));
    if (size > kTextBytes) return Corrupt(fmt::format("a text of {} bytes is too long", size));
    REPRISE_ASSIGN_OR_RETURN(const auto field, reader.Bytes(kTextBytes, "a text"));
    text->assign(reinterpret_cast<const char*>(field.data()), size);
    if (!zero(field.subspan(size))) return Corrupt("a text goes on after its end");
  }
  const size_t end = sizeof(kMagic) + reader.offset();
  if (!zero(bytes.subspan(end, kChecksumOffset - end))) return Corrupt("its reserved bytes are not zero");
  if ((header.flags & ~(kEncrypted | kSigned)) != 0) return Corrupt("it has flags that are not known");
  if (header.is_signed() == zero(std::span(header.signer))) return Corrupt("it is signed by nobody, or names a signer and is not signed");
  if (header.encrypted() == zero(std::span(header.stream))) return Corrupt("its flags and its encryption do not agree");
  if (header.plain_bytes > kMostBytes || header.total_bytes() != says || says != total) {
    return Corrupt(fmt::format("it says that it has {} bytes; it has {}", says, total));
  }
  // Each object has a size in the body, and at least a header of its own.
  if (header.capsules == 0 || header.capsules > header.objects ||
      header.objects > header.plain_bytes / (sizeof(uint64_t) + object_format::kHeaderBytes)) {
    return Corrupt(fmt::format("{} capsules of {} objects are impossible in its size", header.capsules, header.objects));
  }
  return header;
}

std::vector<unsigned char> SignedBytes(std::span<const std::byte> header, const Bytes32& body_digest) {
  constexpr std::string_view kPurpose = "reprise bundle, version 1";
  std::vector<unsigned char> bytes(kPurpose.size() + header.size() + body_digest.size());
  auto to = std::copy(kPurpose.begin(), kPurpose.end(), bytes.begin());
  to = std::transform(header.begin(), header.end(), to, [](std::byte b) { return static_cast<unsigned char>(b); });
  std::copy(body_digest.begin(), body_digest.end(), to);
  return bytes;
}

}  // namespace reprise::bundle_format
