#include "models/gpt_oss.h"

#include <string>

#include "models/windowed.h"

namespace reprise {
namespace {

class GptOss : public WindowedNetwork {
 public:
  GptOss(Loader& loader, NetworkInfo info) {
    info_ = std::move(info);
    info_.width = loader.Int("embedding_length", 1, 1 << 20);
    feed_forward_ = FeedForwardShape::Read(loader, info_.width, /*inner=*/0, info_);
    feed_forward_.activation = Activation::kClampedSwiGlu;
    loader.Require(feed_forward_.experts > 0, "expert_count is missing");
    // Its own code lets the ramp of YaRN begin and end between pairs; llama.cpp does not.
    ReadNumbers(loader, {.rope = {.base = 150000.0, .whole_numbers = false}, .every = 2});
    if (!loader.ok()) return;

    LoadEnds(loader, "output_norm.weight");
    for (int i = 0; i < info_.layers && loader.ok(); ++i) {
      const std::string name = "blk." + std::to_string(i) + ".";
      Block& block = LoadBlock(loader, name, "post_attention_norm", /*head_norms=*/false);
      block.attention.sinks = loader.LoadVector(name + "attn_sinks.weight", everywhere_.heads);
    }
    NewStream(loader);
    NewBlockRows(loader);
  }
};

}  // namespace

Result<std::unique_ptr<Network>> LoadGptOss(Loader& loader, NetworkInfo info) { return LoadAs<GptOss>(loader, std::move(info)); }

}  // namespace reprise
