// `reprise run`: a prompt in, text out; from a capsule and into one; or several futures of one prompt at once.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <memory>

#include "cli/capsule_file.h"
#include "cli/commands.h"
#include "cli/flags.h"
#include "cli/generation.h"
#include "cli/model_flags.h"
#include "cli/output.h"
#include "cli/prompt_flags.h"
#include "cli/sampling_flags.h"
#include "cli/store_flags.h"
#include "cli/terminal.h"
#include "reprise/session.h"
#include "session/chat_format.h"
#include "session/engine.h"

namespace reprise {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int kMostTokens = 1 << 20;

struct RunFlags {
  ModelFlags model;
  PromptFlags prompt;
  SamplingFlags sampling;
  StoreFlags store;
  int max_tokens = 128;
  bool raw = false;
  bool chat = false;
  bool special = false;
  std::string system;
  std::string load_capsule;
  std::string save_capsule;
  int branches = 0;
  int draft = 0;
  bool json = false;
};

double MillisecondsSince(Clock::time_point start) { return std::chrono::duration<double, std::milli>(Clock::now() - start).count(); }

// What a run tells of itself.
struct Report {
  size_t prompt_tokens = 0;
  PrefillReport prefill;
  double load_ms = 0;
  double prefill_ms = 0;
};

Result<std::vector<int32_t>> PromptTokens(const RunFlags& flags, const Model& model, bool continues, std::vector<Boundary>& boundaries) {
  REPRISE_ASSIGN_OR_RETURN(const std::string text, ReadPrompt(flags.prompt));
  if (flags.chat) {
    REPRISE_ASSIGN_OR_RETURN(const ChatFormat format, ChatFormatOf(model));
    std::vector<ChatMessage> messages;
    if (!flags.system.empty()) messages.push_back({"system", flags.system});
    messages.push_back({"user", text});
    REPRISE_ASSIGN_OR_RETURN(std::vector<int32_t> tokens, EncodeChatFor(model, format, messages));
    boundaries = BoundariesOf(model, format, messages, {}, tokens);
    return tokens;
  }
  // Only a text that begins a context begins with bos.
  REPRISE_ASSIGN_OR_RETURN(const Tokenizer* tokenizer, model.engine().tokenizer());
  return tokenizer->Encode(text, {.add_bos = tokenizer->add_bos() && !continues, .parse_special = flags.special, .continues = continues});
}

Status LoadCapsule(const RunFlags& flags, const Model& model, Session& session, Report& report) {
  REPRISE_ASSIGN_OR_RETURN(const auto bytes, ReadCapsuleFile(flags.load_capsule));
  auto capsule = model.ImportCapsule(bytes);
  if (!capsule.ok()) return capsule.status().Within("'" + flags.load_capsule + "'");
  REPRISE_RETURN_IF_ERROR(session.Restore(*capsule));
  report.prefill.reused = session.position();
  return Ok();
}

Status FeedPrompt(const RunFlags& flags, const Model& model, Session& session, const std::atomic<bool>& interrupted, Report& report) {
  const bool continues = !flags.load_capsule.empty();
  PrefillOptions options;
  REPRISE_ASSIGN_OR_RETURN(const std::vector<int32_t> tokens, PromptTokens(flags, model, continues, options.boundaries));
  report.prompt_tokens = tokens.size();
  if (tokens.empty()) return continues ? Ok() : InvalidArgument("the prompt is empty, and leaves nothing to continue");
  Progress progress("reading the prompt", flags.json);
  options.cancel = &interrupted;
  options.progress = [&](int done, int total) {
    progress.Update(static_cast<double>(done) / total, fmt::format("{} of {} tokens", done, total));
  };
  if (continues) {
    report.prefill.computed = static_cast<int>(tokens.size()) + (session.pending_token() >= 0 ? 1 : 0);
    return session.Append(tokens, options);
  }
  REPRISE_ASSIGN_OR_RETURN(report.prefill, session.Prefill(tokens, options));
  return Ok();
}

Json CommonJson(const Model& model, const Report& report) {
  const ModelInfo& info = model.info();
  Json json = {{"model", ModelTitle(info)},
               {"architecture", info.architecture},
               {"fingerprint", info.fingerprint.Hex()},
               {"prompt_tokens", report.prompt_tokens},
               {"reused", report.prefill.reused},
               {"computed", report.prefill.computed}};
  if (model.store() != nullptr) AddReuse(json, report.prefill);
  return json;
}

Json GenerationJson(const Generation& generation) {
  return {{"generated", generation.tokens},
          {"text", generation.text},
          {"finish", FinishName(generation.finish)},
          {"context_full", generation.context_full}};
}

void ShowSummary(const RunFlags& flags, const Report& report, size_t tokens, double seconds, const Model& model) {
  if (flags.json || !StderrIsTerminal()) return;
  std::fprintf(stderr, "%s\n",
               SafeForTerminal(fmt::format("[{}; read in {:.0f} ms; {} generated, {:.1f} tokens/s; {} on {}]", ReuseNote(report.prefill),
                                           report.prefill_ms, tokens, seconds > 0 ? static_cast<double>(tokens) / seconds : 0.0,
                                           ModelTitle(model.info()), model.info().backend))
                   .c_str());
}

void ShowFullContext(const RunFlags& flags, const Model& model) {
  if (flags.json) return;
  std::fprintf(stderr, "reprise run: stopped at the end of the context of %d positions; --context makes it longer\n", model.info().context);
}

Result<int> RunBranches(const RunFlags& flags, const Model& model, Session& session, const std::atomic<bool>& interrupted,
                        const Report& report) {
  const Clock::time_point fork_start = Clock::now();
  const Capsule here = session.Snapshot();
  REPRISE_ASSIGN_OR_RETURN(std::vector<Session> branches, session.Fork(here, flags.branches));
  const double fork_us = MillisecondsSince(fork_start) * 1000;
  const SamplingOptions base = session.sampling();
  for (size_t i = 0; i < branches.size(); ++i) {
    SamplingOptions options = base;
    options.seed += i;
    REPRISE_RETURN_IF_ERROR(branches[i].SetSampling(options));
  }
  Progress progress(fmt::format("{} futures", branches.size()), flags.json);
  GenerationOptions options;
  options.max_tokens = flags.max_tokens;
  options.cancel = &interrupted;
  const Clock::time_point start = Clock::now();
  REPRISE_ASSIGN_OR_RETURN(const auto generations, GenerateBatch(branches, options, [&](int count) {
                             progress.Update(static_cast<double>(count) / flags.max_tokens);
                           }));
  const double seconds = MillisecondsSince(start) / 1000;
  progress.Done();

  size_t total = 0;
  bool cancelled = false;
  bool full = false;
  Json list = Json::array();
  for (size_t i = 0; i < generations.size(); ++i) {
    total += generations[i].tokens.size();
    cancelled |= generations[i].finish == Finish::kCancelled;
    full |= generations[i].context_full;
    const uint64_t seed = base.seed + i;
    if (flags.json) {
      Json entry = {{"seed", seed}};
      entry.update(GenerationJson(generations[i]));
      list.push_back(std::move(entry));
      continue;
    }
    ShowText(fmt::format("{}── {} of {} · seed {} ──\n", i > 0 ? "\n" : "", i + 1, generations.size(), seed));
    ShowText(generations[i].text);
    ShowText("\n");
  }
  if (flags.json) {
    Json json = CommonJson(model, report);
    json["branches"] = std::move(list);
    json["load_ms"] = report.load_ms;
    json["prefill_ms"] = report.prefill_ms;
    json["fork_us"] = fork_us;
    json["decode_ms"] = seconds * 1000;
    json["decode_tokens_per_s"] = seconds > 0 ? static_cast<double>(total) / seconds : 0.0;
    PrintJson(json);
  }
  ShowSummary(flags, report, total, seconds, model);
  if (full) ShowFullContext(flags, model);
  return cancelled ? kExitInterrupted : kExitOk;
}

Result<int> RunOne(const RunFlags& flags, const Model& model, Session& session, const std::atomic<bool>& interrupted,
                   const Report& report) {
  if (flags.draft > 0) REPRISE_RETURN_IF_ERROR(session.SetSpeculation({.draft = flags.draft}));
  GenerationOptions options;
  options.max_tokens = flags.max_tokens;
  options.cancel = &interrupted;
  options.flush = flags.save_capsule.empty();
  if (!flags.json) options.show = [](std::string_view text) { ShowText(text); };
  REPRISE_ASSIGN_OR_RETURN(const Generation generation, GenerateOne(session, options));
  REPRISE_RETURN_IF_ERROR(session.EndReply());
  if (!flags.json && !generation.text.empty() && generation.text.back() != '\n') ShowText("\n");

  Json json = CommonJson(model, report);
  json.update(GenerationJson(generation));
  json["position"] = session.position();
  json["load_ms"] = report.load_ms;
  json["prefill_ms"] = report.prefill_ms;
  json["decode_ms"] = generation.seconds * 1000;
  json["decode_tokens_per_s"] = generation.tokens_per_second();
  if (flags.draft > 0) {
    const SpeculationStats stats = session.speculation_stats();
    json["draft"] = {{"steps", stats.steps}, {"drafted", stats.drafted}, {"accepted", stats.accepted}};
  }
  if (!flags.save_capsule.empty()) {
    const Clock::time_point start = Clock::now();
    REPRISE_ASSIGN_OR_RETURN(const auto bytes, session.Export(session.Snapshot()));
    REPRISE_RETURN_IF_ERROR(WriteCapsuleFile(flags.save_capsule, bytes));
    json["saved"] = {{"file", flags.save_capsule}, {"bytes", bytes.size()}, {"ms", MillisecondsSince(start)}};
  }
  if (flags.json) PrintJson(json);
  ShowSummary(flags, report, generation.tokens.size(), generation.seconds, model);
  if (generation.context_full) ShowFullContext(flags, model);
  return generation.finish == Finish::kCancelled ? kExitInterrupted : kExitOk;
}

Result<int> Run(const RunFlags& flags) {
  const std::atomic<bool>& interrupted = CatchInterrupt();
  Report report;
  const Clock::time_point load_start = Clock::now();
  ModelOptions model_options = flags.model.Options();
  // The prompt's own session lives beside its branches.
  if (flags.branches > 0 && !flags.model.lanes) model_options.lanes = std::max(model_options.lanes, flags.branches + 1);
  model_options.store = flags.store.Options();
  REPRISE_ASSIGN_OR_RETURN(const Model model, LoadModel(flags.model, model_options, flags.json));
  report.load_ms = MillisecondsSince(load_start);
  if (model.store() != nullptr && !flags.json && StderrIsTerminal()) {
    std::fprintf(stderr, "%s\n", SafeForTerminal(StoreTitle(flags.store, *model.store())).c_str());
  }
  REPRISE_ASSIGN_OR_RETURN(Session session, model.NewSession());

  if (!flags.load_capsule.empty()) REPRISE_RETURN_IF_ERROR(LoadCapsule(flags, model, session, report));
  if (flags.prompt.given()) {
    const Clock::time_point prefill_start = Clock::now();
    const Status status = FeedPrompt(flags, model, session, interrupted, report);
    if (status.code() == StatusCode::kCancelled) {
      std::fprintf(stderr, "reprise run: %s\n", status.message().c_str());
      return kExitInterrupted;
    }
    REPRISE_RETURN_IF_ERROR(status);
    report.prefill_ms = MillisecondsSince(prefill_start);
  }
  // A capsule goes on with the options, and the generator, that it was taken with.
  if (flags.sampling.any()) REPRISE_RETURN_IF_ERROR(session.SetSampling(flags.sampling.Over(session.sampling())));
  auto code =
      flags.branches > 0 ? RunBranches(flags, model, session, interrupted, report) : RunOne(flags, model, session, interrupted, report);
  if (model.store() != nullptr) REPRISE_RETURN_IF_ERROR(model.store()->Flush());
  ShowNotices("run", model);
  return code;
}

}  // namespace

void AddRunCommand(CLI::App& app, Action& action) {
  auto flags = std::make_shared<RunFlags>();
  CLI::App* command = app.add_subcommand("run", "Continues a prompt");
  command->footer(
      "Text goes to stdout as it is generated. Tokens are chosen greedily unless --temp says otherwise.\n"
      "With --json: {model, prompt_tokens, reused, computed, generated: [ids], text, finish, position, load_ms, prefill_ms, decode_ms,\n"
      "decode_tokens_per_s}; with --branches the list \"branches\" holds seed, generated, text and finish of each; with --store also "
      "tier,\n"
      "known, diverged_from and reason: where the reused tokens came from, and why there were not more.");
  AddPromptFlags(*command, flags->prompt);
  auto* raw = command->add_flag("--raw", flags->raw, "The prompt is text to be continued as it is (the default)")->group("Prompt");
  auto* chat = command->add_flag("--chat", flags->chat, "The prompt is a question, put in the model's chat format")->group("Prompt");
  auto* system =
      command->add_option("--system", flags->system, "With --chat: what the system message says")->type_name("TEXT")->group("Prompt");
  auto* special =
      command->add_flag("--special", flags->special, "Control tokens written in the prompt become those tokens")->group("Prompt");
  raw->excludes(chat);
  system->needs(chat);
  special->excludes(chat);
  command->add_option("-n,--tokens", flags->max_tokens, "Most tokens to generate")
      ->type_name("N")
      ->check(Bounded(0, kMostTokens))
      ->capture_default_str();
  auto* load = command->add_option("--load-capsule", flags->load_capsule, "Go on from a capsule; a prompt is added to what it holds")
                   ->type_name("FILE");
  auto* save = command->add_option("--save-capsule", flags->save_capsule, "Keep everything in a capsule afterwards")->type_name("FILE");
  auto* branches =
      command->add_option("--branches", flags->branches, "Fork the prompt N ways, with the seeds that follow --seed, as one batch")
          ->type_name("N")
          ->check(Bounded(1, 255));
  auto* draft = command->add_option("--draft", flags->draft, "Guess up to N tokens a step and check them together; only the speed changes")
                    ->type_name("N")
                    ->check(Bounded(0, Speculation::kMostDraft));
  draft->excludes(branches);
  load->excludes(chat);
  save->excludes(branches);
  command->add_flag("--json", flags->json, "Print one JSON object");
  AddStoreFlags(*command, flags->store);
  AddSamplingFlags(*command, flags->sampling);
  AddModelFlags(*command, flags->model);
  command->callback([flags, &action] {
    if (!flags->prompt.given() && flags->load_capsule.empty()) throw CLI::RequiredError("-p TEXT, -f FILE or --load-capsule FILE");
    action = [flags] { return Run(*flags); };
  });
}

}  // namespace reprise
