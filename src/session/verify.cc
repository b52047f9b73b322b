#include "session/verify.h"

#include <algorithm>
#include <utility>

#include "session/verify_internal.h"

namespace reprise {
namespace {

using namespace verify;

// Plain prose, so that a model that knows English says something natural after it. A model without a tokenizer gets numbers.
constexpr std::string_view kProse =
    "It was a little before noon when the old clockmaker closed his shop and walked down to the harbour. Nobody had asked him to come, and "
    "nobody seemed to notice that he was there, except for a boy who sold oranges from a basket. \"You are early,\" said the boy. \"The "
    "ship "
    "is not due before three.\" The clockmaker looked at the water, then at the sky, and last of all at his watch. \"I have never been "
    "early "
    "in my life,\" he answered, \"and I do not mean to begin now.\" He bought two oranges, gave one of them back, and sat down on a coil "
    "of "
    "rope. In 1871 his father had waited in this very place, with the same watch in his hand, for a letter that took eleven weeks to "
    "arrive. ";
constexpr std::string_view kOtherProse =
    "The committee met on the second Tuesday of the month, as it always did, and began by approving the minutes. There were four items on "
    "the "
    "agenda: the roof, the drains, the price of coal, and a complaint about the piano. Mrs. Harlow spoke for the roof at some length. ";

Result<std::vector<int32_t>> Tokens(VerifySubject& subject, std::string_view prose, size_t count, uint64_t seed) {
  std::vector<int32_t> tokens;
  if (auto text = subject.Tokenize(prose); text.ok() && !text->empty()) {
    while (tokens.size() < count) tokens.insert(tokens.end(), text->begin(), text->end());
  } else {
    std::mt19937_64 random(seed);
    while (tokens.size() < count) tokens.push_back(static_cast<int32_t>(random() % static_cast<uint64_t>(subject.info().vocabulary)));
  }
  tokens.resize(count);
  return tokens;
}

constexpr struct {
  const char* name;
  Status (*check)(Setup&, Findings&);
} kPromises[] = {
    {"exact", CheckExact},       {"complete", CheckComplete}, {"independent of cuts", CheckCut},
    {"isolated", CheckIsolated}, {"fixed", CheckFixed},       {"refusing", CheckRefusing},
};

Status Prepare(Setup& setup) {
  VerifySubject& subject = setup.subject;
  if (subject.lines() < 2) return InvalidArgument("verify needs at least two lanes; load the model with more");
  if (subject.info().context < 256)
    return InvalidArgument("verify needs a context of at least 256 positions; load the model with a longer one");
  // A block of attention is 256 positions and an extent 64: a prompt beyond both, with room to go on.
  const auto room = static_cast<size_t>(subject.info().context) / 2;
  REPRISE_ASSIGN_OR_RETURN(setup.prompt, Tokens(subject, kProse, std::min<size_t>(setup.quick ? 150 : 300, room), 1));
  REPRISE_ASSIGN_OR_RETURN(setup.other, Tokens(subject, kOtherProse, std::min<size_t>(70, room), 2));
  return Ok();
}

}  // namespace

VerifyReport Verify(VerifySubject& subject, const VerifyOptions& options) {
  Setup setup{subject, options.quick, options.progress, {}, {}, {}, std::mt19937_64(20261121)};
  setup.origin = subject.Snapshot(0);
  Status prepared = setup.origin.position() == 0 ? Prepare(setup) : InvalidArgument("verify starts from lines that are empty");
  VerifyReport report;
  report.passed = true;
  int id = 0;
  for (const auto& promise : kPromises) {
    PromiseReport one;
    one.id = ++id;
    one.name = promise.name;
    if (options.started) options.started(one.id, one.name);
    Findings findings;
    Status status = prepared.ok() ? promise.check(setup, findings) : prepared;
    if (!status.ok()) findings.Fail("stopped by an error: " + status.message());
    one.passed = findings.passed();
    one.evidence = findings.Evidence();
    report.passed = report.passed && one.passed;
    report.promises.push_back(one);
    if (options.finished) options.finished(one);
  }
  for (Line line = 0; line < subject.lines(); ++line) (void)setup.Reset(line);
  return report;
}

}  // namespace reprise
