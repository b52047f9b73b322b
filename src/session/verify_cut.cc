// Promise 3: the same tokens give the same bits, however the work was cut: chunks, threads, lanes, and paths of the verbs.
#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "session/verify_internal.h"

namespace reprise::verify {
namespace {

struct Reference {
  std::vector<uint64_t> digests;  // of every state once the prompt is in
  std::vector<Step> steps;        // greedy from there
};

class Cuts {
 public:
  Cuts(Setup& setup, Findings& findings) : setup_(setup), findings_(findings), count_(setup.quick ? 4 : 8) {}

  Status Run() {
    REPRISE_RETURN_IF_ERROR(setup_.Reset(0));
    REPRISE_RETURN_IF_ERROR(setup_.Append(0, setup_.prompt));
    REPRISE_ASSIGN_OR_RETURN(reference_.digests, Digests(setup_.subject, 0));
    REPRISE_ASSIGN_OR_RETURN(reference_.steps, GoOn(setup_.subject, 0, count_));
    REPRISE_RETURN_IF_ERROR(Chunks());
    REPRISE_RETURN_IF_ERROR(Lanes());
    REPRISE_RETURN_IF_ERROR(Paths());
    REPRISE_RETURN_IF_ERROR(TakenBack());
    REPRISE_RETURN_IF_ERROR(Loads());
    findings_.Note(
        fmt::format("{} positions and {} more: every state byte and every logit bit equal for {} splits of the prompt (1 by 1 among them), "
                    "{} lanes decoded "
                    "together and alone, {} paths of snapshot, restore, fork, rollback and import, and {}.",
                    setup_.prompt.size(), count_, chunkings_, lanes_, paths_, loads_));
    return Ok();
  }

 private:
  // Compares a line at the end of the prompt with the reference, and goes on with it.
  Status Compare(VerifySubject& subject, Line line, const std::string& how) {
    REPRISE_ASSIGN_OR_RETURN(const auto digests, Digests(subject, line));
    if (const auto state = FirstDifference(setup_.subject.layout(), reference_.digests, digests)) {
      findings_.Fail(fmt::format("{}: the bytes of {} differ", how, *state));
    }
    REPRISE_ASSIGN_OR_RETURN(const auto steps, GoOn(subject, line, count_));
    if (const auto divergence = FirstDivergence(reference_.steps, steps)) findings_.Fail(how + ": " + Describe(*divergence));
    return Ok();
  }

  Status AppendInPieces(Line line, std::span<const int32_t> tokens, const std::function<size_t()>& next_size) {
    while (!tokens.empty()) {
      const size_t size = std::min(std::max<size_t>(next_size(), 1), tokens.size());
      REPRISE_RETURN_IF_ERROR(setup_.Append(line, tokens.first(size)));
      tokens = tokens.subspan(size);
    }
    return Ok();
  }

  Status Chunks() {
    const auto same = [](size_t n) { return [n] { return n; }; };
    std::vector<std::pair<std::string, std::function<size_t()>>> ways = {
        {"one token at a time", same(1)}, {"7 tokens at a time", same(7)}, {"64 tokens at a time", same(64)}};
    for (int i = 0; i < (setup_.quick ? 1 : 3); ++i) ways.emplace_back("random pieces", [this] { return 1 + setup_.random() % 90; });
    for (const auto& [name, next_size] : ways) {
      REPRISE_RETURN_IF_ERROR(setup_.Dirty(0));
      REPRISE_RETURN_IF_ERROR(setup_.Reset(0));
      REPRISE_RETURN_IF_ERROR(AppendInPieces(0, setup_.prompt, next_size));
      REPRISE_RETURN_IF_ERROR(Compare(setup_.subject, 0, "the prompt in " + name));
      setup_.Progress(0.5 * ++chunkings_ / static_cast<double>(ways.size()));
    }
    return Ok();
  }

  // Lines of different lengths, prefilled in shared steps and decoded as one batch, against each of them alone.
  Status Lanes() {
    VerifySubject& subject = setup_.subject;
    lanes_ = std::min(subject.lines(), 4);
    std::vector<std::vector<int32_t>> prompts;
    std::vector<Line> lines;
    for (Line line = 0; line < lanes_; ++line) {
      const size_t length = std::max<size_t>(1, setup_.prompt.size() / (static_cast<size_t>(line) + 1) - static_cast<size_t>(line) * 3);
      prompts.emplace_back(setup_.prompt.begin(), setup_.prompt.begin() + static_cast<ptrdiff_t>(length));
      if (line > 0) prompts.back()[0] = setup_.other[static_cast<size_t>(line)];
      lines.push_back(line);
      REPRISE_RETURN_IF_ERROR(setup_.Dirty(line));
      REPRISE_RETURN_IF_ERROR(setup_.Reset(line));
    }
    std::vector<std::vector<Step>> alone(static_cast<size_t>(lanes_));
    std::vector<std::vector<uint64_t>> alone_digests(static_cast<size_t>(lanes_));
    for (size_t i = 0; i < prompts.size(); ++i) {
      REPRISE_RETURN_IF_ERROR(setup_.Append(0, prompts[i]));
      REPRISE_ASSIGN_OR_RETURN(alone[i], GoOn(subject, 0, count_));
      REPRISE_ASSIGN_OR_RETURN(alone_digests[i], Digests(subject, 0));
      REPRISE_RETURN_IF_ERROR(setup_.Reset(0));
    }

    // Each step takes a few rows of every line that has some left.
    std::vector<size_t> done(prompts.size(), 0);
    const size_t share = std::max<size_t>(1, static_cast<size_t>(subject.max_rows() / lanes_));
    for (bool left = true; left;) {
      left = false;
      std::vector<VerifySubject::Feed> feeds;
      for (size_t i = 0; i < prompts.size(); ++i) {
        const size_t size = std::min(share - i % share % 3, prompts[i].size() - done[i]);
        if (size == 0) continue;
        feeds.push_back({lines[i], std::span<const int32_t>(prompts[i]).subspan(done[i], size)});
        done[i] += size;
        left = true;
      }
      if (left) REPRISE_RETURN_IF_ERROR(subject.Append(feeds));
    }
    std::vector<std::vector<Step>> together(prompts.size());
    for (int i = 0; i < count_; ++i) {
      std::vector<Token> tokens(prompts.size());
      REPRISE_RETURN_IF_ERROR(subject.Next(lines, tokens));
      std::vector<std::pair<int32_t, std::string>> said;
      said.reserve(tokens.size());
      for (const Token& token : tokens) said.emplace_back(token.id, token.text);
      REPRISE_ASSIGN_OR_RETURN(auto logits, subject.Logits(lines));
      for (size_t l = 0; l < lines.size(); ++l)
        together[l].push_back({said[l].first, said[l].second, tokens[l].finish, std::move(logits[l])});
    }
    for (size_t l = 0; l < lines.size(); ++l) {
      const std::string how = fmt::format("line {} of {} decoded together, against alone", l + 1, lines.size());
      if (const auto divergence = FirstDivergence(alone[l], together[l])) findings_.Fail(how + ": " + Describe(*divergence));
      REPRISE_ASSIGN_OR_RETURN(const auto digests, Digests(subject, lines[l]));
      if (const auto state = FirstDifference(subject.layout(), alone_digests[l], digests))
        findings_.Fail(how + ": the bytes of " + *state + " differ");
    }
    setup_.Progress(0.65);
    return Ok();
  }

  // Ways that lead to the same tokens.
  Status Paths() {
    VerifySubject& subject = setup_.subject;
    const std::span<const int32_t> prompt = setup_.prompt;
    const size_t half = prompt.size() / 2 + 3;
    REPRISE_RETURN_IF_ERROR(setup_.Reset(0));
    REPRISE_RETURN_IF_ERROR(setup_.Append(0, prompt.first(half)));
    const Capsule middle = subject.Snapshot(0);
    REPRISE_RETURN_IF_ERROR(setup_.Append(0, setup_.other));

    REPRISE_RETURN_IF_ERROR(subject.Restore(0, middle));
    REPRISE_RETURN_IF_ERROR(setup_.Append(0, prompt.subspan(half)));
    REPRISE_RETURN_IF_ERROR(Compare(subject, 0, "after a restore in the middle of the prompt"));

    REPRISE_RETURN_IF_ERROR(setup_.Dirty(1));
    REPRISE_RETURN_IF_ERROR(subject.Restore(1, middle));
    REPRISE_RETURN_IF_ERROR(setup_.Append(1, prompt.subspan(half)));
    REPRISE_RETURN_IF_ERROR(Compare(subject, 1, "after a fork in the middle of the prompt"));

    // Rolled back from tokens that were not to be, a few and then many.
    for (const size_t depth : {size_t{1}, size_t{20}, setup_.other.size()}) {
      REPRISE_RETURN_IF_ERROR(subject.Restore(0, middle));
      REPRISE_RETURN_IF_ERROR(setup_.Append(0, std::span<const int32_t>(setup_.other).first(std::min(depth, setup_.other.size()))));
      REPRISE_RETURN_IF_ERROR(subject.Rollback(0, static_cast<int>(std::min(depth, setup_.other.size()))));
      REPRISE_RETURN_IF_ERROR(setup_.Append(0, prompt.subspan(half)));
      REPRISE_RETURN_IF_ERROR(Compare(subject, 0, fmt::format("after a rollback of {}", Count(depth, "token"))));
      ++paths_;
    }

    REPRISE_ASSIGN_OR_RETURN(const auto bytes, subject.Serialise(middle));
    REPRISE_ASSIGN_OR_RETURN(const Capsule imported, subject.Import(bytes));
    REPRISE_RETURN_IF_ERROR(setup_.Dirty(1));
    REPRISE_RETURN_IF_ERROR(subject.Restore(1, imported));
    REPRISE_RETURN_IF_ERROR(setup_.Append(1, prompt.subspan(half)));
    REPRISE_RETURN_IF_ERROR(Compare(subject, 1, "after export and import in the middle of the prompt"));
    paths_ += 3;
    setup_.Progress(0.75);
    return Ok();
  }

  // Tokens that were chosen are taken back to a boundary that nobody kept, and chosen again.
  Status TakenBack() {
    VerifySubject& subject = setup_.subject;
    const int kept = count_ / 2, said = 40;
    REPRISE_RETURN_IF_ERROR(setup_.Reset(0));
    REPRISE_RETURN_IF_ERROR(setup_.Append(0, setup_.prompt));
    REPRISE_RETURN_IF_ERROR(GoOn(subject, 0, kept).status());
    REPRISE_RETURN_IF_ERROR(setup_.Append(0, {}));  // what was chosen last is fed
    REPRISE_ASSIGN_OR_RETURN(const auto straight, Digests(subject, 0));

    REPRISE_RETURN_IF_ERROR(setup_.Reset(0));
    REPRISE_RETURN_IF_ERROR(setup_.Append(0, setup_.prompt));
    REPRISE_RETURN_IF_ERROR(GoOn(subject, 0, said).status());
    REPRISE_RETURN_IF_ERROR(subject.Rollback(0, said - kept));
    const std::string how = fmt::format("after {} of {} chosen tokens were taken back", said - kept, said);
    REPRISE_ASSIGN_OR_RETURN(const auto digests, Digests(subject, 0));
    if (const auto state = FirstDifference(subject.layout(), straight, digests)) {
      findings_.Fail(fmt::format("{}: the bytes of {} differ", how, *state));
    }
    REPRISE_ASSIGN_OR_RETURN(const auto steps, GoOn(subject, 0, count_ - kept));
    const auto expected = std::span<const Step>(reference_.steps).subspan(static_cast<size_t>(kept));
    if (const auto divergence = FirstDivergence(expected, steps)) findings_.Fail(how + ": " + Describe(*divergence));
    ++paths_;
    return Ok();
  }

  // The model loaded again with other threads, chunks, lanes and context: one at a time, since each holds the weights once more. A capsule
  // of this load must go on there.
  Status Loads() {
    REPRISE_RETURN_IF_ERROR(setup_.Reset(0));
    const size_t half = setup_.prompt.size() / 2 + 3;
    REPRISE_RETURN_IF_ERROR(setup_.Append(0, std::span<const int32_t>(setup_.prompt).first(half)));
    const Capsule middle = setup_.subject.Snapshot(0);
    REPRISE_ASSIGN_OR_RETURN(const auto bytes, setup_.subject.Serialise(middle));
    struct Settings {
      int threads, chunk, lanes;
    };
    std::vector<Settings> all = {{3, 48, 3}};
    if (!setup_.quick) all.insert(all.end(), {{1, 256, 2}, {2, 17, 5}});
    std::string threads;
    for (const Settings& settings : all) {
      ModelOptions options;
      options.threads = settings.threads;
      options.chunk = settings.chunk;
      options.lanes = settings.lanes;
      options.capsules = 16;
      options.context = static_cast<int>(setup_.prompt.size()) + 2 * kExtentRows;
      REPRISE_ASSIGN_OR_RETURN(const auto loaded, setup_.subject.Reload(options));
      const std::string how = fmt::format("loaded with {}, steps of {} and {}", Count(static_cast<size_t>(settings.threads), "thread"),
                                          settings.chunk, Count(static_cast<size_t>(settings.lanes), "lane"));
      const VerifySubject::Feed feed{0, setup_.prompt};
      REPRISE_RETURN_IF_ERROR(loaded->Append(std::span(&feed, 1)));
      REPRISE_RETURN_IF_ERROR(Compare(*loaded, 0, how));

      REPRISE_ASSIGN_OR_RETURN(const Capsule moved, loaded->Import(bytes));
      REPRISE_RETURN_IF_ERROR(loaded->Restore(1, moved));
      const VerifySubject::Feed rest{1, std::span<const int32_t>(setup_.prompt).subspan(half)};
      REPRISE_RETURN_IF_ERROR(loaded->Append(std::span(&rest, 1)));
      REPRISE_RETURN_IF_ERROR(Compare(*loaded, 1, "a capsule moved to the model " + how));
      threads += (threads.empty() ? "" : ", ") + std::to_string(settings.threads);
    }
    loads_ =
        fmt::format("{} more of the model (threads: {}) that also go on from a capsule of this one", Count(all.size(), "load"), threads);
    return Ok();
  }

  Setup& setup_;
  Findings& findings_;
  const int count_;
  Reference reference_;
  int chunkings_ = 0;
  int lanes_ = 0;
  int paths_ = 0;
  std::string loads_;
};

}  // namespace

Status CheckCut(Setup& setup, Findings& findings) { return Cuts(setup, findings).Run(); }

}  // namespace reprise::verify
