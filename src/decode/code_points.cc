#include "decode/code_points.h"

#include <algorithm>

namespace reprise {
namespace {

constexpr char32_t kFirstSurrogate = 0xd800, kLastSurrogate = 0xdfff;

}  // namespace

CodePoints::CodePoints(std::initializer_list<Range> ranges) {
  for (const Range& range : ranges) Add(range.first, range.last);
}

CodePoints& CodePoints::Add(char32_t first, char32_t last) {
  if (first <= kLastSurrogate && last >= kFirstSurrogate) {
    if (first < kFirstSurrogate) Add(first, kFirstSurrogate - 1);
    if (last > kLastSurrogate) Add(kLastSurrogate + 1, last);
    return *this;
  }
  // Those that it touches become one with it.
  const auto begin = std::find_if(ranges_.begin(), ranges_.end(), [&](const Range& range) { return range.last + 1 >= first; });
  const auto end = std::find_if(begin, ranges_.end(), [&](const Range& range) { return range.first > last + 1; });
  Range joined{first, last};
  if (begin != end) joined = {std::min(first, begin->first), std::max(last, (end - 1)->last)};
  ranges_.insert(ranges_.erase(begin, end), joined);
  return *this;
}

CodePoints& CodePoints::Add(const CodePoints& others) {
  for (const Range& range : others.ranges_) Add(range.first, range.last);
  return *this;
}

CodePoints CodePoints::Others() const {
  CodePoints others;
  char32_t next = 0;
  for (const Range& range : ranges_) {
    if (range.first > next) others.Add(next, range.first - 1);
    next = range.last + 1;
  }
  if (next <= kLast) others.Add(next, kLast);
  return others;
}

CodePoints CodePoints::Within(char32_t first, char32_t last) const {
  CodePoints within;
  for (const Range& range : ranges_) {
    if (range.first <= last && range.last >= first) within.ranges_.push_back({std::max(range.first, first), std::min(range.last, last)});
  }
  return within;
}

bool CodePoints::Contains(const CodePoints& others) const {
  return std::all_of(others.ranges_.begin(), others.ranges_.end(), [&](const Range& other) {
    return std::any_of(ranges_.begin(), ranges_.end(),
                       [&](const Range& range) { return range.first <= other.first && other.last <= range.last; });
  });
}

size_t CodePoints::size() const {
  size_t size = 0;
  for (const Range& range : ranges_) size += range.last - range.first + 1;
  return size;
}

}  // namespace reprise
