// Mamba-2: a convolution and a state space recurrence over heads, gated and normed.
#pragma once

#include <string>

#include "models/loader.h"

namespace reprise {

struct MambaShape {
  int width = 0;   // of the residual stream
  int kernel = 0;  // taps of the convolution
  Ops::SsmShape ssm{};
  float norm_eps = 0;  // of the norm within; set after Read
  bool normed = true;  // there is one

  // The numbers under `ssm.`, checked.
  static MambaShape Read(Loader& loader, int width);
  int inner() const { return ssm.heads * ssm.head_dim; }
  int channels() const { return inner() + 2 * ssm.groups * ssm.state_dim; }  // that are convolved
  int projected() const { return inner() + channels() + ssm.heads; }
};

// Activations of one sublayer at a time.
struct MambaRows {
  Rows normed;     // width
  Rows projected;  // shape.projected(); of a logged step the block's own log is in its place
  Rows convolved;  // shape.channels()
  Rows scanned;    // shape.inner()
};

// y = out_proj(norm(ssm(silu(conv(x B C))) * silu(z))), where [z | x B C | dt] = in_proj(h), added to the residual stream.
struct Mamba {
  Vector norm;                     // [width]
  const Matrix* input = nullptr;   // [z: inner | x: inner | B: groups x state_dim | C: groups x state_dim | dt: heads, width]
  Vector convolution;              // [channels of x B C][kernel]
  Vector convolution_bias;         // [channels]; without data: none
  Vector a;                        // [heads], -exp(A_log)
  Vector dt_bias;                  // [heads]
  Vector d;                        // [heads]
  Vector gated_norm;               // [groups][inner / groups], each group normed by itself; without data: none
  const Matrix* output = nullptr;  // [width, inner]
  StateRef tail;                   // [kernel - 1][channels]
  StateRef memory;                 // [heads][state_dim][head_dim]
  Rows log;                        // in_proj(h) of a logged step: what the recurrence takes from a row, and z beside it

  void Load(Loader& loader, const std::string& block, const MambaShape& shape);
  // All but the norm before it, where that is another sublayer's too.
  void LoadBehindNorm(Loader& loader, const std::string& block, const MambaShape& shape);
  // `eps` of the norm that reads the residual stream.
  void Record(Ops& ops, const MambaShape& shape, const MambaRows& rows, Rows residual, float eps, bool logged) const;
  // What follows the product of the normed rows, which is `projected`.
  void RecordProjected(Ops& ops, const MambaShape& shape, const MambaRows& rows, Rows projected, Rows residual) const;
  // Of a step that was logged, the recurrence alone.
  void RecordLogged(Ops& ops, const MambaShape& shape, const MambaRows& rows) const { RecordRecurrence(ops, shape, rows, log); }

 private:
  // Both states of the block, and `scanned`.
  void RecordRecurrence(Ops& ops, const MambaShape& shape, const MambaRows& rows, Rows projected) const;
};

}  // namespace reprise
