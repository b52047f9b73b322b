// Reading a prompt: from the deepest boundary that anybody kept, through the points where capsules are worth taking, to its end.
#include <chrono>

#include "session/session_state.h"

namespace reprise {

using Clock = std::chrono::steady_clock;

// The deepest of the checkpoints, the present boundary and the origin that lies on the path of `tokens`.
HeldState Session::State::DeepestOnPath(std::span<const int32_t> tokens) const {
  HeldState best = engine().space().Origin();
  if (const HeldState here = lane->Hold(); here.position > best.position && OnPath(here, tokens)) best = here;
  const auto kept = checkpoints.kept();
  for (auto it = kept.rbegin(); it != kept.rend() && it->held.position > best.position; ++it) {
    if (OnPath(it->held, tokens)) best = it->held;
  }
  return best;
}

Status Session::State::Feed(std::span<const int32_t> tokens) {
  const int before = lane->position();
  const Engine::Feed feed{lane.get(), tokens};
  REPRISE_RETURN_IF_ERROR(engine().Advance(std::span(&feed, 1)));
  checkpoints.Mark(before + 1, lane->position(), lane->Hold().block[kHost]);
  return Ok();
}

Status Session::State::FeedTokens(std::span<const int32_t> tokens, const PrefillOptions& options) {
  const int total = static_cast<int>(tokens.size());
  if (total > engine().info().context - lane->position()) {
    return Exhausted("a context of " + std::to_string(engine().info().context) + " positions cannot take " + std::to_string(total) +
                     " more tokens after " + std::to_string(lane->position()) + "; load the model with a longer context");
  }
  int last_kept = lane->position();
  for (int done = 0; done < total;) {
    if (options.cancel != nullptr && options.cancel->load(std::memory_order_relaxed)) {
      KeepHere();
      return Cancelled("stopped on request after " + std::to_string(done) + " of " + std::to_string(total) + " tokens");
    }
    const int count = std::min(engine().max_rows(), total - done);
    REPRISE_RETURN_IF_ERROR(Feed(tokens.subspan(static_cast<size_t>(done), static_cast<size_t>(count))));
    done += count;
    if (done == total || lane->position() - last_kept >= kPrefillStride) {
      KeepHere();
      last_kept = lane->position();
    }
    if (options.progress) options.progress(done, total);
  }
  return Ok();
}

Result<uint64_t> Session::State::Save(const CapsuleStore::PutOptions& options) {
  CapsuleStore* store = engine().store();
  const HeldState here = lane->Hold();
  if (store == nullptr || here.position == 0) return uint64_t{0};
  const auto tokens = engine().token_scratch().first(static_cast<size_t>(here.position));
  engine().CopyTokens(here, 0, tokens);
  return store->Put(name_space, tokens, Capsule::FromHeld(engine().shared_space(), here, lane->parent_capsule), options);
}

Result<PrefillReport> Session::State::StartPrefill(std::span<const int32_t> prompt, std::vector<Boundary> boundaries) {
  if (prompt.empty()) return InvalidArgument("an empty prompt leaves nothing to continue");
  for (const int32_t token : prompt) {
    if (token < 0 || token >= engine().info().vocabulary) {
      return InvalidArgument("token " + std::to_string(token) + " is outside the vocabulary of " +
                             std::to_string(engine().info().vocabulary));
    }
  }
  const int size = static_cast<int>(prompt.size());
  if (static_cast<int64_t>(prompt.size()) > engine().info().context) {
    return Exhausted("a prompt of " + std::to_string(prompt.size()) + " tokens does not fit the context of " +
                     std::to_string(engine().info().context) + " positions; load the model with a longer context");
  }
  REPRISE_RETURN_IF_ERROR(CancelPrefill());

  PrefillPlan next;
  PrefillReport report;
  HeldState base = DeepestOnPath(prompt);
  if (base.position > 0) report.tier = Tier::kLive;
  report.known = base.position;
  if (CapsuleStore* store = engine().store()) {
    CapsuleStore::Found found = store->FindDeepest(name_space, prompt, base.position);
    if (found.capsule.valid()) {
      base = found.capsule.Hold();
      report.tier = found.tier;
    }
    report.known = std::max(report.known, static_cast<int>(found.known));
    report.diverged_from = found.diverged_from;
    report.reason = std::move(found.reason);
    next.hold = std::move(found.hold);
    if (found.known > base.position + policy::kNear) boundaries.push_back({found.known, Keep::kDivergence});
  }
  report.reused = base.position;
  report.computed = size - report.reused;

  base.block[kHost] = lane->Hold().block[kHost];  // the sampler's options and generator are not the prompt's business
  const HeldState before = lane->Hold();
  REPRISE_RETURN_IF_ERROR(lane->Adopt(std::move(base)));
  Status status = ChangeHost([&](std::byte* host) {
    decode().set_pending(host, -1);
    text.clear();
    decode().Flush(host, text);  // what an earlier generation held back belongs to no one now
    return Ok();
  });
  if (!status.ok()) {
    REPRISE_RETURN_IF_ERROR(lane->Adopt(before));
    return status;
  }
  // Every boundary of a prompt has the host state that the prompt was given with, however many of its tokens were computed before.
  checkpoints.NewLine();
  checkpoints.Mark(0, report.reused, lane->Hold().block[kHost]);

  std::erase_if(boundaries, [&](const Boundary& at) { return at.position <= report.reused || at.position >= size; });
  boundaries.push_back({size, Keep::kPrompt});
  std::stable_sort(boundaries.begin(), boundaries.end(), [](const Boundary& a, const Boundary& b) { return a.position < b.position; });
  next.prompt.assign(prompt.begin(), prompt.end());
  next.cuts = std::move(boundaries);
  next.last_kept = report.reused;
  plan = std::move(next);
  // With nothing left to compute the boundary is kept all the same: it is the end of a prompt now.
  if (report.computed == 0) REPRISE_RETURN_IF_ERROR(ContinuePrefill(1).status());
  return report;
}

Result<bool> Session::State::ContinuePrefill(int tokens) {
  if (tokens < 1) return InvalidArgument("cannot compute " + std::to_string(tokens) + " tokens of a prompt");
  if (!plan) return true;
  const int size = static_cast<int>(plan->prompt.size());
  const auto keep_here = [&](Keep keep) -> Status {
    KeepHere();
    plan->last_kept = lane->position();
    return Save({.keep = keep}).status();
  };
  for (int left = tokens; left > 0 && lane->position() < size;) {
    const int at = lane->position();
    // A step ends where a capsule is taken: that is what makes the capsule's position exact.
    const int until = std::min(plan->cuts[plan->next].position, plan->last_kept + kPrefillStride);
    const int count = std::min({engine().max_rows(), left, until - at});
    const Clock::time_point start = Clock::now();
    if (Status status = Feed(std::span(plan->prompt).subspan(static_cast<size_t>(at), static_cast<size_t>(count))); !status.ok()) {
      (void)CancelPrefill();  // the error is the one to tell
      return status;
    }
    if (CapsuleStore* store = engine().store()) store->Measured(count, std::chrono::duration<double>(Clock::now() - start).count());
    left -= count;
    if (lane->position() < until || until == size) continue;
    Keep keep = Keep::kStride;
    for (; plan->cuts[plan->next].position <= until; ++plan->next) keep = std::min(keep, plan->cuts[plan->next].keep);
    REPRISE_RETURN_IF_ERROR(keep_here(keep));
  }
  if (lane->position() < size) return false;
  plan.reset();  // and with it what the prompt began from may go
  KeepHere();
  REPRISE_RETURN_IF_ERROR(Save({.keep = Keep::kPrompt}).status());
  return true;
}

Status Session::State::CancelPrefill() {
  if (!plan) return Ok();
  KeepHere();
  const bool more = lane->position() > plan->last_kept;
  plan.reset();
  return more ? Save({.keep = Keep::kStop}).status() : Ok();
}

bool Session::prefilling() const { return state_->plan.has_value(); }
Status Session::CancelPrefill() { return state_->CancelPrefill(); }
Result<bool> Session::ContinuePrefill(int tokens) { return state_->ContinuePrefill(tokens); }

Result<PrefillReport> Session::StartPrefill(std::span<const int32_t> prompt, const PrefillOptions& options) {
  return state_->StartPrefill(prompt, options.boundaries);
}

Result<PrefillReport> Session::Prefill(std::span<const int32_t> prompt, const PrefillOptions& options) {
  const Clock::time_point start = Clock::now();
  State& s = *state_;
  REPRISE_ASSIGN_OR_RETURN(PrefillReport report, StartPrefill(prompt, options));
  while (s.plan) {
    const int done = s.lane->position() - report.reused;
    if (options.cancel != nullptr && options.cancel->load(std::memory_order_relaxed)) {
      REPRISE_RETURN_IF_ERROR(s.CancelPrefill());
      return Cancelled("stopped on request after " + std::to_string(done) + " of " + std::to_string(report.computed) + " tokens");
    }
    REPRISE_RETURN_IF_ERROR(s.ContinuePrefill(s.engine().max_rows()).status());
    if (options.progress) options.progress(s.lane->position() - report.reused, report.computed);
  }
  report.seconds = std::chrono::duration<double>(Clock::now() - start).count();
  return report;
}

Result<PrefillReport> Session::Prefill(std::string_view prompt, const PrefillOptions& options) {
  REPRISE_ASSIGN_OR_RETURN(const std::vector<int32_t> tokens, model().Tokenize(prompt));
  return Prefill(tokens, options);
}

Status Session::Append(std::span<const int32_t> tokens, const PrefillOptions& options) {
  REPRISE_RETURN_IF_ERROR(state_->CancelPrefill());
  REPRISE_RETURN_IF_ERROR(state_->FeedPending());
  return state_->FeedTokens(tokens, options);
}

Result<uint64_t> Session::Save(const CapsuleStore::PutOptions& options) {
  if (model().store() == nullptr) return Unsupported("this model was loaded without a store to save to");
  if (position() == 0) return InvalidArgument("there is nothing to save yet: the context is empty");
  return state_->Save(options);
}

Status Session::EndReply() { return state_->Save({.keep = Keep::kReply}).status(); }

}  // namespace reprise
