// `reprise synth`: a model file of a real shape with random weights.
#include "models/synth.h"

#include <fmt/format.h>

#include <cstdio>
#include <filesystem>
#include <memory>

#include "cli/commands.h"
#include "cli/flags.h"
#include "cli/output.h"
#include "cli/terminal.h"

namespace reprise {
namespace {

struct SynthFlags {
  std::string shape;
  std::string file;
  std::string type = "q8_0";
  bool mtp = false;
  uint64_t seed = 1;
  bool list = false;
  bool json = false;
};

Result<int> ListShapes(bool json) {
  Json list = Json::array();
  if (!json) std::printf("%-18s %-13s %7s %7s %7s %12s\n", "SHAPE", "ARCH", "LAYERS", "WIDTH", "VOCAB", "BYTES (Q8_0)");
  for (const SynthShape& shape : SynthShapes()) {
    REPRISE_ASSIGN_OR_RETURN(const uint64_t bytes, SynthesizedBytes({.shape = std::string(shape.name)}));
    if (json) {
      list.push_back({{"name", shape.name},
                      {"architecture", shape.architecture},
                      {"layers", shape.layers},
                      {"width", shape.width},
                      {"vocabulary", shape.vocabulary},
                      {"context", shape.context},
                      {"bytes_q8_0", bytes}});
    } else {
      std::printf("%-18s %-13s %7d %7d %7d %12s\n", std::string(shape.name).c_str(), std::string(shape.architecture).c_str(), shape.layers,
                  shape.width, shape.vocabulary, HumanBytes(bytes).c_str());
    }
  }
  if (json) PrintJson({{"shapes", list}});
  return kExitOk;
}

Result<int> Synth(const SynthFlags& flags) {
  if (flags.list) return ListShapes(flags.json);
  SynthOptions options;
  options.shape = flags.shape;
  options.mtp = flags.mtp;
  options.seed = flags.seed;
  REPRISE_ASSIGN_OR_RETURN(options.type, TensorTypeFromName(flags.type == "q4_k_m" ? "q4_k" : flags.type));
  REPRISE_ASSIGN_OR_RETURN(const uint64_t bytes, SynthesizedBytes(options));
  const std::atomic<bool>& interrupted = CatchInterrupt();
  Progress progress("writing", flags.json);
  const Status status = Synthesize(options, flags.file, [&](uint64_t written, uint64_t total) {
    progress.Update(static_cast<double>(written) / static_cast<double>(total), HumanBytes(written));
    return !interrupted.load(std::memory_order_relaxed);
  });
  progress.Done();
  if (status.code() == StatusCode::kCancelled) return kExitInterrupted;
  REPRISE_RETURN_IF_ERROR(status);
  std::error_code error;
  const uint64_t size = std::filesystem::file_size(flags.file, error);
  if (flags.json) {
    PrintJson({{"file", flags.file},
               {"shape", flags.shape},
               {"type", TensorTypeName(options.type)},
               {"mtp", flags.mtp},
               {"seed", flags.seed},
               {"bytes", error ? bytes : size}});
  } else {
    std::printf("%s: %s, %s, %s\n", flags.file.c_str(), flags.shape.c_str(), std::string(TensorTypeName(options.type)).c_str(),
                HumanBytes(error ? bytes : size).c_str());
  }
  return kExitOk;
}

}  // namespace

void AddSynthCommand(CLI::App& app, Action& action) {
  auto flags = std::make_shared<SynthFlags>();
  CLI::App* command = app.add_subcommand("synth", "Writes a model of a real shape with random weights, for timing");
  command->footer("The same shape, type and seed give the same bytes on every machine.");
  auto* shape = command->add_option("SHAPE", flags->shape, "Which shape; --list shows them");
  auto* file = command->add_option("OUT.gguf", flags->file, "The file to write");
  command->add_option("--type", flags->type, "Of the matrices")
      ->type_name("TYPE")
      ->check(CLI::IsMember({"q8_0", "q4_0", "q4_1", "q4_k_m", "mxfp4", "f16", "bf16", "f32"}))
      ->capture_default_str();
  command->add_flag("--mtp", flags->mtp, "Add a block that predicts the token after next (qwen35 shapes)");
  command->add_option("--seed", flags->seed, "Of the random weights")->type_name("N")->check(WholeNumber())->capture_default_str();
  auto* list = command->add_flag("--list", flags->list, "Which shapes there are");
  command->add_flag("--json", flags->json, "Print one JSON object");
  command->callback([flags, shape, file, list, &action] {
    if (list->empty() && (shape->empty() || file->empty())) throw CLI::RequiredError("SHAPE and OUT.gguf (or --list)");
    action = [flags] { return Synth(*flags); };
  });
}

}  // namespace reprise
