// Cuts text into the pieces that BPE merges never cross.
//
// Nine published ways, each the meaning of a regular expression (written out in pretokenizer.cc) with the semantics that Hugging Face
// tokenizers gives it. They are scanners, not regexes: one pass, no backtracking, no stack, linear for any input. pretokenizer_test.cc
// holds them equal to the expressions themselves, run by PCRE2 on random text.
// Bytes that are not UTF-8 count as one character each of the class "other", so pieces always add up to the input byte by byte.
// A PieceScanner is for one thread; the text must outlive it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "reprise/status.h"

namespace reprise {

enum class PreTokenizer : uint8_t { kGpt2, kLlamaBpe, kDbrx, kSmolLm, kQwen2, kQwen35, kGpt4o, kTekken, kLines };

// By the name in a GGUF's tokenizer.ggml.pre. kUnsupported, with the known names, for any other. kLines, which belongs to a kind of vocabulary, has none.
Result<PreTokenizer> PreTokenizerByName(std::string_view name);

// Whether a piece that is itself a token of the vocabulary is taken whole, before any merge (llama-bpe, tekken).
bool TakesWholeTokens(PreTokenizer pre);

// Whether text is brought into Normalization Form C before it is cut (Qwen's).
bool Composes(PreTokenizer pre);

class PieceScanner {
 public:
  PieceScanner(PreTokenizer pre, std::string_view text) : pre_(pre), text_(text) {}

  // The next piece, never empty; an empty view at the end.
  std::string_view Next();

 private:
  PreTokenizer pre_;
  std::string_view text_;
  size_t position_ = 0;
  size_t run_end_ = 0;  // smollm: where the stretch without numbers that holds position_ ends
};

}  // namespace reprise
