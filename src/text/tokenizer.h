// Byte-level BPE, SentencePiece's BPE and Gemma 4's, which is between them: text to token ids and back.
//
// Encode cuts user-defined tokens (and control tokens, when asked) out of the text, leftmost first and longest first at one place. What lies between
// is pre-tokenized (pretokenizer.h) and merged by rank, piece by piece (bpe.h), or, in SentencePiece's vocabularies, merged by score as a whole
// (score_merges.h). Ranked pieces (Gemma 4) are merged by rank, from characters on, line by line. In both a character that is no piece becomes a
// token for each of its bytes. That is what Hugging Face tokenizers and sentencepiece do for these vocabularies, and the ids are held equal to it.
// Some things are done differently, on purpose:
//  - Text is not normalised (Qwen's own tokenizer applies NFC first; llama.cpp, like this one, does not), so that bytes come back as they
//  went in.
//  - Bytes that are not UTF-8 are encoded as themselves and not replaced. So is the sign for a space among pieces, U+2581, which to others is one.
//  - Markers of answers that files have user-defined, so that they are shown (<|tool_call> and the like), are control tokens that are shown.
// So Decode(Encode(x)) == x for every x, valid or not, if the vocabulary has a token for each byte. Some lack bytes that never occur in
// UTF-8 or hardly ever (SmolLM2 lacks 21); such a byte is dropped, as elsewhere, and EncodesByte tells. Some of SentencePiece's vocabularies have a
// space before every text and after every token that was cut out (Llama 2, Mistral; not Gemma): Encode adds it there and Decode takes it away.
//
// Plain text never gives a control token: what a merge or a whole piece may become is checked at creation.
// Immutable after Create: all methods are const and thread-safe. Move-only by value semantics of its members.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "reprise/status.h"
#include "text/bpe.h"
#include "text/pretokenizer.h"
#include "text/score_merges.h"
#include "text/vocabulary.h"

namespace reprise {

struct EncodeOptions {
  bool add_bos = false;        // start with the vocabulary's bos token, if it has one
  bool parse_special = false;  // control tokens written in the text become those tokens; else their letters are plain text
  bool continues = false;      // the text goes on from other plain text, so that no space is added before it
};

struct DecodeOptions {
  bool with_control = true;  // control tokens by their names; else they are left out
  bool continues = false;    // the tokens go on from plain text, as an answer's do from its prompt: a space they begin with is theirs
};

class Tokenizer {
 public:
  // kCorrupt for a vocabulary that contradicts itself, kUnsupported for an unknown pre-tokenizer, always naming the token or merge at
  // fault. Tokens known as structure by their names (<|im_start|> and the like) count as control tokens whatever type the file gives them.
  static Result<Tokenizer> Create(const Vocabulary& vocabulary);

  // Cannot fail. Time is near-linear in the text for any text; pieces past 64 MiB are cut there. With Qwen's vocabularies text is composed first
  // (text/nfc.h), between the tokens that are cut out of it.
  std::vector<int32_t> Encode(std::string_view text, EncodeOptions options = {}) const;

  // The bytes of all tokens in order, less the spaces that Encode adds. An id outside the vocabulary has no bytes.
  std::string Decode(std::span<const int32_t> tokens, DecodeOptions options = {}) const;

  int vocab_size() const { return static_cast<int>(types_.size()); }
  int32_t bos() const { return bos_; }  // -1 when there is none; so too for eos and eot
  int32_t eos() const { return eos_; }
  int32_t eot() const { return eot_; }
  bool add_bos() const { return add_bos_; }              // whether the model expects its prompts to start with bos
  bool adds_space() const { return add_space_prefix_; }  // before a text, and after each token that was cut out of one
  VocabularyKind kind() const { return kind_; }
  PreTokenizer pre_tokenizer() const { return pre_; }  // of vocabularies merged by rank

  // The raw bytes of a token, valid as long as the tokenizer; perhaps half a character. Control tokens give their names.
  std::string_view TokenBytes(int32_t token) const;
  bool IsControl(int32_t token) const;
  // Whether an answer is shown without this token: control tokens, but for what answers are made of: the markers of Harmony's messages, of which an
  // answer has several, and those of Gemma 4's and Mistral's thoughts and calls.
  bool IsHidden(int32_t token) const;
  // Whether a model that says this token has finished: eos, eot, and what goes by the names of such tokens.
  bool IsEndOfGeneration(int32_t token) const;
  bool EncodesByte(uint8_t byte) const { return byte_tokens_[byte] >= 0; }

  // The token spelled so in the vocabulary.
  std::optional<int32_t> Find(std::string_view token) const;

 private:
  struct PieceMemory;

  // One step of the trie over the tokens that are matched in raw text.
  struct TrieNode {
    int32_t token = -1;
    bool always = false;  // user-defined: matched even where control tokens are not
  };
  // The tag is the part of a hash that the place in the table does not tell, so that bytes are compared (and fetched from the arena) only
  // where they are almost surely equal.
  struct ByteLevelEntry {
    int32_t token = -1;  // -1: empty
    uint32_t tag = 0;
  };
  struct Match {
    size_t begin = 0, length = 0;
    int32_t token = -1;
  };

  Tokenizer() = default;
  Status AddTokens(const Vocabulary& vocabulary);
  Status AddMerges(const std::vector<std::string>& merges);
  Status AddScores(const std::vector<double>& scores);
  // Appends to `bytes` what a token's name spells; false if some character of it stands for nothing.
  bool SpellOut(std::string_view name, std::string& bytes) const;
  Status CheckBytes() const;
  void AddToTrie(int32_t token, bool always);
  int32_t FindByteLevel(std::string_view bytes) const;
  size_t ByteLevelPlace(std::string_view bytes, uint64_t hash) const;
  Match FindSpecial(std::string_view text, size_t from, bool parse_special) const;
  void EncodePlain(std::string_view text, bool begins, PieceMemory& memory, std::vector<int32_t>& out) const;
  void EncodeWhole(std::string_view text, bool begins, PieceMemory& memory, std::vector<int32_t>& out) const;
  void EncodePiece(std::string_view piece, PieceMemory& memory, std::vector<int32_t>& out) const;

  VocabularyKind kind_ = VocabularyKind::kByteLevel;
  PreTokenizer pre_ = PreTokenizer::kGpt2;
  int32_t bos_ = -1, eos_ = -1, eot_ = -1;
  bool add_bos_ = false, add_space_prefix_ = false;
  bool messages_ = false;  // answers are messages, as Harmony has them

  std::string arena_;           // the bytes of all tokens, one after another
  std::vector<uint32_t> ends_;  // where each token's bytes end in the arena
  std::vector<TokenType> types_;
  std::vector<bool> end_of_generation_;

  // Tokens that plain text can become, by their bytes: open-addressed.
  std::vector<ByteLevelEntry> byte_level_;
  std::array<int32_t, 256> byte_tokens_{};
  Merges merges_;
  std::vector<uint32_t> order_;  // of pieces, by their scores: greater is earlier
  // Tokens that are not byte-level text, by their names; and their spellings in a trie, for matching in raw text.
  std::unordered_map<std::string, int32_t> named_;
  std::vector<TrieNode> trie_;
  std::unordered_map<uint64_t, uint32_t> trie_edges_;  // node << 8 | byte -> node
  std::array<bool, 256> starts_control_{}, starts_user_defined_{};
};

}  // namespace reprise
