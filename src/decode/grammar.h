// Grammars as programs over bytes, run by a state of fixed size along with the text.
//
// A program is a string of instructions. A byte from 0x20 to 0x7e stands for itself; the rest are below. What is remembered between two bytes is a
// set of threads, each a place in the program with a stack of return places and counters: the alternatives that the text so far leaves open. Both are
// PODs without padding, so that they can be states: what goes on from a copy of them goes on identically.
//
// A thread whose stack would grow past kMaxDepth, or for which there is no room, is dropped. That only ever forbids text, so what is accepted is
// always of the grammar.
//
// Bytes restored from a file are hostile: Fault() tells whether a program can be one, and no bytes whatever lead any call out of bounds or keep it
// from ending.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "reprise/grammar.h"

namespace reprise {

enum class GrammarOp : uint8_t {
  kByte = 0x80,  // b: this byte
  kRange,        // low high: a byte of these
  kSet,          // n, n bytes: one of them
  kText,         // any number of a JSON string's plain bytes: a thread stays, and goes on as well
  kUntil,   // n, n bytes: anything up to the first time that these have come, and them. Counts how many have, on the stack: after kCount
  kSplit,   // address16: goes on, and there as well
  kJump,    // address16
  kCall,    // address16: goes there, and comes back at kReturn
  kReturn,  //
  kCount,   // begins to count, from 0
  kLoop,    // least16 most16 exit16: by the count goes on, to the exit (and counts no more), or both; most 0xffff: no end
  kNext,    // head16 most16: one more, up to most; goes to the head
  kAccept,  // the text may end here
};

struct GrammarProgram {
  uint32_t size = 0;  // 0: there is no grammar, and any text may follow
  uint8_t code[Grammar::kMostBytes] = {};

  static GrammarProgram Of(const Grammar& grammar);
  std::string_view view() const { return {reinterpret_cast<const char*>(code), std::min<size_t>(size, sizeof(code))}; }
  bool present() const { return size != 0; }
  // Null, or what is wrong with it: a literal.
  const char* Fault() const;
};

struct GrammarThreads {
  static constexpr size_t kWords = 1022;
  static constexpr size_t kMaxDepth = 64;
  uint16_t count = 0;           // threads
  uint16_t used = 0;            // words
  uint16_t words[kWords] = {};  // of each thread: place, depth, stack; zeros after the last

  bool empty() const { return count == 0; }
  // As bytes, which are equal where the threads are.
  std::string_view view() const { return {reinterpret_cast<const char*>(words), std::min<size_t>(used, kWords) * sizeof(uint16_t)}; }
  const char* Fault(const GrammarProgram& program) const;
};

// Runs a program, which outlives it.
class GrammarMachine {
 public:
  explicit GrammarMachine(const GrammarProgram& program) : program_(program) {}
  explicit GrammarMachine(GrammarProgram&&) = delete;

  void Begin(GrammarThreads& threads) const;
  // One byte more. `to` must not be `from`; empty when the byte cannot follow.
  void Step(const GrammarThreads& from, uint8_t byte, GrammarThreads& to) const;
  // All of `bytes`; false, and nothing changed, when they cannot follow.
  bool Advance(std::string_view bytes, GrammarThreads& threads) const;

  // Whether the text may end here; whether it can only end.
  bool MayEnd(const GrammarThreads& threads) const;
  bool MustEnd(const GrammarThreads& threads) const;
  // Whether any plain text may follow as part of a JSON string, however long.
  bool InText(const GrammarThreads& threads) const;

 private:
  struct Thread;
  void Close(Thread& thread, GrammarThreads& to, int& fuel) const;
  bool StepUntil(size_t place, uint8_t byte, Thread& thread) const;
  uint8_t At(size_t place) const { return place < program_.size && place < Grammar::kMostBytes ? program_.code[place] : 0; }
  uint16_t Address(size_t place) const { return static_cast<uint16_t>(At(place) | At(place + 1) << 8); }

  const GrammarProgram& program_;
};

// Whether a byte is a JSON string's plain one: no control, no quote, no backslash. Bytes of longer characters are.
constexpr bool IsPlainText(uint8_t byte) { return byte >= 0x20 && byte != '"' && byte != '\\' && byte != 0x7f; }

}  // namespace reprise
