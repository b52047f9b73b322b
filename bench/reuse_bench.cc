// What a store costs and gives the sessions of a model, as one JSON object:
//
//     reuse_bench MODEL.gguf [ROUNDS]
//
// A conversation of 32 turns (64 tokens asked, 64 chosen) goes on in two loaded models, one with a store on disk and one without, in turns and in changing
// order; how much longer choosing takes with the store is its overhead, and what it wrote meanwhile is its wear. It writes without delay and is waited for, so
// that all of its work falls into its own turn. Two conversations a round. Then one context is gone back to: kept in
// memory, kept on disk with its files in the page cache, and with them thrown out of it (posix_fadvise after a sync: the disk's own cache and that of
// a virtual machine's host stay as they are).
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "reprise/session.h"
#include "session/engine.h"

namespace reprise {
namespace {

using Clock = std::chrono::steady_clock;
using Path = std::vector<int32_t>;

constexpr int kContext = 512;  // before the first turn
constexpr int kTurns = 32, kAsked = 64, kChosen = 64;
constexpr int kRestores = 15;

double Since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

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
    std::vector<std::string> figures;
    std::vector<double> overheads, bytes_a_token, rows_a_token;
    // Where a model's weights come to lie makes a difference too: each is loaded first once.
    for (int load = 0; load < 2 * rounds_; ++load) {
      const bool store_first = load % 2 == 0;
      std::filesystem::remove_all(directory_);
      std::optional<Talker> with, without;
      if (store_first) with.emplace(Load(true));
      without.emplace(Load(false));
      if (!store_first) with.emplace(Load(true));
      for (Talker* talker : {&*with, &*without}) talker->Ask(kContext);
      Need(with->model.store()->Flush());
      const auto before = with->model.store()->stats();
      for (int turn = 0; turn < kTurns; ++turn) {
        double seconds[2];
        for (const bool second : {false, true}) {
          const bool stored = second == (turn % 2 == 0);
          Talker& talker = stored ? *with : *without;
          talker.Ask(kAsked);
          seconds[stored] = talker.Choose(kChosen);
          while (with->model.store()->stats().waiting > 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
        }
        overheads.push_back(100 * (seconds[1] / seconds[0] - 1));
      }
      Need(with->model.store()->Flush());
      const auto after = with->model.store()->stats();
      const double tokens = kTurns * (kAsked + kChosen);
      bytes_a_token.push_back(static_cast<double>(after.bytes_written - before.bytes_written) / tokens);
      rows_a_token.push_back(static_cast<double>(after.rows_written - before.rows_written) / tokens);
      row_bytes_ = with->model.layout().row_bytes();
      recurrent_bytes_ = with->model.layout().recurrent_bytes();
      name_ = with->model.info().name;
      backend_ = with->model.info().backend;
      if (load + 1 == 2 * rounds_) {
        without.reset();
        GoBack(*with, figures);
      }
    }
    figures.push_back(Figure("decode_overhead", "%", overheads));
    figures.push_back(Figure("disk_bytes_a_token", "bytes", bytes_a_token));
    figures.push_back(Figure("rows_written_a_token", "rows", rows_a_token));
    fmt::print("{{\"model\": \"{}\", \"backend\": \"{}\", \"row_bytes\": {}, \"recurrent_bytes\": {}, \"results\": [\n  {}]}}\n", name_,
               backend_, row_bytes_, recurrent_bytes_, fmt::join(figures, ",\n  "));
  }

 private:
  struct Talker {
    Model model;
    Session session;
    Path tokens;

    explicit Talker(Model loaded) : model(std::move(loaded)), session(Need(model.NewSession())) {}
    void Ask(int count) {
      for (int i = 0; i < count; ++i) {
        tokens.push_back(static_cast<int32_t>((tokens.size() * 7919 + tokens.size() * tokens.size()) % (model.info().vocabulary - 10)));
      }
      Need(session.Prefill(tokens));
    }
    double Choose(int count) {
      const auto start = Clock::now();
      for (int i = 0; i < count; ++i) tokens.push_back(Need(session.Next()).id);
      Need(session.EndReply());
      return Since(start);
    }
  };

  Talker Load(bool stored) const {
    ModelOptions options{.context = 8192, .lanes = 2, .capsules = 16};
    if (stored) options.store = StoreOptions{.directory = directory_, .write_delay = 0};
    return Talker(Need(Model::Load(file_, options)));
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

  void GoBack(Talker& talker, std::vector<std::string>& figures) const {
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
      figures.push_back(Figure(std::string("restore_") + from, "ms", milliseconds,
                               from == std::string_view("disk") ? more + fmt::format(R"(, "still_cached": {:.3f})", stayed) : more));
    }
  }

  std::string file_;
  int rounds_;
  std::filesystem::path directory_;
  std::string name_, backend_;
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
