// `reprise eval`: token ids in, logits out. What tests, goldens and quality measurements are made with.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <memory>
#include <optional>

#include "base/atomic_file.h"
#include "cli/commands.h"
#include "cli/flags.h"
#include "cli/model_flags.h"
#include "cli/output.h"
#include "cli/terminal.h"
#include "cli/token_file.h"
#include "session/engine.h"

namespace reprise {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int kMostTokens = 1 << 20;

struct EvalFlags {
  ModelFlags model;
  std::string tokens;
  std::string logits;
  std::optional<int> last;
  int greedy = 0;
  bool draft = false;
  bool json = false;
};

// Minus the logarithm of the probability that a row of logits gives to `token`, in nats.
double NegativeLogLikelihood(std::span<const float> logits, int32_t token) {
  double most = -INFINITY;
  for (const float logit : logits) most = std::max(most, static_cast<double>(logit));
  double sum = 0;
  for (const float logit : logits) sum += std::exp(static_cast<double>(logit) - most);
  return most + std::log(sum) - static_cast<double>(logits[static_cast<size_t>(token)]);
}

class Evaluation {
 public:
  Evaluation(const EvalFlags& flags, Engine& engine, std::vector<int32_t> tokens)
      : flags_(flags), engine_(engine), tokens_(std::move(tokens)) {}

  Status Run() {
    const int count = static_cast<int>(tokens_.size());
    first_row_ = flags_.last ? std::max(0, count - *flags_.last) : 0;
    if (flags_.draft && !engine_.info().has_draft)
      return Unsupported("this model has no block that drafts tokens, so --draft has nothing to measure");
    if (!flags_.logits.empty()) {
      REPRISE_ASSIGN_OR_RETURN(file_, AtomicFile::Create(flags_.logits));
    }
    REPRISE_ASSIGN_OR_RETURN(lane_, engine_.space().NewLane());
    Progress progress("evaluating", flags_.json);
    const Clock::time_point start = Clock::now();
    for (int at = 0; at < count;) {
      // Logits of every row exist after short steps only; before the first row that counts, steps are as long as they may be.
      const bool wanted = at >= first_row_;
      const int most = wanted ? std::min(engine_.max_rows(), Engine::kMaxLogitRows) : engine_.max_rows();
      const int rows = std::min(most, (wanted ? count : first_row_) - at);
      const Engine::Feed feed{lane_.get(), std::span(tokens_).subspan(static_cast<size_t>(at), static_cast<size_t>(rows))};
      REPRISE_RETURN_IF_ERROR(engine_.Advance(std::span(&feed, 1), wanted ? Engine::Wanted::kEveryRow : Engine::Wanted::kBoundary));
      if (wanted) REPRISE_RETURN_IF_ERROR(TakeRows(at, rows));
      at += rows;
      progress.Update(static_cast<double>(at) / count, fmt::format("{} of {} tokens", at, count));
    }
    seconds_ = std::chrono::duration<double>(Clock::now() - start).count();
    REPRISE_RETURN_IF_ERROR(Continue());
    progress.Done();
    return file_ ? file_->Commit() : Ok();
  }

  Json ToJson() const {
    const ModelInfo& info = engine_.info();
    Json json = {
        {"model", ModelTitle(info)}, {"architecture", info.architecture}, {"fingerprint", info.fingerprint.Hex()},
        {"tokens", tokens_.size()},  {"vocab", info.vocabulary},          {"rows", tokens_.size() - static_cast<size_t>(first_row_)},
        {"predicted", predicted_}};
    json["nll"] = predicted_ > 0 ? Json(MeanNll()) : Json();
    json["perplexity"] = predicted_ > 0 ? Json(std::exp(MeanNll())) : Json();
    if (flags_.greedy > 0) json["greedy"] = greedy_;
    if (flags_.draft)
      json["draft"] = {{"rows", draft_rows_}, {"agreed", draft_agreed_}, {"acceptance", draft_rows_ > 0 ? Json(Acceptance()) : Json()}};
    if (!flags_.logits.empty()) json["logits"] = {{"file", flags_.logits}, {"bytes", file_->size()}};
    json["seconds"] = seconds_;
    json["tokens_per_s"] = seconds_ > 0 ? static_cast<double>(tokens_.size()) / seconds_ : 0.0;
    return json;
  }

  void Print() const {
    std::printf("%s: %zu tokens, vocabulary of %d\n", SafeForTerminal(ModelTitle(engine_.info())).c_str(), tokens_.size(),
                engine_.info().vocabulary);
    if (predicted_ > 0)
      std::printf("mean negative log likelihood %.6f nats over %lld predictions, perplexity %.4f\n", MeanNll(), predicted_,
                  std::exp(MeanNll()));
    if (flags_.draft && draft_rows_ > 0) {
      std::printf("draft block: %lld of %lld predictions as the model's own, acceptance %.1f%%\n", draft_agreed_, draft_rows_,
                  100 * Acceptance());
    }
    if (flags_.greedy > 0) {
      std::printf("greedy:");
      for (const int32_t token : greedy_) std::printf(" %d", token);
      std::printf("\n");
    }
    if (!flags_.logits.empty())
      std::printf("logits of %zu positions written to %s\n", tokens_.size() - static_cast<size_t>(first_row_), flags_.logits.c_str());
  }

 private:
  double MeanNll() const { return nll_ / static_cast<double>(predicted_); }
  double Acceptance() const { return static_cast<double>(draft_agreed_) / static_cast<double>(draft_rows_); }

  // The rows of the step just made, which began at position `first`.
  Status TakeRows(int first, int rows) {
    REPRISE_RETURN_IF_ERROR(engine_.ComputeRowLogits());
    int32_t own[Engine::kMaxLogitRows];
    for (int row = 0; row < rows; ++row) {
      const std::span<const float> logits = engine_.logits(row);
      own[row] = engine_.greedy(row);
      if (file_) REPRISE_RETURN_IF_ERROR(file_->Write(std::as_bytes(logits)));
      const auto next = static_cast<size_t>(first) + static_cast<size_t>(row) + 1;
      if (next < tokens_.size()) {
        nll_ += NegativeLogLikelihood(logits, tokens_[next]);
        ++predicted_;
      }
    }
    if (!flags_.draft) return Ok();
    REPRISE_RETURN_IF_ERROR(engine_.ComputeDraftLogits());
    for (int row = 0; row < rows; ++row) {
      if (first + row == 0) continue;  // nothing was hidden before the first token
      ++draft_rows_;
      draft_agreed_ += engine_.greedy(row) == own[row] ? 1 : 0;
    }
    return Ok();
  }

  Status Continue() {
    Lane* lane = lane_.get();
    for (int i = 0; i < flags_.greedy; ++i) {
      REPRISE_RETURN_IF_ERROR(engine_.ComputeLogits(std::span(&lane, 1)));
      const int32_t token = engine_.greedy(0);
      greedy_.push_back(token);
      if (i + 1 == flags_.greedy) break;
      const Engine::Feed feed{lane, std::span(&token, 1)};
      REPRISE_RETURN_IF_ERROR(engine_.Advance(std::span(&feed, 1)));
    }
    return Ok();
  }

  const EvalFlags& flags_;
  Engine& engine_;
  std::vector<int32_t> tokens_;
  std::optional<AtomicFile> file_;
  std::unique_ptr<Lane> lane_;
  int first_row_ = 0;  // whose logits count
  double nll_ = 0;
  long long predicted_ = 0;
  long long draft_rows_ = 0;
  long long draft_agreed_ = 0;
  std::vector<int32_t> greedy_;
  double seconds_ = 0;
};

Result<int> Eval(const EvalFlags& flags) {
  REPRISE_ASSIGN_OR_RETURN(const uint64_t count, CountTokenFile(flags.tokens));
  ModelOptions options = flags.model.Options();
  // One lane and no capsules, and a context as long as the work: how a model is loaded does not change what it computes.
  if (!flags.model.lanes) options.lanes = 1;
  if (!flags.model.capsules) options.capsules = 0;
  if (!flags.model.context)
    options.context = static_cast<int>(std::min<uint64_t>(count + static_cast<uint64_t>(flags.greedy), kMostTokens));
  REPRISE_ASSIGN_OR_RETURN(const Model model, LoadModel(flags.model, options, flags.json));
  REPRISE_ASSIGN_OR_RETURN(auto tokens, ReadTokenFile(flags.tokens, model.info().vocabulary));
  Evaluation evaluation(flags, model.engine(), std::move(tokens));
  REPRISE_RETURN_IF_ERROR(evaluation.Run());
  if (flags.json) {
    PrintJson(evaluation.ToJson());
  } else {
    evaluation.Print();
  }
  return kExitOk;
}

}  // namespace

void AddEvalCommand(CLI::App& app, Action& action) {
  auto flags = std::make_shared<EvalFlags>();
  CLI::App* command = app.add_subcommand("eval", "Computes the logits of token ids");
  command->footer(
      "IDS.i32 holds raw little-endian int32, OUT.f32 is written as raw little-endian float32: one row of the vocabulary a position.\n"
      "Bits do not depend on --chunk, --threads, --lanes or --context. With --json: {model, tokens, vocab, rows, predicted, nll, "
      "perplexity,\n"
      "greedy: [ids], draft: {rows, agreed, acceptance}, seconds, tokens_per_s}; nll is the mean over the rows, in nats.");
  command->add_option("--tokens", flags->tokens, "The ids")->type_name("IDS.i32")->required();
  command->add_option("--logits", flags->logits, "Write the logits here")->type_name("OUT.f32");
  command->add_option("--last", flags->last, "Only of the last K positions")->type_name("K")->check(Bounded(1, kMostTokens));
  command->add_option("--greedy", flags->greedy, "Then take the most likely token N times")->type_name("N")->check(Bounded(0, kMostTokens));
  command->add_flag("--draft", flags->draft, "Count how often the draft block (MTP) foretells what the model itself finds most likely");
  command->add_flag("--json", flags->json, "Print one JSON object");
  AddModelFlags(*command, flags->model);
  command->callback([flags, &action] { action = [flags] { return Eval(*flags); }; });
}

}  // namespace reprise
