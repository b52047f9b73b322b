// What is kept, and what goes first: every judgement of the store, with its reasons. Pure functions; nothing here allocates or locks.
//
// Where capsules are taken (session/prefill.cc does it):
//  - at the ends of the system message, of each question, of the prompt and of the reply, because that is where later prompts go on from. A
//    question's end matters although the prompt's end is a few tokens further: formats may rewrite what opened an answer once it is old
//    (thoughts are dropped), and the end of the question is then the last boundary that the next prompt has in common.
//  - where a prompt leaves a path that is known: what two prompts share, a third one is likely to share. The tree remembers paths, with
//    entries or without, so that the point is known the first time it is passed.
//  - where a request was cancelled: it is likely to be tried again.
//  - along a long prefill every kStride tokens, so that an edit within it costs at most that much.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "reprise/store.h"

namespace reprise::policy {

inline constexpr int kStride = 1024;

// A boundary this few tokens past one that is kept already is not worth a recurrent block: they take less time to compute than the block takes
// to write, and less memory of attention than of anything else.
inline constexpr int kNear = 16;

// Strides thin out behind the tip: at distance d from it, neighbours may lie up to d / 2 apart. So a line of n strides keeps about 2 log2(n) of
// them, and going back by d tokens costs at most about d / 2.
inline bool StrideIsSpare(int32_t below, int32_t above, int32_t tip) { return above - below <= std::max(kStride, (tip - below) / 2); }

// What an entry is worth, a byte: the tokens that would have to be computed again without it, as likely as it is to be asked for.
struct Stake {
  double tokens = 0;        // from the nearest entry above that stays, or what reading it back from another tier costs, whichever is less
  double bytes = 1;         // that dropping it would free
  double weight = 1;        // how likely it is to be used again: see Weight
  double idle = 0;          // seconds since it was put or last used
  bool superseded = false;  // a later boundary of its own line has taken its place
};

// An hour halves the likelihood that a conversation goes on; agents that come back within minutes should find everything.
inline constexpr double kHalfLife = 3600;
// A later boundary of the same line serves all but edits and regenerations.
inline constexpr double kSuperseded = 0.25;

inline double Decay(double idle_seconds) { return std::exp2(-std::max(0.0, idle_seconds) / kHalfLife); }

inline double Worth(const Stake& stake) {
  return stake.tokens * stake.weight * Decay(stake.idle) * (stake.superseded ? kSuperseded : 1.0) / std::max(1.0, stake.bytes);
}

// How likely an entry is to be used again. Visits are the prompts that passed through it. The tip of the main line has had none yet, so an entry
// inherits from the one above, which divides its weight among all that go on from it: prompts go on where earlier prompts went on, while each of
// a hundred side requests on one system message gets a hundredth of what that is worth.
inline double Weight(int64_t visits, double weight_above, int32_t siblings) {
  return 1.0 + static_cast<double>(std::min<int64_t>(visits, 16)) + 0.5 * weight_above / std::max(1, siblings);
}

// An entry that weighs this much is proven. Proven ones may hold kProvenShare of a tier before they compete with the rest: a burst of side
// requests, each of them new, cannot push out the line that keeps coming back, however long the burst.
inline constexpr double kProven = 2.0;
inline constexpr double kProvenShare = 0.75;

// A recurrent block may be as large as a thousand rows, and disks wear: where a line ends a block is written this many rows past the last at the
// nearest, so that in the long run blocks are at most a few times the rows.
inline int32_t RowsBetweenBlocks(uint64_t block_bytes, uint64_t row_bytes) {
  constexpr uint64_t kBlocksToRows = 8;
  return static_cast<int32_t>(std::clamp<uint64_t>(block_bytes / std::max<uint64_t>(1, row_bytes) / kBlocksToRows, kNear, 256));
}

// Where on its line an entry stands: at its end, where the next process goes on; where lines part; or within it, where a later turn has taken its place.
enum class Place { kEnd, kFork, kWithin };

// Whether to write a capsule to disk that is `rows` past the nearest one above it that is there. Within a line a block serves edits alone, so it is written
// as sparingly as strides are. `closing`: the store is, so the end of a line is what the next process will ask for.
inline bool WorthWriting(Keep keep, int32_t rows, Place place, bool closing, uint64_t block_bytes, uint64_t row_bytes) {
  if (keep == Keep::kStride) return rows >= 4 * kStride;  // where a long prefill may have been killed
  if (keep == Keep::kSystem || (closing && place == Place::kEnd)) return rows >= kNear;
  const bool within = place == Place::kWithin && keep != Keep::kDivergence;
  return rows >= (within ? kStride : RowsBetweenBlocks(block_bytes, row_bytes));
}

// How long an entry must live before it is written, in seconds. The end of a question, prompt or reply is superseded by the next turn: an agent's comes
// within a few seconds, so that its blocks never reach the disk; a person reads first, so after a crash the last finished turn is there if it ended more
// than those few seconds before. A line that goes on without a pause does not wait once a crash would cost more than a stride of computing.
inline double Delay(Keep keep, int32_t rows, const StoreOptions& options) {
  const bool tip = keep == Keep::kTurn || keep == Keep::kPrompt || keep == Keep::kReply || keep == Keep::kStop;
  return tip && rows < kStride ? std::max(options.write_delay, options.tip_delay) : options.write_delay;
}

// Opening files and looking up where they are, in seconds: what a read costs before its first byte.
inline constexpr double kReadLatency = 0.0005;

}  // namespace reprise::policy
