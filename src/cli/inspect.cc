// `reprise inspect`: what a model or a capsule holds, every named state of it; or what this machine computes with.
#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>

#include "backend/devices.h"
#include "base/file.h"
#include "cli/capsule_file.h"
#include "cli/commands.h"
#include "cli/model_flags.h"
#include "cli/model_names.h"
#include "cli/output.h"
#include "cli/terminal.h"
#include "formats/gguf.h"
#include "formats/printable.h"
#include "session/chat_format.h"
#include "session/declare.h"

namespace reprise {
namespace {

struct InspectFlags {
  ModelFlags model;
  std::string file;
  bool devices = false;
  bool metadata = false;
  bool tensors = false;
  bool json = false;
};

std::string_view GrowthName(Growth growth) { return growth == Growth::kAppend ? "append" : "recurrent"; }
std::string_view SpaceName(Space space) { return space == Space::kHost ? "host" : "device"; }

void Line(std::string_view what, const std::string& value) {
  std::printf("  %-14s %s\n", std::string(what).c_str(), SafeForTerminal(value).c_str());
}

// ---- States, which models and capsules describe alike ----

Json StatesJson(const StateLayout& layout) {
  Json states = Json::array();
  for (const StateDecl& state : layout.states()) {
    states.push_back({{"name", state.name},
                      {"growth", GrowthName(state.growth)},
                      {"space", SpaceName(state.space)},
                      {"type", ElementTypeName(state.type)},
                      {"shape", state.shape},
                      {"bytes", state.bytes}});
  }
  return states;
}

Json LayoutJson(const StateLayout& layout) {
  return {{"row_bytes", layout.row_bytes()},
          {"recurrent_bytes", layout.recurrent_bytes()},
          {"block_bytes", {{"device", layout.block_bytes(Space::kDevice)}, {"host", layout.block_bytes(Space::kHost)}}},
          {"extent_rows", kExtentRows}};
}

std::string ShapeText(const std::vector<int64_t>& shape) { return fmt::format("[{}]", fmt::join(shape, ", ")); }

void PrintStates(const StateLayout& layout) {
  Line("recurrent", fmt::format("{} bytes; a block is {} bytes on the device, {} on the host", Grouped(layout.recurrent_bytes()),
                                Grouped(layout.block_bytes(Space::kDevice)), Grouped(layout.block_bytes(Space::kHost))));
  Line("append-only", fmt::format("{} bytes a position", Grouped(layout.row_bytes())));
  size_t width = 4;
  for (const StateDecl& state : layout.states()) width = std::max(width, state.name.size());
  std::printf("\n  %-*s  %-9s  %-6s  %-5s  %14s  %s\n", static_cast<int>(width), "STATE", "GROWTH", "SPACE", "TYPE", "BYTES", "SHAPE");
  for (const StateDecl& state : layout.states()) {
    std::printf("  %-*s  %-9s  %-6s  %-5s  %14s  %s\n", static_cast<int>(width), state.name.c_str(),
                std::string(GrowthName(state.growth)).c_str(), std::string(SpaceName(state.space)).c_str(),
                std::string(ElementTypeName(state.type)).c_str(), Grouped(state.bytes).c_str(), ShapeText(state.shape).c_str());
  }
  std::printf("\n  Bytes are of the whole state, or of one position's row where it is append-only.\n");
}

// ---- Models ----

struct TypeUse {
  uint64_t tensors = 0;
  uint64_t bytes = 0;
};

std::map<TensorType, TypeUse> TypesOf(const GgufFile& file) {
  std::map<TensorType, TypeUse> types;
  for (const GgufTensor& tensor : file.tensors()) {
    TypeUse& use = types[tensor.type];
    ++use.tensors;
    use.bytes += tensor.data.size();
  }
  return types;
}

// That one token is computed with.
uint64_t UsedParameters(const GgufFile& file, const NetworkInfo& network) {
  double used = 0;
  for (const GgufTensor& tensor : file.tensors()) used += network.UsedShare(tensor) * static_cast<double>(tensor.elements());
  return static_cast<uint64_t>(used);
}

Json FileJson(const InspectFlags& flags, const std::string& path, const GgufFile& file) {
  Json json = {{"file", path}, {"format", "gguf"}, {"version", file.version()}, {"bytes", file.bytes().size()}};
  uint64_t parameters = 0;
  for (const GgufTensor& tensor : file.tensors()) parameters += tensor.elements();
  const auto text = [&](std::string_view key) -> Json {
    const auto value = file.GetString(key);
    return value.ok() ? Json(std::string(*value)) : Json();
  };
  json["name"] = text("general.name");
  json["architecture"] = text("general.architecture");
  json["parameters"] = parameters;
  json["tensors"] = file.tensors().size();
  Json types = Json::object();
  for (const auto& [type, use] : TypesOf(file)) types[std::string(TensorTypeName(type))] = {{"tensors", use.tensors}, {"bytes", use.bytes}};
  json["types"] = types;
  if (flags.metadata) {
    Json metadata = Json::object();
    for (const GgufEntry& entry : file.metadata())
      metadata[std::string(entry.key)] = {{"type", entry.TypeName()}, {"value", entry.ShortValue()}};
    json["metadata"] = metadata;
  }
  if (flags.tensors) {
    Json list = Json::array();
    for (const GgufTensor& tensor : file.tensors()) {
      list.push_back({{"name", std::string(tensor.name)},
                      {"type", TensorTypeName(tensor.type)},
                      {"shape", std::vector<uint64_t>(tensor.dims.begin(), tensor.dims.begin() + tensor.n_dims)},
                      {"bytes", tensor.data.size()}});
    }
    json["tensor_list"] = list;
  }
  return json;
}

void PrintFile(const std::string& path, const GgufFile& file, const Json& json) {
  std::printf("%s: GGUF version %u, %s\n", SafeForTerminal(path).c_str(), file.version(), HumanBytes(file.bytes().size()).c_str());
  const auto text = [&](const char* key) {
    return json[key].is_string() ? Printable(json[key].get<std::string>()) : std::string("(not said)");
  };
  Line("name", text("name"));
  Line("architecture", text("architecture"));
  Line("parameters", Grouped(json["parameters"].get<uint64_t>()));
  std::string types;
  for (const auto& [type, use] : TypesOf(file)) {
    types += fmt::format("{}{} {} ({})", types.empty() ? "" : ", ", use.tensors, TensorTypeName(type), HumanBytes(use.bytes));
  }
  Line("tensors", fmt::format("{}: {}", file.tensors().size(), types));
}

Json TokenizerJson(const GgufFile& file, const ModelOutline& model) {
  if (!model.tokenizer) return {{"known", false}, {"reason", model.tokenizer_status.message()}};
  const Tokenizer& t = *model.tokenizer;
  const auto pre = file.GetStringOr("tokenizer.ggml.pre", "");
  constexpr const char* kKinds[] = {"byte-level BPE", "SentencePiece", "pieces merged by rank"};  // by VocabularyKind
  const char* kind = kKinds[static_cast<int>(t.kind())];
  Json json = {{"known", true},  {"kind", kind},   {"tokens", t.vocab_size()}, {"pre", pre.ok() ? std::string(*pre) : ""},
               {"bos", t.bos()}, {"eos", t.eos()}, {"eot", t.eot()},           {"add_bos", t.add_bos()}};
  const auto chat = ChatFormatOf(file, t);
  json["chat"] = chat.ok() ? Json(ChatStyleName(chat->style)) : Json();
  return json;
}

void PrintTokenizer(const Json& json) {
  if (!json["known"].get<bool>()) {
    Line("tokenizer", json["reason"].get<std::string>());
    return;
  }
  const auto id = [&](const char* key) { return json[key].get<int>() < 0 ? std::string("none") : std::to_string(json[key].get<int>()); };
  const std::string pre = Printable(json["pre"].get<std::string>());
  Line("tokenizer", fmt::format("{}{}, {} tokens; bos {}{}, eos {}, eot {}", json["kind"].get<std::string>(),
                                pre.empty() ? "" : " (" + pre + ")", Grouped(json["tokens"].get<uint64_t>()), id("bos"),
                                json["add_bos"].get<bool>() ? " (prepended)" : "", id("eos"), id("eot")));
  Line("chat", json["chat"].is_string() ? json["chat"].get<std::string>() : "no format that this build knows");
}

Result<int> InspectModel(const InspectFlags& flags, const std::string& path) {
  REPRISE_ASSIGN_OR_RETURN(const GgufFile file, GgufFile::Open(path));
  Json json = FileJson(flags, path, file);
  if (!flags.json) PrintFile(path, file, json);

  // States and fingerprint are those of the model as it would be loaded: nothing here lists them by hand.
  Progress progress("reading", flags.json);
  ModelOptions options = flags.model.Options();
  options.progress = progress.Callback();
  const auto model = OutlineModel(file, options);
  progress.Done();
  const Status unknown = model.ok() ? Ok() : model.status().Within("'" + path + "'");
  if (!unknown.ok() && unknown.code() != StatusCode::kUnsupported) return unknown;
  if (model.ok()) {
    const NetworkInfo& network = model->network;
    json["layers"] = network.layers;
    json["width"] = network.width;
    json["vocabulary"] = network.vocabulary;
    json["context"] = network.context;
    json["draft"] = network.has_draft;
    if (network.experts > 0) {
      json["experts"] = network.experts;
      json["experts_used"] = network.experts_used;
      json["used_parameters"] = UsedParameters(file, network);
    }
    json["tokenizer"] = TokenizerJson(file, *model);
    json["fingerprint"] = model->fingerprint.Hex();
    json["backend"] = model->backend;
    json.update(LayoutJson(model->layout));
    json["states"] = StatesJson(model->layout);
    if (!flags.json) {
      Line("network", fmt::format("{} layers, {} wide, vocabulary of {}, made for {} positions{}", network.layers, network.width,
                                  Grouped(static_cast<uint64_t>(network.vocabulary)), Grouped(static_cast<uint64_t>(network.context)),
                                  network.has_draft ? ", with a draft block (MTP)" : ""));
      if (network.experts > 0) {
        Line("experts", fmt::format("{}, of which a token uses {} in a layer: {} parameters in all", network.experts, network.experts_used,
                                    Grouped(json["used_parameters"].get<uint64_t>())));
      }
      PrintTokenizer(json["tokenizer"]);
      Line("fingerprint", model->fingerprint.Hex());
      PrintStates(model->layout);
    }
  } else {
    json["states"] = nullptr;
    json["unsupported"] = unknown.message();
    if (!flags.json) Line("states", "unknown: " + unknown.message());
  }
  if (flags.json) {
    PrintJson(json);
    return kExitOk;
  }
  if (flags.metadata) {
    std::printf("\n  METADATA\n");
    for (const GgufEntry& entry : file.metadata()) {
      std::printf("  %s (%s) = %s\n", Printable(entry.key).c_str(), entry.TypeName().c_str(), entry.ShortValue(100).c_str());
    }
  }
  if (flags.tensors) {
    std::printf("\n  TENSORS\n");
    for (const GgufTensor& tensor : file.tensors()) {
      std::printf("  %-40s %-6s %14s  %s\n", Printable(tensor.name).c_str(), std::string(TensorTypeName(tensor.type)).c_str(),
                  Grouped(tensor.data.size()).c_str(), tensor.Shape().c_str());
    }
  }
  return kExitOk;
}

// ---- Capsules ----

Result<int> InspectCapsule(const InspectFlags& flags, std::span<const std::byte> bytes) {
  auto summary = SummariseCapsule(bytes);
  if (!summary.ok()) return summary.status().Within("'" + flags.file + "'");
  // What a capsule says of itself is whatever its writer wrote.
  const Json parsed = Json::parse(summary->metadata, nullptr, /*allow_exceptions=*/false);
  const Json metadata = parsed.is_discarded() ? Json(summary->metadata) : parsed;
  if (flags.json) {
    Json json = {{"file", flags.file},    {"format", "capsule"},           {"version", summary->version},
                 {"bytes", bytes.size()}, {"position", summary->position}, {"fingerprint", summary->fingerprint.Hex()},
                 {"metadata", metadata}};
    json.update(LayoutJson(summary->layout));
    json["states"] = StatesJson(summary->layout);
    for (size_t i = 0; i < summary->payload_bytes.size(); ++i) json["states"][i]["payload_bytes"] = summary->payload_bytes[i];
    PrintJson(json);
    return kExitOk;
  }
  std::printf("%s: capsule version %u, %s\n", SafeForTerminal(flags.file).c_str(), summary->version, HumanBytes(bytes.size()).c_str());
  Line("position", Grouped(static_cast<uint64_t>(summary->position)));
  if (metadata.is_object()) {
    for (const auto& [key, value] : metadata.items()) {
      const std::string text = value.is_string() ? value.get<std::string>() : value.dump(-1, ' ', true, Json::error_handler_t::replace);
      Line(Printable(key, 14), Printable(text, 100));
    }
  } else if (!summary->metadata.empty()) {
    Line("metadata", Printable(summary->metadata, 100));
  }
  Line("fingerprint", summary->fingerprint.Hex());
  PrintStates(summary->layout);
  return kExitOk;
}

// ---- Devices ----

Result<int> ListDevices(const InspectFlags& flags) {
  REPRISE_ASSIGN_OR_RETURN(const auto best, MakeCpuBackend());
  Json sets = Json::array();
  for (const std::string& name : CpuInstructionSets()) {
    CpuOptions options;
    options.threads = 1;
    options.isa = name;
    REPRISE_ASSIGN_OR_RETURN(const auto backend, MakeCpuBackend(options));
    sets.push_back({{"name", name}, {"numerics", backend->numerics()}});
  }
  if (flags.json) {
    PrintJson({{"devices", Json::array({{{"backend", best->name()},
                                         {"description", best->description()},
                                         {"threads", best->threads()},
                                         {"numerics", best->numerics()},
                                         {"instruction_sets", sets}}})},
               {"gpus", ListedDevices()}});
    return kExitOk;
  }
  std::printf("%s: %s\n", std::string(best->name()).c_str(), best->description().c_str());
  for (const Json& set : sets) {
    const bool same = set["numerics"] == best->numerics();
    std::printf("  --isa %-12s %s\n", set["name"].get<std::string>().c_str(),
                same ? "capsules are exchanged with the default" : "computes other bits than the default");
  }
  for (const std::string& line : ListedDevices()) std::printf("%s\n", line.c_str());
  return kExitOk;
}

Result<int> Inspect(const InspectFlags& flags) {
  if (flags.devices) return ListDevices(flags);
  REPRISE_ASSIGN_OR_RETURN(const std::string path, FindModelFile(flags.file));
  REPRISE_ASSIGN_OR_RETURN(const MappedFile file, MappedFile::Open(path));
  return LooksLikeCapsule(file.bytes()) ? InspectCapsule(flags, file.bytes()) : InspectModel(flags, path);
}

}  // namespace

void AddInspectCommand(CLI::App& app, Action& action) {
  auto flags = std::make_shared<InspectFlags>();
  CLI::App* command = app.add_subcommand("inspect", "Shows what a model or a capsule holds: every named state, bytes, fingerprint");
  auto* file = command->add_option("FILE", flags->file, "A model (GGUF), a known name, or a capsule");
  auto* devices = command->add_flag("--devices", flags->devices, "What this machine computes with");
  command->add_flag("--metadata", flags->metadata, "Of a model: every key of the file too");
  command->add_flag("--tensors", flags->tensors, "Of a model: every tensor too");
  AddKeyValueFlag(*command, flags->model);
  command->add_flag("--json", flags->json, "Print one JSON object");
  file->excludes(devices);
  command->callback([flags, file, devices, &action] {
    if (file->empty() && devices->empty()) throw CLI::RequiredError("FILE (or --devices)");
    action = [flags] { return Inspect(*flags); };
  });
}

}  // namespace reprise
