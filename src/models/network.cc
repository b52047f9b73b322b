#include "models/network.h"

#include <array>
#include <charconv>

#include "models/falcon_h1.h"
#include "models/gemma.h"
#include "models/gemma4.h"
#include "models/gpt_oss.h"
#include "models/granite_hybrid.h"
#include "models/jamba.h"
#include "models/lfm2.h"
#include "models/llama.h"
#include "models/loader.h"
#include "models/nemotron_h.h"
#include "models/qwen35.h"

namespace reprise {
namespace {

struct Architecture {
  std::string_view name;  // general.architecture of the file
  Result<std::unique_ptr<Network>> (*load)(Loader&, NetworkInfo);
};

constexpr Architecture kArchitectures[] = {
    {"falcon-h1", LoadFalconH1},
    {"gemma3", LoadGemma3},
    {"gemma4", LoadGemma4},
    {"gpt-oss", LoadGptOss},
    {"granite", LoadGraniteHybrid},
    {"granitehybrid", LoadGraniteHybrid},
    {"granitemoe", LoadGraniteHybrid},
    {"jamba", LoadJamba},
    {"lfm2", LoadLfm2},
    {"lfm2moe", LoadLfm2},
    {"llama", LoadLlama},
    {"mistral3", LoadMistral3},
    {"nemotron_h", LoadNemotronH},
    {"nemotron_h_moe", LoadNemotronH},
    {"phi3", LoadPhi3},
    {"qwen2", LoadQwen2},
    {"qwen3", LoadQwen3},
    {"qwen35", LoadQwen35},
    {"qwen35moe", LoadQwen35},
    {"qwen3moe", LoadQwen3},
    {"qwen3next", LoadQwen35},
    {"smollm3", LoadSmolLm3},
};

}  // namespace

double NetworkInfo::UsedShare(const GgufTensor& tensor) const {
  if (tensor.name == token_table) return 0.0;
  const bool of_experts = experts > 0 && tensor.n_dims == 3 && tensor.dims[2] == static_cast<uint64_t>(experts);
  return of_experts ? static_cast<double>(experts_used) / experts : 1.0;
}

double NetworkInfo::PrefillShare(const GgufTensor& tensor) const {
  if (tensor.name == "token_embd.weight" || tensor.name == "output.weight") return 0.0;
  constexpr std::string_view kBlock = "blk.";
  int block = 0;
  if (tensor.name.starts_with(kBlock)) {
    std::from_chars(tensor.name.data() + kBlock.size(), tensor.name.data() + tensor.name.size(), block);
  }
  return block < StateBlocks() || (has_draft && block == layers) ? UsedShare(tensor) : 0.0;
}

std::vector<std::string_view> Network::Architectures() {
  std::vector<std::string_view> names;
  for (const Architecture& architecture : kArchitectures) names.push_back(architecture.name);
  return names;
}

Result<std::unique_ptr<Network>> Network::Load(const GgufFile& file, Backend& backend, StateLayout& layout, const NetworkOptions& options) {
  NetworkInfo info;
  REPRISE_ASSIGN_OR_RETURN(const std::string_view name, file.GetString("general.architecture"));
  info.architecture = name;
  REPRISE_ASSIGN_OR_RETURN(const std::string_view title, file.GetStringOr("general.name", ""));
  info.name = title;
  const GgufTensor* embedding = file.Find("token_embd.weight");
  if (embedding == nullptr) return NotFound("the model has no tensor 'token_embd.weight'");
  if (embedding->dims[1] > (1u << 24))
    return Corrupt("a vocabulary of " + std::to_string(embedding->dims[1]) + " tokens is beyond any model");
  info.vocabulary = static_cast<int>(embedding->dims[1]);
  for (const Architecture& architecture : kArchitectures) {
    if (architecture.name != name) continue;
    Loader loader(file, backend, layout, options, name);
    REPRISE_ASSIGN_OR_RETURN(auto network, architecture.load(loader, std::move(info)));
    REPRISE_RETURN_IF_ERROR(layout.Check());
    network->info_.parameters = loader.parameters();
    loader.Log(network->hidden_);
    network->log_ = loader.log();
    return network;
  }
  std::string known;
  for (const Architecture& architecture : kArchitectures) known += (known.empty() ? "'" : ", '") + std::string(architecture.name) + "'";
  return Unsupported("the architecture '" + std::string(name) + "' is not known; this build runs " + known);
}

void Network::LoadEnds(Loader& loader, const std::string& output_norm, float logit_scale) {
  embedding_ = loader.LoadMatrix("token_embd.weight", info_.width, info_.vocabulary);
  output_norm_ = loader.LoadScaledVector(output_norm, info_.width, logit_scale);
  output_ = loader.Has("output.weight") ? loader.LoadMatrix("output.weight", info_.width, info_.vocabulary) : embedding_;
  silence_ = loader.Silence(info_.vocabulary);
}

void Network::NewStream(Loader& loader) {
  last_hidden_ = loader.Recurrent("last.hidden", {info_.width});
  stream_ = loader.NewRows(info_.width + carried_);
  last_stream_ = loader.NewRows(info_.width + carried_, loader.options().max_lanes);
  hidden_ = loader.NewRows(info_.width);
}

void Network::RecordBody(Ops& ops, Body body) const {
  // An MTP block reads every hidden row.
  const bool ends_early = body == Body::kHistory && !info_.has_draft;
  const int last = (ends_early ? info_.StateBlocks() : info_.layers) - 1;
  const Rows residual = Residual(stream_);
  ops.Embed(residual, *embedding_, embedding_scale_);
  if (carried_ > 0) RecordCarried(ops, residual, Carried(residual, 0, carried_));
  for (int block = 0; block <= last; ++block) {
    const bool ends = ends_early && block == last;
    RecordMixer(ops, block, residual, ends ? MixerPart::kState : MixerPart::kAll, body == Body::kLogged);
    if (!ends) RecordFeedForward(ops, block, residual);
  }
  if (ends_early) {
    Rows of_lanes = last_stream_;
    of_lanes.domain = Domain::kLanes;
    ops.LastRows(of_lanes, stream_);
  } else {
    RecordHidden(ops, residual, body);
  }
}

void Network::RecordLastRows(Ops& ops) const {
  if (info_.has_draft) return;
  const int first = info_.StateBlocks() - 1;
  const Rows residual = Residual(last_stream_);
  for (int block = first; block < info_.layers; ++block) {
    RecordMixer(ops, block, residual, block == first ? MixerPart::kResult : MixerPart::kAll, /*logged=*/false);
    RecordFeedForward(ops, block, residual);
  }
  RecordHidden(ops, residual, Body::kHistory);
}

void Network::RecordHidden(Ops& ops, Rows residual, Body body) const {
  ops.RmsNorm(hidden_, residual, output_norm_, eps_);
  if (info_.has_draft) RecordDraft(ops, body);  // reads last.hidden of the step before, so it comes before SaveLast in meaning and in order
  ops.SaveLast(last_hidden_, hidden_);
  if (body == Body::kLogged) ops.KeepLog(log_);
}

void Network::RecordReplay(Ops& ops) const {
  RecordRecurrences(ops);
  ops.SaveLast(last_hidden_, hidden_);
}

void Network::RecordRecall(Ops& ops) const {
  ops.RecallLog(log_);
  RecordReplay(ops);
}

size_t Network::log_row_bytes() const { return static_cast<size_t>(log_.back().column + log_.back().rows.width) * sizeof(float); }

void Network::RecordHead(Ops& ops, Rows logits, Rows hidden) const {
  ops.MatMul(hidden, std::array{Product{output_, logits}});
  if (logit_cap_ > 0) ops.SoftCap(logits, logit_cap_);
  if (silence_.data != nullptr) ops.AddBias(logits, silence_);
}

}  // namespace reprise
