#include "session/engine.h"

#include <algorithm>
#include <cassert>
#include <cstring>
#include <limits>
#include <utility>

namespace reprise {
namespace {

// How kernels find the state of a lane that brings `rows` rows, from `position` on, and makes `write` of it.
LaneBinding BindingOf(const Lane& lane, std::byte* write, int32_t first_row, int32_t rows, int32_t position) {
  const ReplayLog& log = lane.log();
  return {lane.read(Space::kDevice), write, lane.extents(Space::kDevice), first_row, rows, position, log.rows, log.capacity, log.row_bytes};
}

}  // namespace

Engine::~Engine() {
  if (space_) space_->SetEvictor(nullptr);  // capsules may keep the space longer than the engine
}

Status Engine::CheckFeeds(std::span<const Feed> feeds) const {
  if (feeds.empty() || static_cast<int>(feeds.size()) > max_lanes()) {
    return InvalidArgument("a step serves 1 to " + std::to_string(max_lanes()) + " lanes, not " + std::to_string(feeds.size()));
  }
  size_t rows = 0;
  for (const Feed& feed : feeds) {
    rows += feed.tokens.size();
    for (const int32_t token : feed.tokens) {
      if (token < 0 || token >= info_.vocabulary) {
        return InvalidArgument("token " + std::to_string(token) + " is outside the vocabulary of " + std::to_string(info_.vocabulary));
      }
    }
    for (const Feed& other : feeds) {
      if (&other != &feed && other.lane == feed.lane) return InvalidArgument("a lane was given twice to one step");
    }
  }
  if (rows > static_cast<size_t>(max_rows())) {
    return InvalidArgument("a step takes at most " + std::to_string(max_rows()) + " rows, not " + std::to_string(rows));
  }
  return Ok();
}

Status Engine::Advance(std::span<const Feed> feeds, Wanted wanted) {
  REPRISE_RETURN_IF_ERROR(CheckFeeds(feeds));
  for (size_t i = 0; i < feeds.size(); ++i) {
    Status status = feeds[i].lane->Begin(static_cast<int>(feeds[i].tokens.size()));
    if (status.ok()) continue;
    for (size_t j = 0; j < i; ++j) feeds[j].lane->Abort();
    return status;
  }
  Bind(feeds);
  for (const Feed& feed : feeds) decode_.set_pending(feed.lane->write(Space::kHost), -1);
  Status status = ReplayBody(wanted);
  for (const Feed& feed : feeds) {
    if (status.ok()) {
      const int32_t before = feed.lane->position();
      feed.lane->Commit();
      if (IsLogged(wanted)) feed.lane->log().Extend(before, feed.lane->position());
    } else {
      feed.lane->Abort();
    }
  }
  rows_advanced_ = status.ok() && wanted == Wanted::kEveryRow ? table_->rows : 0;
  if (status.ok()) work_.computed += static_cast<uint64_t>(table_->rows);
  return status;
}

// Where lanes have one row each, the whole body is that of their last rows. Such rows are those that are likeliest to be taken back.
bool Engine::IsLogged(Wanted wanted) const { return wanted == Wanted::kBoundary && table_->rows == table_->lanes; }

Status Engine::ReplayBody(Wanted wanted) {
  const StepTable& table = *table_;
  if (wanted == Wanted::kEveryRow) return backend_->stream().Replay(*body_);
  if (IsLogged(wanted)) return backend_->stream().Replay(*logged_body_);
  REPRISE_RETURN_IF_ERROR(backend_->stream().Replay(*history_body_));
  if (last_rows_->launches() == 0) return Ok();
  last_table_->TakeLastRows(table);
  return backend_->stream().Replay(*last_rows_);
}

// Points the table at lanes whose step has begun, and writes their tokens into it and into their history.
void Engine::Bind(std::span<const Feed> feeds) {
  const StateDecl& history = space_->layout()[history_];
  StepTable& table = *table_;
  rows_advanced_ = 0;
  table.rows = 0;
  table.lanes = static_cast<int32_t>(feeds.size());
  for (size_t i = 0; i < feeds.size(); ++i) {
    Lane& lane = *feeds[i].lane;
    const int32_t position = lane.position(), rows = static_cast<int32_t>(feeds[i].tokens.size());
    table.lane[i] = BindingOf(lane, lane.write(Space::kDevice), table.rows, rows, position);
    lane.log().GiveUpFor(position + rows);  // before it is written over, whatever becomes of the step
    for (size_t t = 0; t < feeds[i].tokens.size(); ++t) {
      const auto row = static_cast<size_t>(table.rows++);
      const int32_t at = position + static_cast<int32_t>(t);
      table.row_lane[row] = static_cast<int32_t>(i);
      table.row_position[row] = at;
      table.token[row] = feeds[i].tokens[t];
      std::memcpy(lane.row(history, at), &feeds[i].tokens[t], sizeof(int32_t));
    }
  }
}

Status Engine::BeginTentative(Lane& lane, int rows) {
  if (rows < 1 || rows > std::min(kMaxTentativeRows, max_rows())) {
    return InvalidArgument("a tentative step takes 1 to " + std::to_string(std::min(kMaxTentativeRows, max_rows())) + " rows, not " +
                           std::to_string(rows));
  }
  return lane.Begin(rows);
}

Result<int32_t> Engine::GuessNext(Lane& lane, int row, int32_t token) {
  if (!first_guess_) return Unsupported("this model has no block that drafts tokens");
  table_->rows = table_->lanes = 1;
  table_->lane[0] = BindingOf(lane, lane.write(Space::kDevice), 0, 1, lane.position() + row);
  table_->row_lane[0] = 0;
  table_->row_position[0] = lane.position() + row;
  table_->token[0] = token;
  REPRISE_RETURN_IF_ERROR(ReplayForHost(row == 0 ? *first_guess_ : *next_guess_));
  return greedy_[0];
}

Status Engine::RunTentative(Lane& lane, std::span<const int32_t> tokens) {
  const Feed feed{&lane, tokens};
  REPRISE_RETURN_IF_ERROR(CheckFeeds(std::span(&feed, 1)));
  Bind(std::span(&feed, 1));
  REPRISE_RETURN_IF_ERROR(backend_->stream().Replay(*logged_body_));
  rows_advanced_ = table_->rows;
  work_.computed += static_cast<uint64_t>(table_->rows);
  return Ok();
}

Status Engine::CommitTentative(Lane& lane, int rows) {
  if (rows < 1 || rows > rows_advanced_) {
    return InvalidArgument("cannot commit " + std::to_string(rows) + " of " + std::to_string(rows_advanced_) + " tentative rows");
  }
  if (rows < rows_advanced_) {
    table_->lane[0].rows = rows;
    REPRISE_RETURN_IF_ERROR(backend_->stream().Replay(*replay_));
    work_.replayed += static_cast<uint64_t>(rows);
  }
  rows_advanced_ = 0;
  const int32_t before = lane.position();
  lane.Commit(rows);
  lane.log().Extend(before, lane.position());
  return Ok();
}

void Engine::AbortTentative(Lane& lane) {
  rows_advanced_ = 0;
  lane.Abort();
}

Status Engine::GoBack(Lane& lane, HeldState base, int32_t to) {
  constexpr int kDevice = static_cast<int>(Space::kDevice);
  assert(Reaches(lane, base, to));
  const ReplayLog log = lane.log();
  const HeldState before = lane.Hold();
  rows_advanced_ = 0;
  const auto run = [&]() -> Status {
    base.tip = before.TipAt(base.position);
    REPRISE_RETURN_IF_ERROR(lane.Adopt(std::move(base)));
    while (lane.position() < to) {
      HeldState next = lane.Hold();
      const int32_t rows = std::min({Network::kReplayRows, max_rows(), to - next.position});
      REPRISE_ASSIGN_OR_RETURN(next.block[kDevice], space_->AcquireBlock(Space::kDevice));
      table_->lanes = 1;
      table_->rows = rows;
      table_->lane[0] = BindingOf(lane, next.block[kDevice]->data, 0, rows, next.position);
      for (int32_t row = 0; row < rows; ++row) {
        table_->row_lane[static_cast<size_t>(row)] = 0;
        table_->row_position[static_cast<size_t>(row)] = next.position + row;
      }
      REPRISE_RETURN_IF_ERROR(backend_->stream().Replay(*recall_));
      work_.replayed += static_cast<uint64_t>(rows);
      next.position += rows;
      next.tip = before.TipAt(next.position);
      REPRISE_RETURN_IF_ERROR(lane.Adopt(std::move(next)));
    }
    return Ok();
  };
  Status status = run();
  if (!status.ok()) REPRISE_RETURN_IF_ERROR(lane.Adopt(before));
  lane.log() = log;
  lane.log().CutAt(lane.position());
  return status;
}

Status Engine::ComputeLogits(std::span<Lane* const> lanes) {
  if (lanes.empty() || static_cast<int>(lanes.size()) > max_lanes()) {
    return InvalidArgument("logits are computed for 1 to " + std::to_string(max_lanes()) + " lanes at once, not " +
                           std::to_string(lanes.size()));
  }
  for (const Lane* lane : lanes) {
    if (lane->position() == 0) return InvalidArgument("there is nothing to continue yet: give a prompt of at least one token first");
  }
  rows_advanced_ = 0;
  table_->rows = 0;
  table_->lanes = static_cast<int32_t>(lanes.size());
  for (size_t i = 0; i < lanes.size(); ++i) {
    table_->lane[i] = LaneBinding{};
    table_->lane[i].read = lanes[i]->read(Space::kDevice);
  }
  return ReplayForHost(*lane_head_);
}

Status Engine::ComputeRowLogits() {
  if (rows_advanced_ < 1 || rows_advanced_ > kMaxLogitRows) {
    return InvalidArgument("row logits follow a step that was asked for every row, of 1 to " + std::to_string(kMaxLogitRows) +
                           " rows, not " + std::to_string(rows_advanced_));
  }
  return ReplayForHost(*row_head_);
}

Status Engine::ComputeDraftLogits() {
  if (!draft_head_) return Unsupported("this model has no block that drafts tokens");
  if (rows_advanced_ < 1 || rows_advanced_ > kMaxLogitRows) {
    return InvalidArgument("draft logits follow a step that was asked for every row, of 1 to " + std::to_string(kMaxLogitRows) +
                           " rows, not " + std::to_string(rows_advanced_));
  }
  return ReplayForHost(*draft_head_);
}

Status Engine::ReplayForHost(const Plan& plan) {
  REPRISE_RETURN_IF_ERROR(backend_->stream().Replay(plan));
  return backend_->stream().Synchronize();
}

// A row is copied when it is asked for: most choices take the best few of it, which are there already.
std::span<const float> Engine::logits(int i) const { return logits(i, 0, static_cast<size_t>(logits_.width)); }

std::span<const float> Engine::logits(int i, size_t first, size_t count) const {
  const size_t at = static_cast<size_t>(i) * static_cast<size_t>(logits_.stride) + first;
  count = std::min(count, static_cast<size_t>(logits_.width) - first);
  if (host_logits_ != logits_.data) {
    Stream& stream = backend_->stream();
    const Status copied = stream.Copy(reinterpret_cast<std::byte*>(host_logits_ + at),
                                      reinterpret_cast<const std::byte*>(logits_.data + at), count * sizeof(float));
    if (!copied.ok() || !stream.Synchronize().ok()) std::fill_n(host_logits_ + at, count, std::numeric_limits<float>::quiet_NaN());
  }
  return {host_logits_ + at, count};
}

BestLogits Engine::best(int i) const {
  if (best_.rows == 0) return {};
  const size_t at = static_cast<size_t>(i) * kBestValues;
  const std::span<const int32_t> ids(best_.columns + at, kBestValues);
  const auto count = static_cast<size_t>(std::find_if(ids.begin(), ids.end(), [](int32_t id) { return id < 0; }) - ids.begin());
  return {{best_.values + at, count}, ids.first(count), count < kBestValues};
}

Result<RowWeights> Engine::Weigh(int i, float temperature) {
  const BestLogits known = best(i);
  if (known.ids.empty()) return RowWeights();
  *weighed_ = {i, temperature, *std::max_element(known.logits.begin(), known.logits.end())};
  REPRISE_RETURN_IF_ERROR(ReplayForHost(*weigh_));
  return RowWeights{part_weights_, kWeighedPart, kWeighError};
}

void Engine::CopyTokens(const HeldState& held, int first, std::span<int32_t> out) const {
  const StateDecl& history = space_->layout()[history_];
  const int last = first + static_cast<int>(out.size());
  assert(first >= 0 && last <= held.position);
  for (const Extent* extent = held.tip.get(); extent != nullptr; extent = extent->previous) {
    const int base = extent->index * kExtentRows;
    const int from = std::max(first, base);
    const int to = std::min(last, base + kExtentRows);
    if (from < to) {
      std::memcpy(out.data() + (from - first),
                  extent->data[static_cast<int>(Space::kHost)] + history.offset + static_cast<size_t>(from - base) * sizeof(int32_t),
                  static_cast<size_t>(to - from) * sizeof(int32_t));
    }
    if (base <= first) break;
  }
}

Result<const Tokenizer*> Engine::tokenizer() const {
  if (!tokenizer_) return tokenizer_status_;
  return &*tokenizer_;
}

void Engine::Register(Checkpoints* checkpoints) { checkpoints_.push_back(checkpoints); }
void Engine::Unregister(Checkpoints* checkpoints) { std::erase(checkpoints_, checkpoints); }

bool Engine::DropCheckpoint() {
  // The session with the most of them can best do without one.
  Checkpoints* most = nullptr;
  for (Checkpoints* checkpoints : checkpoints_) {
    if (most == nullptr || checkpoints->kept().size() > most->kept().size()) most = checkpoints;
  }
  return most != nullptr && most->DropOldest();
}

}  // namespace reprise
