// For tests alone: an agent's day. The requests of a coding agent as a script, what serving one came to, and a judge who remembers every token path
// that was computed and every boundary that the policy promises to keep, and holds each answer against a cold run.
#pragma once

#include <gtest/gtest.h>
#include <xxhash.h>

#include <algorithm>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/sanitized.h"
#include "reprise/session.h"
#include "store/policy.h"

namespace reprise::testing_support {

using Path = std::vector<int32_t>;

inline Path Joined(Path a, const Path& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}
inline Path Prefix(const Path& path, size_t count) { return {path.begin(), path.begin() + static_cast<ptrdiff_t>(count)}; }
inline size_t Common(const Path& a, const Path& b) {
  return static_cast<size_t>(std::mismatch(a.begin(), a.end(), b.begin(), b.end()).first - a.begin());
}
inline uint64_t DigestOf(std::span<const float> logits) { return XXH3_64bits(logits.data(), logits.size_bytes()); }

struct Request {
  std::string what;
  Path prompt;
  std::vector<Boundary> boundaries = {};
  int reply = 0;
  int cancel_after = 0;  // given up after so many tokens; 0: read to the end
};

// The script. A request is made of the replies to earlier ones.
class AgentDay {
 public:
  static constexpr int kRequests = 19;
  static constexpr int kRestart = 17;  // from here on the same context comes again
  static constexpr int kLongestReply = 64;

  // `share` of the lengths of a whole day. `rewrites`: the chat format changes how an answer began once it is old.
  AgentDay(int vocabulary, bool rewrites, double share) : vocabulary_(vocabulary), rewrites_(rewrites), share_(share) {}

  Request At(int i) const {
    const std::string number = std::to_string(i + 1);
    if (i < 6) return Ask("turn " + number, Context(i, Question(i)));
    if (i == 6) return Ask("regenerate", Context(5, Question(5)));
    if (i == 7) {
      const Path question = Question(4);
      return Ask("edit the turn before last", Context(4, Joined(Prefix(question, question.size() / 2), Words(30, 30))));
    }
    if (i < 12) return Ask("sub-agent " + std::to_string(i - 7), Context(6, Words(90, 40 + i)));
    if (i == 12) return Ask("back to the main line", Context(6, Question(6)));
    if (i == 13) return Ask("a new chat on the same system message", Joined(System(), Words(50, 60)));
    if (i == 14) {
      Path deep = Context(6, Question(6));
      int32_t& changed = deep[System().size() + Question(0).size() / 2];
      changed = (changed + 1) % (vocabulary_ - 10);
      return Ask("a deep edit", deep);
    }
    const Path long_prompt = Context(7, Words(900, 70));
    if (i == 15) return {"cancelled", Joined(long_prompt, Opening()), {}, 0, Length(400)};  // in the middle of its question
    return Ask(i == 16 ? "retry after a cancellation" : "the same context again", long_prompt);
  }
  void Answer(int i, Path reply) { replies_[i] = std::move(reply); }

 private:
  int Length(int count) const { return static_cast<int>(count * share_); }
  // Text as tokens of the vocabulary, the same for the same words.
  Path Words(int count, int seed) const {
    Path path(static_cast<size_t>(Length(count)));
    for (int64_t i = 0; i < static_cast<int64_t>(path.size()); ++i) {
      path[static_cast<size_t>(i)] = static_cast<int32_t>((i * i * 31 + i * 7 + seed * 7919) % (vocabulary_ - 10));
    }
    return path;
  }
  Path System() const { return Words(600, 1); }
  Path Opening() const { return Words(6, 2); }  // of an answer: it follows each question, and formats rewrite it
  Path Question(int turn) const { return Words(70 + 10 * turn, 10 + turn); }

  Path Context(int turns, const Path& last) const {
    Path prompt = System();
    for (int turn = 0; turn < turns; ++turn) {
      const Path said = Joined(Opening(), replies_.at(turn < 6 ? turn : 12));
      prompt = Joined(Joined(prompt, Question(turn)), {said.begin() + (rewrites_ ? Length(12) : 0), said.end()});
    }
    return Joined(prompt, last);
  }
  Request Ask(std::string what, const Path& context) const {
    const auto end = static_cast<int>(context.size());
    return {std::move(what),
            Joined(context, Opening()),
            {{static_cast<int>(System().size()), Keep::kSystem}, {end, Keep::kTurn}},
            Length(kLongestReply)};
  }

  int vocabulary_;
  bool rewrites_;
  double share_;
  std::map<int, Path> replies_;
};

struct Served {
  PrefillReport report;
  uint64_t logits = 0;  // a digest of those after the prompt; 0 of one that was cancelled
  Path reply;
  int end = 0;  // the last boundary: the token chosen last is not computed
};

inline constexpr char kDayNamespace[] = "agent";

// A session of its own for each request, as a server would, so that whatever is reused comes from the store.
inline Result<Served> Serve(const Model& model, const Request& request) {
  REPRISE_ASSIGN_OR_RETURN(Session session, model.NewSession({.name_space = kDayNamespace}));
  Served served;
  if (request.cancel_after > 0) {
    REPRISE_ASSIGN_OR_RETURN(served.report, session.StartPrefill(request.prompt, {.boundaries = request.boundaries}));
    REPRISE_ASSIGN_OR_RETURN(const bool whole, session.ContinuePrefill(request.cancel_after));
    if (whole) return Internal("there was nothing left to cancel");
    served.end = session.position();
    served.report.computed = served.end - served.report.reused;
    return served;  // the end of the session is a cancellation too
  }
  REPRISE_ASSIGN_OR_RETURN(served.report, session.Prefill(request.prompt, {.boundaries = request.boundaries}));
  REPRISE_ASSIGN_OR_RETURN(const std::span<const float> logits, session.Logits());
  served.logits = DigestOf(logits);
  for (int i = 0; i < request.reply; ++i) {
    REPRISE_ASSIGN_OR_RETURN(const Token token, session.Next());
    served.reply.push_back(token.id);
  }
  served.end = session.position();
  REPRISE_RETURN_IF_ERROR(session.EndReply());
  return served;
}

class Judge {
 public:
  explicit Judge(const std::string& file) {
    auto model = Model::Load(file, {.threads = kSanitized ? 1 : 2, .context = 8192, .lanes = 1, .capsules = 16, .chunk = 61});
    EXPECT_TRUE(model.ok()) << model.status().message();
    if (model.ok()) cold_.emplace(*std::move(model));
  }

  void Hear(const Request& request, const Served& served) {
    const auto& [what, prompt, boundaries, reply, cancel_after] = request;
    const PrefillReport& report = served.report;
    const size_t known = Known(prompt);
    const size_t nearest = Promised(prompt, known);
    const size_t end = cancel_after > 0 ? static_cast<size_t>(served.end) : prompt.size();  // of what was read
    EXPECT_EQ(report.known, static_cast<int>(known)) << what;
    EXPECT_EQ(report.reused + report.computed, static_cast<int>(end)) << what;
    EXPECT_LE(report.computed, static_cast<int>(end - std::min(end, nearest))) << what << ": known " << known << ", promised " << nearest;
    if (report.reused == 0) {
      EXPECT_NE(report.reason, "") << what;
    }
    if (cancel_after == 0) {
      EXPECT_EQ(served.logits, ColdLogits(prompt)) << what << ": other bits than a cold run";
    }
    computed_ += report.computed;
    lower_bound_ += static_cast<int64_t>(end - std::min(end, known));
    log_ += what + ": " + std::to_string(prompt.size()) + " tokens, " + std::to_string(prompt.size() - known) + " new, " +
            std::to_string(report.computed) + " computed, from " + std::string(TierName(report.tier)) + "\n";

    std::vector<Boundary> kept = boundaries;
    if (known > static_cast<size_t>(report.reused)) kept.push_back({static_cast<int>(known), Keep::kDivergence});
    kept.push_back({static_cast<int>(end), cancel_after > 0 ? Keep::kStop : Keep::kPrompt});
    std::stable_sort(kept.begin(), kept.end(), [](const Boundary& a, const Boundary& b) { return a.position < b.position; });
    for (const Boundary& at : kept) {
      if (at.position > report.reused && at.position <= static_cast<int>(end))
        Promise(Prefix(prompt, static_cast<size_t>(at.position)), at.keep);
    }
    seen_.push_back(Prefix(Joined(prompt, served.reply), static_cast<size_t>(served.end)));
    if (cancel_after == 0) Promise(seen_.back(), Keep::kReply);
  }

  // The process is another one: what the directory lists is all that is known, and all of it is promised.
  void Restarted(const std::vector<Path>& listed) { seen_ = promised_ = listed; }

  // `lost`: what may have been computed again because crashes came before it was written.
  void TotalIsNearTheLowerBound(size_t lost = 0) const {
    EXPECT_LE(static_cast<double>(computed_), 1.10 * static_cast<double>(lower_bound_) + static_cast<double>(lost)) << log_;
    std::printf("%lld tokens computed, at least %lld had to be\n", static_cast<long long>(computed_), static_cast<long long>(lower_bound_));
  }

  // Of the boundary at the end of `path`, computed from nothing.
  uint64_t ColdLogits(const Path& path) {
    if (const auto at = cold_logits_.find(path); at != cold_logits_.end()) return at->second;
    auto session = cold_->NewSession();
    EXPECT_TRUE(session.ok() && session->Prefill(path).ok());
    const auto logits = session->Logits();
    EXPECT_TRUE(logits.ok());
    return cold_logits_[path] = DigestOf(*logits);
  }
  void Forget() { cold_logits_.clear(); }
  const ModelInfo& info() const { return cold_->info(); }
  bool ok() const { return cold_.has_value(); }

 private:
  size_t Known(const Path& prompt) const {
    size_t known = 0;
    for (const Path& path : seen_) known = std::max(known, Common(path, prompt));
    return known;
  }
  // The deepest promised boundary within the first `known` tokens.
  size_t Promised(const Path& prompt, size_t known) const {
    size_t deepest = 0;
    for (const Path& path : promised_) {
      if (path.size() <= known && Common(path, prompt) == path.size()) deepest = std::max(deepest, path.size());
    }
    return deepest;
  }
  void Promise(const Path& path, Keep keep) {
    const bool always = keep == Keep::kSystem || keep == Keep::kTurn;
    // A few tokens past another it is not kept: that is the policy too.
    if (always || path.size() > Promised(path, path.size()) + policy::kNear) promised_.push_back(path);
  }

  std::optional<Model> cold_;
  std::map<Path, uint64_t> cold_logits_;
  std::vector<Path> seen_, promised_;
  int64_t computed_ = 0, lower_bound_ = 0;
  std::string log_;
};

}  // namespace reprise::testing_support
