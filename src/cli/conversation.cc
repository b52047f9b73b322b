#include "cli/conversation.h"

#include <algorithm>

#include "session/engine.h"

namespace reprise {

Result<Conversation> Conversation::Create(const Model& model, const ChatSettings& settings) {
  REPRISE_ASSIGN_OR_RETURN(Session session, model.NewSession());
  REPRISE_RETURN_IF_ERROR(session.SetSampling(settings.sampling));
  Conversation conversation(std::move(session), settings);
  if (!settings.system.empty()) conversation.messages_.push_back({"system", settings.system});
  return conversation;
}

int Conversation::turns() const {
  return static_cast<int>(
      std::count_if(messages_.begin(), messages_.end(), [](const ChatMessage& message) { return message.role == "user"; }));
}

Result<Answer> Conversation::Ask(std::string question, const GenerationOptions& options, const PrefillOptions& prefill) {
  Turn turn{messages_.size(), session_.Snapshot()};
  messages_.push_back({"user", std::move(question)});
  auto answer = AnswerLast(options, prefill);
  if (!answer.ok()) {
    messages_.resize(turn.messages);
    REPRISE_RETURN_IF_ERROR(session_.Restore(turn.before));
    return answer.status();
  }
  held_.push_back(std::move(turn));
  if (held_.size() > kTurnsHeld) held_.pop_front();
  return answer;
}

Result<Answer> Conversation::Regenerate(const GenerationOptions& options, const PrefillOptions& prefill) {
  if (messages_.empty() || messages_.back().role != "assistant") return InvalidArgument("there is no answer yet to be given again");
  const ChatMessage old = messages_.back();
  const Capsule before = session_.Snapshot();
  SamplingOptions sampling = settings_->sampling;
  sampling.seed += ++attempts_;
  messages_.pop_back();
  REPRISE_RETURN_IF_ERROR(session_.SetSampling(sampling));
  auto answer = AnswerLast(options, prefill);
  if (answer.ok()) return answer;
  messages_.push_back(old);
  REPRISE_RETURN_IF_ERROR(session_.Restore(before));
  return answer.status();
}

Result<Answer> Conversation::AnswerLast(const GenerationOptions& options, const PrefillOptions& prefill) {
  const Model model = session_.model();
  REPRISE_ASSIGN_OR_RETURN(const auto prompt, EncodeChatFor(model, settings_->format, messages_, settings_->options));
  PrefillOptions with_boundaries = prefill;
  with_boundaries.boundaries = BoundariesOf(model, settings_->format, messages_, settings_->options, prompt);
  Answer answer;
  REPRISE_ASSIGN_OR_RETURN(answer.prefill, session_.Prefill(prompt, with_boundaries));

  GenerationOptions with_limit = options;
  with_limit.max_tokens = settings_->max_tokens;
  REPRISE_ASSIGN_OR_RETURN(answer.generation, GenerateOne(session_, with_limit));
  REPRISE_RETURN_IF_ERROR(session_.EndReply());
  std::string content = answer.generation.text;
  if (answer.generation.finish != Finish::kStopString) {
    // Markers within the answer (of thoughts) are not shown, and belong to it all the same.
    std::vector<int32_t> said = answer.generation.tokens;
    if (answer.generation.finish == Finish::kEndOfText) said.pop_back();
    REPRISE_ASSIGN_OR_RETURN(const Tokenizer* tokenizer, model.engine().tokenizer());
    content = tokenizer->Decode(said, {.continues = true});
  }
  messages_.push_back({"assistant", std::move(content)});
  return answer;
}

Status Conversation::Undo() {
  const auto last = std::find_if(messages_.rbegin(), messages_.rend(), [](const ChatMessage& message) { return message.role == "user"; });
  if (last == messages_.rend()) return InvalidArgument("there is no turn to take back");
  const auto keep = static_cast<size_t>(messages_.rend() - last) - 1;
  if (!held_.empty() && held_.back().messages == keep) {
    REPRISE_RETURN_IF_ERROR(session_.Restore(held_.back().before));
    held_.pop_back();
  }
  messages_.resize(keep);
  return Ok();
}

Result<Conversation> Conversation::Fork() const {
  // Fork() takes any session of the model; a snapshot needs this one, which it does not change.
  const Capsule here = const_cast<Session&>(session_).Snapshot();
  REPRISE_ASSIGN_OR_RETURN(std::vector<Session> sessions, session_.Fork(here, 1));
  Conversation fork(std::move(sessions.front()), *settings_);
  fork.messages_ = messages_;
  fork.held_ = held_;
  fork.attempts_ = attempts_;
  return fork;
}

Result<std::vector<std::byte>> Conversation::Save() {
  if (session_.position() == 0) return InvalidArgument("nothing was said yet");
  return session_.Export(session_.Snapshot());
}

Status Conversation::Load(std::span<const std::byte> bytes) {
  const Model model = session_.model();
  REPRISE_ASSIGN_OR_RETURN(const Capsule capsule, model.ImportCapsule(bytes));
  return GoOnFrom(capsule);
}

Status Conversation::Keep(const std::string& name) {
  if (session_.position() == 0) return InvalidArgument("nothing was said yet");
  REPRISE_ASSIGN_OR_RETURN(const uint64_t id, session_.Save({.name = name}));
  return id != 0 ? Ok() : Exhausted("the store's memory has no room for the conversation; a larger --store-memory makes some");
}

Status Conversation::Resume(const std::string& name) {
  CapsuleStore* store = session_.model().store();
  if (store == nullptr) return InvalidArgument("there is no store to resume from; --store DIR names one");
  REPRISE_ASSIGN_OR_RETURN(const StoreEntry entry, store->Find("", name));
  REPRISE_ASSIGN_OR_RETURN(const Capsule capsule, store->Get("", entry.id));
  return GoOnFrom(capsule);
}

Status Conversation::GoOnFrom(const Capsule& capsule) {
  const Model model = session_.model();
  const Capsule before = session_.Snapshot();
  REPRISE_RETURN_IF_ERROR(session_.Restore(capsule));
  std::vector<int32_t> tokens = session_.tokens();
  const int32_t pending = session_.pending_token();
  if (pending >= 0 && !model.IsEndOfGeneration(pending)) tokens.push_back(pending);  // said, though not yet fed
  auto messages = MessagesOf(model, settings_->format, tokens);
  if (!messages.ok()) {
    REPRISE_RETURN_IF_ERROR(session_.Restore(before));
    return messages.status();
  }
  messages_ = *std::move(messages);
  held_.clear();
  return Ok();
}

}  // namespace reprise
