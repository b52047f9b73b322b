// Kernels that are wrong as kernels are wrong on a device: the emulator is to show it.
#include <gtest/gtest.h>

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)  // which do not know the stacks of the emulator's fibers

#include <set>
#include <vector>

#include "backend/cuda/emulator/emulated_device.h"
#include "backend/cuda/language.h"

namespace reprise::cuda {
namespace {

struct Data {
  int *in, *out;
};
constexpr int kThreads = 64, kRuns = 64;

template <class... Kernels>
void RunAll(const Data& data, const Grid& grid, Kernels... kernels) {
  const std::vector<emulator::Work> work = {emulator::Work{grid, kernels, &data}...};
  emulator::RunLaunches(work);
}
template <void (*kKernel)(const Data&)>
void Call(const void* args) {
  kKernel(*static_cast<const Data*>(args));
}
// What a kernel leaves in `out`, in so many runs.
template <void (*kKernel)(const Data&)>
std::set<std::vector<int>> Outcomes(int blocks = 1) {
  std::set<std::vector<int>> outcomes;
  for (int run = 0; run < kRuns; ++run) {
    std::vector<int> in(kThreads), out(kThreads, -1);
    const Data data{in.data(), out.data()};
    RunAll(data, {blocks, 1, 1, kThreads, kThreads * 8}, Call<kKernel>);
    outcomes.insert(out);
  }
  return outcomes;
}

int* Shared() { return reinterpret_cast<int*>(SharedMemory()); }

// What the other warp's lane left, with a barrier and without.
REPRISE_KERNEL(ReadOther, Data) {
  BeginKernel();
  Shared()[ThreadId()] = ThreadId();
  SyncBlock();
  args.out[ThreadId()] = Shared()[ThreadId() ^ 32];
}
REPRISE_KERNEL(ReadOtherAtOnce, Data) {
  BeginKernel();
  Shared()[ThreadId()] = ThreadId();
  SyncWarp();
  args.out[ThreadId()] = Shared()[ThreadId() ^ 32];
}
// A place is written again that the other warp may not have read: the first warp meets itself twice in between, the second does not.
REPRISE_KERNEL(WriteAgain, Data) {
  BeginKernel();
  if (ThreadId() < 32) Shared()[ThreadId()] = 1;
  SyncBlock();
  if (ThreadId() < 32) {
    SyncWarp();
    SyncWarp();
    Shared()[ThreadId()] = 2;
  } else {
    SyncWarp();
    args.out[ThreadId()] = Shared()[ThreadId() - 32];
  }
}
// Blocks know nothing of one another, and here one wants another's.
REPRISE_KERNEL(TakeTurns, Data) {
  BeginKernel();
  args.out[ThreadId()] = BlockX();
}

TEST(Emulator, ShowsABarrierThatIsMissing) {
  EXPECT_EQ(Outcomes<ReadOther>().size(), size_t{1});
  EXPECT_GT(Outcomes<ReadOtherAtOnce>().size(), size_t{1});
  EXPECT_GT(Outcomes<WriteAgain>().size(), size_t{1});
}

TEST(Emulator, RunsBlocksInAnyOrder) { EXPECT_GT(Outcomes<TakeTurns>(3).size(), size_t{2}); }

// Two launches: the second takes what the first made, once too early.
REPRISE_KERNEL(Make, Data) {
  BeginKernel();
  args.in[ThreadId()] = 7;
}
REPRISE_KERNEL(Pass, Data) {
  BeginKernel();
  args.out[ThreadId()] = 0;
}
REPRISE_KERNEL(Take, Data) {
  BeginKernel();
  args.out[ThreadId()] = args.in[ThreadId()];
}
REPRISE_KERNEL(TakeEarly, Data) {
  const int taken = args.in[ThreadId()];
  BeginKernel();
  args.out[ThreadId()] = taken;
}
REPRISE_KERNEL(LeaveEarly, Data) {
  if (ThreadId() == 5) return;
  BeginKernel();
  args.out[ThreadId()] = 0;
}

TEST(Emulator, BeginsALaunchBeforeTheOnesInFrontHaveEnded) {
  const auto last = [](auto... kernels) {
    std::vector<int> in(kThreads), out(kThreads);
    const Data data{in.data(), out.data()};
    RunAll(data, {1, 1, 1, kThreads}, kernels...);
    return out[0];
  };
  EXPECT_EQ(last(Call<Make>, Call<Take>), 7);
  EXPECT_EQ(last(Call<Make>, Call<Pass>, Call<Pass>, Call<Take>), 7);
  EXPECT_EQ(last(Call<Make>, Call<TakeEarly>), 0);
  EXPECT_EQ(last(Call<Make>, Call<Pass>, Call<Pass>, Call<TakeEarly>), 0) << "that of a kernel further in front";
  EXPECT_DEATH(last(Call<LeaveEarly>), "returned before BeginKernel");
}

REPRISE_KERNEL(LoadBeside, Data) {
  BeginKernel();
  args.out[0] = static_cast<int>(Load16(args.in + 1).w[0]);
}

TEST(Emulator, EndsWhereWordsAreNotInTheirPlace) {
  alignas(16) int in[8] = {}, out[kThreads];
  const Data data{in, out};
  EXPECT_DEATH(RunAll(data, {1, 1, 1, 32}, Call<LoadBeside>), "multiple of their size");
}

// A row of `in` that is longer than its memory.
TEST(Emulator, EndsWhereAKernelLeavesItsMemory) {
  const auto device = MakeEmulatedDevice();
  const auto memory = [&](size_t bytes) { return *device->Allocate(bytes, "test"); };
  std::byte* const header = memory(sizeof(StepHeader));
  const StepHeader one{1, 1, 0, {}};
  ASSERT_TRUE(device->Copy(header, reinterpret_cast<const std::byte*>(&one), sizeof(one)).ok());
  ArgMaxArgs args{};
  args.step.header = reinterpret_cast<const StepHeader*>(header);
  args.in = {reinterpret_cast<float*>(memory(4096)), 1024, 1024, Domain::kRows};
  args.best = reinterpret_cast<float*>(memory(ArgMaxArgs::kParts * sizeof(float)));
  args.where = reinterpret_cast<int32_t*>(memory(ArgMaxArgs::kParts * sizeof(int32_t)));
  const auto run = [&] {
    const Launch launch = MakeLaunch<ArgMaxArgs, ArgMaxPartGrid>(kArgMaxPart, args);
    const auto graph = device->Instantiate({&launch, 1}, Bucket{});
    return device->Run(**graph).ok();
  };
  EXPECT_TRUE(run());
  args.in.width = 1024 + 256;
  EXPECT_DEATH(run(), "");
}

}  // namespace
}  // namespace reprise::cuda

#endif
