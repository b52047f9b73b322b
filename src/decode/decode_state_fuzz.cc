// State bytes are the input, then text to feed: whatever a restored capsule holds, no call reads or writes out of bounds, and what passes
// Check() shows nothing but UTF-8.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "base/utf8.h"
#include "decode/decode_state.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace reprise;
  constexpr int kVocabulary = 16;
  StateLayout layout;
  const DecodeState state = DecodeState::Declare(layout);
  std::vector<std::byte> host(layout.block_bytes(Space::kHost));
  // Sound to begin with: most inputs are short, and noise everywhere would end at the first check.
  if (!state
           .Configure({.temperature = 1, .top_k = 5, .top_p = 0.9f, .stop = {"<end>", "\n\n"}, .grammar = Grammar::JsonObject()},
                      host.data())
           .ok())
    std::abort();
  state.set_pending(host.data(), -1);
  // Pairs of bytes of the input say where a byte goes; what follows a pair of 0xFF is text.
  size_t i = 0;
  for (; i + 3 <= size && !(data[i] == 0xFF && data[i + 1] == 0xFF); i += 3) {
    host[(data[i] << 8 | data[i + 1]) % host.size()] = std::byte{data[i + 2]};
  }
  const bool sound = state.Check(host.data(), kVocabulary).ok();
  SampleWorkspace workspace(kVocabulary);
  std::vector<float> logits(kVocabulary);
  if (i + 2 <= size) i += 2;
  const std::string_view text(reinterpret_cast<const char*>(data) + i, size - i);
  if (!text.empty()) std::memcpy(logits.data(), text.data(), std::min(text.size(), logits.size() * sizeof(float)));
  const int32_t window[] = {0, 5, 5, -1, kVocabulary};
  const auto token = state.Sample(logits, window, host.data(), workspace);
  if (token.ok() && (*token < 0 || *token >= kVocabulary)) std::abort();
  std::string shown;
  state.Feed(text, host.data(), shown);
  (void)state.IsComplete(host.data());
  state.Flush(host.data(), shown);
  if (sound && !IsUtf8(shown)) std::abort();
  if (sound && !state.Check(host.data(), kVocabulary).ok()) std::abort();
  return 0;
}
