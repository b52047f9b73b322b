// What becomes of one line: it starts, its prompt is read, it chooses tokens, it ends and is kept.
#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "serve/scheduler_line.h"

namespace reprise::serve {
namespace {

constexpr int kMostEnds = 8;  // kept by reference after their requests

double Milliseconds(Clock::duration duration) { return std::chrono::duration<double, std::milli>(duration).count(); }

// Which of the stop strings the text ended in: the one that was complete first, and of those the longest.
std::string StopOf(std::string_view tail, const std::vector<std::string>& stops) {
  size_t earliest = std::string_view::npos;
  std::string found;
  for (const std::string& stop : stops) {
    const size_t at = tail.find(stop);
    if (at == std::string_view::npos) continue;
    const size_t end = at + stop.size();
    if (end < earliest || (end == earliest && stop.size() > found.size())) {
      earliest = end;
      found = stop;
    }
  }
  return found;
}

}  // namespace

Logprobs LogprobsOf(std::span<const float> logits, int32_t chosen, int top) {
  float greatest = -INFINITY;
  for (const float logit : logits) greatest = std::max(greatest, logit);
  double sum = 0;
  for (const float logit : logits) sum += std::exp(static_cast<double>(logit) - greatest);
  const double total = greatest + std::log(sum);
  const auto of = [&](int32_t token) { return static_cast<float>(logits[static_cast<size_t>(token)] - total); };
  Logprobs result;
  result.chosen = of(chosen);
  std::vector<int32_t> best;
  const auto better = [&](int32_t a, int32_t b) {
    const float x = logits[static_cast<size_t>(a)];
    const float y = logits[static_cast<size_t>(b)];
    return x != y ? x > y : a < b;
  };
  for (int32_t token = 0; top > 0 && token < static_cast<int32_t>(logits.size()); ++token) {
    if (static_cast<int>(best.size()) == top && !better(token, best.back())) continue;
    best.insert(std::upper_bound(best.begin(), best.end(), token, better), token);
    if (static_cast<int>(best.size()) > top) best.pop_back();
  }
  for (const int32_t token : best) result.top.emplace_back(token, of(token));
  return result;
}

void Scheduler::Start(std::shared_ptr<Job> job) {
  if (job->admitted == Clock::time_point()) job->admitted = Clock::now();
  job->timings.queued = Milliseconds(job->admitted - job->submitted);
  metrics_.queued.Observe(job->timings.queued / 1000);
  job->open_choices = job->choices;
  job->capsules.assign(static_cast<size_t>(job->choices), 0);
  auto session = model_.NewSession({.name_space = job->name_space});
  if (!session.ok()) {
    job->events.Push(Event::Error(session.status()));
    return;
  }
  auto line = std::make_unique<Line>(std::move(job), 0, *std::move(session));
  line->started = line->job->admitted;  // reading what it goes on from is part of reading its prompt
  Job& wanted = *line->job;
  if (wanted.resume) {
    CapsuleStore* store = model_.store();
    if (store == nullptr) return Fail(*line, Unsupported("this server keeps no capsules"));
    auto capsule = store->Get(wanted.name_space, *wanted.resume, &wanted.prefill.tier);
    if (!capsule.ok()) return Fail(*line, capsule.status());
    if (Status status = line->session.Restore(*capsule); !status.ok()) return Fail(*line, status);
    wanted.prefill.reused = line->session.position();
    wanted.prefill.known = wanted.prefill.reused;
    return PromptRead(std::move(line));
  }
  auto report = line->session.StartPrefill(wanted.prompt, {.boundaries = wanted.boundaries});
  if (!report.ok()) return Fail(*line, report.status());
  wanted.prefill = *std::move(report);
  if (!line->session.prefilling()) return PromptRead(std::move(line));
  prefilling_.push_back(std::move(line));
}

void Scheduler::StartFork(const Fork& fork) {
  const auto give_up = [&](const Status& status) {
    fork.job->events.Push(Event::Error(status));
    fork.job->cancelled = true;
  };
  auto session = model_.NewSession({.name_space = fork.job->name_space});
  if (!session.ok()) return give_up(session.status());
  auto line = std::make_unique<Line>(fork.job, fork.choice, *std::move(session));
  Status status = line->session.Restore(fork.capsule);
  if (status.ok() && fork.job->sampling) {
    SamplingOptions sampling = *fork.job->sampling;
    sampling.seed += static_cast<uint64_t>(fork.choice);
    status = line->session.SetSampling(sampling);
  }
  if (!status.ok()) return give_up(status);
  line->prompt_read = line->last_token = Clock::now();
  decoding_.push_back(std::move(line));
}

void Scheduler::PromptRead(std::unique_ptr<Line> line) {
  Job& job = *line->job;
  line->prompt_read = line->last_token = Clock::now();
  job.timings.prompt = Milliseconds(line->prompt_read - line->started);
  metrics_.reused_tokens[static_cast<size_t>(job.prefill.tier)] += static_cast<uint64_t>(job.prefill.reused);
  Event started = Event::Of(Event::Kind::kStarted);
  started.prefill = job.prefill;
  if (!job.events.Push(std::move(started))) job.cancelled = true;
  if (job.max_tokens == 0) {
    for (; line->choice < job.choices; ++line->choice) Finish(*line, FinishReason::kLength, "");
    return;
  }
  // Before the sampling is set: each choice sets its own.
  if (job.choices > 1) {
    const Capsule here = line->session.Snapshot();
    for (int choice = 1; choice < job.choices; ++choice) forks_.push_back({line->job, choice, here});
  }
  if (job.sampling) {
    if (Status status = line->session.SetSampling(*job.sampling); !status.ok()) return Fail(*line, status);
  }
  decoding_.push_back(std::move(line));
}

void Scheduler::DecodeStep() {
  if (decoding_.empty()) return;
  const int context = model_.info().context;
  std::erase_if(decoding_, [&](const std::unique_ptr<Line>& line) {
    if (line->session.pending_token() < 0 || line->session.position() < context) return false;
    Finish(*line, FinishReason::kLength, "");
    return true;
  });
  if (decoding_.empty()) return;
  std::vector<Session*> sessions;
  std::vector<Token> tokens(decoding_.size());
  for (const auto& line : decoding_) sessions.push_back(&line->session);
  const Clock::time_point start = Clock::now();
  if (!Session::NextBatch(sessions, tokens).ok()) {
    DecodeOneByOne(sessions);
  } else {
    step_seconds_ = 0.8 * step_seconds_ + 0.2 * std::chrono::duration<double>(Clock::now() - start).count();
    // Before anything else: the logits last until the next call.
    for (size_t i = 0; i < decoding_.size(); ++i) Deliver(*decoding_[i], tokens[i], static_cast<int>(i));
  }
  std::erase_if(decoding_, [&](const std::unique_ptr<Line>& line) {
    if (line->failed) return true;
    const Job& job = *line->job;
    const Token& last = tokens[static_cast<size_t>(&line - decoding_.data())];
    if (last.finish != Finish::kNone) {
      Finish(*line, FinishReason::kStop, last.finish == Finish::kStopString ? StopOf(line->tail, line->session.sampling().stop) : "");
      return true;
    }
    if (job.max_tokens < 0 || line->generated < job.max_tokens) return false;
    Finish(*line, FinishReason::kLength, "");
    return true;
  });
}

// A batch that failed as a whole: whoever can still step does, and the others hear why they cannot.
void Scheduler::DecodeOneByOne(std::span<Session*> sessions) {
  for (size_t i = 0; i < sessions.size(); ++i) {
    Line& line = *decoding_[i];
    const auto token = sessions[i]->Next();
    if (!token.ok()) {
      Fail(line, token.status());
      continue;
    }
    Deliver(line, *token, 0);
    if (token->finish == Finish::kNone) continue;
    Finish(line, FinishReason::kStop, token->finish == Finish::kStopString ? StopOf(line.tail, line.session.sampling().stop) : "");
    line.failed = true;
  }
}

void Scheduler::Deliver(Line& line, const Token& token, int entry) {
  Job& job = *line.job;
  const Clock::time_point now = Clock::now();
  ++line.generated;
  ++job.predicted;
  ++metrics_.predicted_tokens;
  if (line.generated > 1) {
    metrics_.inter_token.Observe(std::chrono::duration<double>(now - line.last_token).count());
  } else if (line.choice == 0) {
    job.timings.first_token = Milliseconds(now - job.submitted);
    metrics_.first_token.Observe(job.timings.first_token / 1000);
  }
  line.last_token = now;
  Event event = Event::Of(Event::Kind::kToken, line.choice);
  event.token = token.id;
  event.text = token.text;
  if (job.top_logprobs >= 0) event.logprobs = LogprobsOf(model_.engine().logits(entry), token.id, job.top_logprobs);
  if (const Tokenizer* tokenizer = model_.engine().tokenizer_or_null(); tokenizer && !tokenizer->IsHidden(token.id)) {
    line.tail += tokenizer->TokenBytes(token.id);
    if (line.tail.size() > 4 * SamplingOptions::kMaxStopBytes) line.tail.erase(0, line.tail.size() - SamplingOptions::kMaxStopBytes);
  }
  if (!job.events.Push(std::move(event)) && !job.cancelled.exchange(true)) ++metrics_.slow_readers;
}

void Scheduler::Finish(Line& line, FinishReason reason, std::string stop) {
  Job& job = *line.job;
  Event event = Event::Of(Event::Kind::kToken, line.choice);
  event.finish = reason;
  event.stop = std::move(stop);
  if (event.stop.empty()) {
    if (const auto rest = line.session.FlushText(); rest.ok()) event.text = *rest;
  }
  job.timings.predicted = std::max(job.timings.predicted, Milliseconds(Clock::now() - line.prompt_read));
  SaveEnd(line, Keep::kReply);
  if (!job.events.Push(std::move(event))) job.cancelled = true;
  EndChoice(job);
}

void Scheduler::EndChoice(Job& job) {
  if (--job.open_choices > 0) return;
  job.events.Push(Event::Of(Event::Kind::kEnd));
}

void Scheduler::Fail(Line& line, const Status& status) {
  line.failed = true;
  if (line.job->cancelled.exchange(true)) return;
  line.job->events.Push(Event::Error(status));
}

std::string Scheduler::Line::Metadata() const { return nlohmann::json{{"request", job->id}, {"pending", session.pending_token()}}.dump(); }

// A full store means less reuse, and no failure.
void Scheduler::SaveEnd(Line& line, Keep keep) {
  Job& job = *line.job;
  if (model_.store() == nullptr || line.session.position() == 0) return;
  const size_t most = static_cast<size_t>(std::clamp(model_.info().capsules / 8, 1, kMostEnds));
  ended_choices_.push_back({job.id, job.name_space, line.choice, line.session.tokens(), line.session.Snapshot(), line.Metadata()});
  if (ended_choices_.size() > most) ended_choices_.pop_front();

  CapsuleStore::PutOptions options{.keep = keep};
  if (line.choice == 0) options.name = job.session;
  const bool asked_for = job.keep || !options.name.empty();
  // What is kept automatically may stand for several requests that came by here, so it holds nothing that is one request's alone.
  if (asked_for) options.metadata = line.Metadata();
  if (job.keep && options.name.empty()) options.keep = Keep::kRequested;
  const auto id = line.session.Save(options);
  if (asked_for && id.ok() && !job.capsules.empty()) job.capsules[static_cast<size_t>(line.choice)] = *id;
}

void Scheduler::EndAll() {
  const auto end = [&](const std::unique_ptr<Line>& line) { line->job->cancelled = true; };
  std::for_each(prefilling_.begin(), prefilling_.end(), end);
  std::for_each(decoding_.begin(), decoding_.end(), end);
  for (const Awaiting& awaiting : reading_) awaiting.job->cancelled = true;
  forks_.clear();
  DropCancelled();
}

}  // namespace reprise::serve
