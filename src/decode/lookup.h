// Drafting by lookup: what followed the last occurrence of the latest tokens will probably follow again. Costs a scan of the context and no model.
//
// Source: prompt lookup decoding (Saxena, 2023).
#pragma once

#include <cstdint>
#include <span>

namespace reprise {

// Writes up to out.size() tokens that followed the most recent earlier occurrence of the last tokens of `context` (the longest suffix of
// kLongestMatch to kShortestMatch tokens that occurs), and returns how many. Thread-safe; allocates nothing.
inline constexpr int kLongestMatch = 4;
inline constexpr int kShortestMatch = 2;
int DraftByLookup(std::span<const int32_t> context, std::span<int32_t> out);

}  // namespace reprise
