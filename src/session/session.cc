#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "session/session_state.h"

namespace reprise {
std::string_view FinishName(Finish finish) {
  switch (finish) {
    case Finish::kNone: return "none";
    case Finish::kEndOfText: return "end of text";
    case Finish::kStopString: return "stop string";
    case Finish::kLength: return "length";
    case Finish::kCancelled: return "cancelled";
    case Finish::kComplete: return "complete";
  }
  return "unknown";
}

Status Session::State::FeedPending() {
  const int32_t token = pending();
  if (token < 0) return Ok();
  const Engine::Feed feed{lane.get(), std::span(&token, 1)};
  REPRISE_RETURN_IF_ERROR(engine().Advance(std::span(&feed, 1)));
  MarkHere();
  return Ok();
}

Session::Session(std::unique_ptr<State> state) : state_(std::move(state)) {}
Session::Session(Session&&) noexcept = default;
Session& Session::operator=(Session&&) noexcept = default;
Session::~Session() = default;

Result<Session> Model::NewSession(const SessionOptions& options) const {
  REPRISE_ASSIGN_OR_RETURN(auto lane, engine_->space().NewLane());
  return Session(std::make_unique<Session::State>(*this, std::move(lane), options.name_space));
}

int Session::position() const { return state_->lane->position(); }
int32_t Session::pending_token() const { return state_->pending(); }
const Model& Session::model() const { return state_->model; }
Lane& Session::lane() const { return *state_->lane; }
SamplingOptions Session::sampling() const { return state_->decode().Options(state_->host()); }

std::vector<int32_t> Session::tokens() const {
  std::vector<int32_t> tokens(static_cast<size_t>(position()));
  state_->engine().CopyTokens(state_->lane->Hold(), 0, tokens);
  return tokens;
}

Status Session::SetSampling(const SamplingOptions& options) {
  State& s = *state_;
  if (options.grammar.present()) REPRISE_RETURN_IF_ERROR(s.engine().PrepareGrammar());
  REPRISE_RETURN_IF_ERROR(s.ChangeHost([&](std::byte* host) { return s.decode().Configure(options, host); }));
  s.MarkHere();
  return Ok();
}

Result<std::string_view> Session::FlushText() {
  State& s = *state_;
  s.text.clear();
  REPRISE_RETURN_IF_ERROR(s.ChangeHost([&](std::byte* host) {
    s.decode().Flush(host, s.text);
    return Ok();
  }));
  s.MarkHere();
  return std::string_view(s.text);
}

Capsule Session::Snapshot() { return Capsule::Take(*state_->lane); }

Status Session::Restore(const Capsule& capsule) {
  State& s = *state_;
  REPRISE_RETURN_IF_ERROR(s.CancelPrefill());
  REPRISE_RETURN_IF_ERROR(capsule.RestoreTo(*s.lane));
  s.checkpoints.NewLine();
  s.MarkHere();
  s.KeepHere();
  return Ok();
}

Result<std::vector<Session>> Session::Fork(const Capsule& capsule, int count) const {
  if (count < 1 || count > state_->engine().info().lanes) {
    return InvalidArgument("cannot fork " + std::to_string(count) + " ways; this model has " +
                           std::to_string(state_->engine().info().lanes) + " lanes");
  }
  std::vector<Session> sessions;
  sessions.reserve(static_cast<size_t>(count));
  for (int i = 0; i < count; ++i) {
    REPRISE_ASSIGN_OR_RETURN(Session session, model().NewSession({.name_space = state_->name_space}));
    REPRISE_RETURN_IF_ERROR(session.Restore(capsule));
    sessions.push_back(std::move(session));
  }
  return sessions;
}

// From `base` to the end of `tokens`, by feeding what lies between; the host state is base's there.
Status Session::State::FeedAgain(HeldState base, std::span<const int32_t> tokens) {
  const HeldState before = lane->Hold();
  const Ref<StateBlock> host = base.block[kHost];
  auto at = static_cast<size_t>(base.position);
  REPRISE_RETURN_IF_ERROR(lane->Adopt(std::move(base)));
  while (at < tokens.size()) {
    const size_t rows = std::min(static_cast<size_t>(engine().max_rows()), tokens.size() - at);
    const Engine::Feed feed{lane.get(), tokens.subspan(at, rows)};
    if (Status status = engine().Advance(std::span(&feed, 1)); !status.ok()) {
      REPRISE_RETURN_IF_ERROR(lane->Adopt(before));
      return status;
    }
    at += rows;
  }
  HeldState there = lane->Hold();
  there.block[kHost] = host;
  return lane->Adopt(std::move(there));
}

Status Session::Rollback(int count) {
  State& s = *state_;
  if (count < 0) return InvalidArgument("cannot roll back " + std::to_string(count) + " tokens");
  if (count == 0) return Ok();
  REPRISE_RETURN_IF_ERROR(s.CancelPrefill());
  // The token chosen last counts as one: it has been seen, though not yet fed.
  const int end = position() + (s.pending() >= 0 ? 1 : 0);
  const int target = end - count;
  if (target < 0) return InvalidArgument("cannot roll back " + std::to_string(count) + " tokens: there are only " + std::to_string(end));

  const std::vector<int32_t> path = tokens();
  const auto to_target = std::span(path).first(static_cast<size_t>(target));
  HeldState base = s.DeepestOnPath(to_target);
  Ref<StateBlock> host = s.checkpoints.HostAt(target);
  for (const auto& kept : s.checkpoints.kept()) {
    const bool there = !host && kept.held.position == target && s.checkpoints.OnThisLine(kept);
    if (there && s.decode().pending(kept.held.block[kHost]->data) < 0) host = kept.held.block[kHost];
  }
  if (!host) {
    return InvalidArgument("the boundary at position " + std::to_string(target) +
                           " is out of reach: its sampler state is no longer kept; the nearest kept one below is at " +
                           std::to_string(base.position) + ", and a capsule taken there can be restored");
  }
  base.block[kHost] = host;
  if (Engine::Reaches(*s.lane, base, target)) {
    REPRISE_RETURN_IF_ERROR(s.engine().GoBack(*s.lane, std::move(base), target));
  } else {
    REPRISE_RETURN_IF_ERROR(s.FeedAgain(std::move(base), to_target));
  }
  s.checkpoints.Truncate(target);
  s.KeepHere();
  return Ok();
}

Result<std::span<const float>> Session::Logits() {
  Lane* lane = state_->lane.get();
  REPRISE_RETURN_IF_ERROR(state_->engine().ComputeLogits(std::span(&lane, 1)));
  return state_->engine().logits(0);
}

Result<std::vector<std::byte>> Session::Export(const Capsule& capsule) const {
  if (!capsule.valid()) return InvalidArgument("an empty capsule was given to export");
  if (&capsule.layout() != &model().layout()) return Mismatch("the capsule belongs to another loaded model, which is the one to export it");
  std::vector<int32_t> path(static_cast<size_t>(capsule.position()));
  state_->engine().CopyTokens(capsule.Hold(), 0, path);
  FingerprintBuilder digest;
  digest.Add("tokens", std::as_bytes(std::span(path)));
  const nlohmann::json metadata = {{"model", model().info().name},
                                   {"architecture", model().info().architecture},
                                   {"tokens", path.size()},
                                   {"token_digest", digest.Finish().Hex()}};
  // A file's name may hold bytes that are no UTF-8.
  return capsule.Serialize(metadata.dump(-1, ' ', true, nlohmann::json::error_handler_t::replace));
}

}  // namespace reprise
