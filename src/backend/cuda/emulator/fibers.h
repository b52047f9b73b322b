// The emulator's side of language.h: a block of threads as fibers of one host thread, which change places at barriers only.
//
// Shared memory is poisoned before each block; asynchronous copies happen when they are waited for, and no sooner; the order in which threads, warps
// and blocks take turns changes from block to block, and how far a warp may get ahead of others. A block of every launch comes to BeginKernel before
// the launches in front of it have run. So a barrier or a wait that is missing shows in the results, as it would on a device, sometimes.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

#include "backend/cuda/kernels.h"

#define REPRISE_DEVICE inline
#define REPRISE_KERNEL(Name, Args) inline void Name(const Args& args)
#define REPRISE_KERNEL_OF(kThreads, kBlocks, Name, Args) inline void Name(const Args& args)

namespace reprise::cuda {
namespace emulator {

struct Place {  // of the fiber that runs
  int thread = 0, threads = 0;
  int block[3] = {};
  int grid[3] = {};
};
extern Place place;
extern std::byte* shared_memory;

void SyncBlock();
void SyncWarp();
void Begin();
// Ends the program unless `at` is a multiple of `bytes`, which a device asks of what is read or written at once.
void CheckPlace(const void* at, size_t bytes);
// Every lane of the warp leaves 32 bytes; all can then read all of them until the next call.
const std::byte* Exchange(const void* mine, size_t bytes);
constexpr size_t kExchangeBytes = 32;
void CopyAsync(std::byte* to, const std::byte* from, int bytes);
void CommitCopies();
void WaitCopies(int pending);

// A launch: kernel(args) on every thread of every block of the grid.
struct Work {
  Grid grid;
  void (*kernel)(const void* args) = nullptr;
  const void* args = nullptr;
};
// One after another. A block of each but the first comes to BeginKernel before the `kLaunchesAhead` in front of it.
inline constexpr size_t kLaunchesAhead = 3;
void RunLaunches(std::span<const Work> launches);

}  // namespace emulator

inline int ThreadId() { return emulator::place.thread; }
inline int ThreadCount() { return emulator::place.threads; }
inline int BlockX() { return emulator::place.block[0]; }
inline int BlockY() { return emulator::place.block[1]; }
inline int BlockZ() { return emulator::place.block[2]; }
inline int GridX() { return emulator::place.grid[0]; }
inline std::byte* SharedMemory() { return emulator::shared_memory; }
inline void SyncBlock() { emulator::SyncBlock(); }
inline void SyncWarp() { emulator::SyncWarp(); }
template <class T>
inline T Shuffle(T x, int from) {
  const std::byte* all = emulator::Exchange(&x, sizeof(T));
  T other;
  std::memcpy(&other, all + static_cast<size_t>(from) * emulator::kExchangeBytes, sizeof(T));
  return other;
}
template <class T>
inline T ShuffleXor(T x, int mask) {
  return Shuffle(x, (ThreadId() % 32) ^ mask);
}
inline uint32_t ReduceMax(uint32_t x) {
  for (int mask = 16; mask > 0; mask /= 2) {
    const uint32_t other = ShuffleXor(x, mask);
    x = x > other ? x : other;
  }
  return x;
}
inline uint32_t AddShared(uint32_t* to, uint32_t x) {
  *to += x;
  return *to - x;
}
inline int Dot4(uint32_t a, uint32_t b, int c) {
  for (int i = 0; i < 4; ++i) c += static_cast<int8_t>(a >> (8 * i)) * static_cast<int8_t>(b >> (8 * i));
  return c;
}

// The tensor cores' products, as the PTX manual gives the places: of a lane, g = lane / 4 and t = lane % 4.
//   a[0]: row g, inputs 4t..4t+3     a[1]: row g + 8     a[2], a[3]: the same rows, inputs 16 + 4t..
//   b[0]: column g, inputs 4t..4t+3  b[1]: inputs 16 + 4t..
//   d[0], d[1]: row g, columns 2t, 2t + 1     d[2], d[3]: row g + 8
struct TileWords {
  uint32_t a[4], b[2];
};
// What every lane of the warp brings.
class LanesWords {
 public:
  explicit LanesWords(const TileWords& mine) : all_(emulator::Exchange(&mine, sizeof(mine))) {
    static_assert(sizeof(TileWords) <= emulator::kExchangeBytes);
  }
  TileWords operator()(int lane) const {
    TileWords words;
    std::memcpy(&words, all_ + static_cast<size_t>(lane) * emulator::kExchangeBytes, sizeof(words));
    return words;
  }

 private:
  const std::byte* all_;
};
template <int kInputs>
inline void EmulateTiles(int d[4], const TileWords& mine) {
  const LanesWords words(mine);
  const int lane = ThreadId() % 32;
  for (int i = 0; i < 4; ++i) {
    const int row = lane / 4 + (i >= 2 ? 8 : 0), column = lane % 4 * 2 + i % 2;
    int sum = 0;
    for (int t = 0; t < 4; ++t) {
      const TileWords of_row = words(row % 8 * 4 + t), of_column = words(column * 4 + t);
      for (int half = 0; half < kInputs / 16; ++half) sum = Dot4(of_row.a[half * 2 + row / 8], of_column.b[half], sum);
    }
    d[i] = sum;
  }
}
inline void MultiplyTiles(int d[4], const uint32_t a[4], const uint32_t b[2]) {
  EmulateTiles<32>(d, {{a[0], a[1], a[2], a[3]}, {b[0], b[1]}});
}
inline void MultiplyHalfTiles(int d[4], const uint32_t a[2], uint32_t b) { EmulateTiles<16>(d, {{a[0], a[1], 0, 0}, {b, 0}}); }

// Products of 16-bit floats are exact, and their sum is rounded once. A device rounds in a way of its own.
template <float (*kToFloat)(uint32_t)>
inline void EmulateShorts(float d[4], const uint32_t a[4], const uint32_t b[2]) {
  const TileWords mine{{a[0], a[1], a[2], a[3]}, {b[0], b[1]}};
  const LanesWords words(mine);
  const int lane = ThreadId() % 32;
  double sums[2][2] = {{double{d[0]}, double{d[1]}}, {double{d[2]}, double{d[3]}}};
  for (int t = 0; t < 4; ++t) {
    const TileWords of_rows = words(lane / 4 * 4 + t), of_columns[2] = {words(lane % 4 * 8 + t), words(lane % 4 * 8 + 4 + t)};
    for (int i = 0; i < 4; ++i) {  // the lane's four inputs of 16: two words of two
      const auto element = [&](const uint32_t word) { return kToFloat(word >> (16 * (i % 2)) & 0xffffu); };
      const float rows[2] = {element(of_rows.a[i / 2 * 2]), element(of_rows.a[i / 2 * 2 + 1])};
      for (int column = 0; column < 2; ++column) {
        const double weight = double{element(of_columns[column].b[i / 2])};
        for (int row = 0; row < 2; ++row) sums[row][column] += rows[row] * weight;
      }
    }
  }
  for (int i = 0; i < 4; ++i) d[i] = static_cast<float>(sums[i / 2][i % 2]);
}
inline void MultiplyHalves(float d[4], const uint32_t a[4], const uint32_t b[2]) { EmulateShorts<ShortToFloat<Form::kF16>>(d, a, b); }
inline void MultiplyBFloats(float d[4], const uint32_t a[4], const uint32_t b[2]) { EmulateShorts<ShortToFloat<Form::kBF16>>(d, a, b); }

inline void CopyAsync16(std::byte* shared, const std::byte* global) { emulator::CopyAsync(shared, global, 16); }
inline void CopyAsync4(std::byte* shared, const std::byte* global) { emulator::CopyAsync(shared, global, 4); }
inline void CommitCopies() { emulator::CommitCopies(); }
template <int kPending>
inline void WaitCopies() {
  emulator::WaitCopies(kPending);
}
inline void PrefetchToL2(const void*) {}
struct Words4 {
  uint32_t w[4];
};
inline Words4 Load16(const void* p) {
  Words4 v;
  emulator::CheckPlace(p, sizeof(v));
  std::memcpy(&v, p, sizeof(v));
  return v;
}
template <class T>
inline T LoadWords(const void* p) {
  T t;
  emulator::CheckPlace(p, sizeof(t));
  std::memcpy(&t, p, sizeof(t));
  return t;
}
inline Words4 LoadConstant16(const std::byte* p) { return Load16(p); }
inline uint32_t LoadConstant4(const std::byte* p) {
  uint32_t v;
  emulator::CheckPlace(p, sizeof(v));
  std::memcpy(&v, p, sizeof(v));
  return v;
}
inline void BeginKernel() { emulator::Begin(); }

}  // namespace reprise::cuda
