// One generation, as the commands run it: tokens until something ends it, with the text as it comes.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "reprise/session.h"

namespace reprise {

struct Generation {
  std::vector<int32_t> tokens;  // the one that ended the text included
  std::string text;             // all that was shown
  Finish finish = Finish::kLength;
  double seconds = 0;
  bool context_full = false;  // finish is kLength because no position is left

  double tokens_per_second() const { return seconds > 0 ? static_cast<double>(tokens.size()) / seconds : 0; }
};

struct GenerationOptions {
  int max_tokens = 0;
  const std::atomic<bool>* cancel = nullptr;             // looked at between tokens
  std::function<void(std::string_view)> show = nullptr;  // text as it becomes certain; one session only
  // Text still held back when the generation stops early (it may begin a stop string, or be half a character) is shown, and forgotten.
  // Without it the session keeps it, so that a capsule taken now goes on bit for bit and shows it later.
  bool flush = true;
};

Result<Generation> GenerateOne(Session& session, const GenerationOptions& options);

// The same for sessions of one model that decode as one batch; entry i of the result is sessions[i]'s. `step` hears how many tokens each
// has.
Result<std::vector<Generation>> GenerateBatch(std::span<Session> sessions, const GenerationOptions& options,
                                              const std::function<void(int)>& step);

// How many more tokens the session's context can give.
int RoomFor(const Session& session, int max_tokens);

}  // namespace reprise
