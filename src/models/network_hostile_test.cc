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
    const size_t skip = index < 0 ? kNumber : kElements + static_cast<size_t>(index) * sizeof(value);
    return Changed(key, key.size() + skip, &value, sizeof(value));
  }
  // What it says when a tensor is called otherwise, by a name of the same length.
  std::string Renamed(const std::string& tensor, const std::string& name) {
    EXPECT_EQ(tensor.size(), name.size());
    return Changed(tensor, 0, name.data(), name.size());
  }
  void Refused(const std::string& key, uint32_t value, const std::string& words, int index = -1) {
    const std::string error = With(key, value, index);
    EXPECT_NE(error.find(words), std::string::npos) << key << " = " << value << " gives '" << error << "'";
  }

 private:
  // What it says with other bytes written `skip` bytes from where `text` begins.
  std::string Changed(const std::string& text, size_t skip, const void* from, size_t size) {
    std::vector<std::byte> bytes = sound_;
    const auto* const sought = reinterpret_cast<const std::byte*>(text.data());
    const auto at = std::search(bytes.begin(), bytes.end(), sought, sought + text.size());
    EXPECT_NE(at, bytes.end()) << text;
    if (at == bytes.end()) return "";
    std::memcpy(&at[static_cast<std::ptrdiff_t>(skip)], from, size);
    return Error(bytes);
  }
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

// A bias that is there and not added would go unseen.
TEST_F(NetworkHostile, Biases) {
  Make("tiny-qwen2");
  for (const char part : {'q', 'k', 'v'}) {
    const std::string name = std::string("blk.0.attn_") + part + ".bias";
    EXPECT_EQ(Renamed(name, "blk.0.attn_x.bias"), "the file has no tensor '" + name + "'");
  }
  EXPECT_NE(Renamed("blk.1.attn_norm.weight", "blk.0.attn_output.bias").find("bias of attention's output"), std::string::npos);
  EXPECT_NE(Renamed("blk.1.attn_q.bias", "blk.0.ffn_up.bias").find("biases of the feed-forward network"), std::string::npos);
}

TEST_F(NetworkHostile, KernelsOfShortConvolutions) {
  Make("tiny-lfm2");
  for (const uint32_t value : {uint32_t{0}, uint32_t{1}, uint32_t{17}, kMinusOne})
    Refused("lfm2.shortconv.l_cache", value, "shortconv.l_cache");
  Refused("lfm2.shortconv.l_cache", 4, "blk.0.shortconv.conv.weight");
}

}  // namespace
}  // namespace reprise
