#include "decode/grammar_masks.h"

#include <algorithm>
#include <functional>

namespace reprise {

GrammarMasks::GrammarMasks(const TokenTrie& trie, const GrammarProgram& program)
    : trie_(trie),
      program_(program),
      kept_(kMostStates),
      arena_(kArenaWords),
      next_(kMostStates * 256),
      buckets_(kBuckets),
      mask_of_(kMostMasks),
      mask_words_(kMostMasks * trie.mask_words()),
      path_(TokenTrie::kMostBytes + 1),
      path_threads_(TokenTrie::kMostBytes + 1) {
  Forget();
}

void GrammarMasks::Forget() {
  states_ = arena_used_ = masks_ = 0;
  std::fill(buckets_.begin(), buckets_.end(), kUnknown);
}

GrammarMasks::State GrammarMasks::Find(const GrammarThreads& threads) {
  const std::string_view key = threads.view();
  const size_t used = key.size() / sizeof(uint16_t);
  size_t at = std::hash<std::string_view>()(key) % kBuckets;
  for (; buckets_[at] != kUnknown; at = (at + 1) % kBuckets) {
    const Kept& kept = kept_[buckets_[at]];
    if (kept.used == used && std::equal(threads.words, threads.words + used, arena_.data() + kept.begin)) return buckets_[at];
  }
  if (!HasRoom(used)) return kUnknown;
  const auto state = static_cast<State>(states_++);
  kept_[state] = {static_cast<uint32_t>(arena_used_), static_cast<uint16_t>(used), threads.count, -1};
  std::copy_n(threads.words, used, arena_.data() + arena_used_);
  arena_used_ += used;
  std::fill_n(next_.data() + size_t{state} * 256, 256, kUnknown);
  buckets_[at] = state;
  return state;
}

void GrammarMasks::Load(State state, GrammarThreads& threads) const {
  const Kept& kept = kept_[state];
  std::fill_n(threads.words, threads.used, uint16_t{0});
  threads.count = kept.count;
  threads.used = kept.used;
  std::copy_n(arena_.data() + kept.begin, kept.used, threads.words);
}

void GrammarMasks::KeepPath(size_t depth) {
  for (size_t i = 0; i <= depth; ++i) Load(path_[i], path_threads_[i]);
  Forget();
  for (size_t i = 0; i <= depth; ++i) path_[i] = Find(path_threads_[i]);
}

// After path_[depth] and one byte more, as path_[depth + 1]; kDead when it cannot follow.
GrammarMasks::State GrammarMasks::Next(size_t depth, uint8_t byte) {
  const State known = next_[size_t{path_[depth]} * 256 + byte];
  if (known != kUnknown) {
    path_[depth + 1] = known;
    return known;
  }
  Load(path_[depth], from_);
  machine_.Step(from_, byte, to_);
  State next = kDead;
  if (!to_.empty()) {
    next = Find(to_);
    if (next == kUnknown) {
      KeepPath(depth);
      next = Find(to_);
    }
  }
  next_[size_t{path_[depth]} * 256 + byte] = next;
  path_[depth + 1] = next;
  return next;
}

void GrammarMasks::Fill(State state, std::span<uint64_t> mask) {
  const auto allow = [&](int32_t token) { mask[static_cast<size_t>(token) / 64] |= uint64_t{1} << (token % 64); };
  Load(state, from_);
  const bool in_text = machine_.InText(from_), may_end = machine_.MayEnd(from_);
  if (in_text) {
    std::copy(trie_.plain().begin(), trie_.plain().end(), mask.begin());
  } else {
    std::fill(mask.begin(), mask.end(), 0);
  }
  path_[0] = state;
  trie_.Walk(
      in_text, [this](size_t depth, uint8_t byte) { return Next(depth, byte) != kDead; }, allow);
  if (may_end) {
    for (const int32_t end : trie_.ends()) allow(end);
  }
}

std::span<const uint64_t> GrammarMasks::Allowed(const GrammarThreads& threads) {
  State state = Find(threads);
  if (state == kUnknown) {
    Forget();
    state = Find(threads);
  }
  const size_t words = trie_.mask_words();
  if (kept_[state].mask >= 0) return std::span(mask_words_).subspan(static_cast<size_t>(kept_[state].mask) * words, words);
  // The oldest makes room. Masks are numbered as they come, until all is forgotten.
  const size_t place = masks_ % kMostMasks;
  const auto mask = std::span(mask_words_).subspan(place * words, words);
  if (masks_ >= kMostMasks) kept_[mask_of_[place]].mask = -1;
  Fill(state, mask);
  // On the way everything may have been forgotten, the state's number and the place's turn included.
  if (masks_ % kMostMasks != place) return mask;
  state = path_[0];
  mask_of_[place] = state;
  kept_[state].mask = static_cast<int16_t>(place);
  ++masks_;
  return mask;
}

}  // namespace reprise
