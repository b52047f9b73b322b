// Kernels that move or convert data, the same code on every machine: rope angles, appends, embeddings, and the last row of a lane.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <numbers>

#include "backend/cpu/kernels.h"
#include "base/half.h"

namespace reprise {
namespace {

size_t RowBytes(const Rows& rows) { return static_cast<size_t>(rows.width) * sizeof(float); }
float* LastOf(std::byte* block, const StateRef& last) { return reinterpret_cast<float*>(block + last.offset); }
const float* LastOf(const std::byte* block, const StateRef& last) { return reinterpret_cast<const float*>(block + last.offset); }

// Cosine and sine of `turn` / 2^64 of a full turn. The position times the frequency is formed modulo a turn in integers, so that an angle
// is as exact at position 1,000,000 as at 1; what is left of it lies within an eighth of a turn of zero, where short series do.
void CosSin(uint64_t turn, float* cosine, float* sine) {
  const uint64_t quarter = (turn + (uint64_t{1} << 61)) >> 62;
  const auto rest = static_cast<int64_t>(turn - (quarter << 62));
  const double x = static_cast<double>(rest) * (2.0 * std::numbers::pi / 18446744073709551616.0);
  const double z = x * x;
  const double s = x * (1 + z * (-1.0 / 6 + z * (1.0 / 120 + z * (-1.0 / 5040 + z * (1.0 / 362880 + z * (-1.0 / 39916800))))));
  const double c =
      1 + z * (-1.0 / 2 + z * (1.0 / 24 + z * (-1.0 / 720 + z * (1.0 / 40320 + z * (-1.0 / 3628800 + z * (1.0 / 479001600))))));
  const double cosines[4] = {c, -s, -c, s}, sines[4] = {s, c, -s, -c};
  *cosine = static_cast<float>(cosines[quarter & 3]);
  *sine = static_cast<float>(sines[quarter & 3]);
}

Split SplitRopeTable(const RopeTableArgs& args) { return EvenSplit(args.table->rows, args.dims * 5.0); }
void RopeTable(const RopeTableArgs& args, int64_t first, int64_t last, int) {
  const int half = args.dims / 2;
  for (int64_t row = first; row < last; ++row) {
    const auto position = static_cast<uint64_t>(args.table->row_position[static_cast<size_t>(row)]);
    float* cosine = args.angles + row * args.dims;
    for (int i = 0; i < half; ++i) {
      CosSin(position * args.turns[i], cosine + i, cosine + half + i);
      cosine[i] *= args.magnitude;
      cosine[half + i] *= args.magnitude;
    }
  }
}

// A block of 32 as scale * [-127, 127]; returns the scale as a half. As in ggml's Q8_0, numbers are divided by the scale before it is rounded,
// and halves round away from zero. A block that holds a NaN or an infinity gets the scale NaN: what was broken stays visible.
uint16_t QuantizeBlock(const float* in, int8_t* bytes) {
  uint32_t top_bits = 0;  // magnitudes, ordered as integers: infinities and NaNs come out on top
  for (int i = 0; i < kQ8Values; ++i) top_bits = std::max(top_bits, std::bit_cast<uint32_t>(in[i]) & 0x7fffffff);
  const auto top = std::bit_cast<float>(top_bits);
  const bool broken = top_bits >= 0x7f800000;
  const float scale = top / 127.0f;
  const float inverse = broken || scale < std::numeric_limits<float>::min() ? 0.0f : 1.0f / scale;
  for (int i = 0; i < kQ8Values; ++i) {
    const float x = inverse == 0.0f ? 0.0f : in[i] * inverse;
    bytes[i] = static_cast<int8_t>(static_cast<int>(x + std::copysign(0.5f, x)));
  }
  return FloatToHalf(broken ? std::numeric_limits<float>::quiet_NaN() : scale);
}

Split SplitAppend(const AppendArgs& args) { return EvenSplit(args.table->rows, args.in.width * 0.5); }
void Append(const AppendArgs& args, int64_t first, int64_t last, int) {
  for (int64_t item = first; item < last; ++item) {
    const auto row = static_cast<size_t>(item);
    const LaneBinding& lane = args.table->lane[static_cast<size_t>(args.table->row_lane[row])];
    std::byte* to = StateRow(lane, args.state, args.table->row_position[row]);
    const float* in = RowAt(args.in, static_cast<int>(item));
    if (args.state.type == ElementType::kF32) {
      std::memcpy(to, in, RowBytes(args.in));
    } else if (args.state.type == ElementType::kF16) {
      auto* halves = reinterpret_cast<uint16_t*>(to);
      for (int i = 0; i < args.in.width; ++i) halves[i] = FloatToHalf(in[i]);
    } else {
      auto* const bytes = reinterpret_cast<int8_t*>(to);
      auto* const scales = reinterpret_cast<uint16_t*>(to + args.in.width);
      for (int b = 0; b < args.in.width / kQ8Values; ++b) scales[b] = QuantizeBlock(in + b * kQ8Values, bytes + b * kQ8Values);
    }
  }
}

Split SplitEmbed(const EmbedArgs& args) { return EvenSplit(args.table->rows, args.out.width * 1.5); }
void Embed(const EmbedArgs& args, int64_t first, int64_t last, int) {
  for (int64_t row = first; row < last; ++row) {
    float* const out = RowAt(args.out, static_cast<int>(row));
    const int token = args.table->token[static_cast<size_t>(row)];
    args.matrix ? args.matrix->UnpackRow(token, out) : args.file->UnpackRow(token, out);
    for (int i = 0; i < args.out.width; ++i) out[i] *= args.scale;
  }
}

Split SplitPrevious(const LastArgs& args) { return EvenSplit(args.table->rows, args.out.width * 0.1); }
void Previous(const LastArgs& args, int64_t first, int64_t last, int) {
  for (int64_t item = first; item < last; ++item) {
    const int row = static_cast<int>(item);
    const LaneBinding& lane = args.table->lane[static_cast<size_t>(args.table->row_lane[static_cast<size_t>(row)])];
    std::memcpy(RowAt(args.out, row), row == lane.first_row ? LastOf(lane.read, args.last) : RowAt(args.in, row - 1), RowBytes(args.out));
  }
}

Split SplitLanes(const LastArgs& args) { return EvenSplit(args.table->lanes, 200); }
void SaveLast(const LastArgs& args, int64_t first, int64_t last, int) {
  for (int64_t item = first; item < last; ++item) {
    const LaneBinding& lane = args.table->lane[static_cast<size_t>(item)];
    const int row = args.in.domain == Domain::kLanes ? static_cast<int>(item) : lane.first_row + lane.rows - 1;
    const float* from = lane.rows ? RowAt(args.in, row) : LastOf(lane.read, args.last);
    std::memcpy(LastOf(lane.write, args.last), from, RowBytes(args.in));
  }
}
void LoadLast(const LastArgs& args, int64_t first, int64_t last, int) {
  for (int64_t item = first; item < last; ++item) {
    std::memcpy(RowAt(args.out, static_cast<int>(item)), LastOf(args.table->lane[static_cast<size_t>(item)].read, args.last),
                RowBytes(args.out));
  }
}
void LastRows(const LastArgs& args, int64_t first, int64_t last, int) {
  for (int64_t item = first; item < last; ++item) {
    const LaneBinding& lane = args.table->lane[static_cast<size_t>(item)];
    if (lane.rows == 0) continue;
    std::memcpy(RowAt(args.out, static_cast<int>(item)), RowAt(args.in, lane.first_row + lane.rows - 1), RowBytes(args.out));
  }
}

// An item is one part of one row.
Split SplitLog(const LogArgs& args) {
  return EvenSplit(args.table->rows * static_cast<int64_t>(args.parts.size()), args.parts[0].rows.width * 0.4);
}
void Log(const LogArgs& args, int64_t first, int64_t last, int) {
  for (int64_t item = first; item < last; ++item) {
    const auto count = static_cast<int64_t>(args.parts.size());
    const auto row = static_cast<size_t>(item / count);
    const auto& [rows, column] = args.parts[static_cast<size_t>(item % count)];
    const LaneBinding& lane = args.table->lane[static_cast<size_t>(args.table->row_lane[row])];
    if (lane.log == nullptr) continue;
    std::byte* const kept = lane.log + static_cast<size_t>(args.table->row_position[row] % lane.log_capacity) * lane.log_row_bytes +
                            static_cast<size_t>(column) * sizeof(float);
    float* const live = RowAt(rows, static_cast<int>(row));
    if (args.recall) {
      std::memcpy(live, kept, RowBytes(rows));
    } else {
      std::memcpy(kept, live, RowBytes(rows));
    }
  }
}

template <class Args, RunFunction<Args> kRun, Split (*kSplit)(const Args&)>
Kernel Make() {
  return {RunUntyped<Args, kRun>, SplitUntyped<Args, kSplit>};
}

}  // namespace

Kernel RopeTableKernel() { return Make<RopeTableArgs, RopeTable, SplitRopeTable>(); }
Kernel AppendKernel() { return Make<AppendArgs, Append, SplitAppend>(); }
Kernel EmbedKernel() { return Make<EmbedArgs, Embed, SplitEmbed>(); }
Kernel PreviousKernel() { return Make<LastArgs, Previous, SplitPrevious>(); }
Kernel SaveLastKernel() { return Make<LastArgs, SaveLast, SplitLanes>(); }
Kernel LoadLastKernel() { return Make<LastArgs, LoadLast, SplitLanes>(); }
Kernel LastRowsKernel() { return Make<LastArgs, LastRows, SplitLanes>(); }
Kernel LogKernel() { return Make<LogArgs, Log, SplitLog>(); }

}  // namespace reprise
