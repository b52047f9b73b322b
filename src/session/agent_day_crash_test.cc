// An agent's day on which the process is killed, and on which its files are damaged: what is found afterwards is whole, it is as much as the store
// promises, and nothing else ever reaches a session.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <random>
#include <utility>

#include "models/synth.h"
#include "session/agent_day.h"
#include "store/disk_tier.h"

namespace reprise {
namespace {

using namespace testing_support;

constexpr const char* kDayModel = kSanitized ? "tests/data/goldens/qwen35_equal.gguf" : "models/reprise-austen.gguf";

// What may be computed again after a crash: a capsule that is no more than this past one that is written is not written (policy::WorthWriting), and
// one that is no more than kNear past another is not kept.
constexpr size_t kUnwritten = 256 + policy::kNear;
// The same where a later turn took its place before it was written: then it would serve edits alone, and is written as sparingly as strides are. How
// often that is so depends on how busy the machine is.
constexpr size_t kUnwrittenWithin = policy::kStride + policy::kNear;

class CrashDayTest : public testing::Test {
 protected:
  CrashDayTest() : directory_(std::filesystem::temp_directory_path() / ("reprise_crash_" + std::to_string(::getpid()))) {
    std::filesystem::remove_all(directory_);
    std::filesystem::create_directory(directory_);
    store_ = directory_ / "store";
  }
  ~CrashDayTest() override { std::filesystem::remove_all(directory_); }

  Result<Model> Load(const std::string& file, bool read_only = false) const {
    StoreOptions store;
    store.directory = store_;
    store.write_delay = store.tip_delay = 0.002;
    store.read_only = read_only;
    return Model::Load(file, {.threads = 1, .context = 8192, .lanes = 2, .capsules = 64, .chunk = 128, .store = store});
  }

  void PlayWithKills(const std::string& file, bool rewrites, double share, int kills);

  std::filesystem::path directory_;
  std::string store_;
};

// What a process says of a request that it has served, small enough for a pipe to take as a whole.
struct Told {
  int request = -1;  // -1: everything that is worth it has been written
  int reused = 0, computed = 0, known = 0, end = 0, replied = 0;
  Tier tier = Tier::kNone;
  bool has_reason = false;
  uint64_t logits = 0;
  std::array<int32_t, AgentDay::kLongestReply> reply = {};
};

Told TellOf(int request, const Served& served) {
  Told told{request,
            served.report.reused,
            served.report.computed,
            served.report.known,
            served.end,
            static_cast<int>(served.reply.size()),
            served.report.tier,
            !served.report.reason.empty(),
            served.logits};
  std::copy(served.reply.begin(), served.reply.end(), told.reply.begin());
  return told;
}

Served ServedAsTold(const Told& told) {
  Served served;
  served.report.reused = told.reused;
  served.report.computed = told.computed;
  served.report.known = told.known;
  served.report.tier = told.tier;
  if (told.has_reason) served.report.reason = "one was given";
  served.logits = told.logits;
  served.end = told.end;
  served.reply.assign(told.reply.begin(), told.reply.begin() + told.replied);
  return served;
}

// Serves the day from request `from` on until it is killed; after request `rest`, and after each before it where it `pauses`, it waits for the store to
// have written what it will.
[[noreturn]] void Live(Result<Model> model, AgentDay day, int from, int rest, bool pauses, int pipe) {
  if (!model.ok()) ::_exit(3);
  const auto tell = [&](const Told& told) {
    if (::write(pipe, &told, sizeof(told)) != sizeof(told)) ::_exit(4);
  };
  for (int i = from; i < AgentDay::kRequests; ++i) {
    const auto served = Serve(*model, day.At(i));
    if (!served.ok()) ::_exit(5);
    day.Answer(i, served->reply);
    tell(TellOf(i, *served));
    if (i != rest && !(pauses && i < rest)) continue;
    while (model->store()->stats().waiting > 0) ::usleep(500);
    if (i == rest) tell({});
  }
  for (;;) ::pause();
}

// Every capsule that the directory lists, restored and compared with a cold run; their paths.
std::vector<Path> CheckEverythingListed(const std::string& directory, Result<Model> model, Judge& judge) {
  std::vector<Path> listed;
  {
    const auto files = FileSystem::Open(directory, false);
    EXPECT_TRUE(files.ok()) << files.status().message();
    const auto tier = DiskTier::Open(*files, {});  // alone, so it sweeps up what the killed one left
    EXPECT_TRUE(tier.ok()) << tier.status().message();
    EXPECT_TRUE((*tier)->TakeNotices().empty());
    const auto report = (*tier)->Check();
    EXPECT_TRUE(report.ok());
    EXPECT_TRUE(report->faults.empty()) << report->faults[0];
    EXPECT_TRUE(report->orphans.empty()) << report->orphans[0];
  }
  EXPECT_TRUE(model.ok()) << model.status().message();
  auto session = model->NewSession({.name_space = kDayNamespace});
  for (const StoreEntry& entry : model->store()->List(kDayNamespace)) {
    const auto capsule = model->store()->Get(kDayNamespace, entry.id);
    EXPECT_TRUE(capsule.ok()) << capsule.status().message();
    if (!capsule.ok() || !session->Restore(*capsule).ok()) continue;
    listed.push_back(*model->store()->Tokens(kDayNamespace, entry.id));
    EXPECT_EQ(session->tokens(), listed.back());
    EXPECT_EQ(DigestOf(*session->Logits()), judge.ColdLogits(listed.back())) << "a listed capsule of " << listed.back().size() << " tokens";
  }
  EXPECT_TRUE(model->store()->TakeNotices().empty());
  return listed;
}

void CrashDayTest::PlayWithKills(const std::string& file, bool rewrites, double share, int kills) {
  Judge judge(file);
  ASSERT_TRUE(judge.ok());
  AgentDay day(judge.info().vocabulary, rewrites, share);
  const unsigned seed = std::random_device()();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::minstd_rand random(seed);
  int next = 0;
  size_t lost = 0;  // that may have to be computed again
  bool restarted = false;
  const auto hear = [&](int i, const Served& served) {
    ASSERT_EQ(i, next);
    if (std::exchange(restarted, false)) {
      EXPECT_EQ(served.report.tier, Tier::kDisk) << served.report.reason;
    }
    judge.Hear(day.At(i), served);
    day.Answer(i, served.reply);
    ++next;
  };
  for (int kill = 0; kill < kills; ++kill) {
    // Somewhere in this life's part of the day, and with a request left to be killed in.
    const int last = (AgentDay::kRequests - 2) * (kill + 1) / kills;
    if (next > last) continue;
    const int rest = next + static_cast<int>(random() % static_cast<unsigned>(last - next + 1));
    const bool pauses = random() % 2 == 0;
    int pipes[2];
    ASSERT_EQ(::pipe(pipes), 0);
    const pid_t child = ::fork();
    if (child == 0) {
      ::close(pipes[0]);
      Live(Load(file), day, next, rest, pauses, pipes[1]);
    }
    ::close(pipes[1]);
    std::vector<Path> durable;  // the contexts that were there when nothing was left to write
    Told told;
    while (::read(pipes[0], &told, sizeof(told)) == sizeof(told)) {
      if (told.request < 0) {
        // In the middle of reading, choosing, or writing.
        ::usleep(static_cast<useconds_t>(random() % 60000));
        ASSERT_EQ(::kill(child, SIGKILL), 0);
        continue;
      }
      const Request request = day.At(told.request);
      const Served served = ServedAsTold(told);
      // Where other lines may start, and where this one goes on.
      if (told.request <= rest && !request.boundaries.empty())
        durable.push_back(Prefix(request.prompt, static_cast<size_t>(request.boundaries.back().position)));
      if (told.request == rest) durable.push_back(Prefix(Joined(request.prompt, served.reply), static_cast<size_t>(served.end)));
      hear(told.request, served);
    }
    ::close(pipes[0]);
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFSIGNALED(status)) << "the process ended by itself, with " << WEXITSTATUS(status);

    const std::vector<Path> listed = CheckEverythingListed(store_, Load(file, /*read_only=*/true), judge);
    for (const Path& path : durable) {
      size_t deepest = 0;
      for (const Path& one : listed) {
        if (Common(one, path) == one.size()) deepest = std::max(deepest, one.size());
      }
      const bool within = !pauses && std::any_of(durable.begin(), durable.end(), [&](const Path& longer) {
        return longer.size() > path.size() && Common(longer, path) == path.size();
      });
      EXPECT_GE(deepest + (within ? kUnwrittenWithin : kUnwritten), path.size()) << "killed after request " << next - 1;
    }
    lost += pauses ? kUnwritten : kUnwrittenWithin;
    judge.Restarted(listed);
    restarted = true;
  }
  // The last process lives to see the evening.
  auto model = Load(file);
  ASSERT_TRUE(model.ok()) << model.status().message();
  while (next < AgentDay::kRequests) {
    const auto served = Serve(*model, day.At(next));
    ASSERT_TRUE(served.ok()) << served.status().message();
    hear(next, *served);
  }
  judge.TotalIsNearTheLowerBound(lost);
}

TEST_F(CrashDayTest, TheProcessIsKilledFiveTimes) { PlayWithKills(kDayModel, /*rewrites=*/true, 1, 5); }

// A hybrid of 115 million parameters, whose recurrent block is as large as some hundred rows; half the words, for time's sake.
TEST_F(CrashDayTest, ALargerModelIsKilledOnce) {
  if (kSanitized) GTEST_SKIP() << "the tokens of the day are those above, and this model takes minutes under a sanitizer";
  const std::string file = directory_ / "model.gguf";
  ASSERT_TRUE(Synthesize({.shape = "qwen3.5-0.1b"}, file).ok());
  PlayWithKills(file, /*rewrites=*/false, 0.5, 1);
}

// Every file of the store is damaged: nothing of them reaches a session, which computes what it cannot have, says why, and is bit for bit that of
// a cold run. What is damaged is told once, and the store goes on.
TEST_F(CrashDayTest, DamagedFilesAreAMissAndNeverAState) {
  StoreOptions store;
  store.directory = store_;
  const ModelOptions options{.threads = 1, .context = 4096, .lanes = 2, .capsules = 32, .chunk = 64, .store = store};
  Path prompt;
  for (int i = 0; i < 900; ++i) prompt.push_back((i * i + 5 * i) % 200);  // ids of any model here
  std::vector<float> wanted;
  {
    auto model = Model::Load(kDayModel, options);
    ASSERT_TRUE(model.ok()) << model.status().message();
    auto session = model->NewSession();
    ASSERT_TRUE(session->Prefill(prompt, {.boundaries = {{400, Keep::kSystem}}}).ok());
    const auto logits = session->Logits();
    wanted.assign(logits->begin(), logits->end());
  }
  for (const auto& file : std::filesystem::recursive_directory_iterator(store_ + "/objects")) {
    if (!file.is_regular_file()) continue;
    std::fstream bytes(file.path(), std::ios::in | std::ios::out | std::ios::binary);
    bytes.seekp(static_cast<std::streamoff>(file.file_size() / 2));
    bytes.put('\x5a');
  }
  auto model = Model::Load(kDayModel, options);
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
}

}  // namespace
}  // namespace reprise
