#include "session/declare.h"

#include <algorithm>
#include <utility>

#include "backend/devices.h"
#include "backend/weightless_backend.h"
#include "models/model_fingerprint.h"

namespace reprise {
namespace {

constexpr int kMostContext = 1 << 20;

// A file of float32 weights is there to be exact: rounding its keys and values to 11 bits would be the largest error by far. Elsewhere the
// weights' own rounding is far larger.
ElementType KeyValueElement(const GgufFile& file, KeyValueType wanted) {
  switch (wanted) {
    case KeyValueType::kF16: return ElementType::kF16;
    case KeyValueType::kF32: return ElementType::kF32;
    case KeyValueType::kQ8_0: return ElementType::kQ8_0;
    case KeyValueType::kAuto: break;
  }
  const GgufTensor* embedding = file.Find("token_embd.weight");
  return embedding != nullptr && embedding->type == TensorType::kF32 ? ElementType::kF32 : ElementType::kF16;
}

// What options.progress is told, of the file's bytes; empty where nobody asks.
std::function<void(uint64_t)> OfBytes(const GgufFile& file, const ModelOptions& options) {
  if (!options.progress) return {};
  const auto total = static_cast<double>(std::max<size_t>(file.bytes().size(), 1));
  return [&options, total](uint64_t bytes) { options.progress(static_cast<double>(bytes) / total); };
}

Result<Tokenizer> LoadTokenizer(const GgufFile& file, int rows) {
  REPRISE_ASSIGN_OR_RETURN(Vocabulary vocabulary, ReadVocabulary(file));
  REPRISE_ASSIGN_OR_RETURN(Tokenizer tokenizer, Tokenizer::Create(vocabulary));
  if (tokenizer.vocab_size() > rows) {
    return Corrupt("the tokenizer knows " + std::to_string(tokenizer.vocab_size()) + " tokens, the embedding only " + std::to_string(rows));
  }
  return tokenizer;
}

}  // namespace

Status CheckOptions(const ModelOptions& options) {
  if (options.context < 0 || options.context > kMostContext) {
    return InvalidArgument("a context of " + std::to_string(options.context) + " positions is out of range; 1 to " +
                           std::to_string(kMostContext));
  }
  if (options.lanes < 1 || options.lanes > 256) return InvalidArgument(std::to_string(options.lanes) + " lanes are out of range; 1 to 256");
  if (options.capsules < 0 || options.capsules > 1 << 20) return InvalidArgument("the number of capsules is out of range; 0 to 1048576");
  if (options.chunk < 1 || options.chunk > 4096)
    return InvalidArgument("a chunk of " + std::to_string(options.chunk) + " tokens is out of range; 1 to 4096");
  if (options.threads < 0 || options.threads > 1024)
    return InvalidArgument(std::to_string(options.threads) + " threads are out of range; 1 to 1024");
  return Ok();
}

Result<std::unique_ptr<Backend>> MakeBackendFor(const ModelOptions& options) {
  CpuOptions cpu;
  cpu.threads = options.threads;
  cpu.pin = options.pin_threads;
  cpu.isa = options.instruction_set;
  return MakeDeviceBackend(options.device, cpu);
}

Result<DeclaredModel> DeclareModel(const GgufFile& file, Backend& backend, const ModelOptions& options) {
  DeclaredModel model;
  model.max_rows = std::max(options.chunk, options.lanes);
  NetworkOptions network;
  network.max_lanes = options.lanes;
  network.max_rows = model.max_rows;
  network.context = options.context;
  network.kv_type = KeyValueElement(file, options.kv);
  network.progress = OfBytes(file, options);
  REPRISE_ASSIGN_OR_RETURN(model.network, Network::Load(file, backend, model.layout, network));

  // A model without a tokenizer that this build knows still runs on token ids.
  if (auto tokenizer = LoadTokenizer(file, model.network->info().vocabulary); tokenizer.ok()) {
    model.tokenizer = *std::move(tokenizer);
  } else {
    model.tokenizer_status = Unsupported("text cannot be read with this model, only token ids: " + tokenizer.status().message());
  }

  model.history = model.layout.Append("history.tokens", ElementType::kI32, {1}, Space::kHost);
  model.decode = DecodeState::Declare(model.layout, model.tokenizer ? DecodeState::Bytes::kKnown : DecodeState::Bytes::kUnknown);
  REPRISE_RETURN_IF_ERROR(model.layout.Check());
  return model;
}

Result<ModelOutline> OutlineModel(const GgufFile& file, const ModelOptions& options) {
  REPRISE_RETURN_IF_ERROR(CheckOptions(options));
  REPRISE_ASSIGN_OR_RETURN(const auto backend, MakeBackendFor(options));
  WeightlessBackend weightless(*backend);
  ModelOptions without_progress = options;  // which is of reading, and declaring reads next to nothing
  without_progress.progress = {};
  REPRISE_ASSIGN_OR_RETURN(DeclaredModel declared, DeclareModel(file, weightless, without_progress));
  ModelOutline outline;
  outline.network = declared.network->info();
  outline.fingerprint = ModelFingerprint(file, outline.network, declared.layout, backend->numerics(), OfBytes(file, options));
  outline.layout = std::move(declared.layout);
  outline.backend = backend->description();
  outline.tokenizer = std::move(declared.tokenizer);
  outline.tokenizer_status = std::move(declared.tokenizer_status);
  return outline;
}

}  // namespace reprise
