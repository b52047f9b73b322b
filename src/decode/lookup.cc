#include "decode/lookup.h"

#include <algorithm>

namespace reprise {

int DraftByLookup(std::span<const int32_t> context, std::span<int32_t> out) {
  const auto size = static_cast<int64_t>(context.size());
  // One pass from the end: the best match is the longest, and of those the most recent.
  int64_t best_end = 0;
  int best_length = 0;
  for (int64_t end = size - 1; end >= kShortestMatch && best_length < kLongestMatch; --end) {
    int length = 0;
    while (length < kLongestMatch && length < end &&
           context[static_cast<size_t>(end - 1 - length)] == context[static_cast<size_t>(size - 1 - length)])
      ++length;
    if (length > best_length) {
      best_length = length;
      best_end = end;
    }
  }
  if (best_length < kShortestMatch) return 0;
  const auto count = std::min<int64_t>(static_cast<int64_t>(out.size()), size - best_end);
  std::copy_n(context.begin() + best_end, count, out.begin());
  return static_cast<int>(count);
}

}  // namespace reprise
