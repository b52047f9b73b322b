#include "decode/token_trie.h"

#include <algorithm>

#include "decode/grammar.h"

namespace reprise {
namespace {

bool IsPlain(std::string_view bytes) {
  return std::all_of(bytes.begin(), bytes.end(), [](char byte) { return IsPlainText(static_cast<uint8_t>(byte)); });
}

}  // namespace

TokenTrie::TokenTrie(std::span<const std::string_view> bytes, std::span<const int32_t> ends)
    : plain_((bytes.size() + 63) / 64), ends_(ends.begin(), ends.end()) {
  std::vector<int32_t> all, marked;
  for (size_t i = 0; i < bytes.size(); ++i) {
    if (bytes[i].empty()) continue;
    const bool plain = IsPlain(bytes[i]);
    if (plain) plain_[i / 64] |= uint64_t{1} << (i % 64);
    if (bytes[i].size() > kMostBytes) continue;
    all.push_back(static_cast<int32_t>(i));
    if (!plain) marked.push_back(static_cast<int32_t>(i));
  }
  Fill(all_, bytes, std::move(all));
  Fill(marked_, bytes, std::move(marked));
}

void TokenTrie::Fill(Sorted& sorted, std::span<const std::string_view> bytes, std::vector<int32_t> tokens) {
  const auto of = [&](int32_t token) { return bytes[static_cast<size_t>(token)]; };
  // string_view compares bytes as unsigned.
  std::sort(tokens.begin(), tokens.end(), [&](int32_t a, int32_t b) { return of(a) < of(b); });
  std::string_view before;
  for (const int32_t token : tokens) {
    const std::string_view one = of(token);
    const auto differ = std::mismatch(before.begin(), before.end(), one.begin(), one.end());
    sorted.shared.push_back(static_cast<uint8_t>(differ.second - one.begin()));
    sorted.lengths.push_back(static_cast<uint8_t>(one.size()));
    sorted.begins.push_back(static_cast<uint32_t>(text_.size()));
    text_.insert(text_.end(), one.begin(), one.end());
    before = one;
  }
  sorted.tokens = std::move(tokens);
}

}  // namespace reprise
