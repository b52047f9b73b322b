// What a model file says about its tokens, before anybody believes it: plain data, checked by Tokenizer::Create.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "formats/gguf.h"
#include "reprise/status.h"

namespace reprise {

// The values of tokenizer.ggml.token_type.
enum class TokenType : int32_t {
  kNormal = 1,
  kUnknown = 2,      // stands for what cannot be written; treated as a control token
  kControl = 3,      // structure: never produced by plain text
  kUserDefined = 4,  // matched whole in any text, before pre-tokenization
  kUnused = 5,
  kByte = 6,  // in byte-level vocabularies the same as normal; among pieces "<0x0A>", for a byte that no piece spells
};

enum class VocabularyKind : uint8_t {
  kByteLevel,      // "gpt2": byte-level BPE; tokens in the byte-level spelling, merges by rank
  kSentencePiece,  // "llama": pieces with scores; a space is spelled U+2581
  kRankedPieces,   // "gemma4": such pieces, merged by rank as byte-level BPE's tokens are
};

struct Vocabulary {
  VocabularyKind kind = VocabularyKind::kByteLevel;
  std::vector<std::string> tokens;  // normal ones in the spelling of the kind, the others as they read
  std::vector<int32_t> types;       // one a token (TokenType); empty means all normal
  std::vector<std::string> merges;  // byte-level and ranked pieces: "left right" in that spelling, by falling priority
  std::string pre;                  // byte-level: the name of the pre-tokenizer
  std::vector<double> scores;       // SentencePiece: one a token, the greater the earlier it is made
  bool add_space_prefix = false;    // SentencePiece: a text is encoded with a space before it
  int32_t bos = -1, eos = -1, eot = -1;
  bool add_bos = false;
  std::string chat_template;  // as the file has it; recognised by chat.h, never run
};

// From the tokenizer.* keys of a GGUF. kNotFound without them, kUnsupported for a tokenizer that is none of the kinds above, kCorrupt
// for values of a wrong type or ids that are no ids; what the tokens say is left to Tokenizer::Create.
Result<Vocabulary> ReadVocabulary(const GgufFile& file);

}  // namespace reprise
