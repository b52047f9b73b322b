#include "reprise/fingerprint.h"

#include <sodium.h>

namespace reprise {
namespace {

crypto_generichash_state* Sodium(std::array<unsigned char, 384>& state) {
  return reinterpret_cast<crypto_generichash_state*>(state.data());
}

}  // namespace

std::string Fingerprint::Hex() const {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string hex;
  for (const uint8_t byte : bytes) {
    hex += kDigits[byte >> 4];
    hex += kDigits[byte & 15];
  }
  return hex;
}

std::string Fingerprint::ShortHex() const { return Hex().substr(0, 12); }

FingerprintBuilder::FingerprintBuilder() {
  static_assert(sizeof(crypto_generichash_state) <= sizeof(state_));
  crypto_generichash_init(Sodium(state_), nullptr, 0, sizeof(Fingerprint::bytes));
}

FingerprintBuilder& FingerprintBuilder::Add(std::string_view label, std::span<const std::byte> bytes) {
  for (const std::span<const std::byte> part : {std::as_bytes(std::span(label)), bytes}) {
    unsigned char length[8];
    for (int i = 0; i < 8; ++i) length[i] = static_cast<unsigned char>(uint64_t{part.size()} >> (8 * i));
    crypto_generichash_update(Sodium(state_), length, sizeof(length));
    crypto_generichash_update(Sodium(state_), reinterpret_cast<const unsigned char*>(part.data()), part.size());
  }
  return *this;
}

FingerprintBuilder& FingerprintBuilder::Add(std::string_view label, std::string_view text) {
  return Add(label, std::as_bytes(std::span(text)));
}

FingerprintBuilder& FingerprintBuilder::Add(std::string_view label, uint64_t number) { return Add(label, std::to_string(number)); }

Fingerprint FingerprintBuilder::Finish() {
  Fingerprint fingerprint;
  crypto_generichash_final(Sodium(state_), fingerprint.bytes.data(), fingerprint.bytes.size());
  return fingerprint;
}

}  // namespace reprise
