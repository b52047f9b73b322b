#include "session/checkpoints.h"

#include <algorithm>

namespace reprise {

Checkpoints::Checkpoints() {
  kept_.reserve(kCapsules + 1);
  marks_.resize(kMarks);
}

void Checkpoints::Keep(const HeldState& held) {
  const auto at = std::lower_bound(kept_.begin(), kept_.end(), held.position, [](const Kept& a, int32_t p) { return a.held.position < p; });
  if (at != kept_.end() && at->held.position == held.position) {
    *at = {held, line_};  // the newer line is the likelier one to be gone back to
    return;
  }
  kept_.insert(at, {held, line_});
  if (kept_.size() <= kCapsules) return;
  // The last one is the tip and always stays. What losing entry i costs is the gap it leaves; the farther behind, the less it matters.
  const int32_t tip = kept_.back().held.position;
  size_t victim = 0;
  double least = 0;
  for (size_t i = 0; i + 1 < kept_.size(); ++i) {
    const int32_t below = i == 0 ? 0 : kept_[i - 1].held.position;
    const double cost = static_cast<double>(kept_[i + 1].held.position - below) / (1.0 + tip - kept_[i].held.position);
    if (i == 0 || cost < least) {
      victim = i;
      least = cost;
    }
  }
  kept_.erase(kept_.begin() + static_cast<ptrdiff_t>(victim));
}

void Checkpoints::Refresh(const HeldState& held) {
  for (Kept& kept : kept_) {
    if (kept.line == line_ && kept.held.position == held.position) kept.held = held;
  }
}

void Checkpoints::Mark(int32_t first, int32_t last, const Ref<StateBlock>& host) {
  marks_[next_mark_] = {first, last, line_, host};
  next_mark_ = (next_mark_ + 1) % marks_.size();
}

Ref<StateBlock> Checkpoints::HostAt(int32_t position) const {
  // Newest first: a boundary marked twice (options changed there) is remembered as it was last.
  for (size_t i = 1; i <= marks_.size(); ++i) {
    const MarkEntry& mark = marks_[(next_mark_ + marks_.size() - i) % marks_.size()];
    if (mark.host && mark.line == line_ && mark.first <= position && position <= mark.last) return mark.host;
  }
  return {};
}

void Checkpoints::Truncate(int32_t position) {
  for (MarkEntry& mark : marks_) {
    if (mark.line != line_) continue;
    if (mark.first > position) {
      mark = MarkEntry();
    } else {
      mark.last = std::min(mark.last, position);
    }
  }
  for (Kept& kept : kept_) {
    if (kept.line == line_ && kept.held.position > position) kept.line = 0;
  }
}

bool Checkpoints::DropOldest() {
  if (kept_.empty()) return false;
  kept_.erase(kept_.begin());
  return true;
}

void Checkpoints::Clear() {
  kept_.clear();
  std::fill(marks_.begin(), marks_.end(), MarkEntry());
  next_mark_ = 0;
}

}  // namespace reprise
