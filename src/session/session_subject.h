// SessionSubject: the sessions of a loaded model, as verify sees them.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "session/verify_subject.h"

namespace reprise {

class SessionSubject : public VerifySubject {
 public:
  // Opens `lines` sessions on the model, or as many as it has lanes. Keeps the model alive.
  static Result<std::unique_ptr<SessionSubject>> Create(const Model& model, int lines = 4);

  const ModelInfo& info() const override { return model_.info(); }
  const StateLayout& layout() const override { return model_.layout(); }
  int lines() const override { return static_cast<int>(sessions_.size()); }
  int max_rows() const override;
  StateSpace::Usage usage() const override;
  bool has_driver() const override;
  Result<std::vector<int32_t>> Tokenize(std::string_view text) const override { return model_.Tokenize(text); }
  Result<std::unique_ptr<VerifySubject>> Reload(const ModelOptions& options) const override;

  Status Append(std::span<const Feed> feeds) override;
  Status SetSampling(Line line, const SamplingOptions& options) override { return session(line).SetSampling(options); }
  Status Next(std::span<const Line> lines, std::span<Token> tokens) override;
  Result<Shown> Show(Line line, std::string_view bytes) override;
  Result<std::vector<std::vector<float>>> Logits(std::span<const Line> lines) override;
  Result<std::vector<float>> DraftLogits(Line line, int32_t token) override;
  int32_t PendingToken(Line line) override { return session(line).pending_token(); }
  Result<std::vector<std::byte>> ReadState(Line line, const std::string& state) override;

  Capsule Snapshot(Line line) override { return session(line).Snapshot(); }
  Status Restore(Line line, const Capsule& capsule) override { return session(line).Restore(capsule); }
  Status Rollback(Line line, int count) override { return session(line).Rollback(count); }
  Result<Capsule> Without(const Capsule& capsule, std::span<const std::string> states) override;
  Result<std::vector<std::byte>> Serialise(const Capsule& capsule) override { return sessions_[0].Export(capsule); }
  Result<Capsule> Import(std::span<const std::byte> bytes) override { return model_.ImportCapsule(bytes); }

 protected:
  explicit SessionSubject(const Model& model) : model_(model) {}
  Status Open(int lines);
  Session& session(Line line) { return sessions_[static_cast<size_t>(line)]; }

 private:
  Model model_;
  std::vector<Session> sessions_;
};

}  // namespace reprise
