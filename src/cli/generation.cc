#include "cli/generation.h"

#include <algorithm>
#include <chrono>

namespace reprise {
namespace {

using Clock = std::chrono::steady_clock;

double Since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

bool Asked(const std::atomic<bool>* cancel) { return cancel != nullptr && cancel->load(std::memory_order_relaxed); }

void Show(Generation& generation, const GenerationOptions& options, std::string_view text) {
  generation.text += text;
  if (options.show && !text.empty()) options.show(text);
}

Status Flush(Session& session, Generation& generation, const GenerationOptions& options) {
  REPRISE_ASSIGN_OR_RETURN(const std::string_view rest, session.FlushText());
  Show(generation, options, rest);
  return Ok();
}

}  // namespace

int RoomFor(const Session& session, int max_tokens) {
  // The last token chosen need not be fed, so one more fits than there are positions.
  const int used = session.position() + (session.pending_token() >= 0 ? 1 : 0);
  return std::clamp(session.model().info().context - used + 1, 0, max_tokens);
}

Result<Generation> GenerateOne(Session& session, const GenerationOptions& options) {
  Generation generation;
  const Clock::time_point start = Clock::now();
  const auto room = static_cast<size_t>(RoomFor(session, options.max_tokens));
  if (room > 0 && !Asked(options.cancel)) {
    const auto finish = session.Generate(static_cast<int>(room), [&](const Token& token) {
      if (token.id >= 0) generation.tokens.push_back(token.id);
      Show(generation, options, token.text);
      // Stopping it here, at the last token too, leaves to this function what becomes of text that is held back.
      return generation.tokens.size() < room && !Asked(options.cancel);
    });
    if (!finish.ok()) return finish.status();
    generation.finish = *finish;
  } else {
    generation.finish = room > 0 ? Finish::kCancelled : Finish::kLength;
  }
  if (generation.finish == Finish::kCancelled && generation.tokens.size() == room) generation.finish = Finish::kLength;
  generation.context_full = generation.finish == Finish::kLength && room < static_cast<size_t>(options.max_tokens);
  generation.seconds = Since(start);
  const bool stopped_early = generation.finish == Finish::kLength || generation.finish == Finish::kCancelled;
  if (stopped_early && options.flush) REPRISE_RETURN_IF_ERROR(Flush(session, generation, options));
  return generation;
}

Result<std::vector<Generation>> GenerateBatch(std::span<Session> sessions, const GenerationOptions& options,
                                              const std::function<void(int)>& step) {
  std::vector<Generation> generations(sessions.size());
  std::vector<size_t> live;
  for (size_t i = 0; i < sessions.size(); ++i) live.push_back(i);
  const Clock::time_point start = Clock::now();
  const int room = sessions.empty() ? 0 : RoomFor(sessions.front(), options.max_tokens);
  std::vector<Session*> batch;
  std::vector<Token> tokens;
  for (int count = 0; count < room && !live.empty(); ++count) {
    if (Asked(options.cancel)) {
      for (const size_t i : live) generations[i].finish = Finish::kCancelled;
      break;
    }
    batch.clear();
    for (const size_t i : live) batch.push_back(&sessions[i]);
    tokens.assign(live.size(), Token());
    REPRISE_RETURN_IF_ERROR(Session::NextBatch(batch, tokens));
    std::vector<size_t> still;
    for (size_t k = 0; k < live.size(); ++k) {
      Generation& generation = generations[live[k]];
      generation.tokens.push_back(tokens[k].id);
      generation.text += tokens[k].text;
      if (tokens[k].finish == Finish::kNone) {
        still.push_back(live[k]);
      } else {
        generation.finish = tokens[k].finish;
        generation.seconds = Since(start);
      }
    }
    live = std::move(still);
    if (step) step(count + 1);
  }
  for (const size_t i : live) {
    generations[i].seconds = Since(start);
    generations[i].context_full = generations[i].finish == Finish::kLength && room < options.max_tokens;
  }
  for (size_t i = 0; i < sessions.size(); ++i) {
    const Finish finish = generations[i].finish;
    const bool ended = finish == Finish::kEndOfText || finish == Finish::kComplete;
    if (finish == Finish::kStopString || (!options.flush && !ended)) continue;
    REPRISE_RETURN_IF_ERROR(Flush(sessions[i], generations[i], options));
  }
  return generations;
}

}  // namespace reprise
