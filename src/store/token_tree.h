// TokenTree: the paths that prompts have taken, as a compressed radix tree over token ids, with what is kept at their boundaries.
//
// A path is remembered whether or not anything is kept on it, so that the point where a new prompt leaves it is known at once. Paths below which
// nothing is kept are *bare*; they are dropped by age when they hold too many tokens. Used under the store's lock.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <vector>

namespace reprise {

struct Stored;  // an entry of the store (stored.h); the tree only points to it

class TokenTree {
 public:
  static constexpr size_t kMostBareTokens = size_t{1} << 20;  // 4 MiB

  explicit TokenTree(size_t most_bare_tokens = kMostBareTokens) : most_bare_(most_bare_tokens) {}
  TokenTree(const TokenTree&) = delete;
  TokenTree& operator=(const TokenTree&) = delete;
  ~TokenTree() { Clear(); }

  struct Node {
    Node* parent = nullptr;
    std::vector<int32_t> edge;                          // the tokens from the parent's end to this one's
    int32_t depth = 0;                                  // tokens from the root
    std::map<int32_t, std::unique_ptr<Node>> children;  // by the first token of their edges
    std::vector<Stored*> entries;                       // kept at this boundary exactly
    int32_t kept = 0;                                   // entries here and below
    uint64_t seen = 0;                                  // when a path last went through here: a count of calls
  };

  struct Match {
    Node* node = nullptr;  // the deepest one whose end lies on the path; the root at least
    int32_t length = 0;    // how many tokens of the path are known
    const Node* left =
        nullptr;  // a node on the known path that the prompt left at `length`, or null when the prompt only goes on (or ends)
  };
  Match Find(std::span<const int32_t> tokens);

  // The node that ends where `tokens` does, made where it is missing.
  Node* Insert(std::span<const int32_t> tokens);

  void Keep(Node* node, Stored* entry);
  // The path stays, bare if nothing else is kept below. `node` may be gone afterwards.
  void Drop(Node* node, Stored* entry);

  // The nearest node above that has entries, or null.
  static Node* Above(const Node* node);
  // Any entry at or below `node`: the one nearest to it on the path seen last.
  static Stored* AnyBelow(const Node* node);
  static std::vector<int32_t> PathOf(const Node* node);

  // In the order of the paths: a parent before its children.
  template <class F>
  void ForEach(F visit) const {
    std::vector<const Node*> stack{&root_};
    while (!stack.empty()) {
      const Node* node = stack.back();
      stack.pop_back();
      if (!node->entries.empty()) visit(*node);
      for (auto it = node->children.rbegin(); it != node->children.rend(); ++it) {
        if (it->second->kept > 0) stack.push_back(it->second.get());
      }
    }
  }

  size_t bare_tokens() const { return bare_; }
  bool empty() const { return root_.kept == 0; }

 private:
  void Count(Node* node, int32_t by);
  void Tidy(Node* node);
  void DropOldPaths();
  void Clear();

  Node root_;
  size_t most_bare_;
  size_t bare_ = 0;  // tokens on the edges of bare nodes
  uint64_t clock_ = 0;
};

}  // namespace reprise
