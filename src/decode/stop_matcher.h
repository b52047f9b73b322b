// Stop strings over a text that comes in pieces. Text that may be the beginning of a stop string is held back until it is one or cannot be.
//
// The first stop string to be complete ends the text; of those complete at the same byte, the longest. The outcome does not depend on how
// the text was cut into pieces.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "reprise/sampling.h"

namespace reprise {

// PODs of fixed size, so that they can be states. Bytes that are not in use are zero: equal states have equal bytes.
struct StopStrings {
  uint32_t count = 0;
  uint16_t lengths[SamplingOptions::kMaxStops] = {};
  char bytes[SamplingOptions::kMaxStopBytes] = {};  // the strings one after the other

  void Set(std::span<const std::string> stops);  // that passed SamplingOptions::Check
};

struct HeldText {
  uint32_t size = 0;
  char bytes[SamplingOptions::kMaxStopBytes] = {};

  // What is held; at most the whole buffer, whatever `size` claims.
  std::string_view view() const;
};

// Reads StopStrings; refers to them. Whatever their bytes are, it sees at most kMaxStops strings within the buffer.
class StopMatcher {
 public:
  explicit StopMatcher(const StopStrings& stops);
  explicit StopMatcher(StopStrings&&) = delete;

  std::span<const std::string_view> stops() const& { return {stops_, count_}; }
  std::span<const std::string_view> stops() && = delete;

  // One byte more of the text. Appends to `shown` what is now certain to be shown. Returns true when a stop string is complete: then
  // nothing is held any more, and the stop string was not shown.
  bool Push(char byte, HeldText& held, std::string& shown) const;

  // Whether `text` begins a stop string and is not the whole of it. True of all text that is ever held.
  bool Begins(std::string_view text) const;

 private:
  std::string_view stops_[SamplingOptions::kMaxStops];
  size_t count_ = 0;
  bool leads_[256] = {};  // the bytes that begin a stop string: few texts are ever held
};

}  // namespace reprise
