// KernelId: every kernel there is, by number. A table is filled from REPRISE_KERNELS twice: with what a device launches (cuda_device.cu), and
// with what the emulator calls.
#pragma once

#include "backend/cuda/kernels.h"

namespace reprise::cuda {

inline constexpr int kRowChoices =
    4;  // of MatVec: 1 (of 32-bit floats), 2, 4 or 8 rows; of 16-bit floats: up to 8, up to 32, or more in 4 or 8 tiles
inline constexpr int kAttentionChoices = 4;      // 4 queries, or 16 in 1, 2 or 4 groups
inline constexpr int kHalfAttentionChoices = 8;  // 16 or 32 queries; of each KeyForm
inline constexpr int kStateChoices = 4;          // of the recurrences: states of 32, 64, 128 or 256 rows

enum KernelId : int {
  kEmbed,
  kRmsNorm,
  kQuantise,
  kSwiGlu,
  kGeGlu,
  kReluSquared,
  kSoftCap,
  kScaleByPosition,
  kMultiply,
  kAddBias,
  kGatedRmsNorm,
  kRopeTable,
  kNormRope,
  kArgMaxPart,
  kArgMax,
  kBestPart,
  kBest,
  kWeigh,
  kAppend,
  kConv,
  kDeltaInputs,
  kScan,
  kPrevious,
  kSaveLast,
  kLoadLast,
  kLastRows,
  kLog,
  kJoin,
  kSigmoidGate,
  kRouteExperts,
  kGroupExperts,
  kJoinExperts,
  kExpertActivate,
  kMatVec,
  kMatMul = kMatVec + kForms * kRowChoices,
  kAttention = kMatMul + kForms,
  kHalfAttention = kAttention + kAttentionChoices,
  kDeltaNet = kHalfAttention + kHalfAttentionChoices,
  kSsm = kDeltaNet + kStateChoices,
  kFusedMatMul = kSsm + kStateChoices,
  kFusedAppend = kFusedMatMul + kForms,
  kFusedDelta,
  kFusedSsm = kFusedDelta + kStateChoices,
  kFusedShortConv = kFusedSsm + kStateChoices,
  kFusedScan,
  kRmsNorms,
  kExpertGateUp,
  kExpertDown = kExpertGateUp + kForms,
  kRunGateUp = kExpertDown + kForms,
  kRunDown = kRunGateUp + kForms,
  kKernels = kRunDown + kForms,
};

inline int MatVecId(Form form, int row_choice) { return kMatVec + static_cast<int>(form) * kRowChoices + row_choice; }
inline int MatMulId(Form form) { return kMatMul + static_cast<int>(form); }
// Of `tiles` times 16 queries.
inline int HalfAttentionId(KeyForm form, int tiles) { return kHalfAttention + 2 * static_cast<int>(form) + tiles - 1; }
inline int FusedMatMulId(Form form) { return kFusedMatMul + static_cast<int>(form); }
inline int ExpertGateUpId(Form form) { return kExpertGateUp + static_cast<int>(form); }
inline int ExpertDownId(Form form) { return kExpertDown + static_cast<int>(form); }
inline int RunGateUpId(Form form) { return kRunGateUp + static_cast<int>(form); }
inline int RunDownId(Form form) { return kRunDown + static_cast<int>(form); }

// Whether its results are sums of products of 16-bit floats on the tensor cores, which each kind of device rounds in its own way.
inline bool RoundsInItsOwnWay(int kernel) {
  const int form = (kernel - kMatVec) / kRowChoices;
  if (kernel >= kMatVec && kernel < kMatMul && IsShort(static_cast<Form>(form))) return true;
  if (kernel >= kFusedMatMul && kernel < kFusedAppend && IsShort(static_cast<Form>(kernel - kFusedMatMul))) return true;
  if (kernel >= kExpertGateUp && kernel < kKernels && IsShort(static_cast<Form>((kernel - kExpertGateUp) % kForms))) return true;
  return kernel >= kHalfAttention && kernel < kHalfAttention + kHalfAttentionChoices;
}

}  // namespace reprise::cuda

// ADD(id, Args, kernel...) for each of them.
#define REPRISE_KERNELS_OF_FORM(ADD, F)               \
  ADD(MatVecId(F, 1), MatMulArgs, MatVecKernel<F, 2>) \
  ADD(MatVecId(F, 2), MatMulArgs, MatVecKernel<F, 4>) \
  ADD(MatVecId(F, 3), MatMulArgs, MatVecKernel<F, 8>)
#define REPRISE_EXPERTS_OF_FORM(ADD, F)                      \
  ADD(ExpertGateUpId(F), ExpertsArgs, ExpertGateUpKernel<F>) \
  ADD(ExpertDownId(F), ExpertsArgs, ExpertDownKernel<F>)
#define REPRISE_KERNELS_OF_QUANTS(ADD, F)              \
  REPRISE_KERNELS_OF_FORM(ADD, F)                      \
  REPRISE_EXPERTS_OF_FORM(ADD, F)                      \
  ADD(RunGateUpId(F), ExpertsArgs, RunGateUpKernel<F>) \
  ADD(RunDownId(F), ExpertsArgs, RunDownKernel<F>)     \
  ADD(MatMulId(F), MatMulArgs, MatMulKernel<F>)        \
  ADD(FusedMatMulId(F), FusedMatMulArgs, FusedMatMulKernel<F>)
#define REPRISE_KERNELS_OF_SHORTS(ADD, F)                     \
  REPRISE_EXPERTS_OF_FORM(ADD, F)                             \
  ADD(FusedMatMulId(F), FusedMatMulArgs, FusedShortKernel<F>) \
  ADD(RunGateUpId(F), ExpertsArgs, ShortRunGateUpKernel<F>)   \
  ADD(RunDownId(F), ExpertsArgs, ShortRunDownKernel<F>)       \
  ADD(MatVecId(F, 0), MatMulArgs, ShortMatVecKernel<F, 1>)    \
  ADD(MatVecId(F, 1), MatMulArgs, ShortMatVecKernel<F, 4>)    \
  ADD(MatVecId(F, 2), MatMulArgs, ShortMatMulKernel<F, 1>)    \
  ADD(MatVecId(F, 3), MatMulArgs, ShortMatMulKernel<F, 2>)
#define REPRISE_ATTENTION_OF_KEYS(ADD, F)                              \
  ADD(HalfAttentionId(F, 1), AttentionArgs, HalfAttentionKernel<1, F>) \
  ADD(HalfAttentionId(F, 2), AttentionArgs, HalfAttentionKernel<2, F>)
#define REPRISE_KERNELS(ADD)                                            \
  ADD(kEmbed, EmbedArgs, EmbedKernel)                                   \
  ADD(kRmsNorm, RmsNormArgs, RmsNormKernel)                             \
  ADD(kQuantise, QuantiseArgs, QuantiseKernel)                          \
  ADD(kSwiGlu, GluArgs, SwiGluKernel)                                   \
  ADD(kGeGlu, GluArgs, GeGluKernel)                                     \
  ADD(kReluSquared, ReluSquaredArgs, ReluSquaredKernel)                 \
  ADD(kSoftCap, SoftCapArgs, SoftCapKernel)                             \
  ADD(kScaleByPosition, ScaleByPositionArgs, ScaleByPositionKernel)     \
  ADD(kMultiply, MultiplyArgs, MultiplyKernel)                          \
  ADD(kAddBias, AddBiasArgs, AddBiasKernel)                             \
  ADD(kGatedRmsNorm, GatedRmsNormArgs, GatedRmsNormKernel)              \
  ADD(kRopeTable, RopeTableArgs, RopeTableKernel)                       \
  ADD(kNormRope, NormRopeArgs, NormRopeKernel)                          \
  ADD(kArgMaxPart, ArgMaxArgs, ArgMaxPartKernel)                        \
  ADD(kArgMax, ArgMaxArgs, ArgMaxKernel)                                \
  ADD(kBestPart, BestArgs, BestPartKernel)                              \
  ADD(kBest, BestArgs, BestKernel)                                      \
  ADD(kWeigh, WeighArgs, WeighKernel)                                   \
  ADD(kAppend, AppendArgs, AppendKernel)                                \
  ADD(kConv, ConvArgs, ConvKernel)                                      \
  ADD(kDeltaInputs, DeltaNetArgs, DeltaInputsKernel)                    \
  ADD(kScan, ScanArgs, ScanKernel)                                      \
  ADD(kPrevious, LastArgs, PreviousKernel)                              \
  ADD(kSaveLast, LastArgs, SaveLastKernel)                              \
  ADD(kLoadLast, LastArgs, LoadLastKernel)                              \
  ADD(kLastRows, LastArgs, LastRowsKernel)                              \
  ADD(kLog, LogArgs, LogKernel)                                         \
  ADD(kJoin, AttentionArgs, JoinKernel)                                 \
  ADD(kSigmoidGate, SigmoidGateArgs, SigmoidGateKernel)                 \
  ADD(kRouteExperts, ExpertsArgs, RouteExpertsKernel)                   \
  ADD(kGroupExperts, ExpertsArgs, GroupExpertsKernel)                   \
  ADD(kJoinExperts, ExpertsArgs, JoinExpertsKernel)                     \
  ADD(kExpertActivate, ExpertsArgs, ExpertActivateKernel)               \
  ADD(MatVecId(Form::kF32, 0), MatMulArgs, MatVecKernel<Form::kF32, 1>) \
  REPRISE_KERNELS_OF_FORM(ADD, Form::kF32)                              \
  REPRISE_EXPERTS_OF_FORM(ADD, Form::kF32)                              \
  REPRISE_KERNELS_OF_SHORTS(ADD, Form::kF16)                            \
  REPRISE_KERNELS_OF_SHORTS(ADD, Form::kBF16)                           \
  REPRISE_KERNELS_OF_QUANTS(ADD, Form::kByte)                           \
  REPRISE_KERNELS_OF_QUANTS(ADD, Form::kByteMin)                        \
  REPRISE_KERNELS_OF_QUANTS(ADD, Form::kByteK)                          \
  REPRISE_KERNELS_OF_QUANTS(ADD, Form::kByteK16)                        \
  REPRISE_KERNELS_OF_QUANTS(ADD, Form::kNibble)                         \
  REPRISE_KERNELS_OF_QUANTS(ADD, Form::kNibbleMin)                      \
  REPRISE_KERNELS_OF_QUANTS(ADD, Form::kNibbleK)                        \
  REPRISE_KERNELS_OF_QUANTS(ADD, Form::kNibbleE2M1)                     \
  ADD(kAttention + 0, AttentionArgs, AttentionKernel<4, 1>)             \
  ADD(kAttention + 1, AttentionArgs, AttentionKernel<16, 1>)            \
  ADD(kAttention + 2, AttentionArgs, AttentionKernel<16, 2>)            \
  ADD(kAttention + 3, AttentionArgs, AttentionKernel<16, 4>)            \
  REPRISE_ATTENTION_OF_KEYS(ADD, KeyForm::kHalves)                      \
  REPRISE_ATTENTION_OF_KEYS(ADD, KeyForm::kLooseHalves)                 \
  REPRISE_ATTENTION_OF_KEYS(ADD, KeyForm::kBytes)                       \
  REPRISE_ATTENTION_OF_KEYS(ADD, KeyForm::kLooseBytes)                  \
  ADD(kDeltaNet + 0, DeltaNetArgs, DeltaNetKernel<32>)                  \
  ADD(kDeltaNet + 1, DeltaNetArgs, DeltaNetKernel<64>)                  \
  ADD(kDeltaNet + 2, DeltaNetArgs, DeltaNetKernel<128>)                 \
  ADD(kDeltaNet + 3, DeltaNetArgs, DeltaNetKernel<256>)                 \
  ADD(kSsm + 0, SsmArgs, SsmKernel<32>)                                 \
  ADD(kSsm + 1, SsmArgs, SsmKernel<64>)                                 \
  ADD(kSsm + 2, SsmArgs, SsmKernel<128>)                                \
  ADD(kSsm + 3, SsmArgs, SsmKernel<256>)                                \
  ADD(kFusedAppend, FusedAppendArgs, FusedAppendKernel)                 \
  ADD(kFusedDelta + 0, FusedDeltaArgs, FusedDeltaKernel<32>)            \
  ADD(kFusedDelta + 1, FusedDeltaArgs, FusedDeltaKernel<64>)            \
  ADD(kFusedDelta + 2, FusedDeltaArgs, FusedDeltaKernel<128>)           \
  ADD(kFusedDelta + 3, FusedDeltaArgs, FusedDeltaKernel<256>)           \
  ADD(kFusedSsm + 0, FusedSsmArgs, FusedSsmKernel<32>)                  \
  ADD(kFusedSsm + 1, FusedSsmArgs, FusedSsmKernel<64>)                  \
  ADD(kFusedSsm + 2, FusedSsmArgs, FusedSsmKernel<128>)                 \
  ADD(kFusedSsm + 3, FusedSsmArgs, FusedSsmKernel<256>)                 \
  ADD(kFusedShortConv, FusedShortConvArgs, FusedShortConvKernel)        \
  ADD(kFusedScan, FusedScanArgs, FusedScanKernel)                       \
  ADD(kRmsNorms, RmsNormsArgs, RmsNormsKernel)
