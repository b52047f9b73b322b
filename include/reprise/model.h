// Model: a loaded model file, its memory, and the sessions that run on it.
//
// Load maps the file, packs its weights for the processor, captures the plans of every step shape, and sizes every pool; after that, running
// allocates nothing. A Model is a handle: copies share one model, which is freed with the last copy, session and capsule.
//
// Thread-safety: a model and all its sessions are used by one thread at a time. Only info(), the tokenizer calls, dropping or copying
// capsules, and the store (but for two calls, see store.h) are safe beside a running session.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "reprise/capsule.h"
#include "reprise/status.h"
#include "reprise/store.h"

namespace reprise {

class Engine;
class Session;

// How keys and values are kept. kAuto: as float32 for a model whose own weights are float32, as float16 for every other. kQ8_0: as blocks of
// 32 int8 under a half-precision scale, about half of float16's bytes, for heads whose width is a multiple of 32.
enum class KeyValueType { kAuto, kF16, kF32, kQ8_0 };

struct ModelOptions {
  std::string device = {};  // what computes: "" or "cpu", "cuda", "cuda:1"; see `reprise inspect --devices`
  int threads = 0;          // 0: one for each processor that this process may use
  bool pin_threads = false;
  int context = 0;    // most positions of a session; 0: what the model was made for, at most 32,768
  int lanes = 8;      // sessions that can be live at once
  int capsules = 64;  // recurrent blocks kept for capsules, beside the lanes' own; fewer if the budget asks for it
  size_t state_budget =
      0;  // bytes of state in all, logs for rollbacks included; 0: half of this machine's memory. Pages are used as they are first touched
  size_t spill_budget = 0;  // bytes of pinned host memory for state that a device has no room for; 0: none. Refused for the CPU
  int chunk = 256;          // most tokens of one step; results do not depend on it
  KeyValueType kv = KeyValueType::kAuto;               // part of the fingerprint
  std::string instruction_set = {};                    // "" picks the best this processor has; see `reprise inspect --devices`
  std::function<void(double fraction)> progress = {};  // called from the loading thread
  std::optional<StoreOptions> store = {};              // where capsules live when no session holds them; none: they do not
};

struct SessionOptions {
  std::string name_space = {};  // what the session puts into the store, and finds there, is of this namespace alone
};

struct ModelInfo {
  std::string path;
  std::string name;
  std::string architecture;
  uint64_t parameters = 0;
  uint64_t used_parameters = 0;  // by one token: fewer where there are experts
  int experts = 0;               // of a mixture; 0: none
  int experts_used = 0;          // by one token, in a layer
  uint64_t file_bytes = 0;
  int layers = 0;
  int width = 0;
  int vocabulary = 0;
  int context = 0;  // of sessions here
  int lanes = 0;
  int capsules = 0;
  bool has_draft = false;  // carries a block that foretells the token after next (MTP)
  std::string backend;     // "cpu (avx512vnni, 2 threads)"
  Fingerprint fingerprint;
  uint64_t weight_bytes = 0;  // that a decode step reads
};

class Model {
 public:
  // `path` is a GGUF file. Errors say what is wrong with the file, or which memory could not be had.
  static Result<Model> Load(const std::string& path, const ModelOptions& options = {});

  const ModelInfo& info() const;
  const StateLayout& layout() const;

  // A session at position 0. kExhausted when `lanes` sessions are live.
  Result<Session> NewSession(const SessionOptions& options = {}) const;

  // The store that was asked for when loading, or null. It lives as long as the model.
  CapsuleStore* store() const;

  // Text to tokens. Control tokens written in `text` become those tokens only with `parse_special`. kUnsupported when the file has no
  // tokenizer, or one this build does not know.
  Result<std::vector<int32_t>> Tokenize(std::string_view text, bool parse_special = false) const;
  Result<std::string> Detokenize(std::span<const int32_t> tokens) const;
  bool IsEndOfGeneration(int32_t token) const;

  // A capsule of this model from bytes that Capsule::Serialize wrote, here or anywhere. Refused, with nothing changed, unless whole and taken
  // on a model of the same fingerprint.
  Result<Capsule> ImportCapsule(std::span<const std::byte> bytes) const;

  Engine& engine() const { return *engine_; }  // for Reprise's own programs

 private:
  explicit Model(std::shared_ptr<Engine> engine) : engine_(std::move(engine)) {}
  std::shared_ptr<Engine> engine_;
};

}  // namespace reprise
