// Bounds for options: a value outside is a usage error that names the values that can be.
#pragma once

#include <fmt/format.h>

#include <CLI/Validators.hpp>
#include <charconv>
#include <cstdint>
#include <string>

namespace reprise {

// Inclusive bounds. Unlike CLI::Range it refuses NaN, and prints numbers as a person would.
template <class T>
CLI::Validator Bounded(T min, T max) {
  return CLI::Validator(
      [min, max](std::string& input) -> std::string {
        T value{};
        if (!CLI::detail::lexical_cast(input, value) || !(value >= min && value <= max)) {
          return fmt::format("'{}' is not a number from {} to {}", input, min, max);
        }
        return {};
      },
      fmt::format("{} to {}", min, max));
}

// A whole number of 64 bits. The parser itself would let "-3" and what overflows wrap around.
inline CLI::Validator WholeNumber() {
  return CLI::Validator(
      [](std::string& input) -> std::string {
        uint64_t value = 0;
        const auto [end, error] = std::from_chars(input.data(), input.data() + input.size(), value);
        return error == std::errc() && end == input.data() + input.size()
                   ? std::string()
                   : fmt::format("'{}' is not a whole number from 0 to 2^64 - 1", input);
      },
      "");
}

}  // namespace reprise
