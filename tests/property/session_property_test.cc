// Random programs of prefill, append, decode, batch, snapshot, restore, fork, rollback, export and drop over several sessions, against a
// naive model that knows a line as its list of tokens and computes it from the first one, on another load of the model with other settings.
// At every step each line's tokens and every bit of its logits are the naive model's, and every block and extent in use is held by
// something that is still there.
#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <vector>

#include "backend/cpu/cpu_backend.h"
#include "base/sanitized.h"
#include "decode/sampler.h"
#include "reprise/session.h"
#include "session/engine.h"

namespace reprise {
namespace {

constexpr char kQwen35[] = "tests/data/goldens/qwen35_equal.gguf";
constexpr char kLfm2[] = "tests/data/goldens/lfm2_hybrid.gguf";
constexpr char kExperts[] = "tests/data/goldens/qwen35_moe.gguf";
constexpr char kGranite[] = "tests/data/goldens/granite_grouped.gguf";
constexpr char kJamba[] = "tests/data/goldens/jamba.gguf";
constexpr int kLanes = 5;
constexpr size_t kMostTokens = 300;

// The logits after a list of tokens, from the first one.
class Naive {
 public:
  Naive(const char* path, KeyValueType kv, const std::string& isa) {
    auto model =
        Model::Load(path, {.threads = 1, .context = 512, .lanes = 1, .capsules = 4, .chunk = 31, .kv = kv, .instruction_set = isa});
    EXPECT_TRUE(model.ok()) << model.status().message();
    model_.emplace(*std::move(model));
  }
  const std::vector<float>& Logits(const std::vector<int32_t>& tokens) {
    auto& logits = known_[tokens];
    if (!logits.empty()) return logits;
    Engine& engine = model_->engine();
    auto lane = *engine.space().NewLane();
    for (size_t at = 0; at < tokens.size(); at += 31) {
      const Engine::Feed feed{lane.get(), std::span<const int32_t>(tokens).subspan(at, std::min<size_t>(31, tokens.size() - at))};
      EXPECT_TRUE(engine.Advance(std::span(&feed, 1)).ok());
    }
    Lane* one = lane.get();
    EXPECT_TRUE(engine.ComputeLogits(std::span(&one, 1)).ok());
    logits.assign(engine.logits(0).begin(), engine.logits(0).end());
    return logits;
  }
  int32_t Choose(const std::vector<int32_t>& tokens, const SamplingOptions& options, uint64_t& drawn) {
    SampleWorkspace workspace(model_->info().vocabulary);
    Generator generator{options.seed, drawn};
    const size_t window = std::min<size_t>(tokens.size(), static_cast<size_t>(options.penalty_window));
    const auto token =
        ChooseToken(SamplingNumbers::Of(options), Logits(tokens), std::span<const int32_t>(tokens).last(window), generator, workspace);
    EXPECT_TRUE(token.ok());
    drawn = generator.drawn;
    return *token;
  }
  Model& model() { return *model_; }

 private:
  std::optional<Model> model_;
  std::map<std::vector<int32_t>, std::vector<float>> known_;
};

struct Sampler {
  SamplingOptions options;
  uint64_t drawn = 0;
};

// What a session should be.
struct Line {
  std::vector<int32_t> tokens;
  int32_t pending = -1;
  Sampler sampler;
  std::vector<Sampler> at{Sampler()};  // [p - reach]: the sampler at boundary p, before a token was chosen there
  size_t reach = 0;                    // the lowest boundary that may be gone back to

  void Mark() {
    if (pending >= 0) return;
    at.resize(tokens.size() - reach + 1);
    at.back() = sampler;
  }
};

struct Saved {
  Capsule capsule;
  Line line;
};

struct Op {
  enum Kind { kPrefill, kAppend, kNext, kBatch, kSample, kSnapshot, kRestore, kFork, kRollback, kMove, kDropCapsule, kDropSession, kKinds };
  Kind kind;
  unsigned a, b;
};

void showValue(const Op& op, std::ostream& os) {
  static constexpr const char* kNames[] = {"prefill", "append", "next",     "batch", "sample",       "snapshot",
                                           "restore", "fork",   "rollback", "move",  "drop capsule", "drop session"};
  os << kNames[op.kind] << '(' << op.a << ", " << op.b << ')';
}

rc::Gen<Op> GenOp() {
  const auto kind = rc::gen::weightedElement<Op::Kind>({{3, Op::kPrefill},
                                                        {3, Op::kAppend},
                                                        {6, Op::kNext},
                                                        {4, Op::kBatch},
                                                        {2, Op::kSample},
                                                        {5, Op::kSnapshot},
                                                        {4, Op::kRestore},
                                                        {3, Op::kFork},
                                                        {4, Op::kRollback},
                                                        {1, Op::kMove},
                                                        {2, Op::kDropCapsule},
                                                        {2, Op::kDropSession}});
  return rc::gen::apply(
      [](Op::Kind k, unsigned a, unsigned b) {
        return Op{k, a, b};
      },
      kind, rc::gen::resize(1000, rc::gen::inRange(0u, 1000u)), rc::gen::resize(1000, rc::gen::inRange(0u, 1000u)));
}

// Prompts share beginnings, as real ones do.
std::vector<int32_t> Prompt(unsigned seed, size_t length, int vocabulary) {
  std::vector<int32_t> tokens;
  for (size_t i = 0; i < length; ++i)
    tokens.push_back(static_cast<int32_t>((i * 7 + (i > 40 ? seed % 5 : 0) * 13 + i * i) % static_cast<size_t>(vocabulary)));
  return tokens;
}

class Program {
 public:
  Program(Model& model, Naive& naive) : model_(model), naive_(naive) {}

  void Run(const std::vector<Op>& ops) {
    for (const Op& op : ops) {
      Do(op);
      Check();
    }
  }

 private:
  struct Live {
    std::unique_ptr<Session> session;
    Line line;
  };

  Live* Pick(unsigned n) {
    if (live_.empty()) {
      auto session = model_.NewSession();
      RC_ASSERT(session.ok());
      live_.push_back({std::make_unique<Session>(*std::move(session)), Line()});
    }
    return &live_[n % live_.size()];
  }
  static void Good(const Status& status) {
    if (!status.ok()) RC_FAIL(status.message());
  }
  void Choose(Line& line) {
    if (line.pending >= 0) {
      line.tokens.push_back(line.pending);
      line.pending = -1;
      line.Mark();
    }
    line.pending = naive_.Choose(line.tokens, line.sampler.options, line.sampler.drawn);
  }
  void Arrive(Line& line, const Line& from) {
    line = from;
    // What lies below a restored capsule is not gone back to; nor the boundary of a token that has been chosen.
    line.reach = from.tokens.size() + (from.pending >= 0 ? 1 : 0);
    line.at.clear();
    line.Mark();
  }

  void Do(const Op& op) {
    Live* live = Pick(op.a);
    Line& line = live->line;
    const int vocabulary = model_.info().vocabulary;
    switch (op.kind) {
      case Op::kPrefill: {
        const auto prompt = Prompt(op.b, 1 + op.b % 200, vocabulary);
        const auto report = live->session->Prefill(prompt);
        Good(report.status());
        RC_ASSERT(report->reused + report->computed == static_cast<int>(prompt.size()));
        line.tokens = prompt;
        line.pending = -1;
        line.reach = 0;
        line.at.assign(prompt.size() + 1, line.sampler);
        break;
      }
      case Op::kAppend: {
        const auto more = Prompt(op.b * 3, 1 + op.b % 90, vocabulary);
        if (line.tokens.size() + more.size() > kMostTokens) break;
        Good(live->session->Append(more));
        if (line.pending >= 0) line.tokens.push_back(line.pending);
        line.pending = -1;
        for (size_t p = line.tokens.size(); p <= line.tokens.size() + more.size(); ++p) {
          if (p >= line.reach && line.at.size() < p - line.reach + 1) line.at.push_back(line.sampler);
        }
        line.tokens.insert(line.tokens.end(), more.begin(), more.end());
        break;
      }
      case Op::kNext: {
        if ((line.tokens.empty() && line.pending < 0) || line.tokens.size() > kMostTokens) break;
        for (unsigned i = 0; i <= op.b % 6; ++i) {
          const auto token = live->session->Next();
          Good(token.status());
          Choose(line);
          RC_ASSERT(token->id == line.pending);
        }
        break;
      }
      case Op::kBatch: {
        std::vector<Session*> batch;
        std::vector<Line*> lines;
        for (Live& one : live_) {
          if (one.line.tokens.empty() || one.line.tokens.size() > kMostTokens) continue;
          batch.push_back(one.session.get());
          lines.push_back(&one.line);
        }
        if (batch.empty()) break;
        std::rotate(batch.begin(), batch.begin() + op.b % batch.size(), batch.end());
        std::rotate(lines.begin(), lines.begin() + op.b % lines.size(), lines.end());
        std::vector<Token> tokens(batch.size());
        Good(Session::NextBatch(batch, tokens));
        for (size_t i = 0; i < lines.size(); ++i) {
          Choose(*lines[i]);
          RC_ASSERT(tokens[i].id == lines[i]->pending);
        }
        break;
      }
      case Op::kSample: {
        SamplingOptions options;
        if (op.b % 4 != 0) options = {.temperature = 1.0f, .top_k = 50, .repetition_penalty = 1.1f, .penalty_window = 40, .seed = op.b};
        Good(live->session->SetSampling(options));
        line.sampler = {options, 0};
        line.Mark();
        break;
      }
      case Op::kSnapshot:
        if (saved_.size() >= 12) saved_.erase(saved_.begin());
        saved_.push_back({live->session->Snapshot(), line});
        break;
      case Op::kRestore: {
        if (saved_.empty()) break;
        const Saved& saved = saved_[op.b % saved_.size()];
        Good(live->session->Restore(saved.capsule));
        Arrive(line, saved.line);
        break;
      }
      case Op::kFork: {
        if (saved_.empty()) break;
        const Saved saved = saved_[op.b % saved_.size()];
        const int count = 1 + static_cast<int>(op.b % 2);
        auto forks = live->session->Fork(saved.capsule, count);
        const bool room = live_.size() + static_cast<size_t>(count) <= kLanes;
        RC_ASSERT(forks.ok() == room);
        if (!room) break;
        for (Session& fork : *forks) {
          live_.push_back({std::make_unique<Session>(std::move(fork)), Line()});
          Arrive(live_.back().line, saved.line);
        }
        break;
      }
      case Op::kRollback: {
        const size_t end = line.tokens.size() + (line.pending >= 0 ? 1 : 0);
        const size_t count = op.b % 7 == 0 ? op.b : op.b % 25;
        const Status status = live->session->Rollback(static_cast<int>(count));
        if (count == 0) {
          Good(status);
          break;
        }
        if (count > end || end - count < line.reach) {
          // Refused, and Check() sees that nothing has changed.
          RC_ASSERT(status.code() == StatusCode::kInvalidArgument);
          break;
        }
        Good(status);
        line.tokens.resize(end - count);
        line.pending = -1;
        line.sampler = line.at[end - count - line.reach];
        line.at.resize(end - count - line.reach + 1);
        break;
      }
      case Op::kMove: {
        if (saved_.empty()) break;
        Saved& saved = saved_[op.b % saved_.size()];
        const auto bytes = live->session->Export(saved.capsule);
        Good(bytes.status());
        auto capsule = model_.ImportCapsule(*bytes);
        Good(capsule.status());
        saved.capsule = *std::move(capsule);
        break;
      }
      case Op::kDropCapsule:
        if (!saved_.empty()) saved_.erase(saved_.begin() + op.b % saved_.size());
        break;
      case Op::kDropSession: live_.erase(live_.begin() + op.a % live_.size()); break;
      case Op::kKinds: break;
    }
  }

  void Check() {
    for (const Live& live : live_) {
      RC_ASSERT(live.session->tokens() == live.line.tokens);
      RC_ASSERT(live.session->pending_token() == live.line.pending);
      RC_ASSERT(live.session->sampling() == live.line.sampler.options);
      if (live.line.tokens.empty()) continue;
      const auto logits = live.session->Logits();
      Good(logits.status());
      const auto& expected = naive_.Logits(live.line.tokens);
      RC_ASSERT(logits->size() == expected.size() && std::memcmp(logits->data(), expected.data(), logits->size_bytes()) == 0);
    }
    CheckMemory();
  }

  void CheckMemory() {
    std::set<const StateBlock*> blocks[kSpaces];
    std::set<const Extent*> extents;
    const auto reach = [&](const HeldState& held) {
      for (int s = 0; s < kSpaces; ++s) blocks[s].insert(held.block[s].get());
      for (const Extent* extent = held.tip.get(); extent != nullptr && extents.insert(extent).second; extent = extent->previous) {
      }
    };
    reach(model_.engine().space().Origin());
    for (const Live& live : live_) reach(live.session->lane().Hold());
    for (const Saved& saved : saved_) reach(saved.capsule.Hold());
    for (const Checkpoints* checkpoints : model_.engine().checkpoints()) {
      for (const auto& kept : checkpoints->kept()) reach(kept.held);
      checkpoints->ForEachMark([&](const StateBlock* host) { blocks[static_cast<int>(Space::kHost)].insert(host); });
    }
    const auto usage = model_.engine().space().usage();
    for (int s = 0; s < kSpaces; ++s) RC_ASSERT(usage.blocks[s] == static_cast<int>(blocks[s].size()));
    RC_ASSERT(usage.extents == static_cast<int>(extents.size()));
  }

  Model& model_;
  Naive& naive_;
  std::vector<Live> live_;
  std::vector<Saved> saved_;
};

void RunPrograms(const ModelOptions& options, const char* path = kQwen35) {
  auto loaded = Model::Load(path, options);
  ASSERT_TRUE(loaded.ok()) << loaded.status().message();
  Model model = *std::move(loaded);
  Naive naive(path, options.kv, options.instruction_set);
  const auto empty = model.engine().space().usage();
  rc::check("every bit is the naive model's and every block is accounted for", [&] {
    // A sanitizer makes each step ten to thirty times as slow.
    const auto ops = *rc::gen::scale(kSanitized ? 0.3 : 1.0, rc::gen::container<std::vector<Op>>(GenOp()));
    Program(model, naive).Run(ops);
    const auto usage = model.engine().space().usage();
    RC_ASSERT(usage.bytes == empty.bytes && usage.extents == 0);
  });
}

TEST(SessionPropertyTest, RandomPrograms) { RunPrograms({.threads = 2, .context = 512, .lanes = kLanes, .capsules = 100, .chunk = 64}); }

// Another recurrent state: the tails of short convolutions.
TEST(SessionPropertyTest, RandomProgramsOfShortConvolutions) {
  RunPrograms({.threads = 2, .context = 512, .lanes = kLanes, .capsules = 100, .chunk = 33}, kLfm2);
}

// And the memories of Mamba-2.
TEST(SessionPropertyTest, RandomProgramsOfStateSpaces) {
  RunPrograms({.threads = 2, .context = 512, .lanes = kLanes, .capsules = 100, .chunk = 33}, kGranite);
}

// And those of Mamba-1, of which each channel has steps of its own.
TEST(SessionPropertyTest, RandomProgramsOfSelectiveScans) {
  RunPrograms({.threads = 2, .context = 512, .lanes = kLanes, .capsules = 100, .chunk = 33}, kJamba);
}

// A row's experts are its own, whatever rows of other lanes visit them beside it.
TEST(SessionPropertyTest, RandomProgramsOfExperts) {
  RunPrograms({.threads = 2, .context = 512, .lanes = kLanes, .capsules = 100, .chunk = 37}, kExperts);
}

// So few blocks that checkpoints must go again and again: a program may not see that.
TEST(SessionPropertyTest, RandomProgramsWithoutRoom) {
  RunPrograms({.threads = 1, .context = 512, .lanes = kLanes, .capsules = 16, .chunk = 7});
}

TEST(SessionPropertyTest, RandomProgramsOverBytes) {
  RunPrograms({.threads = 2, .context = 512, .lanes = kLanes, .capsules = 100, .chunk = 40, .kv = KeyValueType::kQ8_0});
}

// The other instruction sets of this machine, each against itself.
TEST(SessionPropertyTest, RandomProgramsOnEveryInstructionSet) {
  if (kSanitized) GTEST_SKIP() << "the backend's tests run every kernel on every instruction set under a sanitizer";
  const std::vector<std::string> isas = CpuInstructionSets();
  for (size_t i = 1; i < isas.size(); ++i) {
    SCOPED_TRACE(isas[i]);
    RunPrograms({.threads = 2, .context = 512, .lanes = kLanes, .capsules = 100, .chunk = 29, .instruction_set = isas[i]});
  }
}

}  // namespace
}  // namespace reprise
