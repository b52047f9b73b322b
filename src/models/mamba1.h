// Mamba-1 as Jamba has it: a convolution and a selective scan, of which every channel has steps of its own; steps, B and C are normed.
#pragma once

#include <string>

#include "models/loader.h"

namespace reprise {

struct Mamba1Shape {
  int width = 0;      // of the residual stream
  int kernel = 0;     // taps of the convolution
  int inner = 0;      // channels
  int state_dim = 0;  // of a channel
  int rank = 0;       // of the steps, before a matrix makes one for each channel
  float eps = 0;      // of the norms, that of the stream too; set after Read

  // The numbers under `ssm.`, checked.
  static Mamba1Shape Read(Loader& loader, int width);
  int selected() const { return rank + 2 * state_dim; }
  // Parts of Mamba1Rows::selected.
  Rows Rank(Rows selected) const { return selected.Columns(0, rank); }
  Rows B(Rows selected) const { return selected.Columns(rank, state_dim); }
  Rows C(Rows selected) const { return selected.Columns(rank + state_dim, state_dim); }
};

// Activations of one sublayer at a time. Of a logged step the block's own are in the place of the first three.
struct Mamba1Rows {
  Rows projected;  // [x: inner | z: inner]
  Rows selected;   // [the rank of the steps: rank | B: state_dim | C: state_dim]
  Rows steps;      // inner
  Rows normed;     // width
  Rows convolved;  // inner
  Rows scanned;    // inner
};

// y = out_proj(scan(x') * silu(z)), where [x | z] = in_proj(norm(h)), x' = silu(conv(x)), [r | B | C] = x_proj(x'), each normed, and the
// steps are dt_proj(r); added to the residual stream.
struct Mamba1 {
  Vector norm;                       // [width]
  const Matrix* input = nullptr;     // [x: inner | z: inner, width]
  Vector convolution;                // [inner][kernel]
  Vector convolution_bias;           // [inner]; without data: none
  const Matrix* selector = nullptr;  // [rank | B: state_dim | C: state_dim, inner]
  Vector rank_norm;                  // [rank]
  Vector b_norm;                     // [state_dim]
  Vector c_norm;                     // [state_dim]
  const Matrix* steps = nullptr;     // [inner, rank]
  Vector a;                          // -exp(A_log), as Ops::SelectiveScan has it
  Vector dt_bias;                    // [inner]
  Vector d;                          // [inner]
  const Matrix* output = nullptr;    // [width, inner]
  StateRef tail;                     // [kernel - 1][inner]
  StateRef memory;                   // as Ops::SelectiveScan has it
  Rows log, selected_log, step_log;  // of a logged step, what the recurrence takes from a row, and what is made beside it

  void Load(Loader& loader, const std::string& block, const Mamba1Shape& shape);
  void Record(Ops& ops, const Mamba1Shape& shape, const Mamba1Rows& rows, Rows residual, bool logged) const;
  // Of a step that was logged, the recurrences alone.
  void RecordLogged(Ops& ops, const Mamba1Shape& shape, const Mamba1Rows& rows) const;

 private:
  Mamba1Rows Logged(Mamba1Rows rows) const;
  // The convolution, and the scan of what it makes: each leaves its state behind.
  void RecordConvolution(Ops& ops, const Mamba1Shape& shape, const Mamba1Rows& rows) const;
  void RecordScan(Ops& ops, const Mamba1Shape& shape, const Mamba1Rows& rows) const;
};

}  // namespace reprise
