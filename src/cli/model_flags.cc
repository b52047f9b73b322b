#include "cli/model_flags.h"

#include <filesystem>

#include "cli/flags.h"
#include "cli/model_names.h"
#include "cli/terminal.h"

namespace reprise {

ModelOptions ModelFlags::Options() const {
  ModelOptions options;
  options.threads = threads.value_or(options.threads);
  options.context = context.value_or(options.context);
  options.lanes = lanes.value_or(options.lanes);
  options.capsules = capsules.value_or(options.capsules);
  options.chunk = chunk.value_or(options.chunk);
  options.kv = kv == "f32"    ? KeyValueType::kF32
               : kv == "f16"  ? KeyValueType::kF16
               : kv == "q8_0" ? KeyValueType::kQ8_0
                              : KeyValueType::kAuto;
  options.instruction_set = instruction_set;
  options.device = device;
  if (spill) options.spill_budget = (size_t{1} << 20) * static_cast<size_t>(*spill);
  options.pin_threads = pin_threads;
  return options;
}

void AddModelFlag(CLI::App& command, ModelFlags& flags) {
  command
      .add_option("-m,--model", flags.model,
                  "A GGUF file or a known name (reprise-austen, smollm2-135m); without it the embedded model runs")
      ->type_name("MODEL")
      ->group("Model");
}

CLI::Option* AddKeyValueFlag(CLI::App& command, ModelFlags& flags) {
  return command
      .add_option(
          "--kv", flags.kv,
          "How keys and values are kept (auto: f32 for a model of f32 weights, f16 otherwise); q8_0 takes about half of f16's memory")
      ->type_name("TYPE")
      ->check(CLI::IsMember({"auto", "f16", "f32", "q8_0"}));
}

void AddModelFlags(CLI::App& command, ModelFlags& flags) {
  AddModelFlag(command, flags);
  const auto number = [&](const char* name, std::optional<int>& value, const char* type, const char* help, int min, int max) {
    command.add_option(name, value, help)->type_name(type)->check(Bounded(min, max))->group("Model");
  };
  number("-t,--threads", flags.threads, "N", "Threads that compute; without it one for each processor. Results do not depend on it", 1,
         1024);
  number("--context", flags.context, "N", "Most tokens of a context; without it what the model was made for, at most 32768", 1, 1 << 20);
  number("--lanes", flags.lanes, "N", "Lines of thought that can be live at once (8)", 1, 256);
  number("--capsules", flags.capsules, "N", "Recurrent states kept for capsules and checkpoints (64)", 0, 1 << 20);
  number("--chunk", flags.chunk, "N", "Most tokens of one step (256). Results do not depend on it", 1, 4096);
  AddKeyValueFlag(command, flags)->group("Model");
  command.add_option("--isa", flags.instruction_set, "Forces an instruction set; 'reprise inspect --devices' lists those of this machine")
      ->type_name("NAME")
      ->group("Model");
  command.add_option("--device", flags.device, "What computes: cpu, cuda or cuda:N (cpu)")->type_name("DEVICE")->group("Model");
  number("--spill", flags.spill, "MIB", "Mebibytes of host memory for state that the GPU's has no room for (0)", 0, 1 << 30);
  command.add_flag("--pin-threads", flags.pin_threads, "Ties each thread to a processor of its own")->group("Model");
}

Result<Model> LoadModel(const ModelFlags& flags, const ModelOptions& options, bool quiet) {
  REPRISE_ASSIGN_OR_RETURN(const std::string file, FindModelFile(flags.model));
  Progress progress("loading", quiet);
  ModelOptions with_progress = options;
  with_progress.progress = progress.Callback();
  return Model::Load(file, with_progress);
}

std::string ModelTitle(const ModelInfo& info) { return info.name.empty() ? std::filesystem::path(info.path).stem().string() : info.name; }

}  // namespace reprise
