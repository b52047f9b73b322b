// reprise bench: how long things take on this machine, cold and warm interleaved, and beside a peer on the same file if asked.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <optional>
#include <random>

#include "base/file.h"
#include "cli/bench_contender.h"
#include "cli/bench_plot.h"
#include "cli/bench_speculation.h"
#include "cli/commands.h"
#include "cli/flags.h"
#include "cli/machine_facts.h"
#include "cli/model_flags.h"
#include "cli/model_names.h"
#include "cli/output.h"
#include "cli/terminal.h"
#include "session/engine.h"

namespace reprise {
namespace {

constexpr int kSuffix = 64;
constexpr int kDirt = 96;    // tokens of the other prompt that goes over everything before a restore
constexpr int kDecode = 32;  // tokens that the decode rate is taken over
constexpr int kBranchSteps = 16;

struct BenchFlags {
  ModelFlags model;
  std::vector<int> prompts = {512, 2048};
  std::vector<int> branches = {1, 8};
  int runs = 5;
  int draft = 0;
  std::string peer;
  std::string peer_python;
  std::string json_file;
  std::string plot_file;
};

// The values of one thing that was measured in every run.
struct Series {
  std::string name;
  int prompt = 0;
  int branches = 0;
  std::string unit;
  bool more_is_better = false;
  std::vector<double> values;
  std::vector<double> peer;
  std::optional<uint64_t> bytes_copied;
  std::string drafts;  // of "speculation": where its guesses come from
  float temperature = 0;
  SpeculationStats guesses = {};  // of all runs
  int64_t tokens = 0;             // chosen in all runs
};

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const size_t middle = values.size() / 2;
  return values.size() % 2 == 1 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
}

class Table {
 public:
  Series& At(const std::string& name, int prompt, int branches, const std::string& unit, bool more_is_better) {
    for (Series& one : series_) {
      if (one.name == name && one.prompt == prompt && one.branches == branches) return one;
    }
    return Add(name, prompt, branches, unit, more_is_better);
  }
  Series& Drafted(const std::string& drafts, float temperature, int prompt) {
    for (Series& one : series_) {
      if (one.name == "speculation" && one.drafts == drafts && one.temperature == temperature) return one;
    }
    Series& series = Add("speculation", prompt, 0, "tok/s", true);
    series.drafts = drafts;
    series.temperature = temperature;
    return series;
  }
  std::vector<Series>& all() { return series_; }
  const Series* Find(const std::string& name, int prompt) const {
    for (const Series& one : series_) {
      if (one.name == name && one.prompt == prompt) return &one;
    }
    return nullptr;
  }

 private:
  Series& Add(const std::string& name, int prompt, int branches, const std::string& unit, bool more_is_better) {
    series_.push_back({.name = name, .prompt = prompt, .branches = branches, .unit = unit, .more_is_better = more_is_better});
    return series_.back();
  }
  std::vector<Series> series_;
};

// What a step of the model gave: 1 without guesses, and one more for each that came true.
double TokensAStep(const Series& series) {
  return static_cast<double>(series.tokens) / static_cast<double>(std::max<int64_t>(series.tokens - series.guesses.accepted, 1));
}

std::optional<double> Ratio(const Series& series) {
  if (series.peer.empty() || series.values.empty()) return std::nullopt;
  const double ours = Median(series.values);
  const double theirs = Median(series.peer);
  if (!(ours > 0) || !(theirs > 0)) return std::nullopt;
  return series.more_is_better ? ours / theirs : theirs / ours;
}

void Record(Table& table, int prompt, const BenchRound& round, bool peer) {
  const auto add = [&](const char* name, const char* unit, bool more, double value, std::optional<uint64_t> bytes = std::nullopt) {
    Series& series = table.At(name, prompt, 0, unit, more);
    (peer ? series.peer : series.values).push_back(value);
    if (!peer && bytes) series.bytes_copied = std::max(series.bytes_copied.value_or(0), *bytes);
  };
  add("prefill", "tok/s", true, prompt * 1000.0 / round.prefill_ms);
  add("decode", "tok/s", true, kDecode * 1000.0 / round.decode_ms);
  add("suffix64", "ms", false, round.suffix_ms);
  add("rollback", "ms", false, round.rollback_ms);
  add("snapshot", "µs", false, round.snapshot_us, round.snapshot_bytes);
  add("restore", "µs", false, round.restore_us, round.restore_bytes);
  add("fork", "µs", false, round.fork_us, round.fork_bytes);
  add("ttft_cold", "ms", false, round.ttft_cold_ms);
  add("ttft_restored", "ms", false, round.ttft_restored_ms);
}

std::vector<int32_t> RandomTokens(std::mt19937_64& random, int count, int vocabulary) {
  std::vector<int32_t> tokens(static_cast<size_t>(count));
  for (int32_t& token : tokens) token = static_cast<int32_t>(random() % static_cast<uint64_t>(vocabulary));
  return tokens;
}

// A file of the source tree that the program was built in, or of the working directory.
std::optional<std::string> TreeFile(const std::string& name) {
  namespace fs = std::filesystem;
  std::error_code error;
  const fs::path program = fs::read_symlink("/proc/self/exe", error);
  for (const fs::path& root : {program.parent_path().parent_path(), fs::path(".")}) {
    if (fs::exists(root / name, error)) return (root / name).lexically_normal().string();
  }
  return std::nullopt;
}

std::string Number(double value) {
  if (!std::isfinite(value)) return "-";
  const double size = std::fabs(value);
  return fmt::format("{:.{}f}", value, size >= 100 ? 0 : size >= 10 ? 1 : 2);
}

std::string NameOf(const Series& series) {
  if (series.branches > 0) return fmt::format("{} x{}", series.name, series.branches);
  return series.drafts.empty() ? series.name : fmt::format("{}, t={:.1f}", series.drafts, series.temperature);
}

class Bench {
 public:
  explicit Bench(const BenchFlags& flags) : flags_(flags), quiet_(flags.json_file == "-") {}

  Result<int> Run() {
    if (!flags_.peer.empty() && flags_.peer != "llama.cpp")
      return InvalidArgument("the peer '" + flags_.peer + "' is not known; it can be llama.cpp");
    facts_ = ReadMachineFacts();
    REPRISE_ASSIGN_OR_RETURN(const Model model, Load());
    const int most_branches = *std::max_element(flags_.branches.begin(), flags_.branches.end());
    REPRISE_ASSIGN_OR_RETURN(const auto ours, MakeReprise(model, most_branches));
    std::unique_ptr<BenchContender> peer;
    if (!flags_.peer.empty()) {
      const auto script = TreeFile("tools/bench_peer.py");
      if (!script) return NotFound("tools/bench_peer.py is not here; --peer works from the source tree alone");
      PeerOptions options;
      options.python = !flags_.peer_python.empty() ? flags_.peer_python : TreeFile(".venv/bin/python").value_or("python3");
      options.script = *script;
      options.model = model.info().path;
      if (flags_.model.kv != "auto") options.kv = flags_.model.kv;
      options.threads = model.engine().backend().threads();
      options.context = Context();
      options.branches = most_branches;
      REPRISE_ASSIGN_OR_RETURN(peer, StartLlamaCpp(options));
    }
    REPRISE_RETURN_IF_ERROR(Measure(*ours, peer.get(), model.info().vocabulary));
    if (flags_.draft > 0) REPRISE_RETURN_IF_ERROR(Speculate(model));
    CountWork(model);
    return Report(model);
  }

 private:
  int LongestPrompt() const { return *std::max_element(flags_.prompts.begin(), flags_.prompts.end()); }
  int Context() const { return flags_.model.context.value_or(LongestPrompt() + 1024); }

  // Loads as often as there are runs, one after another, and keeps the last.
  Result<Model> Load() {
    ModelOptions options = flags_.model.Options();
    options.context = Context();
    const int most_branches = *std::max_element(flags_.branches.begin(), flags_.branches.end());
    options.lanes = flags_.model.lanes.value_or(std::max(2, most_branches) + (flags_.draft > 0 ? 1 : 0));
    Series& series = table_.At("load", 0, 0, "ms", false);
    std::optional<Model> model;
    REPRISE_ASSIGN_OR_RETURN(const std::string file, FindModelFile(flags_.model.model));
    Progress progress("loading", quiet_);
    for (int i = 0; i < flags_.runs; ++i) {
      model.reset();
      const auto start = std::chrono::steady_clock::now();
      REPRISE_ASSIGN_OR_RETURN(model, Model::Load(file, options));
      series.values.push_back(std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count());
      progress.Update((i + 1.0) / flags_.runs);
    }
    return *std::move(model);
  }

  Status Measure(BenchContender& ours, BenchContender* peer, int vocabulary) {
    std::mt19937_64 random(1);
    const auto plan = [&](int length) {
      BenchPlan one;
      one.prompt = RandomTokens(random, length, vocabulary);
      one.suffix = RandomTokens(random, kSuffix, vocabulary);
      one.dirt = RandomTokens(random, kDirt, vocabulary);
      one.decode = kDecode;
      one.rollback = 2 + static_cast<int>(random() % (kDecode - 1));
      return one;
    };
    const auto& interrupted = CatchInterrupt();
    Progress progress("measuring", quiet_);
    // Untimed: pages are touched, processors wake up.
    const BenchPlan warm_up = plan(std::min(LongestPrompt(), 256));
    REPRISE_RETURN_IF_ERROR(ours.Round(warm_up).status());
    if (peer != nullptr) REPRISE_RETURN_IF_ERROR(peer->Round(warm_up).status());

    const size_t steps = static_cast<size_t>(flags_.runs) * flags_.prompts.size();
    size_t done = 0;
    for (int run = 0; run < flags_.runs; ++run) {
      for (const int prompt : flags_.prompts) {
        if (interrupted.load()) return Cancelled("stopped on request");
        const BenchPlan one = plan(prompt);  // new tokens each time: nothing can be known of them
        // Whoever comes first has the warmer machine or the colder caches: turns are taken.
        for (int turn = 0; turn < 2; ++turn) {
          const bool is_peer = (turn == 0) == (run % 2 == 1);
          if (is_peer && peer == nullptr) continue;
          BenchContender& contender = is_peer ? *peer : ours;
          REPRISE_ASSIGN_OR_RETURN(const BenchRound round, contender.Round(one));
          Record(table_, prompt, round, is_peer);
          for (const int branches : flags_.branches) {
            REPRISE_ASSIGN_OR_RETURN(const double taken, contender.Branches(branches, kBranchSteps));
            Series& series = table_.At("branches", prompt, branches, "tok/s", true);
            (is_peer ? series.peer : series.values).push_back(branches * kBranchSteps * 1000.0 / taken);
          }
        }
        progress.Update(static_cast<double>(++done) / static_cast<double>(steps),
                        fmt::format("run {} of {}, {} tokens", run + 1, flags_.runs, prompt));
      }
    }
    return Ok();
  }

  Status Speculate(const Model& model) {
    REPRISE_ASSIGN_OR_RETURN(SpeculationBench bench, SpeculationBench::Make(model, flags_.draft));
    const auto& interrupted = CatchInterrupt();
    Progress progress("speculating", quiet_);
    for (int run = 0; run < flags_.runs; ++run) {
      if (interrupted.load()) return Cancelled("stopped on request");
      REPRISE_ASSIGN_OR_RETURN(const std::vector<DraftedRun> runs, bench.Round(static_cast<uint64_t>(run)));
      for (const DraftedRun& one : runs) {
        Series& series = table_.Drafted(one.drafts, one.temperature, bench.prompt());
        series.values.push_back(one.tokens * 1000.0 / one.ms);
        series.tokens += one.tokens;
        series.guesses.steps += one.guesses.steps;
        series.guesses.drafted += one.guesses.drafted;
        series.guesses.accepted += one.guesses.accepted;
      }
      progress.Update((run + 1.0) / flags_.runs);
    }
    return Ok();
  }

  // What a step must do at least: read every weight to decode a token, multiply by every matrix but the output's to prefill one. (An embedding
  // that is not tied is only looked up, so this asks a little more of decoding than it does.)
  void CountWork(const Model& model) {
    limits_ = model.engine().backend().MeasureLimits();
    decode_bytes_ = static_cast<double>(model.info().weight_bytes);
    for (const GgufTensor& tensor : model.engine().file().tensors()) {
      if (tensor.n_dims < 2) continue;
      prefill_macs_ += model.engine().network().PrefillShare(tensor) * static_cast<double>(tensor.elements());
    }
  }
  // Of the machine's limit: the weights read by a decode, the products made by a prefill. Attention and the recurrences come on top.
  std::optional<double> Reached(const Series& series) const {
    if (series.name == "decode" && limits_.read_bytes_per_second > 0) {
      return Median(series.values) * decode_bytes_ / limits_.read_bytes_per_second;
    }
    if (series.name == "prefill" && limits_.byte_macs_per_second > 0) {
      return Median(series.values) * prefill_macs_ / limits_.byte_macs_per_second;
    }
    return std::nullopt;
  }

  Json ToJson(const Model& model) {
    const MachineFacts after = ReadMachineFacts();
    Json machine = {{"cpu", facts_.cpu},
                    {"cores", facts_.cores},
                    {"memory_gib", std::round(facts_.memory_gib * 10) / 10},
                    {"kernel", facts_.kernel},
                    {"backend", model.info().backend},
                    {"threads", model.engine().backend().threads()},
                    {"read_gb_s", std::round(limits_.read_bytes_per_second / 1e8) / 10},
                    {"int8_gmac_s", std::round(limits_.byte_macs_per_second / 1e9)},
                    {"load_average", {facts_.load_average, after.load_average}}};
    Json results = Json::array();
    for (const Series& series : table_.all()) {
      Json one = {{"name", series.name}, {"prompt", series.prompt}};
      if (series.branches > 0) one["branches"] = series.branches;
      one["unit"] = series.unit;
      one["median"] = Median(series.values);
      one["min"] = *std::min_element(series.values.begin(), series.values.end());
      one["max"] = *std::max_element(series.values.begin(), series.values.end());
      one["runs"] = series.values.size();
      if (series.bytes_copied) one["bytes_copied"] = *series.bytes_copied;
      if (!series.drafts.empty()) {
        one["drafts"] = series.drafts;
        one["temperature"] = std::round(series.temperature * 100) / 100.0;
        one["tokens_a_step"] = TokensAStep(series);
        if (series.guesses.drafted > 0) one["acceptance"] = AcceptanceRate(series.guesses);
      }
      if (const auto ratio = Ratio(series)) {
        one["peer"] = {{"name", "llama.cpp"}, {"median", Median(series.peer)}};
        one["ratio"] = *ratio;
      }
      if (const auto reached = Reached(series)) one["of_limit"] = *reached;
      results.push_back(std::move(one));
    }
    return {{"machine", machine}, {"model", ModelTitle(model.info())}, {"results", results}};
  }

  void Print(const Model& model) {
    fmt::print("{} on {}, {} of {}; load average {:.1f}\n", SafeForTerminal(ModelTitle(model.info())), facts_.cpu, model.info().backend,
               facts_.cores == 1 ? "1 core" : fmt::format("{} cores", facts_.cores), facts_.load_average);
    fmt::print("this machine reads {:.1f} GB/s and multiplies {:.0f} G int8 MAC/s on these threads\n\n",
               limits_.read_bytes_per_second / 1e9, limits_.byte_macs_per_second / 1e9);
    const bool peer = !flags_.peer.empty();
    fmt::print("{:<15}{:>8}{:>12} {:<6}{:>22}{:>14}{:>10}", "", "prompt", "median", "", "min to max", "bytes copied", "of limit");
    if (peer) fmt::print("{:>12}{:>9}", "llama.cpp", "ratio");
    fmt::print("\n");
    for (const Series& series : table_.all()) {
      const std::string name = NameOf(series);
      const std::string range = Number(*std::min_element(series.values.begin(), series.values.end())) + " to " +
                                Number(*std::max_element(series.values.begin(), series.values.end()));
      fmt::print("{:<15}{:>8}{:>12} {:<6}{:>22}{:>14}", name, series.prompt > 0 ? std::to_string(series.prompt) : "",
                 Number(Median(series.values)), series.unit, range, series.bytes_copied ? Grouped(*series.bytes_copied) : "");
      const auto reached = Reached(series);
      fmt::print("{:>10}", reached ? fmt::format("{:.0f} %", *reached * 100) : "");
      if (series.guesses.drafted > 0) {
        fmt::print("  {:.0f} % of guesses come true, {:.2f} tokens a step", AcceptanceRate(series.guesses) * 100, TokensAStep(series));
      }
      if (const auto ratio = Ratio(series)) fmt::print("{:>12}{:>9}", Number(Median(series.peer)), fmt::format("{:.2f}x", *ratio));
      fmt::print("\n");
    }
    if (peer) fmt::print("\nA ratio above 1 means that Reprise is better.\n");
  }

  Status Plot(const Model& model) {
    PlotSeries cold{"computed anew", "#c0392b", {}};
    PlotSeries restored{"restored", "#1f6fb2", {}};
    PlotSeries peer_cold{"llama.cpp, anew", "#e8a29a", {}};
    std::vector<int> prompts = flags_.prompts;
    std::sort(prompts.begin(), prompts.end());
    for (const int prompt : prompts) {
      if (const Series* one = table_.Find("ttft_cold", prompt)) {
        cold.points.emplace_back(prompt, Median(one->values));
        if (!one->peer.empty()) peer_cold.points.emplace_back(prompt, Median(one->peer));
      }
      if (const Series* one = table_.Find("ttft_restored", prompt)) restored.points.emplace_back(prompt, Median(one->values));
    }
    std::vector<PlotSeries> series = {cold, restored};
    if (!peer_cold.points.empty()) series.push_back(peer_cold);
    const std::string svg = PlotSvg("Time to the first token: " + ModelTitle(model.info()), series);
    return WriteFileAtomically(flags_.plot_file, std::as_bytes(std::span(svg)));
  }

  Result<int> Report(const Model& model) {
    const Json json = ToJson(model);
    if (quiet_) {
      PrintJson(json);
    } else {
      Print(model);
      if (!flags_.json_file.empty()) {
        const std::string text = json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
        REPRISE_RETURN_IF_ERROR(WriteFileAtomically(flags_.json_file, std::as_bytes(std::span(text))));
      }
    }
    if (!flags_.plot_file.empty()) REPRISE_RETURN_IF_ERROR(Plot(model));
    return kExitOk;
  }

  const BenchFlags& flags_;
  const bool quiet_;
  MachineFacts facts_;
  Table table_;
  BackendLimits limits_;
  double decode_bytes_ = 0;  // that a token reads
  double prefill_macs_ = 0;  // that a token needs
};

}  // namespace

void AddBenchCommand(CLI::App& app, Action& action) {
  auto flags = std::make_shared<BenchFlags>();
  CLI::App* command = app.add_subcommand("bench", "Measures prefill, decode, snapshot, restore, fork and branches on this machine");
  AddModelFlags(*command, flags->model);
  command->add_option("--prompt", flags->prompts, "Lengths of the prompts (512,2048)")
      ->delimiter(',')
      ->type_name("N,...")
      ->check(Bounded(16, 1 << 20));
  command->add_option("--branches", flags->branches, "Numbers of forks decoded as one batch (1,8)")
      ->delimiter(',')
      ->type_name("N,...")
      ->check(Bounded(1, 256));
  command
      ->add_option("--draft", flags->draft,
                   "Measures guessing ahead too: tokens of English chosen without guesses, and with up to N a step from each source")
      ->type_name("N")
      ->check(Bounded(0, Speculation::kMostDraft));
  command->add_option("--runs", flags->runs, "Runs, of which the median is told (5)")->type_name("N")->check(Bounded(1, 1000));
  command
      ->add_option("--peer", flags->peer,
                   "Measures llama.cpp too, in turns, on the same file and with the same --kv; tools/install_peer.sh installs it")
      ->type_name("NAME");
  command->add_option("--peer-python", flags->peer_python, "The Python that has the peer (that of .venv, or python3)")->type_name("FILE");
  command->add_option("--json", flags->json_file, "Writes the results to this file as JSON; '-' prints them instead of the table")
      ->type_name("FILE");
  command->add_option("--plot", flags->plot_file, "Writes a plot of the time to the first token against the context")->type_name("FILE");
  command->callback([flags, &action] { action = [flags] { return Bench(*flags).Run(); }; });
}

}  // namespace reprise
