// The few words of CUDA that the kernels are written in. nvcc makes instructions of them; for the emulator they are calls (emulator/fibers.h).
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "backend/cuda/grids.h"

#if defined(__CUDACC__)

#define REPRISE_DEVICE __device__ __forceinline__
#define REPRISE_KERNEL(Name, Args) __global__ void Name(const __grid_constant__ Args args)
#define REPRISE_KERNEL_OF(kThreads, kBlocks, Name, Args) \
  __global__ void __launch_bounds__(kThreads, kBlocks) Name(const __grid_constant__ Args args)

namespace reprise::cuda {

extern __shared__ uint4 dynamic_shared_memory[];

REPRISE_DEVICE int ThreadId() { return static_cast<int>(threadIdx.x); }
REPRISE_DEVICE int ThreadCount() { return static_cast<int>(blockDim.x); }
REPRISE_DEVICE int BlockX() { return static_cast<int>(blockIdx.x); }
REPRISE_DEVICE int BlockY() { return static_cast<int>(blockIdx.y); }
REPRISE_DEVICE int BlockZ() { return static_cast<int>(blockIdx.z); }
REPRISE_DEVICE int GridX() { return static_cast<int>(gridDim.x); }
REPRISE_DEVICE std::byte* SharedMemory() { return reinterpret_cast<std::byte*>(dynamic_shared_memory); }
REPRISE_DEVICE void SyncBlock() { __syncthreads(); }
REPRISE_DEVICE void SyncWarp() { __syncwarp(); }
template <class T>
REPRISE_DEVICE T ShuffleXor(T x, int mask) {
  return __shfl_xor_sync(0xffffffffu, x, mask);
}
// Lane `from` has the answer.
template <class T>
REPRISE_DEVICE T Shuffle(T x, int from) {
  return __shfl_sync(0xffffffffu, x, from);
}
// The greatest that a lane of the warp brings.
REPRISE_DEVICE uint32_t ReduceMax(uint32_t x) { return __reduce_max_sync(0xffffffffu, x); }
// To a number in shared memory that other threads add to as well; returns what it was.
REPRISE_DEVICE uint32_t AddShared(uint32_t* to, uint32_t x) { return atomicAdd(to, x); }
// c + the products of four signed bytes.
REPRISE_DEVICE int Dot4(uint32_t a, uint32_t b, int c) { return __dp4a(static_cast<int>(a), static_cast<int>(b), c); }

// d = a b of signed bytes on the tensor cores: 16 rows by 8 columns over 32 inputs, or over 16. See mma.h for which lane holds what.
REPRISE_DEVICE void MultiplyTiles(int d[4], const uint32_t a[4], const uint32_t b[2]) {
  asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%10,%10,%10,%10};"
               : "=r"(d[0]), "=r"(d[1]), "=r"(d[2]), "=r"(d[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]), "r"(0));
}
REPRISE_DEVICE void MultiplyHalfTiles(int d[4], const uint32_t a[2], uint32_t b) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5}, {%6}, {%7,%7,%7,%7};"
               : "=r"(d[0]), "=r"(d[1]), "=r"(d[2]), "=r"(d[3])
               : "r"(a[0]), "r"(a[1]), "r"(b), "r"(0));
}

// d += a b of halves, or of bfloat16, 16 rows by 8 columns over 16 inputs. Of lane l, g = l / 4 and t = l % 4:
//   a[0]: row g, inputs 2t, 2t + 1      a[1]: row g + 8     a[2], a[3]: the same rows, inputs 2t + 8, 2t + 9
//   b[0]: column g, inputs 2t, 2t + 1   b[1]: inputs 2t + 8, 2t + 9
//   d[0], d[1]: row g, columns 2t, 2t + 1     d[2], d[3]: row g + 8
REPRISE_DEVICE void MultiplyHalves(float d[4], const uint32_t a[4], const uint32_t b[2]) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
REPRISE_DEVICE void MultiplyBFloats(float d[4], const uint32_t a[4], const uint32_t b[2]) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// 16 bytes to shared memory, or 4, under way until WaitCopies<n> returns with at most the n latest groups still under way. Groups are a thread's own.
REPRISE_DEVICE void CopyAsync16(std::byte* shared, const std::byte* global) {
  const auto to = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(global) : "memory");
}
REPRISE_DEVICE void CopyAsync4(std::byte* shared, const std::byte* global) {
  const auto to = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(to), "l"(global) : "memory");
}
REPRISE_DEVICE void CommitCopies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int kPending>
REPRISE_DEVICE void WaitCopies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}
REPRISE_DEVICE void PrefetchToL2(const void* p) { asm volatile("prefetch.global.L2 [%0];" ::"l"(p)); }

// 16 bytes that nothing writes while the kernel runs: weights. Activations are read as ordinary memory, never so.
struct Words4 {
  uint32_t w[4];
};
REPRISE_DEVICE Words4 LoadConstant16(const std::byte* p) {
  const uint4 v = __ldg(reinterpret_cast<const uint4*>(p));
  return {{v.x, v.y, v.z, v.w}};
}
REPRISE_DEVICE Words4 Load16(const void* p) {
  const uint4 v = *reinterpret_cast<const uint4*>(p);
  return {{v.x, v.y, v.z, v.w}};
}
// T: 8 or 16 bytes of words, which lie on a multiple of as many.
template <class T>
REPRISE_DEVICE T LoadWords(const void* p) {
  using Word = std::conditional_t<sizeof(T) == 16, uint4, uint2>;
  static_assert(sizeof(T) == sizeof(Word));
  union {
    Word word;
    T t;
  } both = {*reinterpret_cast<const Word*>(p)};
  return both.t;
}
REPRISE_DEVICE uint32_t LoadConstant4(const std::byte* p) { return __ldg(reinterpret_cast<const unsigned int*>(p)); }

// In every kernel, before anything that an earlier kernel wrote is read and before any thread returns: the next kernel of the graph may be set up from
// here on, and the one before has ended. Every thread waits, so that "has ended" reaches back over the whole graph. What stands before this call runs
// while the kernel before is still at work, so it may read only what no kernel of a graph writes: weights, the binding table, and the state that a lane
// had before the step (and prefetch what it likes).
REPRISE_DEVICE void BeginKernel() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

}  // namespace reprise::cuda

#else
#include "backend/cuda/emulator/fibers.h"
#endif

namespace reprise::cuda {

// Sums and maxima over a warp: every lane gets the same bits, since the two operands of each step commute.
REPRISE_DEVICE float WarpSum(float x) {
  REPRISE_UNROLLED for (int mask = 16; mask > 0; mask /= 2) x = x + ShuffleXor(x, mask);
  return x;
}
REPRISE_DEVICE int WarpSum(int x) {
  REPRISE_UNROLLED for (int mask = 16; mask > 0; mask /= 2) x = x + ShuffleXor(x, mask);
  return x;
}
REPRISE_DEVICE double WarpSum(double x) {
  REPRISE_UNROLLED for (int mask = 16; mask > 0; mask /= 2) x = x + ShuffleXor(x, mask);
  return x;
}
REPRISE_DEVICE float WarpMax(float x) {
  REPRISE_UNROLLED for (int mask = 16; mask > 0; mask /= 2) x = fmaxf(x, ShuffleXor(x, mask));
  return x;
}
REPRISE_DEVICE uint32_t Greater(uint32_t a, uint32_t b) { return a > b ? a : b; }
REPRISE_DEVICE uint32_t WarpMax(uint32_t x) {
  REPRISE_UNROLLED for (int mask = 16; mask > 0; mask /= 2) x = Greater(x, ShuffleXor(x, mask));
  return x;
}
// Over the block: warps first, then the warps' sums in order. `shared`: a float for each warp, the caller's alone until the next SyncBlock.
REPRISE_DEVICE float BlockSum(float x, float* shared) {
  x = WarpSum(x);
  if (ThreadId() % 32 == 0) shared[ThreadId() / 32] = x;
  SyncBlock();
  float sum = 0.0f;
  for (int warp = 0; warp < ThreadCount() / 32; ++warp) sum = sum + shared[warp];
  return sum;
}

}  // namespace reprise::cuda
