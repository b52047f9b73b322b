// The arithmetic that kernels share with the host: packing, unpacking, and where the tensor cores' lanes find their words.
#include "backend/cuda/packed_weight.h"

#include <gtest/gtest.h>

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
                                 TensorType::kQ4_K, TensorType::kQ5_K, TensorType::kQ6_K};

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
}

TEST(TensorCores, AStageFitsEveryDevice) {
  for (int form = static_cast<int>(Form::kByte); form < kForms; ++form) {
    EXPECT_LE(kMmaStages * StageBytes(static_cast<Form>(form)), 99 << 10);
    EXPECT_EQ(StageBytes(static_cast<Form>(form)) % 16, 0);
  }
}

// Every (row, key-value head) and block is some unit's, once.
TEST(AttentionCut, UnitsCoverTheWorkOnce) {
  std::mt19937 random(3);
  for (int round = 0; round < 200; ++round) {
    StepHeader header{};
    std::vector<LaneEntry> lanes(1 + random() % 5);
    int rows = 0;
    for (LaneEntry& lane : lanes) {
      lane = {nullptr, nullptr, rows, static_cast<int>(random() % 40), static_cast<int>(random() % 1200), 0};
      rows += lane.rows;
      if (lane.rows > 0) header.blocks = std::max(header.blocks, (lane.position + lane.rows - 1) / kAttentionBlock + 1);
    }
    header.rows = rows;
    header.lanes = static_cast<int32_t>(lanes.size());
    AttentionArgs args{};
    args.step = {&header, lanes.data(), nullptr, nullptr};
    args.kv_heads = 1 + static_cast<int>(random() % 3);
    args.q.count = args.kv_heads * (1 + static_cast<int>(random() % 4));
    args.q.width = 8;
    args.partial_slots = random() % 2 ? 1 << 20 : 0;
    args.first_position = random() % 3 == 0 ? 300 : 0;
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
        const int last = (lane.position + row) / kAttentionBlock, first = args.first_position / kAttentionBlock;
        for (int kv = 0; kv < args.kv_heads; ++kv) {
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
