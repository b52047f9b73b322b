#include "models/windowed.h"

namespace reprise {

void WindowedNetwork::ReadNumbers(Loader& loader, const Otherwise& otherwise) {
  constexpr int kMostLayers = 1024;
  info_.layers = loader.Int("block_count", 1, kMostLayers);
  info_.context = loader.Int("context_length", 1, INT32_MAX, 131072);
  const int kv_heads = loader.Int("attention.head_count_kv", 1, 1 << 12);
  if (!loader.ok()) return;
  everywhere_ = AttentionShape::Read(loader, info_.width, kv_heads, otherwise.rope);
  windowed_ = everywhere_;
  windowed_.window = loader.Int("attention.sliding_window", 1, INT32_MAX);
  is_windowed_ = loader.WindowedBlocks(info_.layers, otherwise.every);
  eps_ = everywhere_.eps;
}

WindowedNetwork::Block& WindowedNetwork::LoadBlock(Loader& loader, const std::string& name, std::string_view ffn_norm, bool head_norms) {
  Block& block = blocks_.emplace_back();
  block.windowed = is_windowed_[blocks_.size() - 1];
  block.attention.Load(loader, name, everywhere_, head_norms);
  block.feed_forward.Load(loader, name, ffn_norm, feed_forward_);
  return block;
}

void WindowedNetwork::NewBlockRows(Loader& loader) {
  ffn_rows_.normed = attention_rows_.normed = loader.NewRows(info_.width);
  attention_rows_.key = loader.NewRows(everywhere_.kv_width());
  attention_rows_.value = loader.NewRows(everywhere_.kv_width());
  ffn_rows_.NewScores(loader, feed_forward_);
  loader.NewSharedRows({{&attention_rows_.query, everywhere_.query_width()}, {&ffn_rows_.gate, WidestInner(feed_forward_)}});
  loader.NewSharedRows({{&attention_rows_.attended, everywhere_.query_width()}, {&ffn_rows_.up, WidestInner(feed_forward_)}});
}

void WindowedNetwork::RecordMixer(Ops& ops, int index, Rows residual, MixerPart part, bool /*logged*/) const {
  const Block& block = blocks_[static_cast<size_t>(index)];
  block.attention.Record(ops, block.windowed ? windowed_ : everywhere_, attention_rows_, residual, part);
}

void WindowedNetwork::RecordFeedForward(Ops& ops, int block, Rows residual) const {
  blocks_[static_cast<size_t>(block)].feed_forward.Record(ops, ffn_rows_, residual, eps_);
}

}  // namespace reprise
