#include "decode/grammar.h"

#include <algorithm>
#include <cstring>

namespace reprise {
namespace {

// Steps between two bytes, over all threads: far more than any grammar written here takes, and an end to those that go in circles.
constexpr int kFuel = 4096;

constexpr bool IsLiteral(uint8_t op) { return op >= 0x20 && op < 0x7f; }
constexpr bool Is(uint8_t op, GrammarOp wanted) { return op == static_cast<uint8_t>(wanted); }

// Bytes of the instruction that `code` begins with, or 0 for none that there is.
size_t Length(const uint8_t* code, size_t left) {
  if (IsLiteral(code[0])) return 1;
  switch (static_cast<GrammarOp>(code[0])) {
    case GrammarOp::kText:
    case GrammarOp::kReturn:
    case GrammarOp::kCount:
    case GrammarOp::kAccept: return 1;
    case GrammarOp::kByte: return 2;
    case GrammarOp::kRange:
    case GrammarOp::kSplit:
    case GrammarOp::kJump:
    case GrammarOp::kCall: return 3;
    case GrammarOp::kNext: return 5;
    case GrammarOp::kLoop: return 7;
    case GrammarOp::kSet:
    case GrammarOp::kUntil: return left < 2 || code[1] == 0 ? 0 : 2u + code[1];
  }
  return 0;
}

// Whether a thread waits at this instruction for a byte, or for the end.
constexpr bool Waits(uint8_t op) {
  return IsLiteral(op) || Is(op, GrammarOp::kByte) || Is(op, GrammarOp::kRange) || Is(op, GrammarOp::kSet) || Is(op, GrammarOp::kUntil) ||
         Is(op, GrammarOp::kAccept);
}

template <class Visit>
void ForEachPlace(const GrammarThreads& threads, const Visit& visit) {
  const size_t used = std::min<size_t>(threads.used, GrammarThreads::kWords);
  for (size_t at = 0; at + 2 <= used; at += 2u + threads.words[at + 1]) visit(threads.words[at]);
}

}  // namespace

GrammarProgram GrammarProgram::Of(const Grammar& grammar) {
  GrammarProgram program;
  program.size = static_cast<uint32_t>(grammar.code().size());
  std::memcpy(program.code, grammar.code().data(), program.size);
  return program;
}

const char* GrammarProgram::Fault() const {
  if (size > Grammar::kMostBytes) return "it claims more instructions than there is room for";
  for (size_t i = 0; i < size;) {
    const size_t length = Length(code + i, size - i);
    if (length == 0 || length > size - i) return "it holds what is no instruction";
    i += length;
  }
  for (size_t i = size; i < Grammar::kMostBytes; ++i) {
    if (code[i] != 0) return "it holds bytes after its end";
  }
  return nullptr;
}

const char* GrammarThreads::Fault(const GrammarProgram& program) const {
  if (used > kWords) return "it claims more threads than there is room for";
  size_t at = 0;
  size_t seen = 0;
  for (; at + 2 <= used; ++seen) {
    if (words[at] >= program.size) return "a thread stands outside the grammar";
    if (words[at + 1] > kMaxDepth) return "a thread is deeper than any may be";
    at += 2u + words[at + 1];
  }
  if (at != used || seen != count) return "its threads do not add up";
  for (size_t i = used; i < kWords; ++i) {
    if (words[i] != 0) return "it holds bytes after its threads";
  }
  return nullptr;
}

Result<Grammar> Grammar::FromCode(std::string code) {
  if (code.size() > kMostBytes) {
    return InvalidArgument("the grammar takes " + std::to_string(code.size()) + " bytes, and may take " + std::to_string(kMostBytes));
  }
  Grammar grammar;
  grammar.code_ = std::move(code);
  const GrammarProgram program = GrammarProgram::Of(grammar);
  if (const char* fault = program.Fault()) return InvalidArgument(std::string("the grammar is impossible: ") + fault);
  return grammar;
}

// Many are made, and of the stack only what is used is ever looked at, so that it needs no values.
struct GrammarMachine::Thread {
  uint16_t place = 0;
  uint16_t depth = 0;
  uint16_t stack[GrammarThreads::kMaxDepth];

  Thread() {}  // NOLINT: see above
  Thread(const Thread& other) { *this = other; }
  Thread& operator=(const Thread& other) {
    if (this == &other) return *this;
    place = other.place;
    depth = other.depth;
    std::copy_n(other.stack, depth, stack);
    return *this;
  }
  ~Thread() = default;

  bool Push(uint16_t value) {
    if (depth >= GrammarThreads::kMaxDepth) return false;
    stack[depth++] = value;
    return true;
  }
  void AddTo(GrammarThreads& to) const {
    const size_t length = 2u + depth;
    for (size_t at = 0; at + 2 <= to.used; at += 2u + to.words[at + 1]) {
      if (to.words[at] == place && to.words[at + 1] == depth && std::equal(stack, stack + depth, to.words + at + 2)) return;
    }
    if (to.used + length > GrammarThreads::kWords) return;
    to.words[to.used] = place;
    to.words[to.used + 1] = depth;
    std::copy_n(stack, depth, to.words + to.used + 2);
    to.used = static_cast<uint16_t>(to.used + length);
    ++to.count;
  }
};

// Follows a thread to where it waits for a byte, or may end. Alternatives wait their turn; each takes of the fuel.
void GrammarMachine::Close(Thread& thread, GrammarThreads& to, int& fuel) const {
  constexpr size_t kMostAlternatives = 128;  // when there are more, they are dropped
  Thread later[kMostAlternatives];
  size_t waiting = 0;
  const auto both = [&](const Thread& other, uint16_t place) {
    if (waiting >= kMostAlternatives) return;
    later[waiting] = other;
    later[waiting++].place = place;
  };
  while (true) {
    for (bool alive = true; alive;) {
      const size_t at = thread.place;
      alive = at < program_.size && fuel-- > 0;
      if (!alive) break;
      const uint8_t op = At(at);
      if (Waits(op)) {
        if (!Is(op, GrammarOp::kUntil) || thread.depth > 0) thread.AddTo(to);
        break;
      }
      switch (static_cast<GrammarOp>(op)) {
        case GrammarOp::kText:
          thread.AddTo(to);
          thread.place = static_cast<uint16_t>(at + 1);
          break;
        case GrammarOp::kSplit:
          both(thread, Address(at + 1));
          thread.place = static_cast<uint16_t>(at + 3);
          break;
        case GrammarOp::kJump: thread.place = Address(at + 1); break;
        case GrammarOp::kCall:
          alive = thread.Push(static_cast<uint16_t>(at + 3));
          thread.place = Address(at + 1);
          break;
        case GrammarOp::kReturn:
          alive = thread.depth > 0;
          if (alive) thread.place = thread.stack[--thread.depth];
          break;
        case GrammarOp::kCount:
          alive = thread.Push(0);
          thread.place = static_cast<uint16_t>(at + 1);
          break;
        case GrammarOp::kLoop: {
          alive = thread.depth > 0;
          if (!alive) break;
          const uint16_t count = thread.stack[thread.depth - 1], least = Address(at + 1), most = Address(at + 3);
          const bool more = most == 0xffff || count < most;
          if (count >= least) {
            const uint16_t exit = Address(at + 5);
            Thread out = thread;
            --out.depth;
            if (!more) {
              thread = out;
              thread.place = exit;
              break;
            }
            both(out, exit);
          } else if (!more) {
            alive = false;
          }
          thread.place = static_cast<uint16_t>(at + 7);
          break;
        }
        case GrammarOp::kNext:
          alive = thread.depth > 0;
          if (!alive) break;
          thread.stack[thread.depth - 1] = std::min<uint16_t>(static_cast<uint16_t>(thread.stack[thread.depth - 1] + 1), Address(at + 3));
          thread.place = Address(at + 1);
          break;
        default: alive = false;
      }
    }
    if (waiting == 0) return;
    thread = later[--waiting];
  }
}

void GrammarMachine::Begin(GrammarThreads& threads) const {
  threads = GrammarThreads();
  Thread thread;
  thread.place = thread.depth = 0;
  int fuel = kFuel;
  Close(thread, threads, fuel);
}

// The bytes that were waited for count as far as they have come, as Knuth, Morris and Pratt have it. True when they are all there; then the
// counter is gone.
bool GrammarMachine::StepUntil(size_t place, uint8_t byte, Thread& thread) const {
  const size_t length = At(place + 1);
  const auto wanted = [&](size_t i) { return At(place + 2 + i); };
  uint16_t& count = thread.stack[thread.depth - 1];
  size_t come = std::min<size_t>(count, length - 1);
  while (wanted(come) != byte) {
    if (come == 0) return count = 0, false;
    // The longest beginning that what has come also ends with.
    size_t shorter = come - 1;
    const auto ends_with = [&](size_t n) {
      for (size_t i = 0; i < n; ++i) {
        if (wanted(i) != wanted(come - n + i)) return false;
      }
      return true;
    };
    while (!ends_with(shorter)) --shorter;
    come = shorter;
  }
  count = static_cast<uint16_t>(come + 1);
  if (count < length) return false;
  --thread.depth;
  return true;
}

void GrammarMachine::Step(const GrammarThreads& from, uint8_t byte, GrammarThreads& to) const {
  std::fill_n(to.words, std::min<size_t>(to.used, GrammarThreads::kWords), uint16_t{0});
  to.count = to.used = 0;
  int fuel = kFuel;
  const size_t used = std::min<size_t>(from.used, GrammarThreads::kWords);
  for (size_t at = 0; at + 2 <= used;) {
    const size_t depth = from.words[at + 1];
    if (depth > GrammarThreads::kMaxDepth || at + 2 + depth > used) return;
    const uint16_t place = from.words[at];
    const uint8_t op = At(place);
    constexpr size_t kNowhere = SIZE_MAX;
    size_t next = kNowhere;
    const auto go_if = [&](bool matches, size_t to_place) { next = matches ? to_place : kNowhere; };
    if (IsLiteral(op)) {
      go_if(op == byte, place + 1u);
    } else if (Is(op, GrammarOp::kByte)) {
      go_if(At(place + 1u) == byte, place + 2u);
    } else if (Is(op, GrammarOp::kRange)) {
      go_if(At(place + 1u) <= byte && byte <= At(place + 2u), place + 3u);
    } else if (Is(op, GrammarOp::kSet)) {
      const size_t count = At(place + 1u);
      for (size_t i = 0; i < count && next == kNowhere; ++i) go_if(At(place + 2u + i) == byte, place + 2u + count);
    } else if (Is(op, GrammarOp::kText)) {
      go_if(IsPlainText(byte), place);
    } else if (Is(op, GrammarOp::kUntil)) {
      go_if(depth > 0 && At(place + 1u) > 0, place);
    }
    if (next != kNowhere) {
      Thread thread;
      thread.depth = static_cast<uint16_t>(depth);
      std::copy_n(from.words + at + 2, depth, thread.stack);
      if (Is(op, GrammarOp::kUntil) && StepUntil(place, byte, thread)) next += 2u + At(place + 1u);
      thread.place = static_cast<uint16_t>(next);
      Close(thread, to, fuel);
    }
    at += 2 + depth;
  }
}

bool GrammarMachine::Advance(std::string_view bytes, GrammarThreads& threads) const {
  GrammarThreads now = threads;
  GrammarThreads next;
  for (const char byte : bytes) {
    Step(now, static_cast<uint8_t>(byte), next);
    if (next.empty()) return false;
    std::swap(now, next);
  }
  threads = now;
  return true;
}

bool GrammarMachine::MayEnd(const GrammarThreads& threads) const {
  bool may = false;
  ForEachPlace(threads, [&](size_t place) { may = may || Is(At(place), GrammarOp::kAccept); });
  return may;
}

bool GrammarMachine::MustEnd(const GrammarThreads& threads) const {
  bool must = !threads.empty();
  ForEachPlace(threads, [&](size_t place) { must = must && Is(At(place), GrammarOp::kAccept); });
  return must;
}

bool GrammarMachine::InText(const GrammarThreads& threads) const {
  bool in = false;
  ForEachPlace(threads, [&](size_t place) { in = in || Is(At(place), GrammarOp::kText); });
  return in;
}

}  // namespace reprise
