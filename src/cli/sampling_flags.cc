#include "cli/sampling_flags.h"

#include <limits>

#include "cli/flags.h"
#include "cli/prompt_flags.h"

namespace reprise {
namespace {

constexpr int kMostTokens = std::numeric_limits<int>::max();
constexpr float kLargest = 1e6F;  // of a temperature or penalty: far beyond any use

}  // namespace

bool SamplingFlags::any() const {
  return temperature || top_p || min_p || repetition_penalty || presence_penalty || frequency_penalty || top_k || penalty_window || seed ||
         !stop.empty() || grammar;
}

SamplingOptions SamplingFlags::Over(SamplingOptions base) const {
  base.temperature = temperature.value_or(base.temperature);
  base.top_k = top_k.value_or(base.top_k);
  base.top_p = top_p.value_or(base.top_p);
  base.min_p = min_p.value_or(base.min_p);
  base.repetition_penalty = repetition_penalty.value_or(base.repetition_penalty);
  base.presence_penalty = presence_penalty.value_or(base.presence_penalty);
  base.frequency_penalty = frequency_penalty.value_or(base.frequency_penalty);
  base.penalty_window = penalty_window.value_or(base.penalty_window);
  base.seed = seed.value_or(base.seed);
  if (!stop.empty()) base.stop = stop;
  base.grammar = grammar.value_or(Grammar());  // the one before has begun its text already
  return base;
}

void AddSamplingFlags(CLI::App& command, SamplingFlags& flags) {
  const auto add = [&](const char* name, auto& value, const char* type, const char* help, auto min, auto max) {
    command.add_option(name, value, help)->type_name(type)->check(Bounded(min, max))->group("Sampling");
  };
  add("--temp", flags.temperature, "X", "Temperature; 0 takes the most likely token", 0.0F, kLargest);
  add("--top-k", flags.top_k, "N", "Keep the N most likely tokens; 0 keeps all", 0, kMostTokens);
  add("--top-p", flags.top_p, "P", "Of those, keep the fewest that reach probability P together; 1 keeps all", 0.0F, 1.0F);
  add("--min-p", flags.min_p, "P", "Of those, keep the ones at least P times as likely as the most likely; 0 keeps all", 0.0F, 1.0F);
  add("--repeat-penalty", flags.repetition_penalty, "X", "Divides the logits of recent tokens; 1 is off", 1e-6F, kLargest);
  add("--presence-penalty", flags.presence_penalty, "X", "Taken once from the logit of each recent token; 0 is off", -kLargest, kLargest);
  add("--frequency-penalty", flags.frequency_penalty, "X", "Taken as often as the token occurs; 0 is off", -kLargest, kLargest);
  add("--penalty-window", flags.penalty_window, "N", "How many tokens count as recent (64); -1 for all", -1, kMostTokens);
  command.add_option("--seed", flags.seed, "The same seed draws the same tokens")->type_name("N")->check(WholeNumber())->group("Sampling");
  command.add_option("--stop", flags.stop, "Text that ends the answer and is not shown; may be given up to 16 times")
      ->type_name("TEXT")
      ->allow_extra_args(false)
      ->group("Sampling");
  const auto read_schema = [&flags](const std::string& path) {
    const auto schema = ReadPrompt({.text = {}, .file = path});
    auto grammar = schema.ok() ? Grammar::JsonSchema(*schema) : Result<Grammar>(schema.status());
    if (!grammar.ok()) throw CLI::ValidationError("--json-schema", grammar.status().message());
    flags.grammar = *std::move(grammar);
  };
  command.add_option_function<std::string>("--json-schema", read_schema, "The answer is JSON that this schema describes")
      ->type_name("FILE")
      ->group("Sampling");
}

}  // namespace reprise
