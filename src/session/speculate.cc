// Speculation: guess, check all guesses in one step, keep what came true.
#include "decode/lookup.h"
#include "session/session_state.h"

namespace reprise {
Status Session::State::Speculate(int most) {
  static_assert(Speculation::kMostDraft < Engine::kMaxTentativeRows);
  std::array<int32_t, Engine::kMaxTentativeRows> tokens;
  tokens[0] = pending();
  const int before = lane->position();
  REPRISE_RETURN_IF_ERROR(engine().BeginTentative(*lane, 1 + most));
  // Host states of the boundaries within the burst, each as it is before a token is chosen there: what Rollback goes back to.
  std::array<Ref<StateBlock>, Engine::kMaxTentativeRows> boundaries;
  int guessed = 0;
  const auto run = [&]() -> Status {
    REPRISE_ASSIGN_OR_RETURN(guessed, GuessAfter(tokens, most));
    REPRISE_RETURN_IF_ERROR(engine().RunTentative(*lane, std::span(tokens).first(static_cast<size_t>(1 + guessed))));
    REPRISE_RETURN_IF_ERROR(engine().ComputeRowLogits());
    std::byte* host = lane->write(Space::kHost);
    text.clear();
    for (burst_size = 0; burst_size <= guessed;) {
      const auto row = static_cast<size_t>(burst_size);
      decode().set_pending(host, -1);
      REPRISE_ASSIGN_OR_RETURN(boundaries[row], engine().space().AcquireBlock(Space::kHost));
      std::copy_n(host, engine().space().layout().block_bytes(Space::kHost), boundaries[row]->data);
      const size_t shown = text.size();
      Token token;
      REPRISE_RETURN_IF_ERROR(Choose(burst_size, std::span(tokens).first(row + 1), token));
      burst[row] = {token.id, shown, text.size(), token.finish};
      ++burst_size;
      if (token.finish != Finish::kNone || burst_size > guessed || token.id != tokens[row + 1]) break;
    }
    return engine().CommitTentative(*lane, burst_size);
  };
  if (Status status = run(); !status.ok()) {
    engine().AbortTentative(*lane);
    return status;
  }
  burst_guessed = guessed;
  if (guessed > 0) {
    ++stats.steps;
    stats.drafted += guessed;
    stats.accepted += burst_size - 1;
  }
  for (int i = 0; i < burst_size; ++i) checkpoints.Mark(before + i + 1, before + i + 1, boundaries[static_cast<size_t>(i)]);
  // A checkpoint is a boundary with nothing pending, like every mark.
  if (lane->position() / Checkpoints::kStride != before / Checkpoints::kStride) {
    HeldState here = lane->Hold();
    here.block[kHost] = boundaries[static_cast<size_t>(burst_size - 1)];
    checkpoints.Keep(here);
  }
  return Ok();
}

// Fills tokens[1..] with up to `most` guesses of what follows tokens[0], and returns how many there are. The step has begun.
Result<int> Session::State::GuessAfter(std::span<int32_t> tokens, int most) {
  if (speculation.source != Speculation::Source::kMtp) {
    const int position = lane->position();
    const auto context = engine().token_scratch().first(static_cast<size_t>(position) + 1);
    engine().CopyTokens(lane->Hold(), 0, context.first(static_cast<size_t>(position)));
    context.back() = tokens[0];
    const int found = DraftByLookup(context, tokens.subspan(1, static_cast<size_t>(most)));
    if (found > 0 || speculation.source == Speculation::Source::kLookup || !engine().info().has_draft) return found;
  }
  for (int i = 0; i < most; ++i) {
    REPRISE_ASSIGN_OR_RETURN(tokens[static_cast<size_t>(i) + 1], engine().GuessNext(*lane, i, tokens[static_cast<size_t>(i)]));
  }
  return most;
}

}  // namespace reprise
