// What networks share whose blocks all attend, some of them over a window alone: the sublayers of their blocks, one shape of attention for those with
// the window and one for the others.
#pragma once

#include <string>
#include <vector>

#include "models/blocks.h"
#include "models/feed_forward.h"

namespace reprise {

class WindowedNetwork : public Network {
 protected:
  struct Block {
    bool windowed = false;
    GroupedAttention attention;
    FeedForward feed_forward;
  };

  // Where a file does not tell them: by what positions are turned, and of how many blocks the last one sees everything.
  struct Otherwise {
    RopeReading rope;
    int every = 1;
  };
  // The numbers of the file, checked, to be called first; feed_forward_ is what was read before. The window's positions are turned as all are.
  void ReadNumbers(Loader& loader, const Otherwise& otherwise);
  // A block's norms, matrices and states; `ffn_norm`: what its feed-forward network's norm is called.
  Block& LoadBlock(Loader& loader, const std::string& name, std::string_view ffn_norm, bool head_norms);
  // The rows that sublayers work on, after the blocks.
  void NewBlockRows(Loader& loader);

  void RecordMixer(Ops& ops, int block, Rows residual, MixerPart part, bool logged) const override;
  void RecordFeedForward(Ops& ops, int block, Rows residual) const override;

  AttentionShape everywhere_, windowed_;
  FeedForwardShape feed_forward_;
  AttentionRows attention_rows_;
  FeedForwardRows ffn_rows_;

 private:
  std::vector<bool> is_windowed_;  // by block
  std::vector<Block> blocks_;
};

}  // namespace reprise
