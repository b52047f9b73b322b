// Verify on a whole implementation finds nothing; on one that breaks a single promise it names what is broken.
#include "session/verify.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <memory>
#include <mutex>
#include <utility>

#include "backend/cpu/cpu_backend.h"
#include "base/hot_calls.h"
#include "capsule/ablation.h"
#include "capsule/capsule_format.h"
#include "exec/lane.h"
#include "exec/state_space.h"
#include "session/session_subject.h"

namespace reprise {
namespace {

constexpr char kTiny[] = "tests/data/goldens/qwen35_equal.gguf";  // delta net, attention and an MTP block; no tokenizer
constexpr char kTinyLlama[] = "tests/data/goldens/llama_gqa.gguf";
constexpr char kTinyQwen2[] = "tests/data/goldens/qwen2_gqa.gguf";
constexpr char kTinyQwen3[] = "tests/data/goldens/qwen3_gqa.gguf";
constexpr char kTinyLfm2[] = "tests/data/goldens/lfm2_hybrid.gguf";         // short convolutions and attention
constexpr char kTinyGranite[] = "tests/data/goldens/granite_grouped.gguf";  // Mamba-2 of two groups and attention
constexpr char kTinyQwen35Moe[] = "tests/data/goldens/qwen35_moe.gguf";
constexpr char kTinyLfm2Moe[] = "tests/data/goldens/lfm2_moe.gguf";
constexpr char kTinyFalcon[] = "tests/data/goldens/falcon_h1_normed.gguf";  // Mamba-2 and attention side by side
constexpr char kTinyNemotron[] = "tests/data/goldens/nemotron_moe.gguf";    // of Mamba-2, a mixture and attention, each block has one
constexpr char kTinyJamba[] = "tests/data/goldens/jamba_moe.gguf";          // attention, then Mamba-1 and a mixture
constexpr char kEmbedded[] = "models/reprise-austen.gguf";

Model LoadTiny(const char* path = kTiny) {
  auto model = Model::Load(path, {.threads = 2, .context = 1024, .lanes = 4, .capsules = 48, .chunk = 96});
  EXPECT_TRUE(model.ok()) << model.status().message();
  return *std::move(model);
}

std::string Told(const VerifyReport& report) {
  std::string text;
  for (const PromiseReport& promise : report.promises) {
    text += std::to_string(promise.id) + " " + promise.name + (promise.passed ? " kept: " : " BROKEN: ") + promise.evidence + "\n";
  }
  return text;
}

void ExpectKept(const char* path, bool quick) {
  const Model model = LoadTiny(path);
  auto subject = SessionSubject::Create(model);
  ASSERT_TRUE(subject.ok()) << subject.status().message();
  const VerifyReport report = Verify(**subject, {.quick = quick});
  EXPECT_TRUE(report.passed) << Told(report);
  ASSERT_EQ(report.promises.size(), 6u);
  for (size_t i = 0; i < 6; ++i) {
    EXPECT_EQ(report.promises[i].id, static_cast<int>(i) + 1);
    EXPECT_FALSE(report.promises[i].name.empty());
    EXPECT_FALSE(report.promises[i].evidence.empty());
  }
}

TEST(VerifyTest, ATinyQwenKeepsAllPromises) { ExpectKept(kTiny, false); }
TEST(VerifyTest, ATinyLlamaKeepsAllPromises) { ExpectKept(kTinyLlama, false); }
TEST(VerifyTest, ATinyQwen2KeepsAllPromises) { ExpectKept(kTinyQwen2, false); }
TEST(VerifyTest, ATinyQwen3KeepsAllPromises) { ExpectKept(kTinyQwen3, false); }
TEST(VerifyTest, ATinyLfm2KeepsAllPromises) { ExpectKept(kTinyLfm2, false); }
TEST(VerifyTest, ATinyGraniteKeepsAllPromises) { ExpectKept(kTinyGranite, false); }
TEST(VerifyTest, ATinyMixtureOfExpertsKeepsAllPromises) { ExpectKept(kTinyQwen35Moe, false); }
TEST(VerifyTest, ATinyMixtureByBiasedSigmoidsKeepsAllPromises) { ExpectKept(kTinyLfm2Moe, true); }
TEST(VerifyTest, ATinyFalconKeepsAllPromises) { ExpectKept(kTinyFalcon, true); }
TEST(VerifyTest, ATinyNemotronKeepsAllPromises) { ExpectKept(kTinyNemotron, true); }
TEST(VerifyTest, ATinyJambaKeepsAllPromises) { ExpectKept(kTinyJamba, true); }
TEST(VerifyTest, TheEmbeddedModelKeepsAllPromises) { ExpectKept(kEmbedded, true); }

// What was asked for when loading holds for whatever verification loads beside it.
TEST(VerifyTest, PromisesAreKeptOnEveryInstructionSetAndTypeOfKeys) {
  for (const std::string& isa : CpuInstructionSets()) {
    for (const KeyValueType kv : {KeyValueType::kF16, KeyValueType::kQ8_0}) {
      auto model =
          Model::Load(kTiny, {.threads = 2, .context = 1024, .lanes = 4, .capsules = 48, .chunk = 96, .kv = kv, .instruction_set = isa});
      ASSERT_TRUE(model.ok()) << model.status().message();
      auto subject = SessionSubject::Create(*model);
      ASSERT_TRUE(subject.ok()) << subject.status().message();
      const VerifyReport report = Verify(**subject, {.quick = true});
      EXPECT_TRUE(report.passed) << isa << "\n" << Told(report);
    }
  }
}

TEST(VerifyTest, WhatItNeedsIsSaid) {
  auto model = Model::Load(kTiny, {.threads = 1, .context = 1024, .lanes = 1, .capsules = 48});
  ASSERT_TRUE(model.ok());
  auto subject = SessionSubject::Create(*model);
  ASSERT_TRUE(subject.ok());
  const VerifyReport report = Verify(**subject, {.quick = true});
  EXPECT_FALSE(report.passed);
  EXPECT_NE(report.promises[0].evidence.find("lanes"), std::string::npos) << report.promises[0].evidence;
}

// A subject that breaks one promise on purpose.
class Broken : public SessionSubject {
 public:
  static constexpr int kLines = 4;
  explicit Broken(const Model& model) : SessionSubject(model) { EXPECT_TRUE(Open(kLines).ok()); }

 protected:
  // Changes one byte of a state of a line in place, whoever shares it.
  void Touch(Line line, const std::string& state) {
    const StateDecl& decl = layout()[layout().Find(state)];
    Lane& lane = session(line).lane();
    auto* bytes = decl.growth == Growth::kAppend ? lane.row(decl, 0) : const_cast<std::byte*>(lane.read(decl.space)) + decl.offset;
    bytes[1] ^= std::byte{0x40};
  }
};

template <class T, class... Args>
VerifyReport VerifyBroken(Args... args) {
  const Model model = LoadTiny();
  T subject(model, args...);
  return Verify(subject, {.quick = true});
}

void ExpectBroken(const VerifyReport& report, int promise, const std::string& words) {
  EXPECT_FALSE(report.passed);
  const PromiseReport& one = report.promises[static_cast<size_t>(promise) - 1];
  EXPECT_FALSE(one.passed) << one.evidence;
  EXPECT_NE(one.evidence.find(words), std::string::npos) << Told(report);
}

void ExpectOthersKept(const VerifyReport& report, int promise) {
  for (const PromiseReport& one : report.promises) {
    EXPECT_TRUE(one.id == promise || one.passed) << Told(report);
  }
}

class ForgetsAState : public Broken {
 public:
  ForgetsAState(const Model& model, std::string state) : Broken(model), state_(std::move(state)) {}
  Status Restore(Line line, const Capsule& capsule) override {
    if (capsule.position() == 0) return Broken::Restore(line, capsule);
    REPRISE_ASSIGN_OR_RETURN(const Capsule partial, WithoutStates(capsule, std::span(&state_, 1)));
    return Broken::Restore(line, partial);
  }

 private:
  std::string state_;
};

TEST(VerifyBrokenTest, ARestoreThatForgetsAModelStateIsFound) {
  for (const char* state : {"blk.0.delta.memory", "blk.2.conv.tail", "blk.3.attn.v", "mtp.attn.k", "last.hidden", "history.tokens"}) {
    ExpectBroken(VerifyBroken<ForgetsAState>(std::string(state)), 1, state);
  }
}

TEST(VerifyBrokenTest, ARestoreThatForgetsADecoderStateIsFound) {
  for (const char* state : {"decode.options", "decode.biases", "decode.grammar", "decode.threads", "decode.generator", "decode.stops",
                            "decode.held_text", "decode.utf8", "decode.pending"}) {
    ExpectBroken(VerifyBroken<ForgetsAState>(std::string(state)), 1, state);
  }
}

class CorruptsAByte : public Broken {
 public:
  using Broken::Broken;
  Status Restore(Line line, const Capsule& capsule) override {
    REPRISE_ASSIGN_OR_RETURN(const Capsule copy, WithoutStates(capsule, {}));
    REPRISE_RETURN_IF_ERROR(Broken::Restore(line, copy));
    if (capsule.position() > 0) Touch(line, "blk.1.conv.tail");
    return Ok();
  }
};

TEST(VerifyBrokenTest, ARestoreThatChangesOneByteIsFound) { ExpectBroken(VerifyBroken<CorruptsAByte>(), 1, "blk.1.conv.tail"); }

class CarriesDeadWeight : public Broken {
 public:
  CarriesDeadWeight(const Model& model, std::string state) : Broken(model), state_(std::move(state)) {}
  Result<Capsule> Without(const Capsule& capsule, std::span<const std::string> states) override {
    std::vector<std::string> but;
    for (const std::string& state : states) {
      if (state != state_) but.push_back(state);
    }
    return Broken::Without(capsule, but);
  }

 private:
  std::string state_;
};

TEST(VerifyBrokenTest, AStateThatNothingDependsOnIsNamed) {
  for (const char* state : {"blk.3.attn.k", "blk.1.delta.memory", "mtp.attn.v", "decode.utf8", "decode.generator"}) {
    const VerifyReport report = VerifyBroken<CarriesDeadWeight>(std::string(state));
    ExpectBroken(report, 2, std::string("leaving out ") + state);
    ExpectOthersKept(report, 2);
  }
}

class DependsOnChunks : public Broken {
 public:
  using Broken::Broken;
  Status Append(std::span<const Feed> feeds) override {
    REPRISE_RETURN_IF_ERROR(Broken::Append(feeds));
    if (feeds.size() == 1 && feeds[0].tokens.size() == 64) Touch(feeds[0].line, "blk.3.attn.k");
    return Ok();
  }
};

TEST(VerifyBrokenTest, ADependenceOnChunksIsFound) {
  const VerifyReport report = VerifyBroken<DependsOnChunks>();
  ExpectBroken(report, 3, "64 tokens at a time");
  ExpectOthersKept(report, 3);
}

class DependsOnCompany : public Broken {
 public:
  using Broken::Broken;
  Status Next(std::span<const Line> lines, std::span<Token> tokens) override {
    REPRISE_RETURN_IF_ERROR(Broken::Next(lines, tokens));
    if (lines.size() > 2) Touch(lines[2], "last.hidden");
    return Ok();
  }
};

TEST(VerifyBrokenTest, ADependenceOnOtherLanesIsFound) { ExpectBroken(VerifyBroken<DependsOnCompany>(), 3, "decoded together"); }

class DependsOnThreads : public Broken {
 public:
  using Broken::Broken;
  Result<std::unique_ptr<VerifySubject>> Reload(const ModelOptions& options) const override {
    REPRISE_ASSIGN_OR_RETURN(const Model model, Model::Load(kTiny, options));
    return std::unique_ptr<VerifySubject>(std::make_unique<Drifts>(model));
  }

 private:
  class Drifts : public Broken {
   public:
    using Broken::Broken;
    Status Append(std::span<const Feed> feeds) override {
      REPRISE_RETURN_IF_ERROR(Broken::Append(feeds));
      Touch(feeds[0].line, "blk.0.delta.memory");
      return Ok();
    }
  };
};

TEST(VerifyBrokenTest, ADependenceOnThreadsIsFound) {
  const VerifyReport report = VerifyBroken<DependsOnThreads>();
  ExpectBroken(report, 3, "thread");
  ExpectOthersKept(report, 3);
}

// Where tokens that were appended are taken back, it is exact.
class RollsBackRoughly : public Broken {
 public:
  using Broken::Broken;
  Status Rollback(Line line, int count) override {
    REPRISE_RETURN_IF_ERROR(Broken::Rollback(line, count));
    if (count > 30 && count < 60) Touch(line, "blk.1.delta.memory");
    return Ok();
  }
};

TEST(VerifyBrokenTest, ARollbackThatIsNotExactIsFound) {
  const VerifyReport report = VerifyBroken<RollsBackRoughly>();
  ExpectBroken(report, 3, "taken back: the bytes of blk.1.delta.memory");
  ExpectOthersKept(report, 3);
}

class SharesABlock : public Broken {
 public:
  SharesABlock(const Model& model, std::string state) : Broken(model), state_(std::move(state)) {}
  Status Next(std::span<const Line> lines, std::span<Token> tokens) override {
    REPRISE_RETURN_IF_ERROR(Broken::Next(lines, tokens));
    if (lines[0] == 3) Touch(0, state_);
    return Ok();
  }

 private:
  std::string state_;
};

TEST(VerifyBrokenTest, ALineThatWritesWhereAnotherReadsIsFound) {
  for (const char* state : {"blk.2.delta.memory", "blk.3.attn.v", "decode.generator"}) {
    ExpectBroken(VerifyBroken<SharesABlock>(std::string(state)), 4, std::string("changed ") + state);
  }
}

class Allocates : public Broken {
 public:
  Allocates(const Model& model, std::string verb) : Broken(model), verb_(std::move(verb)) {}
  Status Next(std::span<const Line> lines, std::span<Token> tokens) override {
    if (verb_ == "tokens") Waste();
    return Broken::Next(lines, tokens);
  }
  Capsule Snapshot(Line line) override {
    if (verb_ == "snapshots") Waste();
    return Broken::Snapshot(line);
  }
  Status Restore(Line line, const Capsule& capsule) override {
    if (verb_ == "restores") Waste();
    return Broken::Restore(line, capsule);
  }

 private:
  void Waste() { wasted_ = std::make_unique<int>(1); }
  std::string verb_;
  std::unique_ptr<int> wasted_;
};

TEST(VerifyBrokenTest, AnAllocationOnTheHotPathIsFound) {
  for (const char* verb : {"tokens", "snapshots", "restores"}) {
    const VerifyReport report = VerifyBroken<Allocates>(std::string(verb));
    ExpectBroken(report, 5, std::string(" ") + verb);
    ExpectOthersKept(report, 5);
  }
}

// Takes a lock, or reads a file, with each token.
class Calls : public Broken {
 public:
  Calls(const Model& model, bool locks) : Broken(model), locks_(locks) {}
  Status Next(std::span<const Line> lines, std::span<Token> tokens) override {
    if (locks_) {
      const std::lock_guard lock(mutex_);
    } else {
      char byte;
      EXPECT_EQ(pread(fileno(file_.get()), &byte, 1, 0), 1);
    }
    return Broken::Next(lines, tokens);
  }

 private:
  const bool locks_;
  std::mutex mutex_;
  const std::unique_ptr<FILE, int (*)(FILE*)> file_{fopen("/proc/self/exe", "rb"), fclose};
};

TEST(VerifyBrokenTest, ALockOnTheHotPathIsFound) {
  if (!CountsLocks()) GTEST_SKIP() << "this program does not count locks";
  const VerifyReport report = VerifyBroken<Calls>(true);
  ExpectBroken(report, 5, "locks in 16 tokens");
  ExpectOthersKept(report, 5);
}

TEST(VerifyBrokenTest, AFileReadOnTheHotPathIsFound) {
  if (!FileCallCount()) GTEST_SKIP() << "this system does not count what is read";
  const VerifyReport report = VerifyBroken<Calls>(false);
  ExpectBroken(report, 5, "reads and writes of files in 16 tokens");
  ExpectOthersKept(report, 5);
}

// Believes what a file says of its size.
class BelievesSizes : public Broken {
 public:
  using Broken::Broken;
  Result<Capsule> Import(std::span<const std::byte> bytes) override {
    std::vector<std::byte> copy(bytes.begin(), bytes.end());
    if (copy.size() >= capsule_format::kHeaderBytes) {
      const uint64_t size = copy.size();
      std::memcpy(copy.data() + 16, &size, sizeof(size));
      const uint64_t checksum = capsule_format::Checksum(std::span(copy).first(capsule_format::kChecksumOffset));
      std::memcpy(copy.data() + capsule_format::kChecksumOffset, &checksum, sizeof(checksum));
    }
    return Broken::Import(copy);
  }
};

TEST(VerifyBrokenTest, ALieAboutASizeThatIsBelievedIsFound) {
  const VerifyReport report = VerifyBroken<BelievesSizes>();
  ExpectBroken(report, 6, "is accepted");
  ExpectOthersKept(report, 6);
}

class PoisonedByARefusal : public Broken {
 public:
  using Broken::Broken;
  Result<Capsule> Import(std::span<const std::byte> bytes) override {
    auto capsule = Broken::Import(bytes);
    if (!capsule.ok() && !touched_) {
      touched_ = true;
      Touch(0, "blk.0.conv.tail");
    }
    return capsule;
  }

 private:
  bool touched_ = false;
};

TEST(VerifyBrokenTest, ARefusalThatTouchesTheLiveStateIsFound) {
  const VerifyReport report = VerifyBroken<PoisonedByARefusal>();
  ExpectBroken(report, 6, "blk.0.conv.tail of the live state has changed");
  ExpectOthersKept(report, 6);
}

class LeaksOnRefusal : public Broken {
 public:
  using Broken::Broken;
  Result<Capsule> Import(std::span<const std::byte> bytes) override {
    auto capsule = Broken::Import(bytes);
    if (!capsule.ok() && leaked_.empty()) {
      REPRISE_ASSIGN_OR_RETURN(Capsule copy, Broken::Without(Snapshot(0), {}));
      leaked_.push_back(std::move(copy));
    }
    return capsule;
  }

 private:
  std::vector<Capsule> leaked_;
};

TEST(VerifyBrokenTest, ARefusalThatKeepsMemoryIsFound) { ExpectBroken(VerifyBroken<LeaksOnRefusal>(), 6, "memory is not as it was"); }

class SaysNothing : public Broken {
 public:
  using Broken::Broken;
  Result<Capsule> Import(std::span<const std::byte> bytes) override {
    auto capsule = Broken::Import(bytes);
    if (!capsule.ok()) return Corrupt("no");
    return capsule;
  }
};

TEST(VerifyBrokenTest, AnErrorThatNamesNothingIsFound) { ExpectBroken(VerifyBroken<SaysNothing>(), 6, "does not say so"); }

}  // namespace
}  // namespace reprise
