// Thousands of random operations on sessions of two namespaces, under a tight budget for memory and for disk. After each the budgets hold, counted by the
// store, by the pools and by the operating system; what is reused is of its own namespace and has the bits of a cold run. The longer form:
// session_test --gtest_also_run_disabled_tests --gtest_filter='StoreSoak.*ForMinutes'
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <random>
#include <set>

#include "session/agent_day.h"
#include "session/engine.h"
#include "store/disk_tier.h"

namespace reprise {
namespace {

using namespace testing_support;

constexpr char kModel[] = "tests/data/goldens/qwen35_equal.gguf";
constexpr uint64_t kMemoryBudget = uint64_t{3} << 20;  // some forty capsules
constexpr uint64_t kDiskBudget = uint64_t{4} << 20;    // with room for all that is ever pinned or named at once
constexpr size_t kLongest = 500;
constexpr size_t kMostSessions = 4;

uint64_t ResidentBytes() {
  uint64_t pages = 0, resident = 0;
  std::ifstream("/proc/self/statm") >> pages >> resident;
  return resident * static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
}

// As the file system gives it out. A walk is no snapshot: a file that is renamed meanwhile may be met twice.
uint64_t BytesOnDisk(const std::string& directory) {
  uint64_t bytes = 0;
  std::error_code gone;
  for (auto file = std::filesystem::recursive_directory_iterator(directory, gone); file != std::filesystem::recursive_directory_iterator();
       file.increment(gone)) {
    struct stat facts {};
    if (::lstat(file->path().c_str(), &facts) == 0 && S_ISREG(facts.st_mode)) bytes += static_cast<uint64_t>(facts.st_blocks) * 512;
  }
  return bytes;
}

class StoreSoak : public testing::Test {
 protected:
  StoreSoak() : judge_(kModel), directory_(std::filesystem::temp_directory_path() / ("reprise_soak_" + std::to_string(::getpid()))) {
    std::filesystem::remove_all(directory_);
    Reload();
  }
  ~StoreSoak() override {
    sessions_.clear();
    model_.reset();
    std::filesystem::remove_all(directory_);
  }

  void Run(int count);

  struct Live {
    Session session;
    int name_space;
  };
  // What the test knows of a namespace: every path that was ever computed there, and what it pinned.
  struct Known {
    std::string name;
    std::set<Path> seen;
    std::vector<uint64_t> pinned;
    size_t CommonWith(const Path& prompt) const {
      const auto after = seen.lower_bound(prompt);
      return std::max(after != seen.end() ? Common(*after, prompt) : 0, after != seen.begin() ? Common(*std::prev(after), prompt) : 0);
    }
  };

  CapsuleStore& store() { return *model_->store(); }
  uint32_t Random(size_t below) { return static_cast<uint32_t>(random_() % below); }
  Known& RandomSpace() { return spaces_[Random(2)]; }
  Live* RandomSession() { return sessions_.empty() ? nullptr : &sessions_[Random(sessions_.size())]; }
  std::optional<StoreEntry> RandomEntry(const Known& space) {
    const auto list = store().List(space.name);
    if (list.empty()) return std::nullopt;
    return list[Random(list.size())];
  }
  void Drop(size_t session) { sessions_.erase(sessions_.begin() + static_cast<ptrdiff_t>(session)); }

  // Both namespaces see the same texts: what they share must not show.
  Path RandomPrompt() {
    const auto words = [&](size_t count, uint32_t seed) {
      Path path;
      for (size_t i = 0; i < count; ++i) path.push_back(static_cast<int32_t>((i * i * 31 + i * 7 + seed * 7919) % 280));
      return path;
    };
    Path prompt = words(100 + 50 * Random(2), 1);
    for (uint32_t turn = Random(5); turn > 0; --turn) prompt = Joined(prompt, words(20 + Random(80), 2 + Random(4)));
    return Prefix(prompt, std::min(prompt.size(), kLongest - 100));
  }

  // What the session has computed is known to its namespace from now on.
  void See(const Live& live) { spaces_[live.name_space].seen.insert(live.session.tokens()); }
  void ExpectColdLogits(Live& live) {
    const Path path = live.session.tokens();
    if (path.empty() || Random(8) != 0) return;
    const auto logits = live.session.Logits();
    ASSERT_TRUE(logits.ok()) << logits.status().message();
    EXPECT_EQ(DigestOf(*logits), judge_.ColdLogits(path)) << "other bits than a cold run";
  }

  void Reload() {
    sessions_.clear();
    model_.reset();
    judge_.Forget();
    const StoreOptions store{
        .memory_budget = kMemoryBudget, .directory = directory_, .disk_budget = kDiskBudget, .write_delay = 0.001, .tip_delay = 0.001};
    auto model = Model::Load(kModel, {.threads = 1, .context = 1024, .lanes = 6, .capsules = 24, .chunk = 48, .store = store});
    ASSERT_TRUE(model.ok()) << model.status().message();
    model_.emplace(*std::move(model));
  }
  // A prompt, in pieces, by a new session or one that is there; one in five is given up.
  void Prompt() {
    if (sessions_.size() == kMostSessions) Drop(Random(kMostSessions));
    if (sessions_.empty() || Random(2) == 0) {
      const int which = static_cast<int>(Random(2));
      auto session = model_->NewSession({.name_space = spaces_[which].name});
      ASSERT_TRUE(session.ok()) << session.status().message();
      sessions_.push_back({*std::move(session), which});
    }
    Live& live = *RandomSession();
    See(live);
    const Known& space = spaces_[live.name_space];
    const Path prompt = RandomPrompt();
    const size_t most = space.CommonWith(prompt);
    std::vector<Boundary> boundaries;
    for (uint32_t i = Random(3); i > 0; --i)
      boundaries.push_back({static_cast<int>(Random(prompt.size())), i == 1 ? Keep::kSystem : Keep::kTurn});
    const auto report = live.session.StartPrefill(prompt, {.boundaries = boundaries});
    ASSERT_TRUE(report.ok()) << report.status().message();
    EXPECT_LE(report->known, static_cast<int>(most)) << "a path of another namespace";
    EXPECT_LE(report->reused, report->known);
    reused_ += report->reused;
    const bool give_up = Random(5) == 0;
    for (bool whole = false; !whole;) {
      const auto step = live.session.ContinuePrefill(1 + static_cast<int>(Random(100)));
      ASSERT_TRUE(step.ok()) << step.status().message();
      whole = *step;
      if (give_up && !whole) {
        ASSERT_TRUE(live.session.CancelPrefill().ok());
        break;
      }
    }
    See(live);
    ExpectColdLogits(live);
  }
  void Decode() {
    Live* const live = RandomSession();
    if (live == nullptr || live->session.position() == 0) return;
    const auto room = static_cast<int>(kLongest) - live->session.position();
    for (int i = std::min<int>(room, 1 + static_cast<int>(Random(30))); i > 0; --i) {
      ASSERT_TRUE(live->session.Next().ok());
    }
    if (Random(2) == 0) {
      ASSERT_TRUE(live->session.EndReply().ok());
    }
    See(*live);
    ExpectColdLogits(*live);
  }
  void Save() {
    Live* const live = RandomSession();
    if (live == nullptr || live->session.position() == 0) return;
    Known& space = spaces_[live->name_space];
    CapsuleStore::PutOptions options{.metadata = std::string(Random(2000), 'm')};
    if (Random(2) == 0) options.name = "name " + std::to_string(Random(2));
    options.pinned = space.pinned.size() < 2 && Random(3) == 0;
    const auto id = live->session.Save(options);
    ASSERT_TRUE(id.ok()) << id.status().message();
    if (options.pinned && *id != 0) space.pinned.push_back(*id);
    See(*live);
  }
  void Fork() {
    Live* const live = RandomSession();
    if (live == nullptr || live->session.position() == 0 || sessions_.size() == kMostSessions) return;
    const int name_space = live->name_space;
    auto forks = live->session.Fork(live->session.Snapshot(), 1);
    ASSERT_TRUE(forks.ok()) << forks.status().message();
    sessions_.push_back({std::move(forks->front()), name_space});
    See(sessions_.back());
    ExpectColdLogits(sessions_.back());
  }
  // From memory or from disk, by a session that was elsewhere; nobody of the other namespace can.
  void Restore() {
    Live* const live = RandomSession();
    if (live == nullptr) return;
    const auto entry = RandomEntry(spaces_[live->name_space]);
    if (!entry) return;
    EXPECT_EQ(store().Get(spaces_[1 - live->name_space].name, entry->id).status().code(), StatusCode::kNotFound);
    const auto path = store().Tokens(entry->name_space, entry->id);
    const auto capsule = store().Get(entry->name_space, entry->id);
    if (!capsule.ok()) {  // the store's thread may have evicted it meanwhile
      EXPECT_EQ(capsule.status().code(), StatusCode::kNotFound) << capsule.status().message();
      return;
    }
    ASSERT_TRUE(live->session.Restore(*capsule).ok());
    if (path.ok()) {
      EXPECT_EQ(live->session.tokens(), *path);
    }
    See(*live);
    ExpectColdLogits(*live);
  }
  void Name() {
    const Known& space = RandomSpace();
    if (const auto entry = RandomEntry(space))
      (void)store().Name(space.name, entry->id, Random(2) == 0 ? "" : "name " + std::to_string(Random(2)));
  }
  void Unpin() {
    Known& space = RandomSpace();
    if (space.pinned.empty()) return;
    ASSERT_TRUE(store().Pin(space.name, space.pinned.back(), false).ok());
    space.pinned.pop_back();
  }
  void Remove() {
    Known& space = RandomSpace();
    const auto entry = RandomEntry(space);
    if (!entry) return;
    const Status status = store().Remove(space.name, entry->id);
    EXPECT_TRUE(status.ok() || status.code() == StatusCode::kNotFound) << status.message();
    EXPECT_FALSE(store().Show(space.name, entry->id).ok());
    std::erase(space.pinned, entry->id);
  }

  void Operate() {
    struct Operation {
      int weight;
      void (StoreSoak::*run)();
    };
    static constexpr Operation kOperations[] = {
        {30, &StoreSoak::Prompt},  {20, &StoreSoak::Decode}, {6, &StoreSoak::Save},  {6, &StoreSoak::Fork},
        {12, &StoreSoak::Restore}, {3, &StoreSoak::Name},    {2, &StoreSoak::Unpin}, {4, &StoreSoak::Remove},
    };
    int weights = 0;
    for (const Operation& operation : kOperations) weights += operation.weight;
    auto left = static_cast<int>(Random(static_cast<size_t>(weights)));
    const Operation* operation = kOperations;
    for (; left >= operation->weight; ++operation) left -= operation->weight;
    (this->*operation->run)();
  }

  void CheckBounds() {
    const auto stats = store().stats();
    ASSERT_LE(stats.memory_bytes, kMemoryBudget);
    ASSERT_LE(stats.disk_bytes, kDiskBudget);
    for (const Known& space : spaces_) {
      for (const uint64_t id : space.pinned) ASSERT_TRUE(store().Show(space.name, id).ok()) << "a pinned capsule is gone";
    }
    uint64_t on_disk = BytesOnDisk(directory_);
    for (int again = 0; on_disk > kDiskBudget && again < 5; ++again) on_disk = BytesOnDisk(directory_);
    ASSERT_LE(on_disk, kDiskBudget);
    most_on_disk_ = std::max(most_on_disk_, on_disk);
    for (const std::string& notice : store().TakeNotices()) {
      // Pinned and named ones may come to fill the directory: less is written then.
      EXPECT_NE(notice.find("written to"), std::string::npos) << notice;
    }
  }

  Judge judge_;
  std::string directory_;
  std::optional<Model> model_;
  std::vector<Live> sessions_;
  Known spaces_[2] = {{"one", {}, {}}, {"two", {}, {}}};
  std::minstd_rand random_{std::random_device()()};
  int64_t reused_ = 0;
  uint64_t most_on_disk_ = 0;
};

void StoreSoak::Run(int count) {
  const unsigned seed = std::random_device()();
  random_.seed(seed);
  SCOPED_TRACE("seed " + std::to_string(seed));
  uint64_t half_way = 0;
  uint64_t disk_hits = 0, evicted_memory = 0, evicted_disk = 0;
  const auto reload = [&] {
    const auto stats = store().stats();
    disk_hits += stats.hits_disk;
    evicted_memory += stats.evicted_memory;
    evicted_disk += stats.evicted_disk;
    Reload();
  };
  for (int i = 0; i < count && !HasFatalFailure(); ++i) {
    if (Random(250) == 0) {
      reload();
    } else if (Random(100) == 0) {
      ASSERT_TRUE(store().Flush().ok());
    } else {
      Operate();
    }
    CheckBounds();
    if (i == count / 2) half_way = ResidentBytes();
  }
  const uint64_t resident = ResidentBytes();
  reload();
  // All of it was exercised, and what is left is whole.
  EXPECT_GT(reused_, 0);
  EXPECT_GT(disk_hits, 0u);
  EXPECT_GT(evicted_memory, 0u);
  if (count >= 1000) {
    EXPECT_GT(evicted_disk, 0u);
  }
  if (HasFatalFailure()) return;
  // The paths that this test remembers grow with it, by some hundred tokens an operation.
  uint64_t own = 0;
  for (const Known& space : spaces_) {
    for (const Path& path : space.seen) own += path.capacity() * sizeof(int32_t) + 128;
  }
  if (!kSanitized) {  // whose shadow and quarantine are counted too; there leaks are told by name
    EXPECT_LE(resident, half_way + own + (uint64_t{8} << 20)) << "resident memory grows";
  }
  model_.reset();
  const auto tier = DiskTier::Open(*FileSystem::Open(directory_, false), {.budget = kDiskBudget});
  ASSERT_TRUE(tier.ok());
  const auto report = (*tier)->Check();
  ASSERT_TRUE(report.ok());
  EXPECT_TRUE(report->faults.empty()) << report->faults[0];
  EXPECT_TRUE(report->orphans.empty()) << report->orphans[0];
  std::printf(
      "%d operations; %lld tokens reused, %llu hits on disk, %llu evicted from memory and %llu from disk; at most %llu KiB on disk of "
      "%llu, "
      "%llu KiB resident half way and %llu at the end\n",
      count, static_cast<long long>(reused_), static_cast<unsigned long long>(disk_hits), static_cast<unsigned long long>(evicted_memory),
      static_cast<unsigned long long>(evicted_disk), static_cast<unsigned long long>(most_on_disk_ >> 10),
      static_cast<unsigned long long>(kDiskBudget >> 10), static_cast<unsigned long long>(half_way >> 10),
      static_cast<unsigned long long>(resident >> 10));
}

TEST_F(StoreSoak, RandomOperationsStayWithinTheirBudgets) { Run(kSanitized ? 400 : 1500); }
TEST_F(StoreSoak, DISABLED_RandomOperationsForMinutes) { Run(20000); }

}  // namespace
}  // namespace reprise
