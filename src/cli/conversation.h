// Conversation: a chat on one session. Messages are the truth; the session's state follows them, and is reused wherever it still fits.
//
// Before each question a capsule is taken, so the last turns can be taken back in microseconds. Capsules of older turns are let go of,
// because each holds memory; taking those turns back works too, and costs some computation at the next question.
#pragma once

#include <atomic>
#include <deque>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "cli/generation.h"
#include "reprise/session.h"
#include "session/chat_format.h"

namespace reprise {

struct ChatSettings {
  ChatFormat format;
  ChatOptions options;
  SamplingOptions sampling;
  std::string system;  // empty: what the format says by itself
  int max_tokens = 0;
};

// What one answer cost.
struct Answer {
  PrefillReport prefill;
  Generation generation;
};

class Conversation {
 public:
  // A new one, without messages but for the system's.
  static Result<Conversation> Create(const Model& model, const ChatSettings& settings);

  // Adds a question and answers it. On an error, kCancelled while the prompt is read included, the conversation is as it was before.
  Result<Answer> Ask(std::string question, const GenerationOptions& options, const PrefillOptions& prefill);
  // Answers the last question once more, with other random numbers.
  Result<Answer> Regenerate(const GenerationOptions& options, const PrefillOptions& prefill);
  // Takes the last question and its answer back. kInvalidArgument when there is none.
  Status Undo();
  // Another conversation that stands where this one does.
  Result<Conversation> Fork() const;

  // The state as capsule bytes, and a conversation from them.
  Result<std::vector<std::byte>> Save();
  Status Load(std::span<const std::byte> bytes);
  // The same by a name in the model's store.
  Status Keep(const std::string& name);
  Status Resume(const std::string& name);

  const std::vector<ChatMessage>& messages() const { return messages_; }
  Session& session() { return session_; }
  int turns() const;  // questions asked

 private:
  Conversation(Session session, const ChatSettings& settings) : session_(std::move(session)), settings_(&settings) {}
  Status GoOnFrom(const Capsule& capsule);
  Result<Answer> AnswerLast(const GenerationOptions& options, const PrefillOptions& prefill);

  static constexpr size_t kTurnsHeld = 16;  // of the 64 blocks that a model keeps for capsules by default
  struct Turn {
    size_t messages;  // how many there were before
    Capsule before;
  };

  Session session_;
  const ChatSettings* settings_;  // the caller's, for all conversations
  std::vector<ChatMessage> messages_;
  std::deque<Turn> held_;
  uint64_t attempts_ = 0;
};

}  // namespace reprise
