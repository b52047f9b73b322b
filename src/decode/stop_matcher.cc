#include "decode/stop_matcher.h"

#include <algorithm>
#include <cstring>

namespace reprise {
namespace {

// Drops the first n bytes.
void Drop(HeldText& held, size_t n) {
  const size_t rest = held.view().size() - n;
  std::memmove(held.bytes, held.bytes + n, rest);
  std::memset(held.bytes + rest, 0, n);
  held.size = static_cast<uint32_t>(rest);
}

}  // namespace

void StopStrings::Set(std::span<const std::string> stops) {
  *this = StopStrings();
  size_t used = 0;
  for (const std::string& stop : stops) {
    std::memcpy(bytes + used, stop.data(), stop.size());
    lengths[count++] = static_cast<uint16_t>(stop.size());
    used += stop.size();
  }
}

std::string_view HeldText::view() const { return {bytes, std::min<size_t>(size, sizeof(bytes))}; }

StopMatcher::StopMatcher(const StopStrings& stops) {
  size_t used = 0;
  for (size_t i = 0; i < std::min<size_t>(stops.count, SamplingOptions::kMaxStops); ++i) {
    const size_t length = stops.lengths[i];
    if (length == 0 || length > sizeof(stops.bytes) - used) break;
    stops_[count_] = {stops.bytes + used, length};
    leads_[static_cast<uint8_t>(stops_[count_][0])] = true;
    ++count_;
    used += length;
  }
}

bool StopMatcher::Begins(std::string_view text) const {
  return std::any_of(stops().begin(), stops().end(),
                     [&](std::string_view stop) { return stop.size() > text.size() && stop.starts_with(text); });
}

bool StopMatcher::Push(char byte, HeldText& held, std::string& shown) const {
  if (held.view().empty() && !leads_[static_cast<uint8_t>(byte)]) {
    shown += byte;
    return false;
  }
  // What is held is shorter than its stop string, so there is room; if restored bytes say otherwise, what is held begins nothing.
  if (held.view().size() == sizeof(held.bytes)) {
    shown += held.view();
    Drop(held, held.view().size());
  }
  held.bytes[held.size++] = byte;
  const std::string_view text = held.view();

  size_t matched = 0;
  for (const std::string_view stop : stops()) {
    if (text.ends_with(stop)) matched = std::max(matched, stop.size());
  }
  if (matched > 0) {
    shown += text.substr(0, text.size() - matched);
    Drop(held, text.size());
    return true;
  }
  size_t certain = 0;
  while (certain < text.size() && !Begins(text.substr(certain))) ++certain;
  shown += text.substr(0, certain);
  Drop(held, certain);
  return false;
}

}  // namespace reprise
