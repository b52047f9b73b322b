#include "models/gemma.h"

#include <cmath>
#include <string>

#include "models/windowed.h"

namespace reprise {
namespace {

constexpr int kLayersOf27B = 62;  // whose scale of scores is not told by the width of a head, nor by its file

class Gemma3 : public WindowedNetwork {
 public:
  Gemma3(Loader& loader, NetworkInfo info) {
    info_ = std::move(info);
    info_.width = loader.Int("embedding_length", 1, 1 << 20);
    feed_forward_ = FeedForwardShape::Read(loader, info_.width, info_);
    feed_forward_.activation = Activation::kGeGlu;
    loader.Require(feed_forward_.experts == 0, "experts behind a norm of their own are not supported");
    loader.Require(loader.Float("final_logit_softcapping", 0.0) == 0.0, "bounded logits (final_logit_softcapping) are not supported");
    loader.Require(loader.Float("attn_logit_softcapping", 0.0) == 0.0, "bounded scores (attn_logit_softcapping) are not supported");
    ReadNumbers(loader, {.rope = {.base = 1e6}, .every = 6});
    if (!loader.ok()) return;

    if (info_.layers == kLayersOf27B) {
      everywhere_.scale = windowed_.scale = 1.0f / std::sqrt(static_cast<float>(info_.width) / static_cast<float>(everywhere_.heads));
    }
    windowed_.rope = ReadWindowRope(loader, everywhere_.rope.dims);
    embedding_scale_ = std::sqrt(static_cast<float>(info_.width));
    LoadEnds(loader, "output_norm.weight");
    for (int i = 0; i < info_.layers && loader.ok(); ++i) {
      const std::string name = "blk." + std::to_string(i) + ".";
      Block& block = LoadBlock(loader, name, "ffn_norm", /*head_norms=*/true);
      loader.Require(block.attention.output_bias.data == nullptr, "a bias of attention's output is not supported");
      block.attention.output_norm = loader.LoadVector(name + "post_attention_norm.weight", info_.width);
      block.feed_forward.output_norm = loader.LoadVector(name + "post_ffw_norm.weight", info_.width);
    }
    NewStream(loader);
    NewBlockRows(loader);
    ffn_rows_.result = attention_rows_.result = loader.NewRows(info_.width);
  }
};

}  // namespace

Result<std::unique_ptr<Network>> LoadGemma3(Loader& loader, NetworkInfo info) { return LoadAs<Gemma3>(loader, std::move(info)); }

}  // namespace reprise
