// reprise demo: the first five minutes. Everything that it claims it compares, and it fails when a comparison does.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <memory>
#include <vector>

#include "base/file.h"
#include "capsule/ablation.h"
#include "cli/commands.h"
#include "cli/demo_paper.h"
#include "cli/model_flags.h"
#include "cli/model_names.h"
#include "cli/output.h"
#include "cli/terminal.h"
#include "exec/lane.h"
#include "reprise/session.h"

namespace reprise {
namespace {

using Ink = Paper::Ink;
using Clock = std::chrono::steady_clock;

constexpr int kFirstPart = 1500;  // tokens of the text that are read as prompt
constexpr int kContinuation = 60;
constexpr int kFutures = 4;
constexpr int kFutureTokens = 32;
constexpr int kRollback = 20;
constexpr int kLengths[] = {512, 1024, 2048, 4096, 8192};

struct DemoFlags {
  ModelFlags model;
  std::string file;
};

double Milliseconds(Clock::time_point start) { return std::chrono::duration<double, std::milli>(Clock::now() - start).count(); }
double Microseconds(Clock::time_point start) { return Milliseconds(start) * 1000; }

std::string Time(double microseconds) {
  if (microseconds < 1000) return fmt::format("{:.{}f} µs", microseconds, microseconds < 10 ? 1 : 0);
  if (microseconds < 1e6) return fmt::format("{:.{}f} ms", microseconds / 1000, microseconds < 1e5 ? 1 : 0);
  return fmt::format("{:.1f} s", microseconds / 1e6);
}

struct Said {
  std::vector<int32_t> ids;
  std::vector<std::string> pieces;

  std::string text() const {
    std::string all;
    for (const std::string& piece : pieces) all += piece;
    return all;
  }
};

size_t CommonTokens(const Said& a, const Said& b) {
  const auto [end, other] = std::mismatch(a.ids.begin(), a.ids.end(), b.ids.begin(), b.ids.end());
  return static_cast<size_t>(end - a.ids.begin());
}

class Demo {
 public:
  explicit Demo(const Model& model) : model_(model) {}

  Result<int> Run(const std::string& text) {
    REPRISE_ASSIGN_OR_RETURN(text_, model_.Tokenize(text));
    if (text_.size() < 2 * kRollback) return InvalidArgument("the text is too short to show anything; give a page or more");
    REPRISE_ASSIGN_OR_RETURN(Session main, model_.NewSession());
    origin_ = main.Snapshot();
    paper_.Line("Reprise: what a running model remembers, as something to keep, copy and go back to", Ink::kBold);
    paper_.Line(fmt::format("{}: {:.1f} million parameters, {}", SafeForTerminal(ModelTitle(model_.info())),
                            static_cast<double>(model_.info().parameters) / 1e6, model_.info().backend),
                Ink::kDim);
    REPRISE_RETURN_IF_ERROR(Read(main));
    REPRISE_RETURN_IF_ERROR(GoOn(main));
    REPRISE_RETURN_IF_ERROR(GoBack(main));
    REPRISE_RETURN_IF_ERROR(RollBack(main));
    REPRISE_RETURN_IF_ERROR(Fork(main));
    REPRISE_RETURN_IF_ERROR(RowsAlone(main));
    here_ = Capsule();
    REPRISE_RETURN_IF_ERROR(Lengths(main));
    paper_.Gap();
    if (!paper_.all_good()) {
      paper_.Line("A comparison failed: see the crosses above.", Ink::kBad);
      return kExitError;
    }
    paper_.Line(
        "Every comparison above was made, on every bit, and held. 'reprise verify' puts all six promises to the test; 'reprise run' and "
        "'reprise chat' "
        "are for your own text.");
    return kExitOk;
  }

 private:
  Result<Said> Say(Session& session, int count, bool show, Ink ink = Ink::kPlain) {
    Said said;
    for (int i = 0; i < count; ++i) {
      REPRISE_ASSIGN_OR_RETURN(const Token token, session.Next());
      said.ids.push_back(token.id);
      said.pieces.emplace_back(token.text);
      if (show) paper_.Text(token.text, ink);
    }
    if (show) paper_.EndText();
    return said;
  }

  static SamplingOptions Sampling(uint64_t seed) {
    return {.temperature = 0.8f, .top_k = 40, .top_p = 0.95f, .repetition_penalty = 1.05f, .penalty_window = 128, .seed = seed};
  }

  Status Read(Session& main) {
    const auto prompt = std::span<const int32_t>(text_).first(std::min<size_t>(kFirstPart, text_.size()));
    paper_.Step(1, fmt::format("It reads {} tokens of a text", Grouped(prompt.size())));
    Progress progress("reading", false);
    PrefillOptions options;
    options.progress = [&](int done, int total) { progress.Update(static_cast<double>(done) / total); };
    const auto start = Clock::now();
    REPRISE_RETURN_IF_ERROR(main.Prefill(prompt, options).status());
    const double taken = Milliseconds(start);
    progress.Done();
    REPRISE_ASSIGN_OR_RETURN(const std::string read, model_.Detokenize(prompt.last(std::min<size_t>(prompt.size(), 40))));
    paper_.Text("... " + read, Ink::kDim);
    paper_.EndText();
    paper_.Line(fmt::format("{} ({} tokens a second).", Time(taken * 1000),
                            Grouped(static_cast<uint64_t>(static_cast<double>(prompt.size()) / taken * 1000))),
                Ink::kPlain, 2);
    return Ok();
  }

  Status GoOn(Session& main) {
    paper_.Step(2, "A capsule is taken, and it goes on");
    REPRISE_RETURN_IF_ERROR(main.SetSampling(Sampling(1811)));
    const auto start = Clock::now();
    here_ = main.Snapshot();
    const double taken = Microseconds(start);
    paper_.Line(fmt::format("The capsule holds {} of state and took {}: nothing was copied.",
                            HumanBytes(here_.recurrent_bytes() + here_.row_bytes()), Time(taken)),
                Ink::kPlain, 2);
    REPRISE_ASSIGN_OR_RETURN(first_, Say(main, kContinuation, true, Ink::kFirst));
    return Ok();
  }

  Status GoBack(Session& main) {
    paper_.Step(3, "Something else is read over it; then the capsule is restored, and it goes on again");
    REPRISE_RETURN_IF_ERROR(main.Restore(origin_));
    REPRISE_RETURN_IF_ERROR(main.Append(std::span<const int32_t>(text_).last(std::min<size_t>(text_.size(), 200))));
    REPRISE_RETURN_IF_ERROR(Say(main, 8, false).status());
    const auto start = Clock::now();
    REPRISE_RETURN_IF_ERROR(main.Restore(here_));
    const double taken = Microseconds(start);
    REPRISE_ASSIGN_OR_RETURN(const Said again, Say(main, kContinuation, true, Ink::kFirst));
    const size_t same = CommonTokens(first_, again);
    paper_.Check(again.ids == first_.ids && again.text() == first_.text(),
                 fmt::format("restored in {}; {} of {} sampled tokens are the same", Time(taken), same, first_.ids.size()));
    return Ok();
  }

  Status RollBack(Session& main) {
    paper_.Step(4, fmt::format("The last {} tokens are rolled back, and said again", kRollback));
    const auto start = Clock::now();
    REPRISE_RETURN_IF_ERROR(main.Rollback(kRollback));
    const double taken = Microseconds(start);
    REPRISE_ASSIGN_OR_RETURN(const Said again, Say(main, kRollback, false));
    const size_t keep = first_.ids.size() - kRollback;
    for (size_t i = 0; i < first_.pieces.size(); ++i)
      paper_.Text(i < keep ? first_.pieces[i] : again.pieces[i - keep], i < keep ? Ink::kDim : Ink::kSecond);
    paper_.EndText();
    paper_.Check(std::equal(again.ids.begin(), again.ids.end(), first_.ids.begin() + static_cast<ptrdiff_t>(keep)),
                 fmt::format("rolled back in {}, to the sampler's state of then; the same {} tokens follow", Time(taken), kRollback));
    return Ok();
  }

  Status Fork(Session& main) {
    paper_.Step(5, fmt::format("The capsule becomes {} futures, decoded as one batch", kFutures));
    const auto start = Clock::now();
    REPRISE_ASSIGN_OR_RETURN(std::vector<Session> futures, main.Fork(here_, kFutures));
    const double forked = Microseconds(start);
    std::vector<Session*> batch;
    for (int i = 0; i < kFutures; ++i) {
      Session& future = futures[static_cast<size_t>(i)];
      // The first goes on as the capsule would, so that it can be compared; the others are drawn differently.
      if (i > 0) REPRISE_RETURN_IF_ERROR(future.SetSampling(Sampling(static_cast<uint64_t>(i))));
      batch.push_back(&future);
    }
    std::vector<Said> said(kFutures);
    std::vector<Token> tokens(kFutures);
    const auto decoding = Clock::now();
    for (int step = 0; step < kFutureTokens; ++step) {
      REPRISE_RETURN_IF_ERROR(Session::NextBatch(batch, tokens));
      for (size_t i = 0; i < kFutures; ++i) {
        said[i].ids.push_back(tokens[i].id);
        said[i].pieces.emplace_back(tokens[i].text);
      }
    }
    const double taken = Milliseconds(decoding);
    for (size_t i = 0; i < kFutures; ++i) {
      paper_.Text(fmt::format("{}) ", static_cast<char>('a' + i)), Ink::kBold);
      paper_.Text(said[i].text(), i == 0 ? Ink::kFirst : Ink::kPlain);
      paper_.EndText();
    }
    paper_.Line(fmt::format("Forked in {}; {} tokens a second in all.", Time(forked),
                            Grouped(static_cast<uint64_t>(kFutures * kFutureTokens / taken * 1000))),
                Ink::kPlain, 2);
    paper_.Check(CommonTokens(said[0], first_) == kFutureTokens, "the first future, among its siblings, says what it said alone");
    return Ok();
  }

  Status RowsAlone(Session& main) {
    paper_.Step(6, "Keys and values alone are restored, as a paged cache would");
    REPRISE_ASSIGN_OR_RETURN(const Capsule rows, RowsOnly(here_));
    REPRISE_RETURN_IF_ERROR(main.Restore(rows));
    REPRISE_ASSIGN_OR_RETURN(const Said partial, Say(main, kContinuation, false));
    const size_t same = CommonTokens(first_, partial);
    for (size_t i = 0; i < partial.pieces.size(); ++i) paper_.Text(partial.pieces[i], i < same ? Ink::kFirst : Ink::kBad);
    paper_.EndText();
    paper_.Check(same < first_.ids.size(),
                 same < first_.ids.size()
                     ? fmt::format("it diverges at token {}: the recurrent memories are needed, and a capsule has them", same + 1)
                     : std::string("it does not diverge: the recurrent memories are not needed, or were not left out"));
    return Ok();
  }

  // One long reading, with a capsule and the logits at each length on the way; then restores, each after another prompt.
  Status Lengths(Session& main) {
    paper_.Step(7, "Reading again, against restoring, as the context grows");
    const int most = std::min<int>(model_.info().context - 64, kLengths[std::size(kLengths) - 1]);
    std::vector<int32_t> tokens;
    while (static_cast<int>(tokens.size()) < most) tokens.insert(tokens.end(), text_.begin(), text_.end());
    struct Row {
      int length;
      double cold_ms;
      double restore_us;
      uint64_t copied;
      Capsule capsule;
      std::vector<float> logits;
    };
    std::vector<Row> rows;
    REPRISE_RETURN_IF_ERROR(main.Restore(origin_));
    Progress progress("reading", false);
    double cold = 0;
    for (const int length : kLengths) {
      if (length > most) break;
      const int from = main.position();
      PrefillOptions options;
      options.progress = [&](int done, int) { progress.Update(static_cast<double>(from + done) / most); };
      const auto start = Clock::now();
      REPRISE_RETURN_IF_ERROR(
          main.Append(std::span<const int32_t>(tokens).subspan(static_cast<size_t>(from), static_cast<size_t>(length - from)), options));
      cold += Milliseconds(start);
      REPRISE_ASSIGN_OR_RETURN(const auto logits, main.Logits());
      rows.push_back({length, cold, 0, 0, main.Snapshot(), {logits.begin(), logits.end()}});
    }
    progress.Done();
    bool equal = true;
    for (Row& row : rows) {
      std::vector<double> times;
      for (int run = 0; run < 5; ++run) {
        REPRISE_RETURN_IF_ERROR(main.Restore(origin_));
        REPRISE_RETURN_IF_ERROR(main.Append(std::span<const int32_t>(tokens).subspan(static_cast<size_t>(run), 48)));
        const uint64_t copied = main.lane().copied_rows();
        const auto start = Clock::now();
        REPRISE_RETURN_IF_ERROR(main.Restore(row.capsule));
        times.push_back(Microseconds(start));
        REPRISE_ASSIGN_OR_RETURN(const auto logits, main.Logits());
        equal = equal && std::memcmp(logits.data(), row.logits.data(), logits.size_bytes()) == 0;
        // The step after it pays for what is copied on write.
        REPRISE_RETURN_IF_ERROR(main.Append(std::span<const int32_t>(tokens).first(1)));
        row.copied = std::max<uint64_t>(row.copied, (main.lane().copied_rows() - copied) * model_.layout().row_bytes());
      }
      std::nth_element(times.begin(), times.begin() + 2, times.end());
      row.restore_us = times[2];
    }
    static constexpr char kColumns[] = "  {:>7}  {:>10}  {:>10}  {:>13}  {:>13}";
    paper_.Row(fmt::format(kColumns, "tokens", "read anew", "restored", "bytes copied", "times faster"), Ink::kDim);
    for (const Row& row : rows) {
      paper_.Row(fmt::format(kColumns, Grouped(static_cast<uint64_t>(row.length)), Time(row.cold_ms * 1000), Time(row.restore_us),
                             Grouped(row.copied), Grouped(static_cast<uint64_t>(row.cold_ms * 1000 / std::max(row.restore_us, 0.01)))));
    }
    paper_.Check(equal, "after each restore every bit of the logits is what it was when the text was read");
    return Ok();
  }

  Model model_;
  Paper paper_;
  std::vector<int32_t> text_;
  Capsule origin_;
  Capsule here_;
  Said first_;
};

Result<int> RunDemo(const DemoFlags& flags) {
  std::string file = flags.file;
  if (file.empty()) {
    REPRISE_ASSIGN_OR_RETURN(file, FindHouseFile("prompt.txt"));
  }
  REPRISE_ASSIGN_OR_RETURN(const auto bytes, ReadFile(file, 16 << 20));
  ModelOptions options = flags.model.Options();
  options.context = flags.model.context.value_or(kLengths[std::size(kLengths) - 1] + 256);
  REPRISE_ASSIGN_OR_RETURN(const Model model, LoadModel(flags.model, options, false));
  return Demo(model).Run(std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size()));
}

}  // namespace

void AddDemoCommand(CLI::App& app, Action& action) {
  auto flags = std::make_shared<DemoFlags>();
  CLI::App* command = app.add_subcommand("demo", "The first five minutes: prefill, snapshot, restore, rollback, fork, and what they cost");
  AddModelFlags(*command, flags->model);
  command->add_option("-f,--file", flags->file, "The text to read (one that comes with the program)")->type_name("FILE");
  command->callback([flags, &action] { action = [flags] { return RunDemo(*flags); }; });
}

}  // namespace reprise
