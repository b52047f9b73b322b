#include "session/engine.h"

#include <algorithm>
#include <cassert>
#include <cstring>
#include <utility>


namespace reprise {

Engine::~Engine() {
  if (space_) space_->SetEvictor(nullptr);   // capsules may keep the space longer than the engine
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

Status Engine::Advance(std::span<const Feed> feeds) {
  REPRISE_RETURN_IF_ERROR(CheckFeeds(feeds));
  for (size_t i = 0; i < feeds.size(); ++i) {
    Status status = feeds[i].lane->Begin(static_cast<int>(feeds[i].tokens.size()));
    if (status.ok()) continue;
    for (size_t j = 0; j < i; ++j) feeds[j].lane->Abort();
    return status;
  }
  const StateDecl& history = space_->layout()[history_];
  StepTable& table = *table_;
  table.rows = 0;
  table.lanes = static_cast<int32_t>(feeds.size());
  for (size_t i = 0; i < feeds.size(); ++i) {
    Lane& lane = *feeds[i].lane;
    const int32_t position = lane.position();
    table.lane[i] = {lane.read(Space::kDevice), lane.write(Space::kDevice), lane.extents(Space::kDevice), table.rows,
                     static_cast<int32_t>(feeds[i].tokens.size()), position};
    for (size_t t = 0; t < feeds[i].tokens.size(); ++t) {
      const auto row = static_cast<size_t>(table.rows++);
      const int32_t at = position + static_cast<int32_t>(t);
      table.row_lane[row] = static_cast<int32_t>(i);
      table.row_position[row] = at;
      table.token[row] = feeds[i].tokens[t];
      std::memcpy(lane.row(history, at), &feeds[i].tokens[t], sizeof(int32_t));
    }
    decode_.set_pending(lane.write(Space::kHost), -1);
  }
  Status status = backend_->stream().Replay(*body_);
  for (const Feed& feed : feeds) {
    if (status.ok()) {
      feed.lane->Commit();
    } else {
      feed.lane->Abort();
    }
  }
  rows_advanced_ = status.ok() ? table.rows : 0;
  return status;
}

Status Engine::ComputeLogits(std::span<Lane* const> lanes) {
  if (lanes.empty() || static_cast<int>(lanes.size()) > max_lanes()) {
    return InvalidArgument("logits are computed for 1 to " + std::to_string(max_lanes()) + " lanes at once, not " + std::to_string(lanes.size()));
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
  return backend_->stream().Replay(*lane_head_);
}

Status Engine::ComputeRowLogits() {
  if (rows_advanced_ < 1 || rows_advanced_ > kMaxLogitRows) {
    return InvalidArgument("row logits follow a step of 1 to " + std::to_string(kMaxLogitRows) + " rows, not " + std::to_string(rows_advanced_));
  }
  return backend_->stream().Replay(*row_head_);
}

Status Engine::ComputeDraftLogits() {
  if (!draft_head_) return Unsupported("this model has no block that drafts tokens");
  if (rows_advanced_ < 1 || rows_advanced_ > kMaxLogitRows) {
    return InvalidArgument("draft logits follow a step of 1 to " + std::to_string(kMaxLogitRows) + " rows, not " + std::to_string(rows_advanced_));
  }
  return backend_->stream().Replay(*draft_head_);
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
      std::memcpy(out.data() + (from - first), extent->data[static_cast<int>(Space::kHost)] + history.offset + static_cast<size_t>(from - base) * sizeof(int32_t),
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
