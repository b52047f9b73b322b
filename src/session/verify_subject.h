// VerifySubject: what `verify` puts to the test, through the verbs that a user has. SessionSubject is the real thing; a test overrides one
// verb at a time to break one promise on purpose, and sees verify catch it.
//
// A subject has a few lines of thought, numbered from 0, that live side by side. Verify never looks behind the verbs.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "exec/state_space.h"
#include "reprise/capsule.h"
#include "reprise/model.h"
#include "reprise/session.h"

namespace reprise {

class VerifySubject {
 public:
  using Line = int;
  struct Feed {
    Line line = 0;
    std::span<const int32_t> tokens;
  };
  struct Shown {
    std::string text;
    bool stopped = false;
    bool operator==(const Shown&) const = default;
  };

  virtual ~VerifySubject() = default;

  virtual const ModelInfo& info() const = 0;
  virtual const StateLayout& layout() const = 0;
  virtual int lines() const = 0;
  virtual int max_rows() const = 0;  // of one step
  virtual StateSpace::Usage usage() const = 0;
  // Whether steps go through a device's driver, which locks and reads as it sees fit.
  virtual bool has_driver() const = 0;
  virtual Result<std::vector<int32_t>> Tokenize(std::string_view text) const = 0;
  // The same model loaded once more, with other settings. Its capsules and this subject's are strangers, but for their bytes.
  virtual Result<std::unique_ptr<VerifySubject>> Reload(const ModelOptions& options) const = 0;

  // Adds to the contexts: one feed in as many steps as it takes; several, of at most max_rows() tokens in all, in one step.
  virtual Status Append(std::span<const Feed> feeds) = 0;
  virtual Status SetSampling(Line line, const SamplingOptions& options) = 0;
  // The next token of each line, as one batch. The texts are valid until the next call.
  virtual Status Next(std::span<const Line> lines, std::span<Token> tokens) = 0;
  // Shows `bytes` as if a token had them: what the stop matcher and the assembler of characters make of them.
  virtual Result<Shown> Show(Line line, std::string_view bytes) = 0;
  // The logits at each line's boundary, computed together.
  virtual Result<std::vector<std::vector<float>>> Logits(std::span<const Line> lines) = 0;
  // Feeds one token, and gives what the MTP block foretells there. Only with info().has_draft.
  virtual Result<std::vector<float>> DraftLogits(Line line, int32_t token) = 0;
  virtual int32_t PendingToken(Line line) = 0;
  virtual Result<std::vector<std::byte>> ReadState(Line line, const std::string& state) = 0;

  virtual Capsule Snapshot(Line line) = 0;
  virtual Status Restore(Line line, const Capsule& capsule) = 0;
  virtual Status Rollback(Line line, int count) = 0;
  virtual Result<Capsule> Without(const Capsule& capsule, std::span<const std::string> states) = 0;
  virtual Result<std::vector<std::byte>> Serialise(const Capsule& capsule) = 0;
  virtual Result<Capsule> Import(std::span<const std::byte> bytes) = 0;
};

}  // namespace reprise
