// GrammarMasks: for one grammar, which tokens may follow where, remembered.
//
// What a grammar's threads are after a byte is found once and kept, as a state with a transition for each byte, and so is the mask of a state; most
// tokens of a generation then cost a look-up. What is kept never shows in what is allowed: when there is no more room, all is forgotten and found again.
//
// Used by one thread at a time. Allocates when it is made, and nothing after.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "decode/grammar.h"
#include "decode/token_trie.h"

namespace reprise {

class GrammarMasks {
 public:
  // `trie` outlives it.
  GrammarMasks(const TokenTrie& trie, const GrammarProgram& program);
  GrammarMasks(const GrammarMasks&) = delete;

  bool IsOf(const GrammarProgram& program) const { return program.view() == program_.view(); }

  // Bit t % 64 of word t / 64 is token t's. The tokens that end a generation may follow where the text may end. Valid until the next call.
  std::span<const uint64_t> Allowed(const GrammarThreads& threads);

 private:
  using State = uint16_t;
  static constexpr State kUnknown = 0xffff, kDead = 0xfffe;
  static constexpr size_t kMostStates = 4096;
  static constexpr size_t kArenaWords = size_t{1} << 19;  // 128 for a state: some have two thousand
  static constexpr size_t kMostMasks = 64;
  static constexpr size_t kBuckets = 2 * kMostStates;

  struct Kept {
    uint32_t begin;  // in arena_
    uint16_t used, count;
    int16_t mask;  // -1: not known
  };

  bool HasRoom(size_t words) const { return states_ < kMostStates && arena_used_ + words <= kArenaWords; }
  State Find(const GrammarThreads& threads);  // kUnknown when it is new, and there is no room for it
  void Load(State state, GrammarThreads& threads) const;
  void Forget();
  // path_[0, depth] again, after everything was forgotten.
  void KeepPath(size_t depth);
  State Next(size_t depth, uint8_t byte);
  void Fill(State state, std::span<uint64_t> mask);

  const TokenTrie& trie_;
  GrammarProgram program_;
  GrammarMachine machine_{program_};
  size_t states_ = 0, arena_used_ = 0, masks_ = 0;
  std::vector<Kept> kept_;
  std::vector<uint16_t> arena_;
  std::vector<State> next_;     // [state][byte]
  std::vector<State> buckets_;  // by hash; kUnknown: free
  std::vector<State> mask_of_;  // whose each mask is
  std::vector<uint64_t> mask_words_;
  std::vector<State> path_;                   // after each byte of the token that is looked at
  std::vector<GrammarThreads> path_threads_;  // the same, while everything is forgotten
  GrammarThreads from_, to_;
};

}  // namespace reprise
