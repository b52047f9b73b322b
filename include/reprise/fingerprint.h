// Fingerprint: whose state this is. A digest of {weights, quantisation, architecture, kernel numerics, layout version}.
//
// State may be restored only where the fingerprint is equal: anywhere else the same bytes mean something else. Thread count, lane count,
// context length and chat template are not part of it, so that a cache survives a change of settings. (But for Phi 3 and 4, whose positions are told
// in another way where a context may be longer than that of the first training.)
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace reprise {

struct Fingerprint {
  std::array<uint8_t, 32> bytes{};
  bool operator==(const Fingerprint&) const = default;
  std::string Hex() const;       // 64 lower-case digits
  std::string ShortHex() const;  // the first 12 of them, for people
};

// BLAKE2b-256 over labelled parts. Each part's label and length are digested too, so parts cannot run into one another.
class FingerprintBuilder {
 public:
  FingerprintBuilder();
  FingerprintBuilder(const FingerprintBuilder&) = delete;
  FingerprintBuilder& operator=(const FingerprintBuilder&) = delete;

  FingerprintBuilder& Add(std::string_view label, std::span<const std::byte> bytes);
  FingerprintBuilder& Add(std::string_view label, std::string_view text);
  FingerprintBuilder& Add(std::string_view label, uint64_t number);
  Fingerprint Finish();  // once

 private:
  alignas(64) std::array<unsigned char, 384> state_;  // libsodium's crypto_generichash_state
};

}  // namespace reprise
