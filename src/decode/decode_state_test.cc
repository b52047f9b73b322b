#include "decode/decode_state.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <memory>
#include <vector>

#include "base/utf8.h"
#include "decode/grammar_builder.h"
#include "decode/grammar_masks.h"
#include "exec/lane.h"
#include "exec/memory.h"
#include "exec/state_space.h"

namespace reprise {
namespace {

constexpr int kVocabulary = 64;

// A stand-in for a model: token i shows pieces[i], and logits depend on the last token alone.
class Fixture {
 public:
  Fixture() : state_(DecodeState::Declare(layout_)), workspace_(kVocabulary) {
    space_ = *StateSpace::Create(layout_, {.lanes = 1, .capsules = 4}, Fingerprint(), std::make_shared<HostMemory>());
    state_.InitialiseOrigin(*space_);
    lane_ = *space_->NewLane();
    host_.assign(lane_->read(Space::kHost), lane_->read(Space::kHost) + layout_.block_bytes(Space::kHost));
    // Pieces that cut characters and stop strings anywhere.
    const std::string material = "the <end> of \xE2\x82\xAC 5, \xF0\x9F\x98\x80 <en ends\n\nUser: \xC3\xA9t\xC3\xA9 </s>";
    for (size_t i = 0; i < kVocabulary; ++i) pieces_.push_back(material.substr(i % material.size(), 1 + i % 3));
    trie_.emplace(std::vector<std::string_view>(pieces_.begin(), pieces_.end()), std::span<const int32_t>());
  }

  std::vector<float> Logits(int32_t last) const {
    Generator generator{static_cast<uint64_t>(last) + 1000, 0};
    std::vector<float> logits(kVocabulary);
    for (float& logit : logits) logit = static_cast<float>(generator.Uniform()) * 6;
    return logits;
  }

  struct Stream {
    std::vector<int32_t> tokens;
    std::string text;
    bool stopped = false;
    bool operator==(const Stream&) const = default;
  };

  // One token more, as a session does it.
  void Step(std::vector<std::byte>& host, Stream& stream) {
    const int32_t last = state_.pending(host.data());
    const GrammarProgram program = state_.grammar(host.data());
    if (program.present() && (!masks_ || !masks_->IsOf(program))) masks_ = std::make_unique<GrammarMasks>(*trie_, program);
    const AllowedTokens allowed = program.present() ? masks_->Allowed(state_.threads(host.data())) : AllowedTokens();
    const auto token = state_.Sample(Logits(last), stream.tokens, host.data(), workspace_, allowed);
    if (!token.ok()) {  // the grammar allows none
      ASSERT_EQ(token.status().code(), StatusCode::kInternal) << token.status().message();
      stream.stopped = true;
      return;
    }
    state_.set_pending(host.data(), *token);
    stream.tokens.push_back(*token);
    stream.stopped = state_.Feed(pieces_[static_cast<size_t>(*token)], host.data(), stream.text);
  }

  StateLayout layout_;
  DecodeState state_;
  SampleWorkspace workspace_;
  std::shared_ptr<StateSpace> space_;
  std::unique_ptr<Lane> lane_;
  std::vector<std::byte> host_;  // a copy of the lane's host part
  std::vector<std::string> pieces_;
  std::optional<TokenTrie> trie_;
  std::unique_ptr<GrammarMasks> masks_;
};

class DecodeStateTest : public Fixture, public testing::Test {
 protected:
  Status Set(const SamplingOptions& options) { return state_.Configure(options, host_.data()); }
  std::byte* Bytes(std::string_view name) { return host_.data() + layout_[layout_.Find(name)].offset; }
  std::string Show(std::string_view bytes) {
    std::string text;
    EXPECT_FALSE(state_.Feed(bytes, host_.data(), text));
    return text;
  }
};

// Of three bytes two are not 'e'.
Grammar FewE() {
  GrammarBuilder b;
  const auto no_e = [&] { b.OneOf(2, [&](size_t i) { b.Range(i == 0 ? 0 : 'f', i == 0 ? 'd' : 0xff); }); };
  b.Repeat(0, -1, [&] { b.Repeat(2, 2, no_e).Range(0, 0xff); }).Accept();
  return *b.Finish();
}

const SamplingOptions kBusy = {.temperature = 1.1f,
                               .top_k = 50,
                               .top_p = 0.97f,
                               .min_p = 0.001f,
                               .repetition_penalty = 1.1f,
                               .presence_penalty = 0.2f,
                               .frequency_penalty = 0.1f,
                               .penalty_window = 12,
                               .seed = 99,
                               .stop = {"<end> \xE2\x82\xAC", "ends\n\nUser:", "\n\n\n"},
                               .bias = {{1, -6.0f}, {2, 3.0f}, {3, -6.0f}, {5, 4.0f}, {8, 2.0f}, {11, -3.0f}},
                               .grammar = FewE()};

TEST_F(DecodeStateTest, DeclaresItsStatesOnTheHost) {
  for (const char* name :
       {"decode.options", "decode.biases", "decode.generator", "decode.stops", "decode.held_text", "decode.utf8", "decode.pending"}) {
    const int index = layout_.Find(name);
    ASSERT_GE(index, 0) << name;
    EXPECT_EQ(layout_[index].space, Space::kHost);
    EXPECT_EQ(layout_[index].growth, Growth::kRecurrent);
  }
  EXPECT_TRUE(layout_.Check().ok());
}

TEST_F(DecodeStateTest, OriginIsGreedyWithNothingPending) {
  EXPECT_EQ(state_.Options(host_.data()), SamplingOptions());
  EXPECT_EQ(state_.pending(host_.data()), -1);
  EXPECT_EQ(state_.PenaltyWindow(host_.data()), 0);
  EXPECT_TRUE(state_.Check(host_.data(), kVocabulary).ok());
}

TEST_F(DecodeStateTest, OptionsComeBack) {
  ASSERT_TRUE(Set(kBusy).ok());
  EXPECT_EQ(state_.Options(host_.data()), kBusy);
  EXPECT_EQ(state_.PenaltyWindow(host_.data()), 12);
  EXPECT_TRUE(state_.Check(host_.data(), kVocabulary).ok());
}

TEST_F(DecodeStateTest, RefusedOptionsChangeNothing) {
  ASSERT_TRUE(Set(kBusy).ok());
  const auto before = host_;
  EXPECT_EQ(Set({.temperature = -1}).code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(Set({.stop = {""}}).code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(host_, before);
}

TEST_F(DecodeStateTest, ConfigureForgetsWhatWasHeldAndSeedsAnew) {
  ASSERT_TRUE(Set(kBusy).ok());
  const auto fresh = host_;
  Stream stream;
  for (int i = 0; i < 5; ++i) Step(host_, stream);
  state_.set_pending(host_.data(), -1);
  Show("<en");
  Show("\xE2\x82");
  EXPECT_NE(host_, fresh);
  ASSERT_TRUE(Set(kBusy).ok());
  EXPECT_EQ(host_, fresh);
}

TEST_F(DecodeStateTest, NeverShowsHalfACharacter) {
  EXPECT_EQ(Show("a\xE2"), "a");
  EXPECT_EQ(Show("\x82"), "");
  EXPECT_EQ(Show("\xAC"
                 "b\xF0\x9F"),
            "\u20AC"
            "b");
  std::string text;
  state_.Flush(host_.data(), text);
  EXPECT_EQ(text, "\uFFFD");
  EXPECT_EQ(Show("c"), "c");
}

TEST_F(DecodeStateTest, StopStringsSpanTokensAndCharacters) {
  ASSERT_TRUE(Set({.stop = {"\u20AC\u20AC", "end"}}).ok());
  EXPECT_EQ(Show("5 \xE2\x82"), "5 ");
  EXPECT_EQ(Show("\xAC"), "");
  EXPECT_EQ(Show("e"), "\u20AC");
  EXPECT_EQ(Show("n\xE2"), "");
  EXPECT_EQ(Show("\x82\xAC"), "en");
  std::string text;
  EXPECT_TRUE(state_.Feed("\xE2\x82\xAC and more", host_.data(), text));
  EXPECT_EQ(text, "");
  EXPECT_EQ(Show("and so on"), "and so on");  // nothing of the old stream is left
}

TEST_F(DecodeStateTest, TextBeforeAStopInTheSameTokenIsShownAndTheRestDropped) {
  ASSERT_TRUE(Set({.stop = {"<end>"}}).ok());
  std::string text = "kept: ";
  EXPECT_TRUE(state_.Feed("before<end>after\xE2", host_.data(), text));
  EXPECT_EQ(text, "kept: before");
  state_.Flush(host_.data(), text);
  EXPECT_EQ(text, "kept: before");
}

TEST_F(DecodeStateTest, FlushShowsWhatWasHeldBack) {
  ASSERT_TRUE(Set({.stop = {"<end>"}}).ok());
  EXPECT_EQ(Show("a<en"), "a");
  std::string text;
  state_.Flush(host_.data(), text);
  EXPECT_EQ(text, "<en");
  text.clear();
  state_.Flush(host_.data(), text);
  EXPECT_EQ(text, "");
}

// The promise: a copy taken at any moment goes on bit for bit.
TEST_F(DecodeStateTest, ACopyTakenAnywhereGoesOnBitForBit) {
  ASSERT_TRUE(Set(kBusy).ok());
  constexpr int kSteps = 300;
  std::vector<std::vector<std::byte>> copies;
  std::vector<Stream> at;
  Stream whole;
  bool held = false;
  bool cut = false;
  for (int i = 0; i < kSteps; ++i) {
    copies.push_back(host_);
    at.push_back(whole);
    Step(host_, whole);
    held |= Bytes("decode.held_text")[0] != std::byte{0};
    cut |= Bytes("decode.utf8")[0] != std::byte{0};
    ASSERT_TRUE(state_.Check(host_.data(), kVocabulary).ok());
  }
  EXPECT_TRUE(held && cut) << "the stream must be caught within a stop string and within a character for this test to mean something";
  for (int i = 0; i < kSteps; ++i) {
    std::vector<std::byte> host = copies[static_cast<size_t>(i)];
    Stream stream = at[static_cast<size_t>(i)];
    for (int k = i; k < std::min(kSteps, i + 40); ++k) {
      ASSERT_EQ(host, copies[static_cast<size_t>(k)]);
      Step(host, stream);
    }
    EXPECT_TRUE(whole.text.starts_with(stream.text));
  }
}

// Each state is load-bearing: without it the stream goes elsewhere.
TEST_F(DecodeStateTest, LeavingAnyStateOutDiverges) {
  const auto origin = host_;
  ASSERT_TRUE(Set(kBusy).ok());
  Stream stream;
  while (Bytes("decode.held_text")[0] == std::byte{0} || Bytes("decode.utf8")[0] == std::byte{0}) {
    // Until a moment within a stop string and, after it, within a character.
    if (Bytes("decode.held_text")[0] == std::byte{0}) Show("<end> ");
    Show("\xE2");
  }
  state_.set_pending(host_.data(), 33);
  const auto run_on = [&](std::vector<std::byte> host) {
    Stream out;
    out.stopped = state_.Feed("\x82\xAC", host.data(), out.text);
    for (int i = 0; i < 40; ++i) Step(host, out);
    return out;
  };
  const Stream expected = run_on(host_);
  for (const StateDecl& decl : layout_.states()) {
    auto host = host_;
    std::copy_n(origin.begin() + static_cast<std::ptrdiff_t>(decl.offset), decl.bytes,
                host.begin() + static_cast<std::ptrdiff_t>(decl.offset));
    EXPECT_FALSE(run_on(host) == expected) << decl.name;
  }
}

TEST_F(DecodeStateTest, LivesInALane) {
  ASSERT_TRUE(lane_->BeginHost().ok());
  ASSERT_TRUE(state_.Configure(kBusy, lane_->write(Space::kHost)).ok());
  lane_->Commit();
  EXPECT_EQ(state_.Options(lane_->read(Space::kHost)), kBusy);
  const HeldState held = lane_->Hold();
  ASSERT_TRUE(lane_->BeginHost().ok());
  const auto token = state_.Sample(Logits(-1), {}, lane_->write(Space::kHost), workspace_);
  ASSERT_TRUE(token.ok());
  lane_->Commit();
  ASSERT_TRUE(lane_->Adopt(held).ok());
  ASSERT_TRUE(lane_->BeginHost().ok());
  EXPECT_EQ(*state_.Sample(Logits(-1), {}, lane_->write(Space::kHost), workspace_), *token);
  lane_->Abort();
}

TEST_F(DecodeStateTest, CheckNamesTheStateAtFault) {
  ASSERT_TRUE(Set(kBusy).ok());
  Show("<end> \xE2");
  ASSERT_TRUE(state_.Check(host_.data(), kVocabulary).ok());
  const auto sound = host_;
  const auto expect = [&](std::string_view name, size_t offset, uint8_t value) {
    host_ = sound;
    Bytes(name)[offset] = std::byte{value};
    const Status status = state_.Check(host_.data(), kVocabulary);
    ASSERT_FALSE(status.ok()) << name << " at " << offset;
    EXPECT_EQ(status.code(), StatusCode::kCorrupt);
    EXPECT_NE(status.message().find(name), std::string::npos) << status.message();
  };
  expect("decode.options", 3, 0xC0);  // a negative temperature
  expect("decode.options", 7, 0x80);  // a negative top_k
  expect("decode.grammar", 0, 0);     // bytes after its end
  expect("decode.grammar", 4, 0x7f);  // what is no instruction
  expect("decode.threads", 0, 0);     // fewer than there are
  expect("decode.threads", 5, 0xff);  // outside the grammar
  expect("decode.threads", 2, 0xff);  // more words than there are
  expect("decode.stops", 0, 17);      // more stop strings than fit
  expect("decode.stops", 0, 2);       // fewer than there are bytes of
  expect("decode.stops", 3, 0xFF);
  expect("decode.stops", 5, 0xFF);             // a length beyond the buffer
  expect("decode.stops", 4, 0);                // a length of nothing
  expect("decode.stops", 4 + 32, 0xFF);        // not UTF-8
  expect("decode.stops", 4 + 32 + 1023, 'x');  // after the last one
  expect("decode.held_text", 0, 200);
  expect("decode.held_text", 3, 0x80);
  expect("decode.held_text", 4, 'x');  // begins no stop string
  expect("decode.held_text", 4 + 1023, 'x');
  expect("decode.utf8", 0, 4);
  expect("decode.utf8", 1, 'a');
  expect("decode.utf8", 3, 0x80);
  expect("decode.pending", 0, kVocabulary);
  expect("decode.pending", 3, 0x80);
}

TEST_F(DecodeStateTest, ImpossibleOptionsAreRefusedWhenUsed) {
  ASSERT_TRUE(Set(kBusy).ok());
  Bytes("decode.options")[7] = std::byte{0x80};
  const auto before = host_;
  const auto token = state_.Sample(Logits(0), {}, host_.data(), workspace_);
  ASSERT_FALSE(token.ok());
  EXPECT_EQ(token.status().code(), StatusCode::kCorrupt);
  EXPECT_NE(token.status().message().find("decode.options"), std::string::npos);
  EXPECT_EQ(host_, before);
}

RC_GTEST_PROP(DecodeState, ArbitraryBytesAreSafe, ()) {
  Fixture f;
  // Sound bytes with a few broken, or nothing but noise.
  RC_ASSERT(f.state_.Configure(kBusy, f.host_.data()).ok());
  Generator noise{*rc::gen::arbitrary<uint64_t>(), 0};
  const bool all = *rc::gen::arbitrary<bool>();
  const size_t broken = all ? f.host_.size() : *rc::gen::inRange<size_t>(1, 20);
  for (size_t i = 0; i < broken; ++i) {
    const size_t at = all ? i : static_cast<size_t>(noise.Uniform() * static_cast<double>(f.host_.size()));
    f.host_[at] = static_cast<std::byte>(noise.Uniform() * 256);
  }
  const bool sound = f.state_.Check(f.host_.data(), kVocabulary).ok();
  f.state_.Options(f.host_.data());
  std::string text;
  const std::vector<int32_t> window = {1, -5, 1 << 30, 3};
  for (int i = 0; i < 20; ++i) {
    const auto token = f.state_.Sample(f.Logits(i), window, f.host_.data(), f.workspace_);
    if (token.ok()) RC_ASSERT(*token >= 0 && *token < kVocabulary);
    f.state_.Feed(f.pieces_[static_cast<size_t>(i)], f.host_.data(), text);
  }
  f.state_.Flush(f.host_.data(), text);
  if (sound) RC_ASSERT(IsUtf8(text));
}

RC_GTEST_PROP(DecodeState, TextDoesNotDependOnHowItWasCut, (const std::string& bytes)) {
  Fixture f;
  RC_ASSERT(f.state_.Configure({.stop = {"ab", "\u00E9", "aab", "ba\uFFFD"}}, f.host_.data()).ok());
  const auto run = [&](auto next_size) {
    std::vector<std::byte> host = f.host_;
    std::string text;
    bool stopped = false;
    for (size_t i = 0; i < bytes.size() && !stopped;) {
      const size_t size = std::min(bytes.size() - i, next_size());
      stopped = f.state_.Feed(std::string_view(bytes).substr(i, size), host.data(), text);
      RC_ASSERT(IsUtf8(text));
      i += size;
    }
    if (!stopped) f.state_.Flush(host.data(), text);
    return std::pair(text, stopped);
  };
  const auto whole = run([&] { return bytes.size(); });
  RC_ASSERT(run([] { return size_t{1}; }) == whole);
  RC_ASSERT(run([] { return *rc::gen::inRange<size_t>(1, 6); }) == whole);
}

}  // namespace
}  // namespace reprise
