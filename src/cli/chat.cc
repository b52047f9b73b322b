// `reprise chat`: a conversation in the terminal, or from a script: each line of the input is a message or a command.
#include <fmt/format.h>

#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <optional>
#include <vector>

#include "cli/capsule_file.h"
#include "cli/commands.h"
#include "cli/conversation.h"
#include "cli/flags.h"
#include "cli/model_flags.h"
#include "cli/sampling_flags.h"
#include "cli/store_flags.h"
#include "cli/terminal.h"

namespace reprise {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int kMostTokens = 1 << 20;

constexpr char kHelp[] =
    "  /undo          take the last turn back\n"
    "  /regenerate    answer the last question once more\n"
    "  /fork          a second conversation that goes on from here\n"
    "  /switch N      go to conversation N; /switch alone lists them\n"
    "  /save FILE     keep everything in a capsule\n"
    "  /load FILE     go on from a capsule of a chat\n"
    "  /reset         begin anew\n"
    "  /quit          leave; the end of the input (Ctrl-D) does too\n"
    "  Ctrl-C stops an answer. A line that ends in \\ goes on in the next one.\n";

struct ChatFlags {
  ModelFlags model;
  SamplingFlags sampling;
  std::string system;
  std::string load;
  StoreFlags store;
  std::string resume;
  int max_tokens = 1024;
  int draft = 0;
  bool think = false;
  bool no_think = false;
};

std::string Turns(int count) { return fmt::format("{} turn{}", count, count == 1 ? "" : "s"); }

double Milliseconds(Clock::time_point start) { return std::chrono::duration<double, std::milli>(Clock::now() - start).count(); }

class Chat {
 public:
  Chat(const ChatFlags& flags, const Model& model, const std::atomic<bool>& interrupted)
      : flags_(flags), model_(model), interrupted_(interrupted) {}

  Result<int> Run() {
    REPRISE_ASSIGN_OR_RETURN(settings_.format, ChatFormatOf(model_));
    SamplingOptions sampling;
    sampling.temperature = 0.7F;  // what most model cards recommend for talking
    sampling.top_p = 0.9F;
    settings_.sampling = flags_.sampling.Over(sampling);
    settings_.system = flags_.system;
    settings_.max_tokens = flags_.max_tokens;
    if (flags_.think) settings_.options.thinking = Thinking::kOn;
    if (flags_.no_think) settings_.options.thinking = Thinking::kOff;
    REPRISE_RETURN_IF_ERROR(Begin());
    if (!flags_.load.empty()) REPRISE_RETURN_IF_ERROR(Load(flags_.load));
    if (!flags_.resume.empty()) REPRISE_RETURN_IF_ERROR(Resume());
    Note(fmt::format("{} on {}; a context of {} tokens. /help lists the commands.", ModelTitle(model_.info()), model_.info().backend,
                     model_.info().context));
    if (model_.store() != nullptr) Note(StoreTitle(flags_.store, *model_.store()));
    ShowNotices("chat", model_);
    std::string line;
    while (ReadMessage(line)) {
      if (line.find_first_not_of(" \t") == std::string::npos) continue;
      if (line[0] != '/') {
        Ask(std::move(line));
      } else if (!Command(line)) {
        break;
      }
    }
    if (StdinIsTerminal()) std::fputc('\n', stderr);
    if (!flags_.resume.empty() && current().turns() > 0) REPRISE_RETURN_IF_ERROR(current().Keep(flags_.resume));
    if (model_.store() != nullptr) REPRISE_RETURN_IF_ERROR(model_.store()->Flush());
    ShowNotices("chat", model_);
    return failed_ && !StdinIsTerminal() ? kExitError : kExitOk;  // a script must hear of it
  }

 private:
  // For people: beside the answers, which alone go to stdout.
  static void Note(std::string_view text) {
    const bool dim = StderrIsTerminal();
    std::fprintf(stderr, "%s%s%s\n", dim ? "\033[2m" : "", SafeForTerminal(text).c_str(), dim ? "\033[0m" : "");
  }
  void Fail(const Status& status) {
    failed_ = true;
    std::fprintf(stderr, "reprise chat: %s\n", SafeForTerminal(status.message()).c_str());
  }

  Conversation& current() { return conversations_[current_]; }

  Status Begin() {
    REPRISE_ASSIGN_OR_RETURN(Conversation conversation, Conversation::Create(model_, settings_));
    if (flags_.draft > 0) REPRISE_RETURN_IF_ERROR(conversation.session().SetSpeculation({.draft = flags_.draft}));
    conversations_.clear();
    conversations_.push_back(std::move(conversation));
    current_ = 0;
    return Ok();
  }

  // False at the end of the input, or on Ctrl-C while nothing is being answered.
  bool ReadLine(std::string& line) {
    char* buffer = nullptr;
    size_t capacity = 0;
    const ssize_t count = ::getline(&buffer, &capacity, stdin);
    const std::unique_ptr<char, decltype(&std::free)> owner(buffer, &std::free);
    if (count < 0) return false;
    line.assign(buffer, static_cast<size_t>(count));
    while (!line.empty() && (line.back() == '\n' || line.back() == '\r')) line.pop_back();
    return true;
  }
  bool ReadMessage(std::string& message) {
    message.clear();
    const bool prompts = StdinIsTerminal();
    std::string line;
    for (bool first = true;; first = false) {
      if (prompts) {
        std::fputs(first ? (conversations_.size() > 1 ? fmt::format("\n[{}] › ", current_ + 1) : std::string("\n› ")).c_str() : "… ",
                   stderr);
        std::fflush(stderr);
      }
      if (!ReadLine(line)) return !first && !message.empty();
      const bool goes_on = !line.empty() && line.back() == '\\';
      if (goes_on) line.back() = '\n';
      message += line;
      if (!goes_on) return true;
    }
  }

  void Ask(std::string question) {
    Answered([&](const GenerationOptions& options, const PrefillOptions& prefill) {
      return current().Ask(std::move(question), options, prefill);
    });
  }

  template <class F>
  void Answered(F answer_with) {
    Progress progress("reading", false);
    PrefillOptions prefill;
    prefill.cancel = &interrupted_;
    prefill.progress = [&](int done, int total) {
      progress.Update(static_cast<double>(done) / total, fmt::format("{} of {} tokens", done, total));
    };
    GenerationOptions options;
    options.cancel = &interrupted_;
    options.show = [&](std::string_view text) {
      progress.Done();
      ShowText(text);
    };
    const Result<Answer> answer = answer_with(options, prefill);
    progress.Done();
    if (interrupted_.load(std::memory_order_relaxed)) RearmInterrupt();
    if (!answer.ok()) return Fail(answer.status());
    ShowText("\n");
    const Generation& generation = answer->generation;
    ShowNotices("chat", model_);
    Note(fmt::format("[{}; read in {:.0f} ms; {} generated in {:.0f} ms, {:.1f} a second{}]", ReuseNote(answer->prefill),
                     answer->prefill.seconds * 1e3, generation.tokens.size(), generation.seconds * 1e3, generation.tokens_per_second(),
                     generation.context_full                   ? "; the context is full: /undo or /reset"
                     : generation.finish == Finish::kLength    ? "; stopped at --tokens"
                     : generation.finish == Finish::kCancelled ? "; stopped"
                                                               : ""));
  }

  // False when the command ends the chat.
  bool Command(const std::string& line) {
    const size_t space = line.find(' ');
    const std::string name = line.substr(0, space);
    const size_t begin = line.find_first_not_of(' ', space);
    std::string argument = begin == std::string::npos || space == std::string::npos ? "" : line.substr(begin);
    while (!argument.empty() && argument.back() == ' ') argument.pop_back();
    Status status = Ok();
    if (name == "/quit" || name == "/exit") return false;
    if (name == "/help") {
      std::fputs(kHelp, stderr);
    } else if (name == "/undo") {
      status = Undo();
    } else if (name == "/regenerate") {
      if (settings_.sampling.temperature == 0) Note("[with --temp 0 the answer is always the same]");
      Answered([&](const GenerationOptions& options, const PrefillOptions& prefill) { return current().Regenerate(options, prefill); });
    } else if (name == "/fork") {
      status = Fork();
    } else if (name == "/switch") {
      status = Switch(argument);
    } else if (name == "/save") {
      status = Save(argument);
    } else if (name == "/load") {
      status = Load(argument);
    } else if (name == "/reset") {
      const size_t had = conversations_.size();
      conversations_.clear();  // first: their lanes are needed
      status = Begin();
      if (!status.ok()) {
        Fail(status);
        return false;
      }
      Note(had > 1 ? fmt::format("[a new conversation; {} were let go of]", had) : "[a new conversation]");
    } else {
      status = InvalidArgument("there is no command " + name + "; /help lists those there are");
    }
    if (!status.ok()) Fail(status);
    return true;
  }

  Status Undo() {
    const Clock::time_point start = Clock::now();
    REPRISE_RETURN_IF_ERROR(current().Undo());
    Note(fmt::format("[back in {:.0f} microseconds; {} left]", Milliseconds(start) * 1e3, Turns(current().turns())));
    return Ok();
  }

  Status Fork() {
    const Clock::time_point start = Clock::now();
    auto fork = current().Fork();
    if (fork.status().code() == StatusCode::kExhausted) {
      return Exhausted(fmt::format("there is room for {} conversations; --lanes makes more", model_.info().lanes));
    }
    REPRISE_RETURN_IF_ERROR(fork.status());
    const double us = Milliseconds(start) * 1e3;
    if (flags_.draft > 0) REPRISE_RETURN_IF_ERROR(fork->session().SetSpeculation({.draft = flags_.draft}));
    conversations_.push_back(*std::move(fork));
    current_ = conversations_.size() - 1;
    Note(fmt::format("[conversation {}, forked in {:.0f} microseconds; /switch goes between them]", current_ + 1, us));
    return Ok();
  }

  Status Switch(const std::string& argument) {
    if (argument.empty()) {
      for (size_t i = 0; i < conversations_.size(); ++i) {
        Note(fmt::format("{} {}: {}, {} tokens", i == current_ ? "*" : " ", i + 1, Turns(conversations_[i].turns()),
                         conversations_[i].session().position()));
      }
      return Ok();
    }
    char* end = nullptr;
    const long number = std::strtol(argument.c_str(), &end, 10);
    if (*end != '\0' || number < 1 || number > static_cast<long>(conversations_.size())) {
      return InvalidArgument(fmt::format("there is no conversation '{}'; there are 1 to {}", argument, conversations_.size()));
    }
    current_ = static_cast<size_t>(number) - 1;
    Note(fmt::format("[conversation {}: {}]", number, Turns(current().turns())));
    return Ok();
  }

  Status Save(const std::string& file) {
    if (file.empty()) return InvalidArgument("/save needs a file: /save FILE");
    REPRISE_ASSIGN_OR_RETURN(const auto bytes, current().Save());
    REPRISE_RETURN_IF_ERROR(WriteCapsuleFile(file, bytes));
    Note(fmt::format("[{} bytes in '{}']", bytes.size(), file));
    return Ok();
  }

  Status Load(const std::string& file) {
    if (file.empty()) return InvalidArgument("/load needs a file: /load FILE");
    REPRISE_ASSIGN_OR_RETURN(const auto bytes, ReadCapsuleFile(file));
    if (Status status = current().Load(bytes); !status.ok()) return status.Within("'" + file + "'");
    Note(fmt::format("[{}, {} tokens, none of them computed again]", Turns(current().turns()), current().session().position()));
    return Ok();
  }

  // Under its name in the store; a name that is not there yet is that of a chat which begins now.
  Status Resume() {
    const Status status = current().Resume(flags_.resume);
    if (status.code() == StatusCode::kNotFound) return Ok();
    REPRISE_RETURN_IF_ERROR(status);
    Note(fmt::format("[{} resumed: {}, {} tokens, none of them computed again]", flags_.resume, Turns(current().turns()),
                     current().session().position()));
    return Ok();
  }

  const ChatFlags& flags_;
  const Model& model_;
  const std::atomic<bool>& interrupted_;
  ChatSettings settings_;
  std::vector<Conversation> conversations_;
  size_t current_ = 0;
  bool failed_ = false;
};

Result<int> RunChat(const ChatFlags& flags) {
  const std::atomic<bool>& interrupted = CatchInterrupt();
  ModelOptions options = flags.model.Options();
  options.store = flags.store.Options();
  REPRISE_ASSIGN_OR_RETURN(const Model model, LoadModel(flags.model, options, /*quiet=*/false));
  return Chat(flags, model, interrupted).Run();
}

}  // namespace

void AddChatCommand(CLI::App& app, Action& action) {
  auto flags = std::make_shared<ChatFlags>();
  CLI::App* command = app.add_subcommand("chat", "Talks, in the model's own chat format");
  command->footer(
      "Each line of the input is a message, or a command: /help lists them. Answers go to stdout, everything else to stderr, so a script "
      "can\n"
      "talk too. Without sampling flags: --temp 0.7 --top-p 0.9 --seed 0.");
  command->add_option("--system", flags->system, "What the system message says")->type_name("TEXT");
  command->add_option("-n,--tokens", flags->max_tokens, "Most tokens of an answer")
      ->type_name("N")
      ->check(Bounded(1, kMostTokens))
      ->capture_default_str();
  command->add_option("--load", flags->load, "Go on from a capsule that /save wrote")->type_name("FILE");
  command->add_option("--draft", flags->draft, "Guess up to N tokens a step and check them together; only the speed changes")
      ->type_name("N")
      ->check(Bounded(0, Speculation::kMostDraft));
  auto* think = command->add_flag("--think", flags->think, "Answers begin with thoughts, where the model knows how");
  auto* no_think = command->add_flag("--no-think", flags->no_think, "Answers do not begin with thoughts");
  think->excludes(no_think);
  AddStoreFlags(*command, flags->store);
  command
      ->add_option("--resume", flags->resume, "Go on with the chat of this name in the store, and keep it there under this name at the end")
      ->type_name("NAME")
      ->needs("--store")
      ->excludes("--load")
      ->group("Store");
  AddSamplingFlags(*command, flags->sampling);
  AddModelFlags(*command, flags->model);
  command->callback([flags, &action] { action = [flags] { return RunChat(*flags); }; });
}

}  // namespace reprise
