// The rules of numbers.
#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>

#include "decode/json_rules.h"

namespace reprise {
namespace {

using Json = JsonRules::Json;

// Digits of the numbers that are written: a 64-bit integer and a double hold them all.
constexpr int kMostIntegerDigits = 18;
constexpr int kMostDigits = 15;
constexpr int kMostExponentDigits = 2;

constexpr int64_t PowerOfTen(int exponent) { return exponent == 0 ? 1 : 10 * PowerOfTen(exponent - 1); }
constexpr int64_t kMostInteger = PowerOfTen(kMostIntegerDigits) - 1;

// The shortest decimal number that is this double, without its sign: a digit, the point, the others, times a power of ten.
struct Shortest {
  std::string digits;
  int exponent = 0;

  explicit Shortest(double value) {
    char text[32];
    const std::string_view written(text, std::to_chars(text, text + sizeof(text), std::abs(value), std::chars_format::scientific).ptr);
    const size_t mark = written.find('e');
    std::copy_if(written.begin(), written.begin() + mark, std::back_inserter(digits), [](char c) { return c != '.'; });
    const size_t sign = written[mark + 1] == '+' ? 1 : 0;
    std::from_chars(written.data() + mark + 1 + sign, written.data() + written.size(), exponent);
    if (digits == "0") exponent = -1;
  }
  int whole_digits() const { return std::max(0, exponent + 1); }
  int places() const { return static_cast<int>(digits.size()) - 1 - exponent; }
};

// A number that is not negative, as whole ones and as many units of 10^-places below one.
struct Decimal {
  int64_t whole = 0, fraction = 0;
  auto operator<=>(const Decimal&) const = default;  // NOLINT(modernize-use-nullptr): what it compares itself
};

struct Bound {
  double value;
  bool exclusive;
};

// Decimal numbers of at most so many places.
class Places {
 public:
  explicit Places(int places) : places_(places), one_(PowerOfTen(places)) {}

  Decimal Zero() const { return {}; }
  Decimal Unit() const { return {0, 1}; }
  Decimal Most() const { return {PowerOfTen(kMostDigits) - 1, one_ - 1}; }
  // The least magnitude that keeps a bound below it, and the greatest that keeps one above it. The latter may be below zero.
  Decimal AtLeast(const Bound& bound) const {
    const auto [low, is_exact] = Below(bound);
    return is_exact && !bound.exclusive ? low : Sum(low, 1);
  }
  Decimal AtMost(const Bound& bound) const {
    const auto [low, is_exact] = Below(bound);
    return is_exact && bound.exclusive ? Sum(low, -1) : low;
  }
  std::string Digits(int64_t fraction) const {
    const std::string digits = std::to_string(fraction);
    return std::string(static_cast<size_t>(places_) - digits.size(), '0') + digits;
  }
  int64_t last() const { return one_ - 1; }

 private:
  std::pair<Decimal, bool> Below(const Bound& bound) const {
    const Shortest shortest(bound.value);
    const int whole = shortest.exponent + 1;
    std::string digits = std::string(static_cast<size_t>(std::max(0, -whole)), '0') + shortest.digits;
    const auto point = static_cast<size_t>(shortest.whole_digits()), end = point + static_cast<size_t>(places_);
    digits.resize(std::max(digits.size(), end), '0');
    const auto number = [&](size_t from, size_t to) { return from == to ? 0 : std::stoll(digits.substr(from, to - from)); };
    return {{number(0, point), number(point, end)}, digits.find_first_not_of('0', end) == std::string::npos};
  }
  Decimal Sum(const Decimal& number, int units) const {
    const int64_t sum = number.fraction + units;
    if (sum < 0) return {number.whole - 1, sum + one_};
    return sum < one_ ? Decimal{number.whole, sum} : Decimal{number.whole + 1, 0};
  }

  int places_;
  int64_t one_;
};

bool Is(std::string_view digits, char digit) { return digits.find_first_not_of(digit) == std::string_view::npos; }

}  // namespace

GrammarBuilder::Label JsonRules::WholeNumber() {
  return Shared(whole_number_, [this] {
    builder_.Optional([this] { builder_.Literal("-"); });
    builder_.OneOf(2, [this](size_t i) {
      if (i == 0) {
        builder_.Literal("0");
      } else {
        builder_.Range('1', '9').Repeat(0, kMostIntegerDigits - 1, [this] { builder_.Range('0', '9'); });
      }
    });
  });
}

GrammarBuilder::Label JsonRules::Number() {
  return Shared(number_, [this] {
    const auto digits = [this](int least, int most) { builder_.Repeat(least, most, [this] { builder_.Range('0', '9'); }); };
    builder_.Optional([this] { builder_.Literal("-"); });
    builder_.OneOf(2, [&](size_t i) {
      if (i == 0) {
        builder_.Literal("0");
      } else {
        builder_.Range('1', '9');
        digits(0, kMostDigits - 1);
      }
    });
    builder_.Optional([&] {
      builder_.Literal(".");
      digits(1, kMostDigits);
    });
    builder_.Optional([&] {
      builder_.Set("eE").Optional([this] { builder_.Set("+-"); });
      digits(1, kMostExponentDigits);
    });
  });
}

GrammarBuilder::Label JsonRules::Digits(size_t most) {
  return Shared(digits_[most], [this, most] {
    builder_.Optional([&] {
      builder_.Range('0', '9');
      if (most > 1) builder_.Jump(Digits(most - 1));  // and back from there
    });
  });
}

bool JsonRules::ForEachBound(const Part& part, const std::function<void(const Json& value, bool is_least, bool is_exclusive)>& visit) {
  for (const auto& [keyword, is_least, is_exclusive] : {std::tuple("minimum", true, false),
                                                        {"exclusiveMinimum", true, true},
                                                        {"maximum", false, false},
                                                        {"exclusiveMaximum", false, true}}) {
    const auto found = part.schema->find(keyword);
    if (found == part.schema->end()) continue;
    if (!found->is_number()) {
      Fail(InvalidArgument("the schema's '" + std::string(keyword) + "' at " + part.where + " must be a number"));
      return false;
    }
    visit(*found, is_least, is_exclusive);
  }
  return true;
}

// Of ten, that the schema's numbers are multiples of; nothing where it does not say, or what it says is passed over.
std::optional<int> JsonRules::PowerOfTenIn(const Part& part) {
  const auto found = part.schema->find("multipleOf");
  if (found == part.schema->end()) return std::nullopt;
  const double value = found->is_number() ? found->get<double>() : 0;
  if (!(value > 0)) {
    Fail(InvalidArgument("the schema's 'multipleOf' at " + part.where + " must be a number above zero"));
    return std::nullopt;
  }
  const Shortest step(value);
  if (step.digits == "1" && step.exponent <= kMostIntegerDigits) return step.exponent;
  if (part.rigour == Rigour::kStrict) {
    Fail(Unsupported("the schema's 'multipleOf' at " + part.where + " cannot be enforced: it is no power of ten up to 1e" +
                     std::to_string(kMostIntegerDigits)));
  }
  return std::nullopt;
}

void JsonRules::WriteInteger(const Part& part) {
  int64_t least = -kMostInteger, most = kMostInteger;
  bool bounded = false;
  const bool sound = ForEachBound(part, [&](const Json& found, bool is_least, bool is_exclusive) {
    bounded = true;
    // Whole numbers as such: a double does not hold all of them.
    const auto value = found.get<double>();
    const auto nearest = is_least ? std::ceil(value) : std::floor(value);
    int64_t bound = 0;
    if (std::abs(value) > static_cast<double>(kMostInteger)) {
      bound = value > 0 ? kMostInteger : -kMostInteger;
      if ((value > 0) == is_least) least = kMostInteger, most = -kMostInteger;  // beyond all that is written
    } else {
      bound = found.is_number_integer() ? found.get<int64_t>() : static_cast<int64_t>(nearest);
      if (is_exclusive && static_cast<double>(bound) == value) bound += is_least ? 1 : -1;
    }
    if (is_least) {
      least = std::max(least, bound);
    } else {
      most = std::min(most, bound);
    }
  });
  if (!sound) return;
  const int zeros = std::max(0, PowerOfTenIn(part).value_or(0));
  // As many steps, rounded into the bounds.
  const int64_t step = PowerOfTen(zeros);
  const int64_t first = least / step + (least > 0 && least % step != 0 ? 1 : 0),
                last = most / step - (most < 0 && most % step != 0 ? 1 : 0);
  if (least > most || first > last) {
    return Fail(InvalidArgument("the schema at " + part.where + " allows no integer that can be written"));
  }
  if (!bounded && zeros == 0) {
    builder_.Call(WholeNumber());
  } else if (zeros == 0) {
    builder_.Integer(first, last);
  } else {
    const bool below = first < 0, zero = first <= 0 && last >= 0, above = last > 0;
    builder_.OneOf((below ? 1 : 0) + (zero ? 1 : 0) + (above ? 1 : 0), [&](size_t i) {
      if (zero && i == (below ? 1u : 0u)) {
        builder_.Literal("0");
        return;
      }
      const bool is_below = below && i == 0;
      builder_.Integer(is_below ? first : std::max<int64_t>(first, 1), is_below ? std::min<int64_t>(last, -1) : last);
      builder_.Literal(std::string(static_cast<size_t>(zeros), '0'));
    });
  }
}

void JsonRules::WriteNumber(const Part& part) {
  std::string same;  // what rules of equal numbers have in common
  for (const char* keyword : {"minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum", "multipleOf"}) {
    if (const auto found = part.schema->find(keyword); found != part.schema->end()) same += keyword + found->dump() + " ";
  }
  if (same.empty()) {
    builder_.Call(Number());
  } else {
    builder_.Call(Shared(numbers_.try_emplace(same, -1).first->second, [this, part] { WriteBoundedNumber(part); }));
  }
}

// Decimals without an exponent. There are as many places as let a double tell a number from a bound that it is not: below 10^n those are 15 - n.
void JsonRules::WriteBoundedNumber(const Part& part) {
  const std::optional<int> step = PowerOfTenIn(part);
  if (step && *step >= 0) return WriteInteger(part);
  std::optional<Bound> least, most;
  int places = step ? std::min(kMostDigits, -*step) : kMostDigits;
  bool fits = true;
  const bool sound = ForEachBound(part, [&](const Json& found, bool is_least, bool is_exclusive) {
    const Bound bound{found.get<double>(), is_exclusive};
    const Shortest shortest(bound.value);
    fits = fits && shortest.digits.size() <= kMostDigits && shortest.whole_digits() <= kMostDigits && shortest.places() <= kMostDigits;
    places = std::min(places, kMostDigits - shortest.whole_digits());
    std::optional<Bound>& known = is_least ? least : most;
    const bool is_tighter = !known || (is_least ? bound.value > known->value : bound.value < known->value);
    if (is_tighter || (bound.value == known->value && is_exclusive)) known = bound;
  });
  if (!sound) return;
  if (!fits) {
    if (part.rigour == Rigour::kLenient) {
      builder_.Call(Number());
    } else {
      Fail(Unsupported("the schema's bounds of numbers at " + part.where + " cannot be enforced: they may have " +
                       std::to_string(kMostDigits) + " digits, and as many before the point or after it"));
    }
    return;
  }
  const Places decimals(places);
  struct Span {
    Decimal least, most;
    bool empty() const { return least > most; }
  };
  Span above = {decimals.Zero(), decimals.Most()}, below = {decimals.Unit(), decimals.Most()};  // zero, and magnitudes below it
  if (least && least->value >= 0) {
    above.least = decimals.AtLeast(*least);
    below.most = {};
  } else if (least) {
    below.most = decimals.AtMost(*least);
  }
  if (most && most->value >= 0) {
    above.most = decimals.AtMost(*most);
  } else if (most) {
    below.least = decimals.AtLeast(*most);
    above.most = {-1, 0};
  }
  // "-0" is as good as "0".
  if (!above.empty() && above.least == decimals.Zero() && !below.empty()) below.least = {};
  if (above.empty() && below.empty()) {
    return Fail(InvalidArgument("the schema at " + part.where + " allows no number that can be written"));
  }
  builder_.OneOf((below.empty() ? 0 : 1) + (above.empty() ? 0 : 1), [&](size_t i) {
    const Span& span = i == 0 && !below.empty() ? below : above;
    if (&span == &below) builder_.Literal("-");
    // By whole numbers: those between, and the outermost where not every fraction may follow.
    const int64_t first = span.least.whole, last = span.most.whole, nines = decimals.last();
    struct Piece {
      int64_t first, last, least, most;
    };
    std::vector<Piece> pieces;
    if (first == last) {
      pieces.push_back({first, last, span.least.fraction, span.most.fraction});
    } else {
      const bool whole_first = span.least.fraction == 0, whole_last = span.most.fraction == nines;
      const int64_t from = whole_first ? first : first + 1, to = whole_last ? last : last - 1;
      if (!whole_first) pieces.push_back({first, first, span.least.fraction, nines});
      if (from <= to) pieces.push_back({from, to, 0, nines});
      if (!whole_last) pieces.push_back({last, last, 0, span.most.fraction});
    }
    builder_.OneOf(pieces.size(), [&](size_t p) {
      const Piece& piece = pieces[p];
      builder_.Integer(piece.first, piece.last);
      if (places == 0) return;
      const auto fraction = [&] {
        builder_.Literal(".");
        WriteFraction(decimals.Digits(piece.least), decimals.Digits(piece.most));
      };
      if (piece.least == 0) {
        builder_.Optional(fraction);
      } else {
        fraction();
      }
    });
  });
}

// Digits after the point, at least one of them, that zeros after them bring to a number from `least` to `most`, which are of one length.
void JsonRules::WriteFraction(std::string_view least, std::string_view most) {
  const std::string_view low = least.substr(1), high = most.substr(1);
  const std::string nines(low.size(), '9'), zeros(low.size(), '0');
  const auto rest = [&](std::string_view from, std::string_view to) {
    if (from.empty()) return;
    if (!Is(from, '0')) return WriteFraction(from, to);
    if (Is(to, '9')) {
      builder_.Call(Digits(from.size()));
    } else if (Is(to, '0')) {
      builder_.Repeat(0, static_cast<int>(to.size()), [&] { builder_.Literal("0"); });
    } else {
      builder_.Optional([&] { WriteFraction(from, to); });
    }
  };
  const auto digits = [&](int from, int to) { builder_.Range(static_cast<uint8_t>(from), static_cast<uint8_t>(to)); };
  const char from = least[0], to = most[0];
  if (from == to) {
    digits(from, to);
    return rest(low, high);
  }
  const bool whole_low = Is(low, '0'), whole_high = Is(high, '9');
  const int first = whole_low ? from : from + 1, last = whole_high ? to : to - 1;
  const bool middle = first <= last;
  builder_.OneOf((whole_low ? 0 : 1) + (middle ? 1 : 0) + (whole_high ? 0 : 1), [&](size_t i) {
    if (!whole_low && i == 0) {
      digits(from, from);
      rest(low, nines);
    } else if (middle && i == (whole_low ? 0u : 1u)) {
      digits(first, last);
      rest(zeros, nines);
    } else {
      digits(to, to);
      rest(zeros, high);
    }
  });
}

}  // namespace reprise
