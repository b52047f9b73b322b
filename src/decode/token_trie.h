// TokenTrie: a vocabulary in the order of its bytes, so that a grammar looks at a beginning once for all tokens that share it.
//
// Immutable, and may be used by several threads.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace reprise {

class TokenTrie {
 public:
  // `bytes` of each token: empty for those that no grammar may choose (control tokens, and what is not used). `ends` are the tokens that end a
  // generation. The views are only read here.
  TokenTrie(std::span<const std::string_view> bytes, std::span<const int32_t> ends);

  size_t mask_words() const { return plain_.size(); }
  std::span<const int32_t> ends() const { return ends_; }
  // Longer tokens follow nowhere but where any plain text does.
  static constexpr size_t kMostBytes = 128;
  // Tokens that are nothing but a JSON string's plain bytes, one bit each.
  std::span<const uint64_t> plain() const { return plain_; }

  // Calls allow(token) for each token whose bytes step(depth, byte) takes one after the other: depth 0 is the first byte's, and a step at some depth
  // is of the bytes stepped last below it. With `marked`, only tokens that are not plain().
  template <class Step, class Allow>
  void Walk(bool marked, const Step& step, const Allow& allow) const {
    const Sorted& sorted = marked ? marked_ : all_;
    size_t known = 0;  // bytes of the token before that were taken, as far as this one shares them
    for (size_t i = 0; i < sorted.tokens.size();) {
      const char* bytes = text_.data() + sorted.begins[i];
      const size_t length = sorted.lengths[i];
      while (known < length && step(known, static_cast<uint8_t>(bytes[known]))) ++known;
      if (known == length) allow(sorted.tokens[i]);
      // Whatever shares more than was taken is not taken either.
      const bool dead = known < length;
      do {
        ++i;
      } while (dead && i < sorted.tokens.size() && sorted.shared[i] > known);
      if (i < sorted.tokens.size()) known = std::min<size_t>(known, sorted.shared[i]);
    }
  }

 private:
  // Tokens in the order of their bytes; `shared` is how many bytes each has in common with the one before.
  struct Sorted {
    std::vector<int32_t> tokens;
    std::vector<uint8_t> shared, lengths;
    std::vector<uint32_t> begins;  // of each one's bytes in text_
  };
  void Fill(Sorted& sorted, std::span<const std::string_view> bytes, std::vector<int32_t> tokens);

  std::vector<char> text_;
  Sorted all_, marked_;
  std::vector<uint64_t> plain_;
  std::vector<int32_t> ends_;
};

}  // namespace reprise
