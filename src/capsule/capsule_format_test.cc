// The byte format: what is written comes back, what is damaged or lies is refused by name, and a refusal changes nothing.
#include "capsule/capsule_format.h"

#include <gtest/gtest.h>

#include <functional>

#include "base/bytes.h"
#include "base/checked.h"
#include "base/file.h"
#include "capsule/capsule_file_editor.h"
#include "capsule/capsule_test_support.h"

namespace reprise {
namespace {

using namespace testing_support;

using Bytes = std::vector<std::byte>;

class CapsuleFormatTest : public ::testing::Test {
 protected:
  // Refused with `code` and a message that holds every one of `words`, and nothing changed.
  void ExpectRefused(const Bytes& bytes, StatusCode code, const std::vector<std::string>& words = {}) {
    const auto usage = space_->usage();
    std::string metadata = "untouched";
    auto capsule = DeserializeCapsule(bytes, space_, &metadata);
    ASSERT_FALSE(capsule.ok()) << "should have been refused: " << (words.empty() ? std::string() : words[0]);
    EXPECT_EQ(capsule.status().code(), code) << capsule.status().message();
    for (const std::string& word : words) EXPECT_NE(capsule.status().message().find(word), std::string::npos) << capsule.status().message();
    for (const char c : capsule.status().message()) EXPECT_TRUE(c >= ' ' && c < 127) << "a message must be fit for a terminal";
    EXPECT_EQ(metadata, "untouched");
    EXPECT_TRUE(SameUsage(space_->usage(), usage));
  }

  Bytes File(int position = 3, std::string_view metadata = "about it") {
    auto bytes = CapsuleAt(space_, position).Serialize(metadata);
    EXPECT_TRUE(bytes.ok()) << bytes.status().message();
    return *std::move(bytes);
  }

  // A file of `position` rows with its fields changed and every checksum right again, so that the checks behind the checksums are reached.
  Bytes Edited(const std::function<void(CapsuleFile&)>& edit, int position = 3) {
    auto file = CapsuleFile::Split(File(position));
    EXPECT_TRUE(file.has_value());
    edit(*file);
    return file->Join();
  }

  std::shared_ptr<StateSpace> space_ = NewSpace(MixedLayout(), {.lanes = 1, .capsules = 8, .rows = 64 * 64, .max_position = 1024});
};

TEST_F(CapsuleFormatTest, RoundTripsAtEveryKindOfPosition) {
  for (const int position : {0, 1, 63, 64, 65, 127, 128, 1000, 1024}) {
    const auto usage = space_->usage();
    {
      Model model;
      const Capsule capsule = CapsuleAt(space_, position, 5, &model);
      auto bytes = capsule.Serialize("metadata \0 with a zero");
      ASSERT_TRUE(bytes.ok());
      std::string metadata;
      auto back = DeserializeCapsule(*bytes, space_, &metadata);
      ASSERT_TRUE(back.ok()) << back.status().message();
      EXPECT_EQ(metadata, "metadata \0 with a zero");
      EXPECT_EQ(back->position(), position);
      EXPECT_EQ(back->parent(), 0u);
      EXPECT_NE(back->id(), capsule.id());
      EXPECT_EQ(ReadCapsule(*back), model);
      EXPECT_EQ(*back->Serialize("metadata \0 with a zero"), *bytes) << "the same bytes every time";

      auto summary = SummariseCapsule(*bytes);
      ASSERT_TRUE(summary.ok());
      EXPECT_EQ(summary->version, 1u);
      EXPECT_EQ(summary->position, position);
      EXPECT_EQ(summary->fingerprint, space_->fingerprint());
      EXPECT_TRUE(summary->layout == space_->layout());
      for (size_t i = 0; i < model.states.size(); ++i) EXPECT_EQ(summary->payload_bytes[i], model.states[i].size());

      // It goes on as the original would have.
      if (position < 1024) {
        auto lane = *space_->NewLane();
        ASSERT_TRUE(back->RestoreTo(*lane).ok());
        ASSERT_TRUE(StepLane(*lane, 1, 6).ok());
        StepModel(space_->layout(), model, 1, 6);
        EXPECT_EQ(ReadLane(*lane), model);
        EXPECT_EQ(lane->copied_rows(), 0u) << "it stands at the frontier";
      }
    }
    EXPECT_TRUE(SameUsage(space_->usage(), usage));
  }
}

TEST_F(CapsuleFormatTest, MovesBetweenSpacesOfOtherSizes) {
  Model model;
  const Bytes bytes = *CapsuleAt(space_, 130, 3, &model).Serialize();
  auto small = NewSpace(MixedLayout(), {.lanes = 2, .capsules = 1, .rows = 64 * 3, .max_position = 130});
  auto capsule = DeserializeCapsule(bytes, small);
  ASSERT_TRUE(capsule.ok()) << capsule.status().message();
  EXPECT_EQ(ReadCapsule(*capsule), model);
}

TEST_F(CapsuleFormatTest, EveryLayoutRoundTrips) {
  StateLayout extremes;
  for (size_t i = 0; i < kMaxStates; ++i)
    extremes.Append(std::to_string(1000 + i) + std::string(kMaxStateNameBytes - 4, 'x'), ElementType::kBytes, {});
  StateLayout none;
  StateLayout deep;
  deep.Recurrent("deep", ElementType::kF16, {2, 1, 1, 1, 3, 1, 1, 2});
  for (const StateLayout& layout : {RecurrentLayout(), AppendLayout(), HostLayout(), extremes, none, deep}) {
    ASSERT_TRUE(layout.Check().ok());
    auto space = NewSpace(layout, {.lanes = 1, .capsules = 2, .max_position = 100});
    Model model;
    const Capsule capsule = CapsuleAt(space, 2, 1, &model);
    auto bytes = capsule.Serialize(std::string(Capsule::kMaxMetadata, 'm'));
    ASSERT_TRUE(bytes.ok());
    auto back = DeserializeCapsule(*bytes, space);
    ASSERT_TRUE(back.ok()) << back.status().message();
    EXPECT_EQ(ReadCapsule(*back), model);
  }
}

TEST_F(CapsuleFormatTest, OverlongMetadataIsRefusedOnBothSides) {
  const Capsule capsule = CapsuleAt(space_, 1);
  EXPECT_TRUE(capsule.Serialize(std::string(Capsule::kMaxMetadata, 'm')).ok());
  const auto status = capsule.Serialize(std::string(Capsule::kMaxMetadata + 1, 'm')).status();
  EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
  EXPECT_NE(status.message().find("65537"), std::string::npos);
  ExpectRefused(Edited([](CapsuleFile& f) { f.metadata.resize(Capsule::kMaxMetadata + 1); }), StatusCode::kCorrupt, {"metadata", "65537"});
}

TEST_F(CapsuleFormatTest, TheEditorAloneChangesNothing) {
  for (const int position : {0, 3, 64}) EXPECT_EQ(Edited([](CapsuleFile&) {}, position), File(position));
}

TEST_F(CapsuleFormatTest, TruncationAtEveryByteIsRefused) {
  for (const int position : {0, 3, 65}) {
    const Bytes whole = File(position);
    for (size_t n = 0; n < whole.size(); ++n) {
      ExpectRefused(Bytes(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(n)), StatusCode::kCorrupt);
      EXPECT_FALSE(SummariseCapsule(std::span(whole).first(n)).ok());
    }
  }
}

TEST_F(CapsuleFormatTest, TruncationIsRefusedBehindTheHeadersOwnWordToo) {
  const Bytes whole = File();
  for (size_t n = capsule_format::kHeaderBytes; n < whole.size(); ++n) {
    Bytes cut(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(n));
    PutField<uint64_t>(cut, 16, n);
    SealHeader(cut);
    ExpectRefused(cut, StatusCode::kCorrupt);
  }
}

TEST_F(CapsuleFormatTest, EverySingleBitFlipIsDetected) {
  const Bytes whole = File();
  for (size_t bit = 0; bit < whole.size() * 8; ++bit) {
    Bytes flipped = whole;
    flipped[bit / 8] ^= static_cast<std::byte>(1 << (bit % 8));
    const auto code = bit / 8 >= 8 && bit / 8 < 12 ? StatusCode::kUnsupported : StatusCode::kCorrupt;  // the version says so itself
    ExpectRefused(flipped, code);
  }
}

TEST_F(CapsuleFormatTest, TrailingBytesAreRefused) {
  for (const size_t extra : {size_t{1}, size_t{64}}) {
    Bytes longer = File();
    longer.resize(longer.size() + extra);
    ExpectRefused(longer, StatusCode::kCorrupt, {std::to_string(longer.size()) + " are here"});
    PutField<uint64_t>(longer, 16, longer.size());
    SealHeader(longer);
    ExpectRefused(longer, StatusCode::kCorrupt, {"goes on after its last state"});
  }
}

TEST_F(CapsuleFormatTest, PaddingAndReservedBytesMustBeZero) {
  const auto layout = space_->layout();
  const Bytes whole = File();
  auto file = *CapsuleFile::Split(whole);
  for (size_t at = 96; at < 120; ++at) {
    Bytes bytes = whole;
    bytes[at] = std::byte{1};
    SealHeader(bytes);
    ExpectRefused(bytes, StatusCode::kCorrupt, {"reserved"});
  }
  int padding = 0;
  size_t at = capsule_format::kHeaderBytes + GetField<uint64_t>(whole, 64) + GetField<uint64_t>(whole, 80);
  const auto damage_padding = [&] {
    for (; at % 64 != 0; ++at, ++padding) {
      Bytes bytes = whole;
      bytes[at] = std::byte{0x80};
      ExpectRefused(bytes, StatusCode::kCorrupt, {"padding", "offset"});
    }
  };
  damage_padding();
  for (const auto& state : file.states) {
    at += state.payload.size();
    damage_padding();
  }
  EXPECT_EQ(at, whole.size());
  EXPECT_GT(padding, 100);
}

TEST_F(CapsuleFormatTest, HeadersThatLieBehindAGoodChecksum) {
  const Bytes whole = File();
  const auto with = [&](size_t offset, auto value) {
    Bytes bytes = whole;
    PutField(bytes, offset, value);
    SealHeader(bytes);
    return bytes;
  };
  for (const uint32_t version : {0u, 2u, 0xffffffffu})
    ExpectRefused(with(8, version), StatusCode::kUnsupported, {"version " + std::to_string(version)});
  for (const uint32_t count : {0u, 6u, 8u, 4096u, 4097u, 0xffffffffu}) ExpectRefused(with(12, count), StatusCode::kCorrupt);
  for (const uint64_t total : {uint64_t{0}, uint64_t{whole.size() - 1}, ~uint64_t{0}}) {
    ExpectRefused(with(16, total), StatusCode::kCorrupt, {"says that it has " + std::to_string(total)});
  }
  for (const uint64_t position : {uint64_t{2}, uint64_t{4}, uint64_t{1} << 30})
    ExpectRefused(with(24, position), StatusCode::kCorrupt, {"'a.keys'"});
  for (const uint64_t position : {uint64_t{1} << 31, uint64_t{1} << 63, ~uint64_t{0}}) {
    ExpectRefused(with(24, position), StatusCode::kCorrupt, {"impossible", std::to_string(position)});
  }
  Bytes fingerprint = with(32, uint64_t{1});
  ExpectRefused(fingerprint, StatusCode::kMismatch, {"0100000000", space_->fingerprint().ShortHex()});
  for (const size_t size_field : {size_t{64}, size_t{80}}) {
    const uint64_t right = GetField<uint64_t>(whole, size_field);
    for (const uint64_t size :
         {uint64_t{0}, right - 1, right + 1, uint64_t{whole.size()}, uint64_t{1} << 40, ~uint64_t{0} - 127, ~uint64_t{0}}) {
      ExpectRefused(with(size_field, size), StatusCode::kCorrupt);
    }
  }
  ExpectRefused(with(72, uint64_t{7}), StatusCode::kCorrupt, {"layout", "checksum"});
  ExpectRefused(with(88, uint64_t{7}), StatusCode::kCorrupt, {"metadata", "checksum"});
  Bytes magic = whole;
  magic[3] = std::byte{'X'};
  ExpectRefused(magic, StatusCode::kCorrupt, {"no capsule"});
}

TEST_F(CapsuleFormatTest, StatesThatLieBehindGoodChecksums) {
  using File = CapsuleFile;
  constexpr uint64_t kHuge = ~uint64_t{0};
  const auto refused = [&](std::vector<std::string> words, const std::function<void(File&)>& edit) {
    ExpectRefused(Edited(edit), StatusCode::kCorrupt, words);
  };
  refused({"name", "257"}, [](File& f) { f.states[0].name = std::string(257, 'x'); });
  refused({"name"}, [](File& f) { f.states[0].name.clear(); });
  refused({"name", "byte 1"}, [](File& f) { f.states[0].name = "a\x1b[2Jb"; });
  refused({"within a state's name"}, [](File& f) { f.states[6].name_bytes_override = 200; });
  refused({"name of 4294967295"}, [](File& f) { f.states[0].name_bytes_override = 0xffffffff; });
  refused({"'a.matrix'", "twice"}, [](File& f) { f.states[3].name = "a.matrix"; });
  refused({"state 0", "unknown"}, [](File& f) { f.states[0].growth = 2; });
  refused({"state 0", "unknown"}, [](File& f) { f.states[0].space = 2; });
  refused({"state 0", "unknown"}, [](File& f) { f.states[0].type = 6; });
  refused({"state 0", "unknown"}, [](File& f) { f.states[0].type = 0xffffffff; });
  refused({"state 0", "9 dimensions"}, [](File& f) { f.states[0].shape.assign(9, 1); });
  refused({"4294967295 dimensions"}, [](File& f) { f.states[0].dimensions_override = 0xffffffff; });
  refused({"within a state's shape"}, [](File& f) { f.states[6].dimensions_override = 8; });
  for (const int64_t dimension : {int64_t{0}, int64_t{-1}, INT64_MIN, INT64_MAX, int64_t{1} << 62}) {
    refused({"'a.matrix'", "dimension " + std::to_string(dimension)}, [&](File& f) { f.states[0].shape = {3, dimension}; });
  }
  refused({"'a.matrix'", "dimension"}, [](File& f) {
    f.states[0].shape = {int64_t{1} << 31, int64_t{1} << 31, 4};
  });  // wraps to a small product
  refused({"'a.matrix'", "60 bytes", "64"}, [](File& f) { f.states[0].shape = {4, 4}; });
  for (const uint64_t size : {uint64_t{0}, uint64_t{59}, uint64_t{61}, uint64_t{1} << 40, kHuge - 63, kHuge}) {
    refused({"'a.matrix'", std::to_string(size) + " bytes"}, [&](File& f) { f.states[0].payload_bytes_override = size; });
    refused({"'a.keys'"}, [&](File& f) { f.states[1].payload_bytes_override = size; });
  }
  refused({"'a.tail'", "at offset"}, [](File& f) {  // a payload that its shape admits and the file does not hold
    f.states[3].shape = {int64_t{1} << 38};
    f.states[3].payload_bytes_override = uint64_t{1} << 38;
  });
  refused({"more than 2^64"}, [](File& f) {
    f.position = 0x7fffffff;
    f.states[1].shape = {int64_t{1} << 33};
  });
  refused({"2^40"}, [](File& f) { f.states[1].shape = {int64_t{1} << 36}; });
  refused({"'a.matrix'", "checksum"}, [](File& f) { f.states[0].checksum_override = 1; });
  refused({"'stop.matched'", "checksum"}, [](File& f) { f.states[6].checksum_override = 1; });
  refused({"layout goes on"}, [](File& f) { f.layout_tail.resize(5); });
  refused({"layout goes on"}, [](File& f) { f.count_override = 6; });
  refused({"length of a state's name"}, [](File& f) { f.count_override = 8; });
  refused({"after its last state"}, [](File& f) { f.tail.resize(64); });
}

TEST_F(CapsuleFormatTest, ManyStatesAreRefusedBeforeTheyAreRead) {
  ExpectRefused(Edited([](CapsuleFile& f) {
                  f.states.clear();
                  for (size_t i = 0; i <= kMaxStates; ++i) {
                    CapsuleFile::State state;
                    state.name = std::to_string(i);
                    state.payload.resize(1);
                    f.states.push_back(state);
                  }
                }),
                StatusCode::kCorrupt, {"4097 states"});
}

TEST_F(CapsuleFormatTest, AnotherLayoutIsRefusedByTheNameOfTheState) {
  using File = CapsuleFile;
  const auto refused = [&](std::vector<std::string> words, const std::function<void(File&)>& edit) {
    ExpectRefused(Edited(edit), StatusCode::kMismatch, words);
  };
  refused({"state 3", "'a.values'", "'a.tail'"}, [](File& f) { f.states.erase(f.states.begin() + 3); });
  refused({"lacks", "'stop.matched'"}, [](File& f) { f.states.pop_back(); });
  refused({"has not", "'one.more'"}, [](File& f) {
    f.states.push_back(f.states[0]);
    f.states.back().name = "one.more";
  });
  refused({"state 0", "'a.tail'", "'a.matrix'"}, [](File& f) { std::swap(f.states[0], f.states[3]); });
  refused({"state 0", "'b.matrix'"}, [](File& f) { f.states[0].name = "b.matrix"; });
  refused({"state 0", "i32", "f32"}, [](File& f) { f.states[0].type = static_cast<uint32_t>(ElementType::kI32); });
  refused({"state 0", "[5, 3]", "[3, 5]"}, [](File& f) { f.states[0].shape = {5, 3}; });
  refused({"state 0", "[15]", "[3, 5]"}, [](File& f) { f.states[0].shape = {15}; });
  refused({"state 0", "host", "device"}, [](File& f) { f.states[0].space = static_cast<uint32_t>(Space::kHost); });
  refused({"state 3", "append-only", "recurrent"}, [](File& f) {
    f.states[3].growth = static_cast<uint32_t>(Growth::kAppend);
    f.states[3].payload.resize(21);
  });
}

TEST_F(CapsuleFormatTest, APositionBeyondTheContextIsRefused) {
  auto longer = NewSpace(MixedLayout(), {.lanes = 1, .capsules = 1, .max_position = 2000});
  ExpectRefused(*CapsuleAt(longer, 1025).Serialize(), StatusCode::kExhausted, {"1025", "1024"});
  // Without append-only states nothing but the number says so.
  auto recurrent = NewSpace(RecurrentLayout(), {.lanes = 1, .capsules = 1, .max_position = 10});
  auto file = *CapsuleFile::Split(*CapsuleAt(recurrent, 10).Serialize());
  file.position = 11;
  EXPECT_EQ(DeserializeCapsule(file.Join(), recurrent).status().code(), StatusCode::kExhausted);
}

TEST_F(CapsuleFormatTest, AFullPoolAtEveryAcquisition) {
  const Bytes bytes = File(200);  // four extents, and a block of each space
  for (const auto& [blocks, rows] : {std::pair{0, 64 * 8}, std::pair{8, 64 * 8}}) {
    auto space = NewSpace(MixedLayout(), {.lanes = 1, .capsules = blocks, .rows = rows, .max_position = 1024});
    int failures = 0;
    // Leave room for n acquisitions, n = 0, 1, 2, ... until it succeeds: of blocks in the first space, of extents in the second.
    for (int n = 0;; ++n) {
      std::vector<Ref<StateBlock>> taken[kSpaces];
      std::vector<Ref<Extent>> extents;
      if (blocks == 0) {
        const int free = space->usage().block_limit - 1;
        for (int s = 0; s < kSpaces; ++s) {
          const int leave = s == 0 ? std::min(n, 1) : std::max(n - 1, 0);
          for (int i = 0; i < free - leave; ++i) taken[s].push_back(*space->AcquireBlock(static_cast<Space>(s)));
        }
      } else {
        for (int i = 0; i < 8 - n; ++i) {
          Ref<Extent> none;
          extents.push_back(*space->AcquireExtent(none, 0, 64));
        }
      }
      const auto usage = space->usage();
      auto capsule = DeserializeCapsule(bytes, space);
      if (capsule.ok()) break;
      ++failures;
      EXPECT_EQ(capsule.status().code(), StatusCode::kExhausted);
      EXPECT_NE(capsule.status().message().find("are held"), std::string::npos) << capsule.status().message();
      EXPECT_TRUE(SameUsage(space->usage(), usage));
    }
    EXPECT_EQ(failures, blocks == 0 ? 2 : 4);
    EXPECT_EQ(space->usage().blocks[0], 1);
    EXPECT_EQ(space->usage().blocks[1], 1);
    EXPECT_EQ(space->usage().extents, 0);
  }
}

TEST_F(CapsuleFormatTest, TheEvictorMakesRoomForACapsuleFromBytes) {
  const Bytes bytes = File(200);
  auto space = NewSpace(MixedLayout(), {.lanes = 1, .capsules = 4, .rows = 64 * 5, .max_position = 1024});
  Capsule old = CapsuleAt(space, 150);
  space->SetEvictor([&] { return std::exchange(old, Capsule()).valid(); });
  auto capsule = DeserializeCapsule(bytes, space);
  EXPECT_TRUE(capsule.ok()) << capsule.status().message();
  EXPECT_FALSE(old.valid());
  space->SetEvictor(nullptr);
}

// Unaligned input: a capsule may lie anywhere in a message.
TEST_F(CapsuleFormatTest, BytesMayLieAtAnyAddress) {
  Model model;
  const Bytes bytes = *CapsuleAt(space_, 65, 2, &model).Serialize();
  for (size_t shift = 1; shift < 9; ++shift) {
    Bytes shifted(shift);
    shifted.insert(shifted.end(), bytes.begin(), bytes.end());
    auto capsule = DeserializeCapsule(std::span(shifted).subspan(shift), space_);
    ASSERT_TRUE(capsule.ok());
    EXPECT_EQ(ReadCapsule(*capsule), model);
  }
}

}  // namespace
}  // namespace reprise
