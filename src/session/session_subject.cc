#include "session/session_subject.h"

#include <algorithm>
#include <array>
#include <utility>

#include "capsule/ablation.h"
#include "session/engine.h"

namespace reprise {

Result<std::unique_ptr<SessionSubject>> SessionSubject::Create(const Model& model, int lines) {
  std::unique_ptr<SessionSubject> subject(new SessionSubject(model));
  REPRISE_RETURN_IF_ERROR(subject->Open(lines));
  return subject;
}

Status SessionSubject::Open(int lines) {
  for (int i = 0; i < std::min(lines, model_.info().lanes); ++i) {
    REPRISE_ASSIGN_OR_RETURN(Session session, model_.NewSession());
    sessions_.push_back(std::move(session));
  }
  return Ok();
}

int SessionSubject::max_rows() const { return model_.engine().max_rows(); }
bool SessionSubject::has_driver() const { return !model_.engine().backend().ordinary_memory(); }
StateSpace::Usage SessionSubject::usage() const { return model_.engine().space().usage(); }

Result<std::unique_ptr<VerifySubject>> SessionSubject::Reload(const ModelOptions& options) const {
  // What the fingerprint covers stays: a device and kernels that round alike, keys and values of the same type.
  ModelOptions alike = options;
  alike.instruction_set = model_.engine().options().instruction_set;
  alike.device = model_.engine().options().device;
  alike.kv = model_.engine().options().kv;
  REPRISE_ASSIGN_OR_RETURN(const Model model, Model::Load(model_.info().path, alike));
  REPRISE_ASSIGN_OR_RETURN(auto subject, Create(model, lines()));
  return std::unique_ptr<VerifySubject>(std::move(subject));
}

Status SessionSubject::Append(std::span<const Feed> feeds) {
  if (feeds.size() == 1) return session(feeds[0].line).Append(feeds[0].tokens);
  std::vector<Engine::Feed> together;
  for (const Feed& feed : feeds) together.push_back({&session(feed.line).lane(), feed.tokens});
  return model_.engine().Advance(together);
}

Status SessionSubject::Next(std::span<const Line> lines, std::span<Token> tokens) {
  std::array<Session*, 256> batch;  // most lanes of a model; on the hot path, so nothing here allocates
  if (lines.size() > batch.size()) return InvalidArgument("more lines than a model has lanes");
  for (size_t i = 0; i < lines.size(); ++i) batch[i] = &session(lines[i]);
  return Session::NextBatch(std::span(batch).first(lines.size()), tokens);
}

Result<VerifySubject::Shown> SessionSubject::Show(Line line, std::string_view bytes) {
  Lane& lane = session(line).lane();
  Shown shown;
  REPRISE_RETURN_IF_ERROR(lane.BeginHost());
  shown.stopped = model_.engine().decode().Feed(bytes, lane.write(Space::kHost), shown.text);
  lane.Commit();
  return shown;
}

Result<std::vector<std::vector<float>>> SessionSubject::Logits(std::span<const Line> lines) {
  std::vector<Lane*> lanes;
  for (const Line line : lines) lanes.push_back(&session(line).lane());
  REPRISE_RETURN_IF_ERROR(model_.engine().ComputeLogits(lanes));
  std::vector<std::vector<float>> logits;
  for (size_t i = 0; i < lines.size(); ++i) {
    const auto row = model_.engine().logits(static_cast<int>(i));
    logits.emplace_back(row.begin(), row.end());
  }
  return logits;
}

Result<std::vector<float>> SessionSubject::DraftLogits(Line line, int32_t token) {
  const Engine::Feed feed{&session(line).lane(), std::span(&token, 1)};
  REPRISE_RETURN_IF_ERROR(model_.engine().Advance(std::span(&feed, 1), Engine::Wanted::kEveryRow));
  REPRISE_RETURN_IF_ERROR(model_.engine().ComputeDraftLogits());
  const auto row = model_.engine().logits(0);
  return std::vector<float>(row.begin(), row.end());
}

Result<std::vector<std::byte>> SessionSubject::ReadState(Line line, const std::string& state) {
  // Not a snapshot: reading must not leave a trace in the line's ancestry, nor depend on the verb under test.
  return Capsule::FromHeld(model_.engine().shared_space(), session(line).lane().Hold(), 0).Read(state);
}

Result<Capsule> SessionSubject::Without(const Capsule& capsule, std::span<const std::string> states) {
  return WithoutStates(capsule, states);
}

}  // namespace reprise
