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

Status Finished(Session& session, Generation& generation, const GenerationOptions& options) {
  const bool ended = generation.finish == Finish::kStopString || generation.finish == Finish::kEndOfText;
  if (generation.finish == Finish::kStopString || (!ended && !options.flush)) return Ok();
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
  const int room = RoomFor(session, options.max_tokens);
  for (int i = 0; i < room; ++i) {
    if (Asked(options.cancel)) {
      generation.finish = Finish::kCancelled;
      break;
    }
    REPRISE_ASSIGN_OR_RETURN(const Token token, session.Next());
    generation.tokens.push_back(token.id);
    Show(generation, options, token.text);
    if (token.finish != Finish::kNone) {
      generation.finish = token.finish;
      break;
    }
  }
  generation.context_full = generation.finish == Finish::kLength && room < options.max_tokens;
  generation.seconds = Since(start);
  REPRISE_RETURN_IF_ERROR(Finished(session, generation, options));
  return generation;
}

Result<std::vector<Generation>> GenerateBatch(std::span<Session> sessions, const GenerationOptions& options, const std::function<void(int)>& step) {
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
  for (size_t i = 0; i < sessions.size(); ++i) REPRISE_RETURN_IF_ERROR(Finished(sessions[i], generations[i], options));
  return generations;
}

}  // namespace reprise
