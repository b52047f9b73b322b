// Choosing tokens: one, one for each of several sessions, and a whole generation.
#include <chrono>

#include "session/session_state.h"

namespace reprise {
namespace {

// Of an entry's logits, what is asked for.
class EntryReader : public RowReader {
 public:
  EntryReader(const Engine& engine, int entry) : engine_(engine), entry_(entry) {}
  std::span<const float> Read(size_t first, size_t count) override { return engine_.logits(entry_, first, count); }

 private:
  const Engine& engine_;
  const int entry_;
};

}  // namespace

// With `ahead` empty the step is a host step; otherwise its rows hold `ahead` and are not committed yet.
Status Session::State::Choose(int entry, std::span<const int32_t> ahead, Token& token) {
  std::byte* to = lane->write(Space::kHost);
  const int position = lane->position();
  const int known = position + static_cast<int>(ahead.size());
  const int32_t window = decode().PenaltyWindow(to);
  const int count = window < 0 ? known : std::min<int>(window, known);
  const auto context = engine().token_scratch().first(static_cast<size_t>(count));
  const int committed = std::max(0, count - static_cast<int>(ahead.size()));
  engine().CopyTokens(lane->Hold(), position - committed, context.first(static_cast<size_t>(committed)));
  std::copy_n(ahead.end() - (count - committed), count - committed, context.begin() + committed);
  token = Token();
  const size_t shown = text.size();
  // Most choices are decided by the best logits alone, by what the others weigh, or by one part of the row; the whole row is asked for, and copied where
  // it lies elsewhere, for the rest.
  REPRISE_ASSIGN_OR_RETURN(const AllowedTokens allowed, engine().Allowed(to));
  const BestLogits best = engine().best(entry);
  std::optional<int32_t> chosen;
  if (!best.ids.empty()) {
    REPRISE_ASSIGN_OR_RETURN(chosen, decode().SampleFromBest(best, context, to, engine().workspace(), allowed));
    if (const float temperature = decode().WeighingTemperature(to); !chosen && temperature > 0) {
      REPRISE_ASSIGN_OR_RETURN(const RowWeights weights, engine().Weigh(entry, temperature));
      REPRISE_ASSIGN_OR_RETURN(chosen, decode().SampleFromBest(best, context, to, engine().workspace(), allowed, weights));
      if (!chosen) {
        EntryReader reader(engine(), entry);
        REPRISE_ASSIGN_OR_RETURN(chosen, decode().SampleFromPart(best, weights, reader, context, to, allowed));
      }
    }
  }
  if (!chosen) {
    REPRISE_ASSIGN_OR_RETURN(chosen, decode().Sample(engine().logits(entry), context, to, engine().workspace(), allowed));
  }
  token.id = *chosen;
  decode().set_pending(to, token.id);
  if (const Tokenizer* tokenizer = engine().tokenizer_or_null()) {
    if (tokenizer->IsEndOfGeneration(token.id)) {
      token.finish = Finish::kEndOfText;
    } else if (!tokenizer->IsHidden(token.id) && decode().Feed(tokenizer->TokenBytes(token.id), to, text)) {
      token.finish = Finish::kStopString;
    } else if (decode().IsComplete(to)) {
      token.finish = Finish::kComplete;
    }
  }
  token.text = std::string_view(text).substr(shown);
  return Ok();
}

Result<Token> Session::Next() {
  Session* self = this;
  Token token;
  REPRISE_RETURN_IF_ERROR(NextBatch(std::span(&self, 1), std::span(&token, 1)));
  return token;
}

Status Session::NextBatch(std::span<Session* const> sessions, std::span<Token> tokens) {
  if (sessions.empty()) return Ok();
  if (tokens.size() != sessions.size()) return InvalidArgument("NextBatch needs a place for each session's token");
  Engine& engine = sessions[0]->state_->engine();
  constexpr size_t kMost = 256;  // lanes that Load allows
  Engine::Feed feeds[kMost];
  int32_t pending[kMost];
  Lane* lanes[kMost];
  if (sessions.size() > static_cast<size_t>(engine.max_lanes())) return InvalidArgument("more sessions than the model has lanes");
  size_t feed_count = 0;
  for (size_t i = 0; i < sessions.size(); ++i) {
    State& s = *sessions[i]->state_;
    if (&s.engine() != &engine) return Mismatch("sessions of different models cannot be decoded as one batch");
    if (std::find(lanes, lanes + i, s.lane.get()) != lanes + i) return InvalidArgument("a session was given twice to one batch");
    lanes[i] = s.lane.get();
    pending[i] = s.pending();
    if (pending[i] >= 0) feeds[feed_count++] = {lanes[i], std::span(&pending[i], 1)};
    if (s.plan) return InvalidArgument("the prompt is not complete yet: continue the prefill, or cancel it");
    if (pending[i] < 0 && lanes[i]->position() == 0) {
      return InvalidArgument("there is nothing to continue yet: give a prompt of at least one token first");
    }
  }
  if (feed_count > 0) {
    REPRISE_RETURN_IF_ERROR(engine.Advance(std::span(feeds, feed_count)));
    for (size_t i = 0; i < sessions.size(); ++i) {
      if (pending[i] < 0) continue;
      State& s = *sessions[i]->state_;
      s.MarkHere();
      if (s.lane->position() % Checkpoints::kStride == 0) s.KeepHere();
    }
  }
  REPRISE_RETURN_IF_ERROR(engine.ComputeLogits(std::span(lanes, sessions.size())));
  // All choose, or none has: a choice that one caller never hears of would leave a gap in its text.
  const auto abort_first = [&](size_t count) {
    for (size_t i = 0; i < count; ++i) lanes[i]->Abort();
  };
  for (size_t i = 0; i < sessions.size(); ++i) {
    Status status = lanes[i]->BeginHost();
    if (status.ok()) {
      sessions[i]->state_->text.clear();
      status = sessions[i]->state_->Choose(static_cast<int>(i), {}, tokens[i]);
      if (!status.ok()) lanes[i]->Abort();
    }
    if (!status.ok()) {
      abort_first(i);
      return status;
    }
  }
  for (size_t i = 0; i < sessions.size(); ++i) lanes[i]->Commit();
  return Ok();
}

Result<Finish> Session::Generate(int max_tokens, const std::function<bool(const Token&)>& emit) {
  State& s = *state_;
  Finish finish = Finish::kLength;
  for (int count = 0; count < max_tokens && finish == Finish::kLength;) {
    // A step chooses one token, or a burst of them where guesses came true.
    const int wanted = s.speculation.adapt ? s.depth.Next() : s.speculation.draft;
    const int most = std::min({wanted, max_tokens - count - 1, model().info().context - position() - 1});
    const bool steps = s.pending() >= 0;
    const auto start = std::chrono::steady_clock::now();
    if (!steps || most < 1) {
      REPRISE_ASSIGN_OR_RETURN(const Token token, Next());
      s.burst[0] = {token.id, 0, token.text.size(), token.finish};
      s.burst_size = 1;
      s.burst_guessed = 0;
    } else {
      REPRISE_RETURN_IF_ERROR(s.Speculate(most));
    }
    const int size = s.burst_size;
    if (steps) {
      s.depth.Record(s.burst_guessed, size, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
    }
    count += size;
    for (int i = 0; i < size; ++i) {
      const State::BurstToken token = s.burst[static_cast<size_t>(i)];
      const std::string_view text = std::string_view(s.text).substr(token.text_begin, token.text_end - token.text_begin);
      const bool go_on = emit(Token{token.id, text, token.finish});
      if (token.finish != Finish::kNone) finish = token.finish;
      if (!go_on && token.finish == Finish::kNone) {
        // What is held back stays held, and tokens that nobody has seen are taken back: generation may go on from here.
        REPRISE_RETURN_IF_ERROR(Rollback(size - 1 - i));
        return Finish::kCancelled;
      }
    }
  }
  if (finish != Finish::kStopString) {
    REPRISE_ASSIGN_OR_RETURN(const std::string_view rest, FlushText());
    if (!rest.empty()) emit(Token{-1, rest, finish});
  }
  return finish;
}

Status Session::SetSpeculation(const Speculation& speculation) {
  static_assert(DraftDepth::kMost == Speculation::kMostDraft);
  if (speculation.draft < 0 || speculation.draft > Speculation::kMostDraft) {
    return InvalidArgument("a draft of " + std::to_string(speculation.draft) + " tokens is out of range; 0 to " +
                           std::to_string(Speculation::kMostDraft));
  }
  if (speculation.source == Speculation::Source::kMtp && !model().info().has_draft) {
    return Unsupported("this model has no MTP block to draft tokens with; lookup drafting works with any model");
  }
  state_->speculation = speculation;
  state_->stats = SpeculationStats();
  state_->depth = DraftDepth(speculation.draft);
  return Ok();
}

SpeculationStats Session::speculation_stats() const { return state_->stats; }

}  // namespace reprise
