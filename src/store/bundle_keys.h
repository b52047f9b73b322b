// Keys of bundles: files of one line of text, which says what kind of key it is.
#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "reprise/status.h"

namespace reprise {

using SigningKey = std::array<uint8_t, 64>;
using PublicKey = std::array<uint8_t, 32>;
using SecretKey = std::array<uint8_t, 32>;

Result<SigningKey> ReadSigningKey(const std::string& path);
Result<PublicKey> ReadPublicKey(const std::string& path);
Result<SecretKey> ReadSecretKey(const std::string& path);

}  // namespace reprise
