// CodePoints: a set of Unicode's characters. Surrogates are none, and never in it.
#pragma once

#include <compare>
#include <cstddef>
#include <initializer_list>
#include <vector>

namespace reprise {

class CodePoints {
 public:
  struct Range {
    char32_t first, last;
    auto operator<=>(const Range&) const = default;  // NOLINT(modernize-use-nullptr): what it compares itself
  };
  static constexpr char32_t kLast = 0x10ffff;

  CodePoints() = default;
  CodePoints(std::initializer_list<Range> ranges);
  static CodePoints All() { return {{0, kLast}}; }

  CodePoints& Add(char32_t first, char32_t last);
  CodePoints& Add(const CodePoints& others);
  CodePoints Others() const;  // all that are not in it
  CodePoints Without(const CodePoints& others) const { return Others().Add(others).Others(); }
  CodePoints Within(char32_t first, char32_t last) const;
  bool Contains(const CodePoints& others) const;

  bool empty() const { return ranges_.empty(); }
  bool is_one() const { return ranges_.size() == 1 && ranges_[0].first == ranges_[0].last; }
  size_t size() const;
  // Ascending, and none touches the next.
  const std::vector<Range>& ranges() const { return ranges_; }
  auto operator<=>(const CodePoints&) const = default;  // NOLINT(modernize-use-nullptr): what it compares itself

 private:
  std::vector<Range> ranges_;
};

}  // namespace reprise
