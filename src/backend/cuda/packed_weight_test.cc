// The arithmetic that kernels share with the host: packing, unpacking, and where the tensor cores' lanes find their words.
#include "backend/cuda/packed_weight.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>

#include "backend/cuda/attention_cut.h"
#include "backend/cuda/cuda_plan.h"
#include "backend/cuda/mma.h"
#include "base/half.h"
#include "formats/quantize.h"

namespace reprise::cuda {
namespace {

constexpr TensorType kTypes[] = {TensorType::kF32,  TensorType::kF16,  TensorType::kBF16, TensorType::kQ8_0,
                                 TensorType::kQ4_0, TensorType::kQ4_1, TensorType::kQ5_0, TensorType::kQ5_1,
                                 TensorType::kQ4_K, TensorType::kQ5_K, TensorType::kQ6_K, TensorType::kMXFP4};

class PackedTypes : public testing::TestWithParam<TensorType> {};
INSTANTIATE_TEST_SUITE_P(PackedWeight, PackedTypes, testing::ValuesIn(kTypes),
                         [](const auto& info) { return std::string(TensorTypeName(info.param)); });

TEST_P(PackedTypes, UnpacksToTheReferenceDequantisation) {
  // 70 outputs are two tiles and a part; 768 inputs are six segments, 576 four and a half.
  for (const int inputs : {768, 576}) {
    constexpr int kOutputs = 70;
    const TensorTypeTraits& traits = TraitsOf(GetParam());
    if (inputs % static_cast<int>(traits.block_elements) != 0) continue;
    std::vector<float> values(static_cast<size_t>(inputs) * kOutputs);
    std::mt19937 random(7);
    std::vector<std::byte> bytes(*TensorBytes(GetParam(), static_cast<uint64_t>(inputs), kOutputs));
    for (std::byte& b : bytes) b = static_cast<std::byte>(random());
    // Scales that are finite halves; for float types, finite elements.
    if (traits.block_elements == 1) {
      for (size_t i = 0; i < bytes.size(); i += traits.block_bytes) {
        bytes[i + traits.block_bytes - 1] = static_cast<std::byte>(random() & 0x3f);
      }
    } else {
      for (size_t i = 0; i < bytes.size(); i += traits.block_bytes) {
        const size_t scale = GetParam() == TensorType::kQ6_K ? 208 : 0;
        bytes[i + scale + 1] = static_cast<std::byte>(0x20 | (random() & 0x8f));
        if (GetParam() != TensorType::kQ6_K && GetParam() != TensorType::kQ8_0 && GetParam() != TensorType::kQ4_0) {
          bytes[i + 3] = static_cast<std::byte>(0x20 | (random() & 0x8f));
        }
      }
    }
    ASSERT_TRUE(DequantizeRow(GetParam(), bytes, values).ok());
    auto planned = PackedWeight::Plan({"w", GetParam(), inputs, kOutputs, bytes});
    ASSERT_TRUE(planned.ok()) << planned.status().message();
    std::vector<std::byte> packed(planned->total_bytes() + 16);
    std::byte* const data = packed.data() + (16 - reinterpret_cast<uintptr_t>(packed.data()) % 16) % 16;
    for (int i = 0; i < planned->view.tiles(); ++i) {
      planned->PackTile(bytes.data(), i, data + static_cast<size_t>(i) * planned->tile_bytes());
    }
    planned->view.data = data;
    for (int output = 0; output < kOutputs; ++output) {
      for (int input = 0; input < inputs; ++input) {
        const float wanted = values[static_cast<size_t>(output) * static_cast<size_t>(inputs) + static_cast<size_t>(input)];
        const float got = Unpack(planned->view, output, input);
        ASSERT_EQ(std::memcmp(&got, &wanted, 4), 0) << output << ", " << input << ": " << got << ", wanted " << wanted;
      }
    }
  }
}

TEST(Nibbles, CodesOfFourBitFloatsAreLookedUp) {
  for (uint32_t n = 0; n < 16; ++n) {
    const uint32_t codes[8] = {n, 15 - n, n ^ 8, 0, n ^ 5, 8, n, 15};
    uint32_t word = 0;
    for (int i = 0; i < 8; ++i) word |= codes[i] << (4 * i);
    const NibblePair pair = Nibbles<Form::kNibbleE2M1>(word);
    for (int i = 0; i < 8; ++i) {
      EXPECT_EQ(static_cast<int8_t>((i < 4 ? pair.low : pair.high) >> (8 * (i % 4))), kTwiceE2M1[codes[i]]) << n << ", " << i;
    }
  }
}

TEST(Nibbles, CentredOnesAreSixteenTimesWhatTheyStandFor) {
  for (uint32_t n = 0; n < 16; ++n) {
    const uint32_t word = (n | ((15 - n) << 4)) * 0x01010101u;
    const NibblePair centred = Nibbles<Form::kNibble>(word), plain = Nibbles<Form::kNibbleMin>(word);
    for (int i = 0; i < 4; ++i) {
      EXPECT_EQ(static_cast<int8_t>(centred.low >> (8 * i)), 16 * (static_cast<int>(n) - 8));
      EXPECT_EQ(static_cast<int8_t>(centred.high >> (8 * i)), 16 * (7 - static_cast<int>(n)));
      EXPECT_EQ((plain.low >> (8 * i)) & 0xff, n);
      EXPECT_EQ((plain.high >> (8 * i)) & 0xff, 15 - n);
    }
  }
}

// Every word of the operands is held by one lane, every sum is formed by one, and no two lanes of a warp's access meet in a bank.
TEST(TensorCores, LanesShareTheTileWithoutAGapOrAMeeting) {
  std::vector<int> acts(16 * 8), weights(8 * 8), sums(16 * 8);
  for (int lane = 0; lane < 32; ++lane) {
    for (int i = 0; i < 4; ++i) {
      const TilePlace place = ActivationWord(lane, i);
      ++acts[static_cast<size_t>(place.row * 8 + place.chunk * 4 + WordInputs(lane) / 4)];
      ++sums[static_cast<size_t>(SumRow(lane, i) * 8 + SumColumn(lane, i))];
    }
    for (int i = 0; i < 2; ++i) {
      const TilePlace place = WeightWord(lane, i);
      ++weights[static_cast<size_t>(place.row * 8 + place.chunk * 4 + WordInputs(lane) / 4)];
    }
  }
  for (const auto* counts : {&acts, &weights, &sums}) {
    for (const int count : *counts) EXPECT_EQ(count, 1);
  }
  for (int i = 0; i < 4; ++i) {
    uint32_t banks = 0;
    for (int lane = 0; lane < 32; ++lane) {
      const TilePlace place = ActivationWord(lane, i);
      banks |= 1u << (StageQuantAt(Form::kByte, place.chunk, place.row) + WordInputs(lane)) / 4 % 32;
    }
    EXPECT_EQ(banks, 0xffffffffu);
  }
  // Eight threads are served at once when they bring pieces of 16 bytes: those of a row.
  std::vector<int> places;
  for (int row = 0; row < kMmaRows; ++row) {
    uint32_t banks = 0;
    for (int chunk = 0; chunk < kSegment / 16; ++chunk) {
      places.push_back(StageQuantAt(Form::kByte, chunk, row));
      banks |= 0xfu << places.back() / 4 % 32;
    }
    EXPECT_EQ(banks, 0xffffffffu);
  }
  std::sort(places.begin(), places.end());
  for (size_t i = 0; i < places.size(); ++i) EXPECT_EQ(places[i], StageQuants(Form::kByte) + static_cast<int>(i) * 16);
}

// 16 outputs by 8 rows over a step, as the PTX manual gives the places of mma.m16n8k16: what the packed words and the lanes' pieces of rows make of it.
TEST(TensorCores, ShortFloatsMeetTheirInputs) {
  constexpr int kOutputs = 32, kInputs = 144;
  std::vector<std::byte> source(2 * kOutputs * kInputs);
  const auto weight = [](int output, int input) { return static_cast<float>(output * 5 % 31 - 15 + input * 7 % 23); };
  const auto act = [](int row, int input) { return static_cast<float>(input * 3 % 19 - row * 11 % 13); };
  for (int output = 0; output < kOutputs; ++output) {
    for (int input = 0; input < kInputs; ++input) {
      const uint16_t bits = FloatToBFloat16(weight(output, input));
      std::memcpy(source.data() + static_cast<size_t>(output * kInputs + input) * 2, &bits, 2);
    }
  }
  const auto planned = PackedWeight::Plan({"w", TensorType::kBF16, kInputs, kOutputs, source});
  ASSERT_TRUE(planned.ok()) << planned.status().message();
  std::vector<std::byte> packed(planned->total_bytes());
  planned->PackTile(source.data(), 0, packed.data());
  float sums[kOutputs][kShortColumns] = {};
  for (int step = 0; step < kInputs / kStepInputs; ++step) {
    for (int m = 0; m < 2; ++m) {
      float a[16][kStepInputs], b[kStepInputs][kShortColumns];
      for (int lane = 0; lane < 32; ++lane) {
        const int g = lane / 4, t = lane % 4;
        const std::byte* words =
            packed.data() + step / kSegmentSteps * SegmentBytes(Form::kBF16) + ChunkAt(Form::kBF16, step % kSegmentSteps * 2 + m, lane);
        for (int i = 0; i < 8; ++i) {  // word i / 2 of a lane: row g or g + 8, places 2t and 2t + 1, or 8 further
          uint16_t bits;
          std::memcpy(&bits, words + i * 2, 2);
          a[g + i / 2 % 2 * 8][2 * t + i % 2 + i / 4 * 8] = BFloat16ToFloat(bits);
        }
        for (int i = 0; i < 4; ++i) b[2 * t + i % 2 + i / 2 * 8][g] = act(g, step * kStepInputs + t * 4 + i);
      }
      for (int lane = 0; lane < 32; ++lane) {
        for (int i = 0; i < 4; ++i) {
          const int output = SumRow(lane, i), row = SumColumn(lane, i);
          for (int k = 0; k < kStepInputs; ++k) sums[m * 16 + output][row] += a[output][k] * b[k][row];
        }
      }
    }
  }
  for (int output = 0; output < kOutputs; ++output) {
    for (int row = 0; row < kShortColumns; ++row) {
      float wanted = 0.0f;
      for (int input = 0; input < kInputs; ++input) wanted += weight(output, input) * act(row, input);
      EXPECT_EQ(sums[output][row], wanted) << output << ", " << row;
    }
  }
}

// A stage of rows holds each piece once, and of 8 lanes that are served together no two meet in a bank.
TEST(TensorCores, PiecesOfRowsMeetInNoBank) {
  std::vector<int> pieces(kShortStageBytes / 16);
  for (int row = 0; row < kMmaRows; ++row) {
    for (int piece = 0; piece < kRowPieces; ++piece) ++pieces[static_cast<size_t>(ShortStageAt(row, piece) / 16)];
  }
  for (const int count : pieces) EXPECT_EQ(count, 1);
  for (int step = 0; step < kSegmentSteps; ++step) {
    for (int first = 0; first < 32; first += 8) {
      uint32_t banks = 0;
      for (int lane = first; lane < first + 8; ++lane) banks |= 1u << ShortStageAt(lane / 4, step * 4 + lane % 4) / 16 % 8;
      EXPECT_EQ(banks, 0xffu);
    }
  }
}

float WithExponent(uint64_t biased, std::mt19937& random) {
  return FloatOf(static_cast<uint32_t>((random() & 0x807fffffu) | biased << 23));
}

TEST(ShortFloats, ThreeBFloatsAreTheFloat) {
  std::mt19937 random(1);
  for (int i = 0; i < 20000; ++i) {
    const float x[2] = {WithExponent(20 + random() % 235, random), WithExponent(20 + random() % 235, random)};
    uint32_t parts[3];
    SplitToBFloats(x[0], x[1], parts);
    for (int n = 0; n < 2; ++n) {
      double sum = 0;
      for (const uint32_t part : parts) sum += double{BFloat16ToFloat(static_cast<uint16_t>(part >> (16 * n)))};
      ASSERT_EQ(sum, double{x[n]});
    }
  }
}

TEST(ShortFloats, TwoHalvesAreNearTheFloatThatWasBroughtToThem) {
  std::mt19937 random(2);
  for (int i = 0; i < 20000; ++i) {
    const float top = WithExponent(27 + random() % 228, random), small = top * 0x1p-15f;
    const PowerScale scale = PowerOfTop(BitsOf(top) & 0x7fffffffu);
    EXPECT_EQ(scale.up * scale.down, 1.0f);
    EXPECT_LT(std::abs(top * scale.up), 0x1p15f);
    EXPECT_GE(std::abs(top * scale.up), 0x1p14f);
    uint32_t parts[2];
    SplitToHalves(top * scale.up, small * scale.up, parts);
    for (int n = 0; n < 2; ++n) {
      double sum = 0;
      for (const uint32_t part : parts) sum += double{HalfToFloat(static_cast<uint16_t>(part >> (16 * n)))};
      const double wanted = double{n ? small : top} * double{scale.up};
      ASSERT_LE(std::abs(sum - wanted), std::abs(wanted) * 0x1p-22);
    }
  }
  for (const uint32_t broken : {0x7f800000u, 0x7fc00000u}) EXPECT_EQ(PowerOfTop(broken).up, 1.0f);
  EXPECT_GT(PowerOfTop(0).down, 0.0f);
}

TEST(TensorCores, AStageFitsEveryDevice) {
  for (int form = static_cast<int>(Form::kByte); form < kForms; ++form) {
    EXPECT_LE(kMmaStages * StageBytes(static_cast<Form>(form)), 99 << 10);
    EXPECT_EQ(StageBytes(static_cast<Form>(form)) % 16, 0);
  }
  EXPECT_LE(kMmaStages * kShortStageBytes, 99 << 10);
}

// Every (row, key-value head) and block is some unit's, once.
TEST(AttentionCut, UnitsCoverTheWorkOnce) {
  std::mt19937 random(3);
  for (int round = 0; round < 200; ++round) {
    StepHeader header{};
    std::vector<LaneEntry> lanes(1 + random() % 5);
    int rows = 0;
    for (LaneEntry& lane : lanes) {
      lane = {nullptr, nullptr, rows, static_cast<int>(random() % 40), static_cast<int>(random() % 1200), 0, nullptr, 0};
      rows += lane.rows;
      if (lane.rows > 0) header.blocks = std::max(header.blocks, (lane.position + lane.rows - 1) / kAttentionBlock + 1);
    }
    header.rows = rows;
    header.lanes = static_cast<int32_t>(lanes.size());
    AttentionArgs args{};
    args.step = {&header, lanes.data(), nullptr, nullptr};
    args.spec.kv_heads = 1 + static_cast<int>(random() % 3);
    args.q.count = args.spec.kv_heads * (1 + static_cast<int>(random() % 4));
    args.q.width = 8;
    args.partial_slots = random() % 2 ? 1 << 20 : 0;
    args.spec.first_position = random() % 3 == 0 ? 300 : 0;
    args.spec.window = std::array{0, 1, 100, 700}[random() % 4];
    const AttentionCut cut(args, kMostQueries);
    std::map<std::vector<int>, int> seen;
    AttentionUnit unit;
    for (int64_t item = 0; cut.Unit(args, item, &unit); ++item) {
      ASSERT_LE(unit.rows * cut.heads, kMostQueries);
      for (int row = unit.row; row < unit.row + unit.rows; ++row) ++seen[{unit.lane, row, unit.kv_head, cut.by_block ? unit.block : 0}];
    }
    for (int i = 0; i < header.lanes; ++i) {
      const LaneEntry& lane = lanes[static_cast<size_t>(i)];
      for (int row = 0; row < lane.rows; ++row) {
        const int last = (lane.position + row) / kAttentionBlock, first = args.spec.First(lane.position + row) / kAttentionBlock;
        for (int kv = 0; kv < args.spec.kv_heads; ++kv) {
          if (!cut.by_block) {
            EXPECT_EQ((seen[{i, row, kv, 0}]), 1);
          }
          for (int block = first; cut.by_block && block <= last; ++block) EXPECT_EQ((seen[{i, row, kv, block}]), 1);
        }
      }
    }
  }
}

TEST(Buckets, HoldEveryStep) {
  for (const int most : {1, 2, 3, 8, 9, 256, 4096}) {
    const auto rows = RowBuckets(most);
    EXPECT_EQ(rows.back(), most);
    EXPECT_TRUE(std::is_sorted(rows.begin(), rows.end()));
    EXPECT_EQ(LaneBuckets(most).back(), most);
  }
}

}  // namespace
}  // namespace reprise::cuda
