// Bounds for options: a value outside is a usage error that names the values that can be.
#pragma once

#include <CLI/Validators.hpp>
#include <fmt/format.h>
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

}  // namespace reprise
