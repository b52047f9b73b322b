// What several architectures are made of: an attention sublayer of grouped heads.
#pragma once

#include <span>

#include "models/loader.h"
#include "models/rope.h"

namespace reprise {

// Of the products of attention's input, the query's first, those that `part` needs.
inline std::span<const Product> ProductsFor(MixerPart part, std::span<const Product> query_key_value) {
  if (part == MixerPart::kState) return query_key_value.subspan(1);
  return part == MixerPart::kResult ? query_key_value.first(1) : query_key_value;
}

inline Heads AllHeads(Rows rows, int count, int width) { return {rows, count, width, width}; }

// Of each block, 0 where it has a recurrence instead; those that attend have as many as each other, and there is one.
std::vector<int> KvHeadsPerBlock(Loader& loader, int blocks);

// Grouped-query attention with rotary positions.
struct AttentionShape {
  int width = 0;  // of the residual stream
  int heads = 0;
  int kv_heads = 0;
  int head_dim = 0;
  float eps = 0;
  float scale = 0;                  // of scores: head_dim^-1/2, where nothing else is set after Read
  int window = 0;                   // positions that a row sees; 0: all
  RopeSpec rope;                    // of no dimensions: positions are not told
  Vector temperatures;              // of queries, by position; without data: none
  int temperature_every = 0;        // of so many positions each
  bool values_may_be_keys = false;  // where a file has no matrix of values

  // The numbers under `attention.` and `rope.`, checked, but for those of temperatures; all but kv_heads, which some architectures give block by block.
  static AttentionShape Read(Loader& loader, int width, int kv_heads, const RopeReading& rope = {});
  int query_width() const { return heads * head_dim; }
  int kv_width() const { return kv_heads * head_dim; }
};

// Activations of one sublayer at a time: the sublayers run one after another, so those of all blocks are the same.
struct AttentionRows {
  Rows normed;    // width
  Rows query;     // heads x head_dim
  Rows key;       // kv_heads x head_dim
  Rows value;     // kv_heads x head_dim
  Rows attended;  // heads x head_dim
  Rows result;    // width; where it is normed before it is added to the residual stream
};

// y = o_proj(attention(rope(q), rope(k), v)), its norm where it has one, added to the residual stream.
struct GroupedAttention {
  Vector norm;                    // [width]
  const Matrix* query = nullptr;  // [heads x head_dim, width]
  const Matrix* key = nullptr;  // [kv_heads x head_dim, width]; null: keys and values are another block's, and nothing is appended to them
  const Matrix* value = nullptr;   // [kv_heads x head_dim, width]; null: values are what the keys are before they are normed
  const Matrix* output = nullptr;  // [width, heads x head_dim]
  Vector query_bias;               // [heads x head_dim]; without data: none, as all that follow
  Vector key_bias;                 // [kv_heads x head_dim]
  Vector value_bias;               // [kv_heads x head_dim]
  Vector query_norm;               // [head_dim], of each head before it is turned
  Vector key_norm;                 // likewise
  Vector value_norm;               // likewise, of values, which are not turned
  Vector output_norm;              // [width], of what is added
  Vector output_bias;              // [width], where there is no such norm
  Vector sinks;                    // [heads]
  StateRef keys;                   // a row: kv_heads x head_dim
  StateRef values;                 // a row: kv_heads x head_dim

  void Load(Loader& loader, const std::string& block, const AttentionShape& shape, bool head_norms);
  // Of a block that attends to keys and values of another, all but these.
  void LoadQueries(Loader& loader, const std::string& block, const AttentionShape& shape, bool head_norms);
  void Record(Ops& ops, const AttentionShape& shape, const AttentionRows& rows, Rows residual, MixerPart part) const;
  // What follows the products of the normed rows.
  void RecordProjected(Ops& ops, const AttentionShape& shape, const AttentionRows& rows, Rows residual, MixerPart part) const;
};

}  // namespace reprise
