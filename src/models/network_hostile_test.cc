// Files that are sound GGUF and lie about their model: each is refused by name, before anything is computed with it.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "backend/cpu/cpu_backend.h"
#include "base/file.h"
#include "models/network.h"
#include "models/synth.h"

namespace reprise {
namespace {

// Bytes from a key's name to its number, and to the first element of its array: a type; for the array its elements' type and their count too.
constexpr size_t kNumber = 4, kElements = 4 + 4 + 8;

class NetworkHostile : public testing::Test {
 protected:
  void TearDown() override { std::filesystem::remove(path_); }

  void Make(const std::string& shape) {
    ASSERT_TRUE(Synthesize({shape, TensorType::kF32}, path_).ok());
    const auto bytes = ReadFile(path_, size_t{64} << 20);
    ASSERT_TRUE(bytes.ok()) << bytes.status().message();
    sound_.assign(bytes->begin(), bytes->end());
    ASSERT_EQ(Error(sound_), "") << shape;
  }

  // What loading says with the 32-bit number of `key` changed, or element `index` of its array.
  std::string With(const std::string& key, uint32_t value, int index = -1) {
    std::vector<std::byte> bytes = sound_;
    const auto* const name = reinterpret_cast<const std::byte*>(key.data());
    const auto at = std::search(bytes.begin(), bytes.end(), name, name + key.size());
    EXPECT_NE(at, bytes.end()) << key;
    if (at == bytes.end()) return "";
    const size_t skip = index < 0 ? kNumber : kElements + static_cast<size_t>(index) * sizeof(value);
    std::memcpy(&at[static_cast<std::ptrdiff_t>(key.size() + skip)], &value, sizeof(value));
    return Error(bytes);
  }
  void Refused(const std::string& key, uint32_t value, const std::string& words, int index = -1) {
    const std::string error = With(key, value, index);
    EXPECT_NE(error.find(words), std::string::npos) << key << " = " << value << " gives '" << error << "'";
  }

 private:
  static std::string Error(const std::vector<std::byte>& bytes) {
    const auto file = GgufFile::Parse(bytes);
    if (!file.ok()) return "not even a file: " + file.status().message();
    const auto backend = MakeCpuBackend({.threads = 1});
    EXPECT_TRUE(backend.ok());
    StateLayout layout;
    return Network::Load(*file, **backend, layout, {.max_rows = 4, .max_lanes = 1}).status().message();
  }

  std::vector<std::byte> sound_;
  std::string path_ = testing::TempDir() + "reprise_network_hostile_test.gguf";
};

constexpr uint32_t kMinusOne = 0xffffffff;

TEST_F(NetworkHostile, NumbersOfEveryArchitecture) {
  for (const auto& [shape, name] : {std::pair<std::string, std::string>{"tiny", "qwen35"},
                                    {"tiny-llama", "llama"},
                                    {"tiny-qwen2", "qwen2"},
                                    {"tiny-qwen3", "qwen3"},
                                    {"tiny-lfm2", "lfm2"}}) {
    SCOPED_TRACE(name);
    Make(shape);
    for (const char* key : {"block_count", "embedding_length", "feed_forward_length", "attention.head_count", "attention.key_length"}) {
      for (const uint32_t value : {uint32_t{0}, kMinusOne, uint32_t{1} << 30}) Refused(name + "." + key, value, std::string(key));
    }
    Refused(name + ".context_length", 0, "context_length");
    Refused(name + ".embedding_length", 63, "[63, 512] was expected");
    Refused(name + ".feed_forward_length", 129, "ffn_gate.weight");
    Refused(name + ".attention.head_count", 3, "not a multiple");
    Refused(name + ".attention.value_length", 8, "differs from attention.key_length");
    Refused(name + ".rope.dimension_count", 3, "odd or larger");
    Refused(name + ".rope.dimension_count", 4096, "odd or larger");
    // A layer more than there are tensors, or than the array of another key has.
    Refused(name + ".block_count", 5, name == "lfm2" ? "array of 5" : "blk.");
  }
}

TEST_F(NetworkHostile, KeyValueHeads) {
  Make("tiny-qwen3");
  for (const uint32_t value : {uint32_t{0}, uint32_t{3}, kMinusOne}) Refused("qwen3.attention.head_count_kv", value, "head_count_kv");
  Refused("qwen3.attention.head_count_kv", 4, "attn_k.weight");
  Make("tiny-lfm2");  // blocks 0, 1 and 3 convolve, block 2 attends
  const std::string key = "lfm2.attention.head_count_kv";
  Refused(key, 0, "none attends", 2);
  Refused(key, 3, "not a multiple", 2);
  Refused(key, kMinusOne, "head_count_kv", 2);
  Refused(key, 4097, "head_count_kv", 2);
  Refused(key, 1, "differs between blocks", 0);
  Refused(key, 2, "blk.0.attn_q.weight", 0);
}

TEST_F(NetworkHostile, KernelsOfShortConvolutions) {
  Make("tiny-lfm2");
  for (const uint32_t value : {uint32_t{0}, uint32_t{1}, uint32_t{17}, kMinusOne})
    Refused("lfm2.shortconv.l_cache", value, "shortconv.l_cache");
  Refused("lfm2.shortconv.l_cache", 4, "blk.0.shortconv.conv.weight");
}

}  // namespace
}  // namespace reprise
