// An agent's day, request by request: nothing is computed twice, and what is reused has the bits of a cold run.
#include "session/agent_day.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>

namespace reprise {
namespace {

using namespace testing_support;

// Of a day it is the tokens that count, not the model.
constexpr const char* kDayModel = kSanitized ? "tests/data/goldens/qwen35_equal.gguf" : "models/reprise-austen.gguf";

class AgentDayTest : public testing::Test {
 protected:
  AgentDayTest() : directory_(std::filesystem::temp_directory_path() / ("reprise_day_" + std::to_string(::getpid()))) {
    std::filesystem::remove_all(directory_);
    std::filesystem::create_directory(directory_);
  }
  ~AgentDayTest() override { std::filesystem::remove_all(directory_); }

  // With a restart before the same context comes again, when there is a directory to restart from.
  static void Play(const std::string& file, bool rewrites, const std::string& directory) {
    Judge judge(file);
    ASSERT_TRUE(judge.ok());
    AgentDay day(judge.info().vocabulary, rewrites, /*share=*/1);
    std::optional<Model> model;
    const auto start = [&] {
      model.reset();  // first: what it has not written yet is written now
      StoreOptions store;
      store.directory = directory;
      store.write_delay = store.tip_delay = 0.01;
      auto loaded = Model::Load(file, {.threads = 1, .context = 8192, .lanes = 2, .capsules = 64, .chunk = 128, .store = store});
      ASSERT_TRUE(loaded.ok()) << loaded.status().message();
      model.emplace(*std::move(loaded));
    };
    start();
    for (int i = 0; i < (directory.empty() ? AgentDay::kRestart : AgentDay::kRequests); ++i) {
      if (i == AgentDay::kRestart) start();
      const auto served = Serve(*model, day.At(i));
      ASSERT_TRUE(served.ok()) << day.At(i).what << ": " << served.status().message();
      judge.Hear(day.At(i), *served);
      day.Answer(i, served->reply);
    }
    judge.TotalIsNearTheLowerBound();
    const auto stats = model->store()->stats();
    EXPECT_EQ(stats.hits_disk > 0, !directory.empty());
    EXPECT_LE(stats.memory_bytes, stats.memory_budget);
    EXPECT_LE(stats.disk_bytes, stats.disk_budget);
  }

  std::filesystem::path directory_;
};

TEST_F(AgentDayTest, NothingIsPrefilledTwice) { Play(kDayModel, /*rewrites=*/false, ""); }

TEST_F(AgentDayTest, NorWhenTheFormatRewritesWhatItSaid) { Play(kDayModel, /*rewrites=*/true, ""); }

TEST_F(AgentDayTest, NorAfterARestart) { Play(kDayModel, /*rewrites=*/true, directory_ / "store"); }

}  // namespace
}  // namespace reprise
