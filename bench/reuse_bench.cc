// What a store costs and gives the sessions of a model, as one JSON object:
//
//     reuse_bench MODEL.gguf [ROUNDS]
//
// What writing takes away from choosing: one session of one loaded model chooses segments of 32 tokens. They come in pairs, in changing order, and during one of
// each pair a capsule is written: its block and the rows since the last. The difference within a pair is what one writing costs, on the clock and of the
// choosing thread's processor time; its median has a 95 % interval (bootstrap). The overhead is that cost over the time of as many tokens as policy.h leaves
// between two blocks of a line at the least.
//
// What is written: a conversation of 32 turns (64 tokens asked, 64 chosen), once without a pause and with the store's own delays, once with time after each
// turn to write all that it will. Then its context is gone back to: kept in memory, kept on disk with its files in the page cache, and with them thrown out of
// it (posix_fadvise after a sync: the disk's own cache and that of a virtual machine's host stay as they are).
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <ctime>
#include <filesystem>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "reprise/session.h"
#include "session/engine.h"
#include "store/policy.h"

namespace reprise {
namespace {

using Clock = std::chrono::steady_clock;
using Path = std::vector<int32_t>;

constexpr int kContext = 512;  // before the first turn
constexpr int kTurns = 32, kAsked = 64, kChosen = 64;
constexpr int kSegment = 32, kPairs = 100;  // of a round
constexpr int kRestores = 15;

double Since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

double ProcessorSeconds() {
  timespec time{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const size_t half = values.size() / 2;
  return values.size() % 2 == 1 ? values[half] : (values[half - 1] + values[half]) / 2;
}

// Within which the median of what was drawn from lies, with 95 %: of as many values drawn again and again from those there are.
std::pair<double, double> IntervalOfMedian(const std::vector<double>& values) {
  std::mt19937 random(1);
  std::uniform_int_distribution<size_t> any(0, values.size() - 1);
  std::vector<double> medians, drawn(values.size());
  for (int i = 0; i < 4000; ++i) {
    for (double& value : drawn) value = values[any(random)];
    medians.push_back(Median(drawn));
  }
  std::sort(medians.begin(), medians.end());
  return {medians[medians.size() / 40], medians[medians.size() - 1 - medians.size() / 40]};
}

template <class T>
T Need(Result<T> result) {
  if (result.ok()) return *std::move(result);
  std::fprintf(stderr, "reuse_bench: %s\n", result.status().message().c_str());
  std::exit(1);
}
void Need(const Status& status) {
  if (status.ok()) return;
  std::fprintf(stderr, "reuse_bench: %s\n", status.message().c_str());
  std::exit(1);
}

std::string Figure(std::string_view name, std::string_view unit, std::vector<double> values, std::string_view more = "") {
  std::sort(values.begin(), values.end());
  return fmt::format(R"({{"name": "{}", "unit": "{}", "median": {:.6g}, "min": {:.6g}, "max": {:.6g}, "runs": {}{}}})", name, unit,
                     values[values.size() / 2], values.front(), values.back(), values.size(), more);
}

class Bench {
 public:
  Bench(std::string file, int rounds)
      : file_(std::move(file)),
        rounds_(rounds),
        directory_(std::filesystem::temp_directory_path() / ("reprise_reuse_bench." + std::to_string(::getpid()))) {}
  ~Bench() { std::filesystem::remove_all(directory_); }

  void Run() {
    Overhead();
    Wear(/*pauses=*/false);
    Wear(/*pauses=*/true);
    fmt::print("{{\"model\": \"{}\", \"backend\": \"{}\", \"row_bytes\": {}, \"recurrent_bytes\": {}, \"results\": [\n  {}]}}\n", name_,
               backend_, row_bytes_, recurrent_bytes_, fmt::join(figures_, ",\n  "));
  }

 private:
  struct Talker {
    Model model;
    Session session;
    Path tokens;

    explicit Talker(Model loaded) : model(std::move(loaded)), session(Need(model.NewSession())) {}
    CapsuleStore& store() const { return *model.store(); }
    void AwaitWriting() const {
      while (store().stats().waiting > 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    void Ask(int count) {
      for (int i = 0; i < count; ++i) {
        tokens.push_back(static_cast<int32_t>((tokens.size() * 7919 + tokens.size() * tokens.size()) % (model.info().vocabulary - 10)));
      }
      Need(session.Prefill(tokens));
    }
    void Choose(int count) {
      for (int i = 0; i < count; ++i) tokens.push_back(Need(session.Next()).id);
    }
  };

  Talker Load(const StoreOptions& store) {
    std::filesystem::remove_all(directory_);
    Talker talker(Need(Model::Load(file_, {.context = 8192, .lanes = 2, .capsules = 16, .store = store})));
    row_bytes_ = talker.model.layout().row_bytes();
    recurrent_bytes_ = talker.model.layout().recurrent_bytes();
    name_ = talker.model.info().name;
    backend_ = talker.model.info().backend;
    return talker;
  }

  void AddFigure(std::string_view name, std::string_view unit, const std::vector<double>& values, std::string_view more = "") {
    figures_.push_back(Figure(name, unit, values, more));
  }
  void AddDifferences(std::string_view name, std::string_view unit, std::vector<double> values, double scale) {
    for (double& value : values) value *= scale;
    const auto [low, high] = IntervalOfMedian(values);
    AddFigure(name, unit, values, fmt::format(R"(, "low": {:.6g}, "high": {:.6g})", low, high));
  }

  void Overhead() {
    struct Times {
      double clock, processor;
    };
    std::vector<double> clock, processor, alone;
    int unfinished = 0;
    for (int round = 0; round < rounds_; ++round) {
      Talker talker = Load({.directory = directory_, .write_delay = 0, .tip_delay = 0});
      talker.Ask(kContext);
      talker.Choose(kSegment);  // a warm-up
      talker.AwaitWriting();
      const auto segment = [&](bool writing) {
        const double processor_before = ProcessorSeconds();
        const auto start = Clock::now();
        const uint64_t id = writing ? Need(talker.session.Save({.keep = Keep::kRequested})) : 0;
        talker.Choose(kSegment);
        const Times times{Since(start), ProcessorSeconds() - processor_before};
        if (writing) {
          unfinished += talker.store().stats().waiting > 0 ? 1 : 0;
          talker.AwaitWriting();
          Need(talker.store().Remove("", id));
        }
        return times;
      };
      for (int pair = 0; pair < kPairs; ++pair) {
        Times times[2];
        for (const bool second : {false, true}) {
          const bool writing = second == (pair % 2 == 0);
          times[writing] = segment(writing);
        }
        clock.push_back(times[1].clock - times[0].clock);
        processor.push_back(times[1].processor - times[0].processor);
        alone.push_back(times[0].clock);
      }
    }
    const int apart = policy::RowsBetweenBlocks(recurrent_bytes_, row_bytes_);
    const double token = Median(alone) / kSegment;  // seconds
    for (double& seconds : alone) seconds *= 1e3 / kSegment;
    AddFigure("token_time", "ms", alone);
    AddDifferences("write_cost", "ms", clock, 1e3);
    AddDifferences("write_cost_processor", "ms", processor, 1e3);
    AddDifferences("decode_overhead", "%", clock, 100 / (apart * token));
    AddDifferences("decode_overhead_processor", "%", processor, 100 / (apart * token));
    figures_.push_back(
        fmt::format(R"({{"name": "tokens_between_blocks", "unit": "tokens", "median": {}, "unfinished": {}}})", apart, unfinished));
  }

  void Wear(bool pauses) {
    StoreOptions options{.directory = directory_};
    if (pauses) options.write_delay = options.tip_delay = 0;
    Talker talker = Load(options);
    talker.Ask(kContext);
    Need(talker.store().Flush());
    const auto before = talker.store().stats();
    for (int turn = 0; turn < kTurns; ++turn) {
      talker.Ask(kAsked);
      talker.Choose(kChosen);
      Need(talker.session.EndReply());
      if (pauses) talker.AwaitWriting();
    }
    Need(talker.store().Flush());
    const auto after = talker.store().stats();
    const double tokens = kTurns * (kAsked + kChosen);
    const std::string_view which = pauses ? "_with_pauses" : "";
    AddFigure(fmt::format("disk_bytes_a_token{}", which), "bytes",
              {static_cast<double>(after.bytes_written - before.bytes_written) / tokens});
    AddFigure(fmt::format("rows_written_a_token{}", which), "rows",
              {static_cast<double>(after.rows_written - before.rows_written) / tokens});
    if (pauses) GoBack(talker);
  }

  // Of everything the directory holds, to the disk and out of the page cache. Returns how much of it stayed.
  double ThrowOut() const {
    size_t pages = 0, stayed = 0;
    for (const auto& file : std::filesystem::directory_iterator(directory_ / "objects")) {
      const int fd = ::open(file.path().c_str(), O_RDONLY | O_CLOEXEC);
      const auto bytes = static_cast<size_t>(file.file_size());
      (void)::fsync(fd);
      (void)::posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
      void* const mapped = ::mmap(nullptr, bytes, PROT_READ, MAP_SHARED, fd, 0);
      const auto page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
      std::vector<unsigned char> resident((bytes + page - 1) / page);
      (void)::mincore(mapped, bytes, resident.data());
      ::munmap(mapped, bytes);
      ::close(fd);
      pages += resident.size();
      stayed += static_cast<size_t>(std::count_if(resident.begin(), resident.end(), [](unsigned char r) { return (r & 1) != 0; }));
    }
    return static_cast<double>(stayed) / static_cast<double>(std::max<size_t>(1, pages));
  }

  void GoBack(Talker& talker) {
    CapsuleStore& store = *talker.model.store();
    const Path prompt = talker.session.tokens();
    Need(talker.session.Save({.keep = Keep::kRequested, .pinned = false}));
    Need(store.Flush());
    talker.session = Need(talker.model.NewSession());  // which holds nothing of it
    const auto more = fmt::format(R"(, "tokens": {}, "bytes": {})", prompt.size(), recurrent_bytes_ + prompt.size() * row_bytes_);
    for (const char* const from : {"memory", "page_cache", "disk"}) {
      std::vector<double> milliseconds;
      double stayed = 0;
      for (int i = 0; i < kRestores; ++i) {
        if (from != std::string_view("memory")) {
          while (store.DropOne()) continue;
        }
        if (from == std::string_view("disk")) stayed = std::max(stayed, ThrowOut());
        Session session = Need(talker.model.NewSession());
        const auto start = Clock::now();
        const PrefillReport report = Need(session.Prefill(prompt));
        milliseconds.push_back(1e3 * Since(start));
        const Tier wanted = from == std::string_view("memory") ? Tier::kMemory : Tier::kDisk;
        if (report.computed != 0 || report.tier != wanted)
          Need(Internal(fmt::format("a restore from {} was none: {}", from, report.reason)));
      }
      AddFigure(std::string("restore_") + from, "ms", milliseconds,
                from == std::string_view("disk") ? more + fmt::format(R"(, "still_cached": {:.3f})", stayed) : more);
    }
  }

  std::string file_;
  int rounds_;
  std::filesystem::path directory_;
  std::string name_, backend_;
  std::vector<std::string> figures_;
  uint64_t row_bytes_ = 0, recurrent_bytes_ = 0;
};

}  // namespace
}  // namespace reprise

int main(int argc, char** argv) {
  if (argc < 2) {
    std::fprintf(stderr, "usage: reuse_bench MODEL.gguf [ROUNDS]\n");
    return 2;
  }
  reprise::Bench(argv[1], argc > 2 ? std::max(1, std::atoi(argv[2])) : 1).Run();
  return 0;
}
