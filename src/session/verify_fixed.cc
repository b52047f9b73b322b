// Promise 5: on the hot path nothing allocates, locks, or touches a file. Counted, where the program counts (base/count_hot_calls.h).
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <utility>

#include "base/hot_calls.h"
#include "session/verify_internal.h"

namespace reprise::verify {
namespace {

struct Calls {
  int64_t allocations = 0, locks = 0, file_calls = 0;
  static Calls Now() { return {AllocationCount(), LockCount(), FileCallCount().value_or(0)}; }
};

struct Measured {
  Calls calls;
  double microseconds = 0;  // of one, in the mean
  Status status;
};

// Runs `act` a few times unmeasured, then `times` times counted.
template <class F>
Measured Measure(int times, F act) {
  Measured measured;
  for (int i = 0; i < 2 && measured.status.ok(); ++i) measured.status = act(i);
  const Calls before = Calls::Now();
  const auto start = std::chrono::steady_clock::now();
  for (int i = 0; i < times && measured.status.ok(); ++i) measured.status = act(i);
  const std::chrono::duration<double, std::micro> taken = std::chrono::steady_clock::now() - start;
  const Calls after = Calls::Now();
  measured.calls = {after.allocations - before.allocations, after.locks - before.locks, after.file_calls - before.file_calls};
  measured.microseconds = taken.count() / times;
  return measured;
}

}  // namespace

Status CheckFixed(Setup& setup, Findings& findings) {
  VerifySubject& subject = setup.subject;
  if (!CountsAllocations()) {
    findings.Fail("not measured: this program does not count its allocations");
    return Ok();
  }
  const int lines = std::min(subject.lines(), 4);
  std::array<Line, 4> all{};
  for (Line line = 0; line < lines; ++line) {
    all[static_cast<size_t>(line)] = line;
    REPRISE_RETURN_IF_ERROR(setup.Reset(line));
    REPRISE_RETURN_IF_ERROR(setup.Append(line, setup.prompt));
    SamplingOptions options = SampledOptions(30 + static_cast<uint64_t>(line));
    options.stop = {"\x01 never said \x02"};
    REPRISE_RETURN_IF_ERROR(subject.SetSampling(line, options));
  }
  const auto batch = std::span<const Line>(all).first(static_cast<size_t>(lines));
  std::array<Token, 4> tokens;
  std::array<Capsule, 8> kept;

  struct Verb {
    const char* name;
    int times;
    std::function<Status(int)> act;
  };
  const int decoded = setup.quick ? 16 : 64;
  const Line first = 0;
  const Verb verbs[] = {
      {"tokens", decoded, [&](int) { return subject.Next(std::span(&first, 1), std::span(tokens).first(1)); }},
      {"tokens of a batch", decoded / 2, [&](int) { return subject.Next(batch, std::span(tokens).first(batch.size())); }},
      {"snapshots", 200,
       [&](int i) {
         kept[static_cast<size_t>(i) % kept.size()] = subject.Snapshot(0);
         return Ok();
       }},
      {"restores", 200, [&](int i) { return subject.Restore(0, kept[static_cast<size_t>(i) % kept.size()]); }},
      {"forks onto another line", 200, [&](int i) { return subject.Restore(1, kept[static_cast<size_t>(i) % kept.size()]); }},
      {"tokens after a fork", 8,
       [&](int i) -> Status {
         // The first one copies on write, and each one's capsule is dropped by the next.
         REPRISE_RETURN_IF_ERROR(subject.Restore(1, kept[static_cast<size_t>(i) % kept.size()]));
         REPRISE_RETURN_IF_ERROR(subject.Next(std::span(&all[1], 1), std::span(tokens).first(1)));
         kept[static_cast<size_t>(i + 1) % kept.size()] = subject.Snapshot(1);
         return Ok();
       }},
  };
  std::string evidence;
  const int64_t driver_before = DriverAllocationCount();
  int done = 0;
  for (const Verb& verb : verbs) {
    const Measured measured = Measure(verb.times, verb.act);
    REPRISE_RETURN_IF_ERROR(measured.status.ok() ? Ok() : measured.status.Within(verb.name));
    const auto none = [&](int64_t count, const char* what) {
      if (count != 0) findings.Fail(fmt::format("{} {} in {} {}", count, what, verb.times, verb.name));
    };
    none(measured.calls.allocations, "allocations");
    if (!subject.has_driver()) {
      none(measured.calls.locks, "locks");
      none(measured.calls.file_calls, "reads and writes of files");
    }
    evidence += fmt::format("{}{} {} ({:.{}f} µs each)", evidence.empty() ? "" : ", ", verb.times, verb.name, measured.microseconds,
                            measured.microseconds < 10 ? 2 : 0);
    setup.Progress(static_cast<double>(++done) / static_cast<double>(std::size(verbs)));
  }
  std::string counted = "0 allocations";
  if (CountsLocks() && !subject.has_driver()) counted += ", 0 locks";
  if (FileCallCount() && !subject.has_driver()) counted += ", 0 reads and writes of files";
  if (const int64_t own = DriverAllocationCount() - driver_before; own > 0) counted += fmt::format(" beside the driver's own {}", own);
  findings.Note(counted + ", by all threads of the program, in " + evidence + ".");
  return Ok();
}

}  // namespace reprise::verify
