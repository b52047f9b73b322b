#include "store/token_tree.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace reprise {
namespace {

// How many tokens two runs have in common at their beginning.
size_t Common(std::span<const int32_t> a, std::span<const int32_t> b) {
  const size_t most = std::min(a.size(), b.size());
  size_t at = 0;
  constexpr size_t kBlock = 64;  // compared as bytes: long prompts are compared at the speed of memory
  while (at + kBlock <= most && std::memcmp(a.data() + at, b.data() + at, kBlock * sizeof(int32_t)) == 0) at += kBlock;
  while (at < most && a[at] == b[at]) ++at;
  return at;
}

}  // namespace

TokenTree::Match TokenTree::Find(std::span<const int32_t> tokens) {
  ++clock_;
  Match match{&root_, 0, nullptr};
  while (true) {
    Node* node = match.node;
    node->seen = clock_;
    const auto rest = tokens.subspan(static_cast<size_t>(node->depth));
    match.length = node->depth;
    if (rest.empty()) return match;
    const auto child = node->children.find(rest[0]);
    if (child == node->children.end()) {
      // Among several ways on, the one seen last is what the prompt most likely was thought to be.
      for (const auto& [token, other] : node->children) {
        if (match.left == nullptr || other->seen > match.left->seen) match.left = other.get();
      }
      return match;
    }
    Node* next = child->second.get();
    const size_t common = Common(next->edge, rest);
    if (common < next->edge.size()) {
      next->seen = clock_;
      match.length += static_cast<int32_t>(common);
      if (common < rest.size()) match.left = next;
      return match;
    }
    match.node = next;
  }
}

TokenTree::Node* TokenTree::Insert(std::span<const int32_t> tokens) {
  const Match match = Find(tokens);
  Node* node = match.node;
  auto add = [&](Node* parent, std::span<const int32_t> edge) {
    auto made = std::make_unique<Node>();
    made->parent = parent;
    made->edge.assign(edge.begin(), edge.end());
    made->depth = parent->depth + static_cast<int32_t>(edge.size());
    made->seen = clock_;
    bare_ += edge.size();
    return (parent->children[edge[0]] = std::move(made)).get();
  };
  if (match.length > node->depth) {
    // The path leaves, or ends, within an edge: a node is made there.
    const auto at = static_cast<size_t>(match.length - node->depth);
    auto& slot = node->children[tokens[static_cast<size_t>(node->depth)]];
    std::unique_ptr<Node> below = std::move(slot);
    auto middle = std::make_unique<Node>();
    middle->parent = node;
    middle->edge.assign(below->edge.begin(), below->edge.begin() + static_cast<ptrdiff_t>(at));
    middle->depth = match.length;
    middle->kept = below->kept;
    middle->seen = clock_;
    below->edge.erase(below->edge.begin(), below->edge.begin() + static_cast<ptrdiff_t>(at));
    below->parent = middle.get();
    const int32_t first = below->edge[0];
    middle->children[first] = std::move(below);
    slot = std::move(middle);
    node = slot.get();
  }
  if (const auto rest = tokens.subspan(static_cast<size_t>(match.length)); !rest.empty()) node = add(node, rest);
  if (bare_ > most_bare_) {
    // Not this one: it is about to be used.
    ++node->kept;
    DropOldPaths();
    --node->kept;
  }
  return node;
}

void TokenTree::Count(Node* node, int32_t by) {
  for (; node != nullptr; node = node->parent) {
    const bool was_bare = node->kept == 0;
    node->kept += by;
    if (was_bare && node->kept > 0) bare_ -= node->edge.size();
    if (!was_bare && node->kept == 0) bare_ += node->edge.size();
  }
}

void TokenTree::Keep(Node* node, Stored* entry) {
  node->entries.push_back(entry);
  Count(node, 1);
}

void TokenTree::Drop(Node* node, Stored* entry) {
  std::erase(node->entries, entry);
  Count(node, -1);
  Tidy(node);
}

// A node at which nothing is kept and from which one way goes on is only a part of an edge.
void TokenTree::Tidy(Node* node) {
  if (node == &root_ || !node->entries.empty() || node->children.size() != 1) return;
  std::unique_ptr<Node> child = std::move(node->children.begin()->second);
  child->edge.insert(child->edge.begin(), node->edge.begin(), node->edge.end());
  child->parent = node->parent;
  const int32_t first = child->edge[0];
  node->parent->children[first] = std::move(child);  // `node` goes here
}

// Bare leaves, oldest first, until there is room for a while. What a fork leaves behind may be a leaf that is as old: hence the rounds.
void TokenTree::DropOldPaths() {
  std::vector<Node*> leaves;
  do {
    leaves.clear();
    std::vector<Node*> stack{&root_};
    while (!stack.empty()) {
      Node* node = stack.back();
      stack.pop_back();
      if (node != &root_ && node->kept == 0 && node->children.empty()) leaves.push_back(node);
      for (auto& [token, child] : node->children) stack.push_back(child.get());
    }
    std::sort(leaves.begin(), leaves.end(), [](const Node* a, const Node* b) { return a->seen < b->seen; });
    for (Node* leaf : leaves) {
      if (bare_ <= most_bare_ / 4 * 3) return;
      bare_ -= leaf->edge.size();
      Node* parent = leaf->parent;
      const int32_t first = leaf->edge[0];
      parent->children.erase(first);
      Tidy(parent);
    }
  } while (!leaves.empty());
}

TokenTree::Node* TokenTree::Above(const Node* node) {
  Node* above = node->parent;
  while (above != nullptr && above->entries.empty()) above = above->parent;
  return above;
}

Stored* TokenTree::AnyBelow(const Node* node) {
  while (node->kept > 0 && node->entries.empty()) {
    const Node* next = nullptr;
    for (const auto& [token, child] : node->children) {
      if (child->kept > 0 && (next == nullptr || child->seen > next->seen)) next = child.get();
    }
    if (next == nullptr) return nullptr;  // never, while the counts are right
    node = next;
  }
  return node->entries.empty() ? nullptr : node->entries.front();
}

std::vector<int32_t> TokenTree::PathOf(const Node* node) {
  std::vector<int32_t> path(static_cast<size_t>(node->depth));
  for (; node->parent != nullptr; node = node->parent) {
    std::copy(node->edge.begin(), node->edge.end(), path.begin() + (node->depth - static_cast<int32_t>(node->edge.size())));
  }
  return path;
}

// A loop: a conversation of many turns is a deep tree.
void TokenTree::Clear() {
  std::vector<std::unique_ptr<Node>> doomed;
  const auto take = [&](Node& node) {
    for (auto& [token, child] : node.children) doomed.push_back(std::move(child));
    node.children.clear();
  };
  take(root_);
  while (!doomed.empty()) {
    const std::unique_ptr<Node> node = std::move(doomed.back());
    doomed.pop_back();
    take(*node);
  }
}

}  // namespace reprise
