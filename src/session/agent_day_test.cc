// An agent's day: the requests of a coding agent, each served by a session of its own as a server would, so that whatever is reused comes from the
// store. An oracle remembers every token path that was ever computed, and every boundary that the policy promises to keep.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <optional>
#include <string>
#include <vector>

#include "base/sanitized.h"
#include "reprise/session.h"
#include "session/engine.h"
#include "store/policy.h"

namespace reprise {
namespace {

constexpr char kEmbedded[] = "models/reprise-austen.gguf";
// Of a day it is the tokens that count, not the model.
constexpr const char* kDayModel = kSanitized ? "tests/data/goldens/qwen35_equal.gguf" : kEmbedded;

using Path = std::vector<int32_t>;

Path Joined(Path a, const Path& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}
Path Prefix(const Path& path, size_t count) { return {path.begin(), path.begin() + static_cast<ptrdiff_t>(count)}; }

size_t Common(const Path& a, const Path& b) {
  return static_cast<size_t>(std::mismatch(a.begin(), a.end(), b.begin(), b.end()).first - a.begin());
}

// What was computed, and what is promised.
class Oracle {
 public:
  size_t Known(const Path& prompt) const {
    size_t known = 0;
    for (const Path& path : seen_) known = std::max(known, Common(path, prompt));
    return known;
  }
  // The deepest promised boundary within the first `known` tokens.
  size_t Promised(const Path& prompt, size_t known) const {
    size_t deepest = 0;
    for (const Path& path : promised_) {
      if (path.size() <= known && Common(path, prompt) == path.size()) deepest = std::max(deepest, path.size());
    }
    return deepest;
  }
  void See(const Path& path) { seen_.push_back(path); }
  void Promise(const Path& path, Keep keep) {
    const bool always = keep == Keep::kSystem || keep == Keep::kTurn;
    // A few tokens past another it is not kept: that is the policy too.
    if (always || path.size() > Promised(path, path.size()) + policy::kNear) promised_.push_back(path);
  }

 private:
  std::vector<Path> seen_, promised_;
};

class AgentDay {
 public:
  AgentDay(const std::string& model, bool rewrites, std::string directory = "")
      : file_(model), rewrites_(rewrites), directory_(std::move(directory)) {
    Start();
    auto cold = Model::Load(file_, {.threads = 1, .context = 8192, .lanes = 1, .capsules = 16, .chunk = 61});
    EXPECT_TRUE(cold.ok()) << cold.status().message();
    cold_.emplace(*std::move(cold));
  }

  // One request: the prompt is read, and a reply of `reply` tokens given. Returns the reply.
  Path Ask(const std::string& what, const Path& prompt, std::vector<Boundary> boundaries, int reply) {
    auto session = model_->NewSession({.name_space = "agent"});
    EXPECT_TRUE(session.ok());
    const size_t known = oracle_.Known(prompt);
    const size_t nearest = oracle_.Promised(prompt, known);
    const auto report = session->Prefill(prompt, {.boundaries = boundaries});
    EXPECT_TRUE(report.ok()) << what << ": " << report.status().message();
    if (!report.ok()) return {};
    EXPECT_EQ(report->reused + report->computed, static_cast<int>(prompt.size())) << what;
    EXPECT_LE(report->computed, static_cast<int>(prompt.size() - nearest)) << what << ": known " << known << ", promised " << nearest;
    EXPECT_EQ(report->known, static_cast<int>(known)) << what;
    if (report->reused == 0) {
      EXPECT_NE(report->reason, "") << what;
    }
    computed_ += report->computed;
    lower_bound_ += static_cast<int64_t>(prompt.size() - known);
    log_ += what + ": " + std::to_string(prompt.size()) + " tokens, " + std::to_string(prompt.size() - known) + " new, " +
            std::to_string(report->computed) + " computed, from " + std::string(TierName(report->tier)) + "\n";
    ExpectColdLogits(what, *session, prompt);

    std::sort(boundaries.begin(), boundaries.end(), [](const Boundary& a, const Boundary& b) { return a.position < b.position; });
    if (known > static_cast<size_t>(report->reused)) oracle_.Promise(Prefix(prompt, known), Keep::kDivergence);
    for (const Boundary& at : boundaries) {
      if (at.position > report->reused) oracle_.Promise(Prefix(prompt, static_cast<size_t>(at.position)), at.keep);
    }
    oracle_.Promise(prompt, Keep::kPrompt);
    Path said;
    for (int i = 0; i < reply; ++i) {
      const auto token = session->Next();
      EXPECT_TRUE(token.ok());
      said.push_back(token->id);
    }
    EXPECT_TRUE(session->EndReply().ok());
    const Path whole = session->tokens();
    oracle_.See(whole);
    oracle_.Promise(whole, Keep::kReply);
    return said;
  }

  // Begun and given up after `after` tokens.
  void Cancel(const Path& prompt, int after) {
    auto session = model_->NewSession({.name_space = "agent"});
    ASSERT_TRUE(session.ok());
    const size_t known = oracle_.Known(prompt);
    const auto report = session->StartPrefill(prompt);
    ASSERT_TRUE(report.ok());
    EXPECT_FALSE(*session->ContinuePrefill(after));
    const size_t there = static_cast<size_t>(session->position());
    // The end of the session is a cancellation too.
    computed_ += static_cast<int64_t>(there) - report->reused;
    lower_bound_ += static_cast<int64_t>(there - std::min(there, known));
    oracle_.See(Prefix(prompt, there));
    if (known > static_cast<size_t>(report->reused) && known < there) oracle_.Promise(Prefix(prompt, known), Keep::kDivergence);
    oracle_.Promise(Prefix(prompt, there), Keep::kStop);
  }

  void ExpectColdLogits(const std::string& what, Session& session, const Path& prompt) {
    auto fresh = cold_->NewSession();
    ASSERT_TRUE(fresh.ok());
    ASSERT_TRUE(fresh->Prefill(prompt).ok());
    const auto cold = fresh->Logits();
    ASSERT_TRUE(cold.ok());
    const std::vector<float> wanted(cold->begin(), cold->end());
    const auto logits = session.Logits();
    ASSERT_TRUE(logits.ok());
    EXPECT_TRUE(std::equal(wanted.begin(), wanted.end(), logits->begin(), logits->end())) << what << ": other bits than a cold run";
  }

  // Text to tokens of the vocabulary, the same for the same words.
  Path Words(int count, int seed) const {
    Path path;
    for (int i = 0; i < count; ++i) {
      path.push_back(static_cast<int32_t>((static_cast<int64_t>(i) * i * 31 + i * 7 + seed * 7919) % (model_->info().vocabulary - 10)));
    }
    return path;
  }

  void Play() {
    const Path system = Words(600, 1);
    struct Turn {
      Path question, reply;
    };
    std::vector<Turn> turns;
    const auto said_later = [&](const Path& reply) { return rewrites_ ? Path(reply.begin() + 12, reply.end()) : reply; };
    const auto prompt_of = [&](size_t count, const Path& last) {
      Path prompt = system;
      for (size_t i = 0; i < count; ++i) prompt = Joined(Joined(prompt, turns[i].question), said_later(turns[i].reply));
      return Joined(prompt, last);
    };
    // An answer's opening follows each question, and formats rewrite it.
    const Path opening = Words(6, 2);
    const auto ask = [&](const std::string& what, const Path& context) {
      const auto end = static_cast<int>(context.size());
      return Ask(what, Joined(context, opening), {{static_cast<int>(system.size()), Keep::kSystem}, {end, Keep::kTurn}}, 64);
    };
    for (int i = 0; i < 6; ++i) {
      turns.push_back({Words(70 + 10 * i, 10 + i), {}});
      turns.back().reply = Joined(opening, ask("turn " + std::to_string(i + 1), prompt_of(turns.size() - 1, turns.back().question)));
    }
    const Path full = prompt_of(6, {});
    ask("regenerate", prompt_of(5, turns[5].question));
    const Path edited = Joined(Prefix(turns[4].question, 60), Words(30, 30));
    ask("edit the turn before last", prompt_of(4, edited));
    for (int i = 0; i < 4; ++i) ask("sub-agent " + std::to_string(i + 1), Joined(full, Words(90, 40 + i)));
    turns.push_back({Words(80, 50), {}});
    turns.back().reply = Joined(opening, ask("back to the main line", prompt_of(6, turns.back().question)));
    ask("a new chat on the same system message", Joined(system, Words(50, 60)));
    Path deep = prompt_of(6, turns[6].question);
    deep[650] = (deep[650] + 1) % 1000;
    ask("a deep edit", deep);
    const Path long_prompt = Joined(prompt_of(7, {}), Words(900, 70));
    Cancel(Joined(long_prompt, opening), 400);
    ask("retry after a cancellation", long_prompt);
    if (!directory_.empty()) {
      Start();
      ask("the same context after a restart", long_prompt);
      ask("and once more", long_prompt);
      const auto stats = model_->store()->stats();
      EXPECT_GT(stats.hits_disk, 0u);
      EXPECT_LE(stats.disk_bytes, stats.disk_budget);
    }
    EXPECT_LE(static_cast<double>(computed_), 1.10 * static_cast<double>(lower_bound_)) << log_;
    std::printf("%lld tokens computed, at least %lld had to be\n", static_cast<long long>(computed_), static_cast<long long>(lower_bound_));
  }

 private:
  void Start() {
    model_.reset();  // first: what it has not written yet is written now
    StoreOptions store;
    store.directory = directory_;
    store.write_delay = 0.01;
    auto model = Model::Load(file_, {.threads = 2, .context = 8192, .lanes = 2, .capsules = 64, .chunk = 128, .store = store});
    ASSERT_TRUE(model.ok()) << model.status().message();
    model_.emplace(*std::move(model));
  }

  std::string file_;
  bool rewrites_;
  std::string directory_;
  std::optional<Model> model_, cold_;
  Oracle oracle_;
  int64_t computed_ = 0, lower_bound_ = 0;
  std::string log_;
};

std::string NewDirectory(const std::string& name) {
  const std::string directory = std::filesystem::temp_directory_path() / ("reprise_" + name + "_" + std::to_string(::getpid()));
  std::filesystem::remove_all(directory);
  return directory;
}

TEST(AgentDayTest, NothingIsPrefilledTwice) {
  AgentDay day(kDayModel, /*rewrites=*/false);
  day.Play();
}

TEST(AgentDayTest, NorWhenTheFormatRewritesWhatItSaid) {
  AgentDay day(kDayModel, /*rewrites=*/true);
  day.Play();
}

TEST(AgentDayTest, NorAfterARestart) {
  const std::string directory = NewDirectory("day");
  {
    AgentDay day(kDayModel, /*rewrites=*/true, directory);
    day.Play();
  }
  std::filesystem::remove_all(directory);
}

// Every file of the store is damaged: nothing of them reaches a session, which computes what it cannot have, says why, and is bit for bit that of
// a cold run. What is damaged is told once, and the store goes on.
TEST(AgentDayTest, DamagedFilesAreAMissAndNeverAState) {
  const std::string directory = NewDirectory("damage");
  StoreOptions store;
  store.directory = directory;
  const ModelOptions options{.threads = 1, .context = 4096, .lanes = 2, .capsules = 32, .chunk = 64, .store = store};
  Path prompt;
  for (int i = 0; i < 900; ++i) prompt.push_back((i * i + 5 * i) % 4000);
  std::vector<float> wanted;
  {
    auto model = Model::Load(kEmbedded, options);
    ASSERT_TRUE(model.ok()) << model.status().message();
    auto session = model->NewSession();
    ASSERT_TRUE(session->Prefill(prompt, {.boundaries = {{400, Keep::kSystem}}}).ok());
    const auto logits = session->Logits();
    wanted.assign(logits->begin(), logits->end());
  }
  for (const auto& file : std::filesystem::recursive_directory_iterator(directory + "/objects")) {
    if (!file.is_regular_file()) continue;
    std::fstream bytes(file.path(), std::ios::in | std::ios::out | std::ios::binary);
    bytes.seekp(static_cast<std::streamoff>(file.file_size() / 2));
    bytes.put('\x5a');
  }
  auto model = Model::Load(kEmbedded, options);
  ASSERT_TRUE(model.ok()) << model.status().message();
  auto session = model->NewSession();
  ASSERT_TRUE(session->Prefill(Prefix(prompt, 50)).ok());  // not an untouched lane
  const auto report = session->Prefill(prompt);
  ASSERT_TRUE(report.ok()) << report.status().message();
  EXPECT_LE(report->reused, 50);
  EXPECT_NE(report->reason, "");
  const auto logits = session->Logits();
  EXPECT_TRUE(std::equal(wanted.begin(), wanted.end(), logits->begin(), logits->end()));
  EXPECT_GE(model->store()->stats().quarantined, 1u);
  EXPECT_FALSE(model->store()->TakeNotices().empty());
  EXPECT_TRUE(model->store()->TakeNotices().empty());
  ASSERT_TRUE(model->store()->Flush().ok());
  EXPECT_EQ(model->NewSession()->Prefill(prompt)->reused, 900);
  std::filesystem::remove_all(directory);
}

// A process reads a long prompt, idles for a moment, and is killed in the middle of the next. What is found afterwards is whole, it is the prompt up
// to what the policy leaves unwritten, and the logits are those of a cold run.
TEST(AgentDayTest, NorAfterKill9) {
  const std::string directory = NewDirectory("kill");
  const auto load = [&] {
    StoreOptions store;
    store.directory = directory;
    store.write_delay = 0.01;
    return Model::Load(kEmbedded, {.threads = 1, .context = 8192, .lanes = 2, .capsules = 64, .chunk = 64, .store = store});
  };
  Path prompt;
  for (int i = 0; i < 1500; ++i) prompt.push_back((i * i + 3 * i) % 4000);
  int pipe[2];
  ASSERT_EQ(::pipe(pipe), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    auto model = load();
    auto session = model.ok() ? model->NewSession() : Result<Session>(model.status());
    if (!session.ok() || !session->Prefill(prompt, {.boundaries = {{700, Keep::kTurn}}}).ok()) ::_exit(1);
    while (model->store()->stats().waiting > 0) ::usleep(1000);
    (void)!::write(pipe[1], "x", 1);
    for (int i = 0;; ++i) {
      prompt[static_cast<size_t>(i) % 600] = i % 4000;
      (void)session->Prefill(prompt);
    }
  }
  char ready = 0;
  ASSERT_EQ(::read(pipe[0], &ready, 1), 1);
  ::usleep(30000);
  ASSERT_EQ(::kill(child, SIGKILL), 0);
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  ::close(pipe[0]);
  ::close(pipe[1]);
  auto model = load();
  ASSERT_TRUE(model.ok()) << model.status().message();
  auto session = model->NewSession();
  const auto report = session->Prefill(prompt);
  ASSERT_TRUE(report.ok());
  EXPECT_EQ(report->tier, Tier::kDisk) << report->reason;
  EXPECT_GE(report->reused, 1500 - 256);
  auto cold = Model::Load(kEmbedded, {.threads = 1, .context = 8192, .lanes = 1, .capsules = 8});
  auto fresh = cold->NewSession();
  ASSERT_TRUE(fresh->Prefill(prompt).ok());
  const auto wanted = fresh->Logits();
  const auto logits = session->Logits();
  EXPECT_TRUE(std::equal(wanted->begin(), wanted->end(), logits->begin(), logits->end()));
  std::filesystem::remove_all(directory);
}

}  // namespace
}  // namespace reprise
