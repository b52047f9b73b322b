// Texts held against the grammar of a JSON schema.
#pragma once

#include <gtest/gtest.h>

#include <random>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "decode/grammar.h"

namespace reprise {

// A grammar, its machine, and texts held against them.
class Rules {
 public:
  explicit Rules(const Grammar& grammar) : program_(GrammarProgram::Of(grammar)) {}
  bool Accepts(std::string_view text) const {
    GrammarThreads threads;
    machine_.Begin(threads);
    return machine_.Advance(text, threads) && machine_.MayEnd(threads);
  }
  // Whether there may have been no room for all that was open on the way.
  bool IsCrowdedBy(std::string_view text) const {
    GrammarThreads now, next;
    machine_.Begin(now);
    for (const char byte : text) {
      machine_.Step(now, static_cast<uint8_t>(byte), next);
      if (next.used + 2 + GrammarThreads::kMaxDepth > GrammarThreads::kWords) return true;
      std::swap(now, next);
    }
    return false;
  }
  // A text of the grammar, byte by byte at random; empty when it did not end in time.
  std::string Draw(std::mt19937& random, size_t longest = 4000) const {
    GrammarThreads now, next;
    machine_.Begin(now);
    std::string text;
    while (text.size() < longest) {
      if (machine_.MustEnd(now) || (machine_.MayEnd(now) && random() % 2 == 0)) return text;
      std::vector<uint8_t> possible;
      for (int byte = 0; byte < 256; ++byte) {
        machine_.Step(now, static_cast<uint8_t>(byte), next);
        if (!next.empty()) possible.push_back(static_cast<uint8_t>(byte));
      }
      if (possible.empty()) break;
      // What closes things is taken more often, or nothing would ever end.
      const std::string_view closing = "\"}],:";
      uint8_t byte = possible[random() % possible.size()];
      for (const uint8_t one : possible) {
        if (closing.find(static_cast<char>(one)) != std::string_view::npos && random() % 3 == 0) byte = one;
      }
      machine_.Step(now, byte, next);
      text += static_cast<char>(byte);
      std::swap(now, next);
    }
    return "";
  }

 private:
  GrammarProgram program_;
  GrammarMachine machine_{program_};
};

inline Rules Of(const std::string& schema) {
  auto grammar = Grammar::JsonSchema(schema);
  EXPECT_TRUE(grammar.ok()) << schema << ": " << grammar.status().message();
  return Rules(grammar.ok() ? *grammar : Grammar::JsonObject());
}

}  // namespace reprise
