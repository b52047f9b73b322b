#include "cli/token_file.h"

#include <bit>
#include <cstring>
#include <filesystem>

#include "base/file.h"

namespace reprise {
namespace {

static_assert(std::endian::native == std::endian::little, "ids are read as they lie in the file");

constexpr uint64_t kMostTokens = uint64_t{1} << 20;  // the longest context

Status CheckSize(const std::string& path, uint64_t bytes) {
  if (bytes == 0) return InvalidArgument("'" + path + "' holds no token ids");
  if (bytes % sizeof(int32_t) != 0) {
    return Corrupt("'" + path + "' has " + std::to_string(bytes) + " bytes; a file of 4-byte token ids has a multiple of 4");
  }
  if (bytes / sizeof(int32_t) > kMostTokens) {
    return Exhausted("'" + path + "' holds " + std::to_string(bytes / sizeof(int32_t)) + " token ids; at most " +
                     std::to_string(kMostTokens) + " fit a context");
  }
  return Ok();
}

}  // namespace

Result<uint64_t> CountTokenFile(const std::string& path) {
  REPRISE_ASSIGN_OR_RETURN(const MappedFile file, MappedFile::Open(path));
  REPRISE_RETURN_IF_ERROR(CheckSize(path, file.bytes().size()));
  return file.bytes().size() / sizeof(int32_t);
}

Result<std::vector<int32_t>> ReadTokenFile(const std::string& path, int vocabulary) {
  REPRISE_ASSIGN_OR_RETURN(const auto bytes, ReadFile(path, (kMostTokens + 1) * sizeof(int32_t)));
  REPRISE_RETURN_IF_ERROR(CheckSize(path, bytes.size()));
  std::vector<int32_t> tokens(bytes.size() / sizeof(int32_t));
  std::memcpy(tokens.data(), bytes.data(), bytes.size());
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (tokens[i] < 0 || tokens[i] >= vocabulary) {
      return InvalidArgument("'" + path + "': the id " + std::to_string(tokens[i]) + " at index " + std::to_string(i) +
                             " is outside the vocabulary of " + std::to_string(vocabulary));
    }
  }
  return tokens;
}

}  // namespace reprise
