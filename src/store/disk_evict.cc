#include "store/disk_evict.h"

#include <algorithm>
#include <map>
#include <utility>

#include "base/checked.h"
#include "store/policy.h"

namespace reprise {
namespace {

class Forest {
 public:
  Forest(const std::vector<IndexedCapsule>& capsules, const std::vector<IndexedSegment>& segments, const std::set<int64_t>& in_use) {
    for (const IndexedSegment& segment : segments) nodes_[segment.id].segment = &segment;
    for (auto& [id, node] : nodes_) {
      if (const auto parent = nodes_.find(node.segment->parent); parent != nodes_.end()) ++parent->second.users;
      if (in_use.contains(id)) ++node.users;
    }
    for (const IndexedCapsule& capsule : capsules) Add(capsule);
  }

  // The bytes that go with a capsule: its block, and the segments that only it needs.
  uint64_t Freed(const IndexedCapsule& capsule) const {
    uint64_t bytes = AlignUp(capsule.object.bytes, kDiskPage);
    for (auto node = nodes_.find(capsule.segment); node != nodes_.end() && node->second.users == 1;
         node = nodes_.find(node->second.segment->parent)) {
      bytes += AlignUp(node->second.segment->object.bytes, kDiskPage);
    }
    return bytes;
  }

  // Tokens from the nearest capsule above it, of those that are still there.
  int32_t Saved(const IndexedCapsule& capsule) const {
    std::pair<int32_t, int64_t> below = {capsule.position, capsule.id};  // of two at one place, the later one saves nothing
    for (auto node = nodes_.find(capsule.segment); node != nodes_.end(); node = nodes_.find(node->second.segment->parent)) {
      const auto& there = node->second.capsules;
      const auto above = there.lower_bound(below);
      if (above != there.begin()) return capsule.position - std::prev(above)->first;
      below = {node->second.segment->first, INT64_MAX};
    }
    return capsule.position;
  }

  void Remove(const IndexedCapsule& capsule) {
    auto node = nodes_.find(capsule.segment);
    if (node != nodes_.end()) node->second.capsules.erase({capsule.position, capsule.id});
    while (node != nodes_.end() && --node->second.users == 0) node = nodes_.find(node->second.segment->parent);
  }

 private:
  struct Node {
    const IndexedSegment* segment = nullptr;
    int users = 0;  // children, capsules, and whoever writes on top of it
    std::set<std::pair<int32_t, int64_t>> capsules;
  };
  void Add(const IndexedCapsule& capsule) {
    const auto node = nodes_.find(capsule.segment);
    if (node == nodes_.end()) return;
    ++node->second.users;
    node->second.capsules.insert({capsule.position, capsule.id});
  }
  std::map<int64_t, Node> nodes_;
};

}  // namespace

double WorthOnDisk(int32_t tokens, uint64_t bytes, int64_t hits, int64_t idle) {
  policy::Stake stake;
  stake.tokens = tokens;
  stake.bytes = static_cast<double>(bytes);
  stake.weight = policy::Weight(hits, 0, 1);
  stake.idle = static_cast<double>(idle);
  return policy::Worth(stake);
}

Eviction ChooseEviction(const std::vector<IndexedCapsule>& capsules, const std::vector<IndexedSegment>& segments,
                        const std::set<int64_t>& in_use, uint64_t needed, int64_t now, double ceiling) {
  Forest forest(capsules, segments, in_use);
  std::vector<const IndexedCapsule*> candidates;
  for (const IndexedCapsule& capsule : capsules) {
    if (!capsule.note.pinned && capsule.note.name.empty()) candidates.push_back(&capsule);
  }
  Eviction eviction;
  while (eviction.freed < needed) {
    // Each removal changes what others save and free, so worth is taken anew: evictions are few, and a look at ten thousand takes milliseconds.
    auto least = candidates.end();
    double least_worth = 0;
    for (auto it = candidates.begin(); it != candidates.end(); ++it) {
      const double worth = WorthOnDisk(forest.Saved(**it), forest.Freed(**it), (*it)->note.hits, now - (*it)->note.used);
      // Of equals the one that was used longest ago: half a lifetime repeated often enough is zero.
      if (least == candidates.end() || worth < least_worth || (worth == least_worth && (*it)->note.used < (*least)->note.used)) {
        least = it;
        least_worth = worth;
      }
    }
    if (least == candidates.end() || least_worth > ceiling) return {};
    eviction.capsules.push_back((*least)->id);
    eviction.freed += forest.Freed(**least);
    forest.Remove(**least);
    candidates.erase(least);
  }
  return eviction;
}

}  // namespace reprise
