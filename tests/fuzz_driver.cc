// Runs a fuzz target without libFuzzer, so that every build tests it: each seed as it is, cut short, and mutated some thousands of times.
// Deterministic: the same program and seeds make the same inputs. An input that broke the target is left in the working directory.
//
//   <name>_fuzz [-runs=N] [SEED_FILE_OR_FOLDER ...]
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);
// A target may bring a mutator of its own, which knows the format; it may call LLVMFuzzerMutate, as it may in libFuzzer.
extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size, unsigned seed) __attribute__((weak));
extern "C" void __sanitizer_set_death_callback(void (*callback)()) __attribute__((weak));

namespace {

using Bytes = std::vector<uint8_t>;
using Clock = std::chrono::steady_clock;

constexpr int kRuns = 20000;
constexpr auto kLongest = std::chrono::seconds(10);  // a slow machine, or a sanitizer, makes fewer inputs
constexpr size_t kMostCuts = 2000;
constexpr size_t kLargestMutant = 1 << 20;

const uint8_t* current = nullptr;
size_t current_size = 0;
char found_path[] = "fuzz_found.bin";

void LeaveInput() {
  const int fd = open(found_path, O_CREAT | O_WRONLY | O_TRUNC, 0644);
  if (fd < 0) return;
  if (write(fd, current, current_size) == static_cast<ssize_t>(current_size)) {
    const char message[] = "fuzz: the input that broke the target is in fuzz_found.bin\n";
    if (write(STDERR_FILENO, message, sizeof(message) - 1) < 0) return;
  }
  close(fd);
}

void OnSignal(int number) {
  LeaveInput();
  std::signal(number, SIG_DFL);
  std::raise(number);
}

void Run(const Bytes& input) {
  // An exact copy on the heap: one byte read past its end is one that a sanitizer sees.
  const Bytes exact(input);
  current = exact.data();
  current_size = exact.size();
  LLVMFuzzerTestOneInput(exact.data(), exact.size());
}

class Mutator {
 public:
  void Mutate(Bytes& bytes, const std::vector<Bytes>& seeds) {
    const size_t changes = 1 + Below(4);
    for (size_t i = 0; i < changes; ++i) MutateOnce(bytes, seeds);
    if (bytes.size() > kLargestMutant) bytes.resize(kLargestMutant);
  }
  size_t Below(size_t n) {
    state_ ^= state_ << 13;  // xorshift64
    state_ ^= state_ >> 7;
    state_ ^= state_ << 17;
    return n == 0 ? 0 : static_cast<size_t>(state_ % n);
  }

 private:
  void MutateOnce(Bytes& bytes, const std::vector<Bytes>& seeds) {
    if (bytes.empty()) bytes.push_back(0);
    // Headers are where parsers decide: half of the changes fall into the first 256 bytes.
    const size_t at = Below(2) == 0 ? Below(std::min<size_t>(bytes.size(), 256)) : Below(bytes.size());
    switch (Below(7)) {
      case 0: bytes[at] ^= static_cast<uint8_t>(1u << Below(8)); break;
      case 1: bytes[at] = static_cast<uint8_t>(Below(256)); break;
      case 2: PutInteger(bytes, at); break;
      case 3: bytes.resize(at); break;
      case 4: {  // a piece goes missing
        const size_t length = std::min(bytes.size() - at, 1 + Below(64));
        bytes.erase(bytes.begin() + static_cast<std::ptrdiff_t>(at), bytes.begin() + static_cast<std::ptrdiff_t>(at + length));
        break;
      }
      case 5: {  // a piece comes twice
        const size_t length = std::min(bytes.size() - at, 1 + Below(64));
        const Bytes piece(bytes.begin() + static_cast<std::ptrdiff_t>(at), bytes.begin() + static_cast<std::ptrdiff_t>(at + length));
        bytes.insert(bytes.begin() + static_cast<std::ptrdiff_t>(at), piece.begin(), piece.end());
        break;
      }
      case 6: {  // the rest of another seed
        const Bytes& other = seeds[Below(seeds.size())];
        const size_t from = Below(other.size() + 1);
        bytes.resize(at);
        bytes.insert(bytes.end(), other.begin() + static_cast<std::ptrdiff_t>(from), other.end());
        break;
      }
    }
  }

  // The integers that lying sizes are made of, in each width.
  void PutInteger(Bytes& bytes, size_t at) {
    static constexpr uint64_t kIntegers[] = {0,          1,          2,          0x7f,       0xff,        0x7fff,
                                             0xffff,     0x7fffffff, 0x80000000, 0xffffffff, 0x100000000, 1ull << 40,
                                             1ull << 61, 1ull << 62, 1ull << 63, ~0ull >> 1, ~0ull,       ~0ull - 63};
    const uint64_t value = kIntegers[Below(std::size(kIntegers))] + Below(3) - 1;
    const size_t width = size_t{1} << Below(4);
    std::memcpy(bytes.data() + at, &value, std::min(width, bytes.size() - at));
  }

  uint64_t state_ = 0x9E3779B97F4A7C15;
};

Mutator mutator;

// An input by the target's own mutator, which may go on from the one it made before.
Bytes CustomMutant(const Bytes& from) {
  static Bytes buffer(kLargestMutant);
  static Bytes last;
  const Bytes& start = mutator.Below(2) == 0 ? from : last;
  const size_t size = std::min(start.size(), buffer.size());
  std::copy_n(start.begin(), size, buffer.begin());
  const size_t mutated = LLVMFuzzerCustomMutator(buffer.data(), size, buffer.size(), static_cast<unsigned>(mutator.Below(1u << 31)));
  last.assign(buffer.begin(), buffer.begin() + static_cast<std::ptrdiff_t>(mutated));
  return last;
}

Bytes Read(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  return Bytes(std::istreambuf_iterator<char>(in), {});
}

}  // namespace

extern "C" size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t max_size) {
  Bytes bytes(data, data + size);
  mutator.Mutate(bytes, {bytes});
  bytes.resize(std::min(bytes.size(), max_size));
  std::copy(bytes.begin(), bytes.end(), data);
  return bytes.size();
}

int main(int argc, char** argv) {
  int runs = kRuns;
  std::vector<std::filesystem::path> paths;
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    if (argument.starts_with("-runs=")) {
      runs = std::atoi(argument.c_str() + 6);
    } else if (std::filesystem::is_directory(argument)) {
      for (const auto& entry : std::filesystem::directory_iterator(argument)) paths.push_back(entry.path());
    } else if (std::filesystem::exists(argument)) {
      paths.emplace_back(argument);
    }
  }
  std::sort(paths.begin(), paths.end());
  std::vector<Bytes> seeds = {Bytes()};
  for (const auto& path : paths) seeds.push_back(Read(path));

  for (const int number : {SIGSEGV, SIGABRT, SIGFPE, SIGBUS, SIGILL}) std::signal(number, OnSignal);
  if (__sanitizer_set_death_callback != nullptr) __sanitizer_set_death_callback(LeaveInput);

  int64_t inputs = 0;
  for (const Bytes& seed : seeds) {
    Run(seed);
    ++inputs;
    const size_t step = std::max<size_t>(1, seed.size() / kMostCuts);
    for (size_t size = 0; size < seed.size(); size += step, ++inputs)
      Run(Bytes(seed.begin(), seed.begin() + static_cast<std::ptrdiff_t>(size)));
  }
  const auto start = Clock::now();
  for (int i = 0; i < runs && Clock::now() - start < kLongest; ++i, ++inputs) {
    Bytes input = seeds[mutator.Below(seeds.size())];
    if (LLVMFuzzerCustomMutator != nullptr && i % 4 != 0) {
      input = CustomMutant(input);
    } else {
      mutator.Mutate(input, seeds);
    }
    Run(input);
  }
  std::printf("%lld inputs from %zu seeds\n", static_cast<long long>(inputs), seeds.size() - 1);
  return 0;
}
