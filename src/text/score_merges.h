// SentencePiece's merging: of all neighbouring symbols whose texts together are a piece, those of the greatest score (leftmost among equals) become
// one, again and again until none are. Symbols begin as characters. No text is cut before it, so a whole one is merged at once.
//
// Source: the algorithm of sentencepiece's BPE model, as its paper (arXiv 1808.06226) and the behaviour of llama.cpp tell it.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string_view>
#include <vector>

#include "text/unicode.h"

namespace reprise {

// A piece and how early it is made; greater is earlier.
struct ScoredPiece {
  int32_t token = -1;  // none
  uint32_t order = 0;
};

// Working memory that the texts of one call share.
struct ScoreScratch {
  struct Symbol {
    uint32_t begin, length;  // in the text; a length of 0: merged away
    uint32_t previous, next;
    int32_t token;
  };
  struct Candidate {
    uint32_t order, position, length;  // position: of the symbol on the left; length: of both together, or 0 where they are no piece
    int32_t token;
    bool operator<(const Candidate& other) const { return order != other.order ? order < other.order : position > other.position; }
  };
  std::vector<Symbol> symbols;
  std::vector<Candidate> heap;
};

// Calls take(token, text) for each symbol that is left, from the first on; the token is -1 for a character that is no piece. find(text) gives its
// ScoredPiece. n log n in the number of characters, fewer than 2^32 bytes of them.
template <class Find, class Take>
void MergeByScore(std::string_view text, const Find& find, ScoreScratch& scratch, const Take& take) {
  constexpr uint32_t kNone = 0xffffffff;
  auto& symbols = scratch.symbols;
  auto& heap = scratch.heap;
  symbols.clear();
  heap.clear();
  for (uint32_t at = 0; at < text.size();) {
    const uint32_t length = DecodeUtf8(text.substr(at)).length, number = static_cast<uint32_t>(symbols.size());
    symbols.push_back({at, length, number - 1, number + 1, find(text.substr(at, length)).token});
    at += length;
  }
  if (symbols.empty()) return;
  symbols.front().previous = symbols.back().next = kNone;

  const auto candidate = [&](uint32_t left) {
    const ScoreScratch::Symbol& a = symbols[left];
    if (a.next == kNone) return ScoreScratch::Candidate{0, left, 0, -1};
    const uint32_t length = a.length + symbols[a.next].length;
    const ScoredPiece piece = find(text.substr(a.begin, length));
    return ScoreScratch::Candidate{piece.order, left, piece.token < 0 ? 0 : length, piece.token};
  };
  for (uint32_t i = 0; i < symbols.size(); ++i) {
    if (const auto found = candidate(i); found.length > 0) heap.push_back(found);
  }
  std::make_heap(heap.begin(), heap.end());
  const auto push = [&](uint32_t left) {
    const auto found = candidate(left);
    if (found.length == 0) return;
    heap.push_back(found);
    std::push_heap(heap.begin(), heap.end());
  };
  while (!heap.empty()) {
    const ScoreScratch::Candidate top = heap.front();
    std::pop_heap(heap.begin(), heap.end());
    heap.pop_back();
    // Candidates stay when a neighbour changes; one that is old no longer has the length of the two.
    ScoreScratch::Symbol& left = symbols[top.position];
    if (left.length == 0 || left.next == kNone || left.length + symbols[left.next].length != top.length) continue;
    ScoreScratch::Symbol& right = symbols[left.next];
    left.length = top.length;
    left.token = top.token;
    left.next = right.next;
    right.length = 0;
    if (left.next != kNone) symbols[left.next].previous = top.position;
    push(top.position);
    if (left.previous != kNone) push(left.previous);
  }
  for (uint32_t i = 0; i != kNone; i = symbols[i].next) take(symbols[i].token, text.substr(symbols[i].begin, symbols[i].length));
}

}  // namespace reprise
