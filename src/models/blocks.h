// What several architectures are made of: an attention sublayer's parts and the gated feed-forward network.
#pragma once

#include "models/loader.h"

namespace reprise {

// y = down(silu(gate x) * up x), added to the residual stream.
struct FeedForward {
  Vector norm;
  const Matrix* gate = nullptr;
  const Matrix* up = nullptr;
  const Matrix* down = nullptr;

  void Load(Loader& loader, const std::string& block, std::string_view norm_name, int width, int inner);
};

// Activations of one sublayer at a time: the sublayers run one after another, so they share these buffers.
struct FeedForwardRows {
  Rows normed;  // width
  Rows gate;    // inner
  Rows up;      // inner
  Rows mixed;   // inner
};

void RecordFeedForward(Ops& ops, const FeedForward& weights, const FeedForwardRows& rows, Rows residual, float eps);

inline Heads AllHeads(Rows rows, int count, int width) { return {rows, count, width, width}; }

}  // namespace reprise
