// Reply: one choice of a chat, from the engine's events to what its client is told. Both dialects are written from it.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "serve/answer_memory.h"
#include "serve/answer_parser.h"
#include "serve/job.h"
#include "text/chat.h"

namespace reprise::serve {

struct ReplyPiece {
  AnswerPiece::Kind kind = AnswerPiece::Kind::kText;
  std::string text;
  ChatToolCall call;
};

class Reply {
 public:
  // Calls get ids that begin with `prefix`, unless the model gives them some.
  Reply(const AnswerForm& form, std::string prefix) : parser_(form), prefix_(std::move(prefix)) {}

  // What an event adds. The last event of the choice may add several pieces.
  std::vector<ReplyPiece> Take(const Event& event, const Tokenizer& tokenizer);

  const ChatMessage& message() const { return message_; }
  FinishReason finish() const { return finish_; }
  const std::string& stop() const { return stop_; }  // the client's stop string that ended it, or ""
  bool calls() const { return !message_.tool_calls.empty(); }

  // Once it has ended: its tokens, for when the client sends it back.
  void Remember(AnswerMemory& memory, const Job& job) const;

 private:
  std::string IdOf(const ToolUse& call) const;

  AnswerParser parser_;
  std::string prefix_;
  ChatMessage message_{"assistant", ""};
  std::vector<int32_t> tokens_;
  FinishReason finish_ = FinishReason::kNone;
  std::string stop_;
};

// How the chat's answers are read: what its format, tools and options say.
AnswerForm FormOf(const ChatFormat& format, const ChatOptions& options, const Tools& tools);
// What ends an answer after its first call, where only one is wanted.
void StopAfterCall(const ChatFormat& format, const Tools& tools, SamplingOptions& sampling);

}  // namespace reprise::serve
