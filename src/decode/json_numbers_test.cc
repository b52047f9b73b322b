// Bounds of numbers and what they are multiples of.
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "decode/json_rules_test.h"

namespace reprise {
namespace {

using Json = nlohmann::json;

std::string Refusal(const char* schema) {
  const auto grammar = Grammar::JsonSchema(schema);
  return grammar.ok() ? "" : grammar.status().message();
}

TEST(JsonNumbers, BetweenBounds) {
  struct Case {
    const char* schema;
    std::vector<const char*> in, out;
  };
  const Case kCases[] = {
      {R"({"type":"number","minimum":0,"maximum":1})",
       {"0", "1", "0.5", "0.0", "1.0", "1.000", "0.99999999999999"},
       {"1.1", "-0", "-0.1", "2", "1.001", "00", "0.", ".5", "1e0", "10", "0.123456789012345"}},
      {R"({"exclusiveMinimum":0,"exclusiveMaximum":1})",
       {"0.1", "0.00000000000001", "0.99", "0.99999999999999", "0.10"},
       {"0", "0.0", "-0", "1", "1.0", "1.5", "-0.5"}},
      {R"({"type":"number","exclusiveMinimum":0})",
       {"0.1", "1", "999999999999999.9", "120"},
       {"0", "0.000", "-1", "1e5", "1000000000000000"}},
      {R"({"type":"number","maximum":-1.25})", {"-1.25", "-1.250", "-1.3", "-2", "-200"}, {"-1.2", "-1.24", "-1", "0", "1.25", "-1.2499"}},
      {R"({"type":"number","minimum":-2.5,"exclusiveMaximum":10.05})",
       {"-2.5", "-2.49", "-0.5", "0", "-0", "10.049", "10.0", "9.99", "10"},
       {"-2.51", "-3", "10.05", "10.050", "10.1", "11"}},
      {R"({"type":"number","minimum":3.25,"maximum":3.25})", {"3.25", "3.250"}, {"3.2", "3", "3.251", "-3.25"}},
      {R"({"type":"number","minimum":95,"maximum":1200.5})",
       {"95", "99.9", "100", "1200.5", "1200.499", "1000", "999.1"},
       {"94.9", "1200.6", "1201", "9", "12000"}},
      {R"({"type":"number","minimum":0,"exclusiveMinimum":0,"maximum":2,"exclusiveMaximum":3})", {"2", "0.1"}, {"0", "2.1"}},
      {R"({"type":"number","minimum":-0.0,"maximum":1e-3})", {"0", "0.001"}, {"0.0011", "-0.001"}},
      {R"({"type":"number","exclusiveMaximum":123456789012345})",
       {"123456789012344", "-0", "-5"},
       {"123456789012345", "123456789012344.9", "0.5"}},
      {R"({"type":"number","multipleOf":0.01})", {"1", "1.5", "-1.25", "0.10"}, {"1.255", "1e1"}},
      {R"({"type":"number","multipleOf":0.1,"minimum":0.25,"exclusiveMaximum":1.0})", {"0.3", "0.9"}, {"0.2", "0.25", "1.0", "0.35"}},
      {R"({"multipleOf":1,"exclusiveMinimum":1.5,"maximum":12})", {"2", "12"}, {"1", "2.0", "13"}},
      {R"({"type":"number","multipleOf":10})", {"0", "10", "-120"}, {"5", "-0", "00", "10.0"}},
      {R"({"type":"integer","multipleOf":100,"minimum":-250,"maximum":1000})",
       {"-200", "-100", "0", "100", "900", "1000"},
       {"-300", "1100", "50", "000"}},
      {R"({"type":"integer","multipleOf":10,"exclusiveMinimum":0})", {"10", "990"}, {"0", "-10", "5"}},
      {R"({"type":"integer","multipleOf":0.1})", {"3", "-12", "0"}, {"3.0"}},
      {R"({"type":["number","null"],"minimum":5})", {"5", "null", "6.5"}, {"4"}},
  };
  for (const Case& one : kCases) {
    const Rules rules = Of(one.schema);
    for (const char* text : one.in) EXPECT_TRUE(rules.Accepts(text)) << one.schema << " " << text;
    for (const char* text : one.out) EXPECT_FALSE(rules.Accepts(text)) << one.schema << " " << text;
  }
}

TEST(JsonNumbers, SaysWhatItCannotEnforce) {
  const char* kDigits =
      "the schema's bounds of numbers at # cannot be enforced: they may have 15 digits, and as many before the point or after it";
  const char* kNone = "the schema at # allows no number that can be written";
  const std::pair<const char*, const char*> kCases[] = {
      {R"({"type":"number","minimum":1e15})", kDigits},
      {R"({"type":"number","maximum":-1e300})", kDigits},
      {R"({"type":"number","minimum":1e-16})", kDigits},
      {R"({"type":"number","minimum":0.1234567890123456})", kDigits},
      {R"({"type":"number","minimum":2,"maximum":1})", kNone},
      {R"({"type":"number","minimum":1,"exclusiveMaximum":1})", kNone},
      {R"({"type":"number","exclusiveMinimum":-1,"maximum":-1})", kNone},
      {R"({"type":"number","exclusiveMinimum":0.1,"exclusiveMaximum":0.2,"multipleOf":0.1})", kNone},
      {R"({"type":"number","minimum":"0"})", "the schema's 'minimum' at # must be a number"},
      {R"({"type":"number","multipleOf":0})", "the schema's 'multipleOf' at # must be a number above zero"},
      {R"({"type":"integer","multipleOf":3})", "the schema's 'multipleOf' at # cannot be enforced: it is no power of ten up to 1e18"},
      {R"({"type":"number","multipleOf":0.25})", "the schema's 'multipleOf' at # cannot be enforced: it is no power of ten up to 1e18"},
      {R"({"type":"integer","multipleOf":10,"minimum":11,"maximum":19})", "the schema at # allows no integer that can be written"},
  };
  for (const auto& [schema, message] : kCases) EXPECT_EQ(Refusal(schema), message) << schema;
}

// A decimal number in units of 10^-places.
struct Decimal {
  int64_t units;
  int places;

  std::string Text() const {
    std::string digits = std::to_string(std::abs(units));
    if (digits.size() <= static_cast<size_t>(places)) digits.insert(0, static_cast<size_t>(places) + 1 - digits.size(), '0');
    if (places > 0) digits.insert(digits.size() - static_cast<size_t>(places), ".");
    return (units < 0 ? "-" : "") + digits;
  }
  double value() const { return std::stod(Text()); }
};

class Decimals {
 public:
  explicit Decimals(uint32_t seed) : random(seed) {}
  Decimal Draw() {
    static constexpr int64_t kPowers[] = {1, 10, 100, 1000, 100'000, 10'000'000, 10'000'000'000, 1'000'000'000'000};
    const int64_t power = kPowers[random() % std::size(kPowers)];
    int64_t units = static_cast<int64_t>((uint64_t{random()} << 32 | random()) % static_cast<uint64_t>(power));
    if (random() % 4 == 0) units = power - static_cast<int64_t>(random() % 3);
    return {random() % 2 == 0 ? units : -units, static_cast<int>(random() % 7)};
  }
  // As it is, or next to it.
  Decimal Near(const Decimal& number) {
    Decimal near = number;
    for (unsigned n = random() % 3; n > 0; --n) near = {near.units * 10, near.places + 1};
    near.units += static_cast<int64_t>(random() % 5) - 2;
    return near;
  }
  std::mt19937 random;
};

// Random bounds: what is written lies between them, also as a double, and of random decimals near and far those between them are accepted.
TEST(JsonNumbers, RandomBounds) {
  Decimals decimals(31);
  std::mt19937& random = decimals.random;
  int accepted = 0, refused = 0, drawn = 0, empty = 0;
  for (int round = 0; round < 4000; ++round) {
    const Decimal low = decimals.Draw(), high = random() % 3 == 0 ? decimals.Near(low) : decimals.Draw();
    const bool has_low = random() % 5 != 0, has_high = !has_low || random() % 5 != 0;
    const bool low_open = random() % 2 == 0, high_open = random() % 2 == 0;
    const std::string schema = R"({"type":"number")" +
                               (has_low ? (low_open ? R"(,"exclusiveMinimum":)" : R"(,"minimum":)") + low.Text() : "") +
                               (has_high ? (high_open ? R"(,"exclusiveMaximum":)" : R"(,"maximum":)") + high.Text() : "") + "}";
    const auto between = [&](const std::string& text) {
      const double value = std::stod(text);
      return (!has_low || (low_open ? value > low.value() : value >= low.value())) &&
             (!has_high || (high_open ? value < high.value() : value <= high.value()));
    };
    const auto grammar = Grammar::JsonSchema(schema);
    if (!grammar.ok()) {
      ASSERT_EQ(grammar.status().message(), "the schema at # allows no number that can be written") << schema;
      ASSERT_TRUE(low.value() > high.value() || (low.value() == high.value() && (low_open || high_open))) << schema;
      ++empty;
      continue;
    }
    const Rules rules(*grammar);
    for (int i = 0; i < 12; ++i) {
      const Decimal number = i % 3 == 0 ? decimals.Draw() : decimals.Near(i % 3 == 1 ? low : high);
      // As many places as the greater bound leaves.
      const double greatest = std::max(has_low ? std::abs(low.value()) : 0, has_high ? std::abs(high.value()) : 0);
      const int whole = greatest < 1 ? 0 : static_cast<int>(std::to_string(static_cast<int64_t>(greatest)).size());
      if (number.places > 15 - whole) continue;
      ASSERT_EQ(rules.Accepts(number.Text()), between(number.Text())) << schema << " " << number.Text();
      ++(between(number.Text()) ? accepted : refused);
    }
    for (int i = 0; i < 3; ++i) {
      const std::string text = rules.Draw(random, 60);
      ASSERT_FALSE(text.empty()) << schema;
      ASSERT_TRUE(Json::accept(text)) << schema << " " << text;
      ASSERT_TRUE(between(text)) << schema << " " << text;
      ++drawn;
    }
  }
  EXPECT_GT(accepted, 5000);
  EXPECT_GT(refused, 5000);
  EXPECT_GT(drawn, 5000);
  EXPECT_GT(empty, 300);
}

// Equal numbers are written once, so that a schema may have many.
TEST(JsonNumbers, EqualBoundsShareTheirRules) {
  Json schema;
  for (int i = 0; i < 120; ++i)
    schema["properties"]["p" + std::to_string(i)] = {{"type", "number"}, {"exclusiveMinimum", 0}, {"maximum", 1.5}};
  EXPECT_EQ(Refusal(schema.dump().c_str()), "");
}

}  // namespace
}  // namespace reprise
