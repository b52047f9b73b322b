// Models, text and tokens for C.
#include <string>

#include "session/c_api.h"

namespace reprise::c_api {
namespace {

reprise_model_options DefaultModelOptions() {
  const ModelOptions defaults;
  reprise_model_options options;
  std::memset(&options, 0, sizeof(options));  // padding too
  options.size = sizeof(options);
  options.threads = defaults.threads;
  options.context = defaults.context;
  options.lanes = defaults.lanes;
  options.capsules = defaults.capsules;
  options.chunk = defaults.chunk;
  options.state_budget = defaults.state_budget;
  return options;
}

Result<ModelOptions> FromC(const reprise_model_options& from) {
  ModelOptions options;
  switch (from.kv) {
    case REPRISE_KV_AUTO: options.kv = KeyValueType::kAuto; break;
    case REPRISE_KV_F16: options.kv = KeyValueType::kF16; break;
    case REPRISE_KV_F32: options.kv = KeyValueType::kF32; break;
    case REPRISE_KV_Q8_0: options.kv = KeyValueType::kQ8_0; break;
    default: return InvalidArgument("options: kv is " + std::to_string(from.kv) + ", which is no reprise_kv");
  }
  options.threads = from.threads;
  options.context = from.context;
  options.lanes = from.lanes;
  options.capsules = from.capsules;
  options.chunk = from.chunk;
  options.pin_threads = from.pin_threads != 0;
  options.state_budget = static_cast<size_t>(from.state_budget);
  options.spill_budget = static_cast<size_t>(from.spill_budget);
  if (from.instruction_set != nullptr) options.instruction_set = from.instruction_set;
  if (from.device != nullptr) options.device = from.device;
  if (from.store != nullptr) {
    if (*from.store == '\0') return InvalidArgument("options: store names no directory");
    options.store.emplace().directory = from.store;
    if (from.store_disk != 0) options.store->disk_budget = from.store_disk;
  }
  if (from.progress != nullptr) {
    options.progress = [progress = from.progress, user = from.user](double fraction) { progress(fraction, user); };
  }
  return options;
}

}  // namespace
}  // namespace reprise::c_api

using namespace reprise::c_api;
using reprise::InvalidArgument;
using reprise::Ok;
using reprise::Status;

extern "C" {

reprise_status reprise_model_options_init(reprise_model_options* options, size_t size) {
  return Guarded([&] { return InitStruct(options, size, DefaultModelOptions(), "options"); });
}

reprise_status reprise_model_load(const char* path, const reprise_model_options* options, reprise_model** model) {
  return Guarded([&]() -> Status {
    REPRISE_NEED(path);
    REPRISE_NEED(model);
    reprise_model_options given = DefaultModelOptions();
    if (options != nullptr) {
      REPRISE_ASSIGN_OR_RETURN(given, ReadStruct(options, given, "options"));
    }
    REPRISE_ASSIGN_OR_RETURN(const reprise::ModelOptions load, FromC(given));
    REPRISE_ASSIGN_OR_RETURN(reprise::Model loaded, reprise::Model::Load(path, load));
    *model = new reprise_model{std::move(loaded)};
    return Ok();
  });
}

void reprise_model_free(reprise_model* model) { delete model; }

reprise_status reprise_model_info_get(const reprise_model* model, reprise_model_info* info) {
  return Guarded([&]() -> Status {
    REPRISE_NEED(model);
    REPRISE_NEED(info);
    if (info->size < sizeof(reprise_model_info)) {
      return InvalidArgument("info: size is " + std::to_string(info->size) + "; set it to sizeof(reprise_model_info)");
    }
    const reprise::ModelInfo& from = model->model.info();
    info->vocabulary = from.vocabulary;
    info->context = from.context;
    info->lanes = from.lanes;
    info->layers = from.layers;
    info->parameters = from.parameters;
    std::memcpy(info->fingerprint, from.fingerprint.bytes.data(), sizeof(info->fingerprint));
    info->name = from.name.c_str();
    info->architecture = from.architecture.c_str();
    info->backend = from.backend.c_str();
    return Ok();
  });
}

reprise_status reprise_store_flush(const reprise_model* model) {
  return Guarded([&]() -> Status {
    REPRISE_NEED(model);
    reprise::CapsuleStore* const store = model->model.store();
    return store != nullptr ? store->Flush() : reprise::Unsupported("the model was loaded without a store");
  });
}

reprise_status reprise_tokenize(const reprise_model* model, const char* text, size_t text_bytes, int parse_special, int32_t* tokens,
                                size_t capacity, size_t* count) {
  return Guarded([&]() -> Status {
    REPRISE_NEED(model);
    REPRISE_NEED(count);
    REPRISE_ASSIGN_OR_RETURN(const auto bytes, Array(text, text_bytes, "text"));
    if (tokens == nullptr && capacity > 0) return Missing("tokens");
    REPRISE_ASSIGN_OR_RETURN(const auto ids, model->model.Tokenize(std::string_view(bytes.data(), bytes.size()), parse_special != 0));
    return CopyOut<int32_t>(ids, tokens, capacity, count);
  });
}

reprise_status reprise_detokenize(const reprise_model* model, const int32_t* tokens, size_t token_count, char* text, size_t capacity,
                                  size_t* count) {
  return Guarded([&]() -> Status {
    REPRISE_NEED(model);
    REPRISE_NEED(count);
    REPRISE_ASSIGN_OR_RETURN(const auto ids, Array(tokens, token_count, "tokens"));
    if (text == nullptr && capacity > 0) return Missing("text");
    REPRISE_ASSIGN_OR_RETURN(const std::string bytes, model->model.Detokenize(ids));
    return CopyOut<char>(bytes, text, capacity, count);
  });
}

int reprise_is_end_of_generation(const reprise_model* model, int32_t token) {
  return model != nullptr && model->model.IsEndOfGeneration(token) ? 1 : 0;
}

}  // extern "C"
