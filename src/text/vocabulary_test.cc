#include "text/vocabulary.h"

#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <vector>

namespace reprise {
namespace {

// A GGUF of nothing but metadata, written by hand.
class Metadata {
 public:
  template <class T>
  Metadata& Number(const std::string& key, GgufType type, T value) {
    Key(key, type);
    Raw(value);
    return *this;
  }
  Metadata& Text(const std::string& key, const std::string& value) {
    Key(key, GgufType::kString);
    String(value);
    return *this;
  }
  Metadata& Texts(const std::string& key, const std::vector<std::string>& values) {
    Array(key, GgufType::kString, values.size());
    for (const std::string& value : values) String(value);
    return *this;
  }
  template <class T>
  Metadata& Numbers(const std::string& key, GgufType type, const std::vector<T>& values) {
    Array(key, type, values.size());
    for (T value : values) Raw(value);
    return *this;
  }

  // The error's message; empty when the vocabulary was read, which is then in `vocabulary`.
  std::string Read(Vocabulary* vocabulary = nullptr) const {
    std::string file = "GGUF";
    const auto raw = [&](auto value) { file.append(reinterpret_cast<const char*>(&value), sizeof(value)); };
    raw(uint32_t{3});
    raw(uint64_t{0});
    raw(count_);
    file += bytes_;
    file.resize((file.size() + 31) / 32 * 32);
    const auto parsed = GgufFile::Parse(std::as_bytes(std::span(file)));
    EXPECT_TRUE(parsed.ok()) << parsed.status().message();
    if (!parsed.ok()) return "";
    auto read = ReadVocabulary(*parsed);
    if (!read.ok()) return read.status().message();
    if (vocabulary != nullptr) *vocabulary = *std::move(read);
    return "";
  }

 private:
  template <class T>
  void Raw(T value) {
    bytes_.append(reinterpret_cast<const char*>(&value), sizeof(value));
  }
  void String(const std::string& value) {
    Raw(static_cast<uint64_t>(value.size()));
    bytes_ += value;
  }
  void Key(const std::string& key, GgufType type) {
    String(key);
    Raw(static_cast<uint32_t>(type));
    count_++;
  }
  void Array(const std::string& key, GgufType type, size_t count) {
    Key(key, GgufType::kArray);
    Raw(static_cast<uint32_t>(type));
    Raw(static_cast<uint64_t>(count));
  }

  std::string bytes_;
  uint64_t count_ = 0;
};

Metadata Least() {
  Metadata m;
  m.Text("tokenizer.ggml.model", "gpt2").Text("tokenizer.ggml.pre", "qwen2");
  m.Texts("tokenizer.ggml.tokens", {"a", "b", "ab"}).Texts("tokenizer.ggml.merges", {"a b"});
  return m;
}

TEST(Vocabulary, IsReadFromTheKeysOfAGguf) {
  Vocabulary v;
  Metadata m = Least();
  m.Numbers<int32_t>("tokenizer.ggml.token_type", GgufType::kInt32, {1, 3, -5});
  m.Number<uint32_t>("tokenizer.ggml.bos_token_id", GgufType::kUint32, 2);
  m.Number<uint32_t>("tokenizer.ggml.eos_token_id", GgufType::kUint32, 0xffffffff);
  m.Number<uint8_t>("tokenizer.ggml.add_bos_token", GgufType::kBool, 1);
  m.Text("tokenizer.chat_template", "{{ x }}");
  ASSERT_EQ(m.Read(&v), "");
  EXPECT_EQ(v.tokens, (std::vector<std::string>{"a", "b", "ab"}));
  EXPECT_EQ(v.merges, (std::vector<std::string>{"a b"}));
  EXPECT_EQ(v.types, (std::vector<int32_t>{1, 3, 0}));
  EXPECT_EQ(v.pre, "qwen2");
  EXPECT_EQ(v.bos, 2);
  EXPECT_EQ(v.eos, -1);
  EXPECT_EQ(v.eot, -1);
  EXPECT_TRUE(v.add_bos);
  EXPECT_EQ(v.chat_template, "{{ x }}");
  EXPECT_EQ(Least().Read(), "");
}

TEST(Vocabulary, OfSentencePieceHasScores) {
  Metadata m;
  m.Text("tokenizer.ggml.model", "llama").Texts("tokenizer.ggml.tokens", {"<s>", "a", "b", "ab"});
  m.Numbers<float>("tokenizer.ggml.scores", GgufType::kFloat32, {0.0f, -2.0f, -3.0f, -1.0f});
  Vocabulary v;
  ASSERT_EQ(m.Read(&v), "");
  EXPECT_EQ(v.kind, VocabularyKind::kSentencePiece);
  EXPECT_EQ(v.scores, (std::vector<double>{0.0, -2.0, -3.0, -1.0}));
  EXPECT_TRUE(v.add_space_prefix);
  EXPECT_FALSE(v.add_bos) << "which it does not name";
  m.Number<uint32_t>("tokenizer.ggml.bos_token_id", GgufType::kUint32, 0);
  m.Number<uint8_t>("tokenizer.ggml.add_space_prefix", GgufType::kBool, 0);
  ASSERT_EQ(m.Read(&v), "");
  EXPECT_FALSE(v.add_space_prefix);
  EXPECT_TRUE(v.add_bos);
}

TEST(Vocabulary, OfRankedPiecesHasMergesAndStartsWithBosWhateverItSays) {
  Metadata m;
  m.Text("tokenizer.ggml.model", "gemma4").Texts("tokenizer.ggml.tokens", {"<bos>", "a", "b", "ab"});
  EXPECT_NE(m.Read().find("tokenizer.ggml.merges"), std::string::npos);
  m.Texts("tokenizer.ggml.merges", {"a b"});
  m.Number<uint8_t>("tokenizer.ggml.add_bos_token", GgufType::kBool, 0);
  Vocabulary v;
  ASSERT_EQ(m.Read(&v), "");
  EXPECT_EQ(v.kind, VocabularyKind::kRankedPieces);
  EXPECT_EQ(v.merges, std::vector<std::string>{"a b"});
  EXPECT_FALSE(v.add_bos) << "which it does not name";
  m.Number<uint32_t>("tokenizer.ggml.bos_token_id", GgufType::kUint32, 0);
  ASSERT_EQ(m.Read(&v), "");
  EXPECT_TRUE(v.add_bos);
}

TEST(Vocabulary, PromptsOfLlamasKindStartWithBosUnlessTheFileSaysOtherwise) {
  for (const auto& [pre, starts] : {std::pair("llama-bpe", true), std::pair("lfm2", true), std::pair("tekken", true),
                                    std::pair("qwen2", false), std::pair("gpt-4o", false)}) {
    Metadata m;
    m.Text("tokenizer.ggml.model", "gpt2").Text("tokenizer.ggml.pre", pre);
    m.Texts("tokenizer.ggml.tokens", {"a", "b", "ab"}).Texts("tokenizer.ggml.merges", {"a b"});
    Vocabulary v;
    ASSERT_EQ(m.Read(&v), "");
    EXPECT_FALSE(v.add_bos) << pre << ", which names no bos";
    m.Number<uint32_t>("tokenizer.ggml.bos_token_id", GgufType::kUint32, 2);
    ASSERT_EQ(m.Read(&v), "");
    EXPECT_EQ(v.add_bos, starts) << pre;
    m.Number<uint8_t>("tokenizer.ggml.add_bos_token", GgufType::kBool, 0);
    ASSERT_EQ(m.Read(&v), "");
    EXPECT_FALSE(v.add_bos) << pre;
  }
}

TEST(Vocabulary, WhatIsMissingOrOfAWrongTypeIsNamed) {
  const auto said = [](const Metadata& m, const std::string& part) {
    const std::string message = m.Read();
    EXPECT_NE(message.find(part), std::string::npos) << message << "\nexpected: " << part;
  };
  said(Metadata(), "tokenizer.ggml.model");
  said(Metadata().Text("tokenizer.ggml.model", "t5"), "tokenizer model 't5' is not supported; known are gpt2");
  said(Metadata().Text("tokenizer.ggml.model", "llama"), "tokenizer.ggml.scores");
  said(Metadata().Text("tokenizer.ggml.model", "llama").Texts("tokenizer.ggml.scores", {"1"}), "tokenizer.ggml.scores");
  said(Metadata().Text("tokenizer.ggml.model", "gpt2"), "tokenizer.ggml.pre");
  said(Metadata().Text("tokenizer.ggml.model", "gpt2").Text("tokenizer.ggml.pre", ""), "tokenizer.ggml.merges");
  said(Metadata().Text("tokenizer.ggml.model", "gpt2").Text("tokenizer.ggml.pre", "").Texts("tokenizer.ggml.merges", {}),
       "tokenizer.ggml.tokens");
  said(Metadata().Number<uint32_t>("tokenizer.ggml.model", GgufType::kUint32, 1), "tokenizer.ggml.model");
  said(Least().Number<int64_t>("tokenizer.ggml.eot_token_id", GgufType::kInt64, -7),
       "tokenizer.ggml.eot_token_id is -7, which is no token id");
  said(Least().Number<uint64_t>("tokenizer.ggml.bos_token_id", GgufType::kUint64, uint64_t{1} << 31),
       "tokenizer.ggml.bos_token_id is 2147483648, which is no token id");
  said(Least().Text("tokenizer.ggml.bos_token_id", "1"), "tokenizer.ggml.bos_token_id");
  said(Least().Texts("tokenizer.ggml.token_type", {"1"}), "tokenizer.ggml.token_type");
  said(Least().Number<uint32_t>("tokenizer.chat_template", GgufType::kUint32, 1), "tokenizer.chat_template");
  Metadata no_merges;
  no_merges.Text("tokenizer.ggml.model", "gpt2").Text("tokenizer.ggml.pre", "qwen2").Texts("tokenizer.ggml.tokens", {"a"});
  said(no_merges, "tokenizer.ggml.merges");
}

}  // namespace
}  // namespace reprise
