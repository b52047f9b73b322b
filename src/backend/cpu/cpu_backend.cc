#include "backend/cpu/cpu_backend.h"

#include <cstring>
#include <deque>
#include <utility>
#include <vector>

#include "backend/cpu/cpu_plan.h"
#include "backend/cpu/kernels.h"
#include "backend/cpu/limits.h"
#include "backend/cpu/memory.h"
#include "backend/cpu/packed_matrix.h"
#include "backend/cpu/targets.h"
#include "backend/cpu/team.h"
#include "hwy/targets.h"

#if HWY_ARCH_ARM_A64 && defined(__linux__)
#include <sys/auxv.h>
#endif

namespace reprise {
namespace {

// Names the order and rounding of every operation; change it whenever a kernel's results change.
constexpr char kNumericsFused[] = "cpu3-fma";
constexpr char kNumericsUnfused[] = "cpu3-nofma";

struct Isa {
  const char* name;
  int64_t target;
  ByteDot dot;
  bool fused;
};

// What this machine can run, best first.
std::vector<Isa> AvailableIsas() {
  std::vector<Isa> isas;
#if HWY_ARCH_X86
  const int64_t supported = hwy::SupportedTargets();
  if ((HWY_TARGETS & supported & HWY_AVX3) && __builtin_cpu_supports("avx512vnni"))
    isas.push_back({"avx512vnni", HWY_AVX3, ByteDot::kTarget, true});
  if (HWY_TARGETS & supported & HWY_AVX2) isas.push_back({"avx2", HWY_AVX2, ByteDot::kTarget, true});
  if (HWY_TARGETS & supported & HWY_SSE4) isas.push_back({"portable", HWY_SSE4, ByteDot::kTarget, false});
#elif HWY_ARCH_ARM_A64
#if defined(__linux__)
  if (getauxval(AT_HWCAP2) & HWCAP2_I8MM) isas.push_back({"neon-i8mm", HWY_NEON, ByteDot::kMixed, true});
  if (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) isas.push_back({"neon-dotprod", HWY_NEON, ByteDot::kSigned, true});
#endif
  isas.push_back({"neon", HWY_NEON, ByteDot::kTarget, true});
#endif
  return isas;
}

struct PackArgs {
  const PackedMatrix* matrix;
  const std::byte* source;
};
Split SplitPack(const PackArgs& args) {
  return EvenSplit(args.matrix->tiles(), static_cast<double>(args.matrix->source_row_bytes) * kTileColumns);
}
void Pack(const PackArgs& args, int64_t first, int64_t last, int) {
  for (int64_t tile = first; tile < last; ++tile) args.matrix->PackTile(args.source, static_cast<int>(tile));
}

// Everything runs before the call returns, so that events are always past.
class CpuStream : public Stream {
 public:
  CpuStream(const void* owner, Team& team) : owner_(owner), team_(team) {}

  Status Replay(const Plan& plan) override {
    const auto* cpu_plan = dynamic_cast<const CpuPlan*>(&plan);
    REPRISE_RETURN_IF_ERROR(CapturedPlan::CheckReplay(cpu_plan, owner_));
    team_.Run(cpu_plan->array);
    ++sequence_;
    return Ok();
  }
  Status Copy(std::byte* to, const std::byte* from, size_t bytes) override {
    if (bytes) std::memcpy(to, from, bytes);
    ++sequence_;
    return Ok();
  }
  Event Record() override { return {this, sequence_}; }
  Status Wait(const Event&) override { return Ok(); }
  Status Synchronize() override { return Ok(); }

 private:
  const void* owner_;
  Team& team_;
  uint64_t sequence_ = 0;
};

class CpuBackend : public Backend {
 public:
  CpuBackend(const Isa& isa, int threads, bool pin)
      : isa_(isa), team_(threads, pin), workspace_(*this), taps_(*this), stream_(this, team_) {
    AddArrange(isa.target, kernels_);
    AddMatMul(isa.target, isa.dot, kernels_);
    AddExperts(isa.target, kernels_);
    AddNorms(isa.target, kernels_);
    AddRope(isa.target, kernels_);
    AddAttention(isa.target, kernels_);
    AddConv(isa.target, kernels_);
    AddDeltaNet(isa.target, kernels_);
    AddSsm(isa.target, kernels_);
    AddScan(isa.target, kernels_);
  }

  std::string_view name() const override { return "cpu"; }
  std::string description() const override {
    return std::string("CPU, ") + isa_.name + ", " + std::to_string(team_.threads()) + (team_.threads() == 1 ? " thread" : " threads");
  }
  std::string numerics() const override { return isa_.fused ? kNumericsFused : kNumericsUnfused; }
  int threads() const override { return team_.threads(); }
  BackendLimits MeasureLimits() override { return MeasureCpuLimits(isa_.target, isa_.dot, team_.threads()); }

  Result<std::byte*> Allocate(size_t bytes, std::string_view what) override { return arena_.Allocate(bytes, what); }

  Status CheckLoad(const WeightSource& source) const override { return PackedMatrix::Plan(source).status(); }
  Result<const Matrix*> LoadMatrix(const WeightSource& source) override {
    REPRISE_ASSIGN_OR_RETURN(PackedMatrix planned, PackedMatrix::Plan(source));
    REPRISE_ASSIGN_OR_RETURN(planned.data, arena_.Allocate(planned.total_bytes(), "weight " + std::string(source.name)));
    matrices_.push_back(std::move(planned));
    const PackedMatrix& matrix = matrices_.back();
    const Launch pack = MakeLaunch(RunUntyped<PackArgs, Pack>, SplitUntyped<PackArgs, SplitPack>, PackArgs{&matrix, source.data.data()});
    team_.Run({&pack, 1});
    return &matrix;
  }

  Result<const Matrix*> LoadTable(const WeightSource& source) override {
    REPRISE_RETURN_IF_ERROR(CheckLoad(source));
    return &tables_.emplace_back(source);
  }

  Result<std::unique_ptr<Plan>> Capture(const StepTable& table, const std::function<void(Ops&)>& record) override {
    auto plan = std::make_unique<CpuPlan>(this, table);
    CpuOps ops(*plan, kernels_, workspace_, taps_, team_.threads());
    record(ops);
    if (!ops.error().ok()) return ops.error();
    plan->array.shrink_to_fit();
    return std::unique_ptr<Plan>(std::move(plan));
  }

  Stream& stream() override { return stream_; }
  bool ordinary_memory() const override { return true; }

 private:
  const Isa isa_;
  KernelTable kernels_;
  Arena arena_;
  Team team_;
  Workspace workspace_;
  ConvTaps taps_;
  std::deque<PackedMatrix> matrices_;
  std::deque<FileTable> tables_;
  CpuStream stream_;
};

}  // namespace

std::vector<std::string> CpuInstructionSets() {
  std::vector<std::string> names;
  for (const Isa& isa : AvailableIsas()) names.emplace_back(isa.name);
  return names;
}

Result<std::unique_ptr<Backend>> MakeCpuBackend(const CpuOptions& options) {
  constexpr int kMostThreads = 1024;
  if (options.threads < 0 || options.threads > kMostThreads) {
    return InvalidArgument("threads must be between 1 and " + std::to_string(kMostThreads) + " (0: all), is " +
                           std::to_string(options.threads));
  }
  const std::vector<Isa> isas = AvailableIsas();
  if (isas.empty()) return Unsupported("the CPU backend needs SSE 4.2 or 64-bit ARM");
  const Isa* isa = &isas.front();
  if (!options.isa.empty()) {
    isa = nullptr;
    std::string known;
    for (const Isa& candidate : isas) {
      if (options.isa == candidate.name) isa = &candidate;
      known += (known.empty() ? "" : ", ") + std::string(candidate.name);
    }
    if (!isa) return Unsupported("instruction set \"" + options.isa + "\" is unknown or not on this machine, which has: " + known);
  }
  const int threads = options.threads ? options.threads : AvailableProcessors();
  return std::unique_ptr<Backend>(std::make_unique<CpuBackend>(*isa, threads, options.pin));
}

}  // namespace reprise
