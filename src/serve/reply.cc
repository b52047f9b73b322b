#include "serve/reply.h"

#include <algorithm>

#include "serve/service.h"
#include "text/chat_tools.h"

namespace reprise::serve {

std::vector<ReplyPiece> Reply::Take(const Event& event, const Tokenizer& tokenizer) {
  if (event.token >= 0 && !tokenizer.IsEndOfGeneration(event.token)) tokens_.push_back(event.token);
  std::vector<AnswerPiece> pieces;
  parser_.Feed(event.text, pieces);
  if (event.finish != FinishReason::kNone) {
    finish_ = event.finish;
    stop_ = event.stop;
    parser_.Finish(pieces);
  }
  std::vector<ReplyPiece> given;
  for (AnswerPiece& piece : pieces) {
    switch (piece.kind) {
      case AnswerPiece::Kind::kThoughts: message_.reasoning += piece.text; break;
      case AnswerPiece::Kind::kText: message_.content += piece.text; break;
      case AnswerPiece::Kind::kCall:
        message_.tool_calls.push_back(MakeCall(IdOf(piece.call), piece.call.name, piece.call.arguments));
        break;
    }
    const bool call = piece.kind == AnswerPiece::Kind::kCall;
    given.push_back({piece.kind, std::move(piece.text), call ? message_.tool_calls.back() : ChatToolCall()});
  }
  for (const std::string_view end : {kToolCallEnd, kGemmaCallEnd, kPythonCallEnd, kNemotronCallEnd}) {
    if (stop_ == end && calls()) stop_.clear();  // ours (StopAfterCall), or as good
  }
  return given;
}

// The model's own, if it is one by which the call can be known.
std::string Reply::IdOf(const ToolUse& call) const {
  const auto has_it = [&](const ChatToolCall& other) { return other.id == call.id; };
  const bool good = !call.id.empty() && MistralCallId(call.id) == call.id;
  const bool taken = std::any_of(message_.tool_calls.begin(), message_.tool_calls.end(), has_it);
  return good && !taken ? call.id : NewId(prefix_);
}

void Reply::Remember(AnswerMemory& memory, const Job& job) const {
  // Of a stop string the client has seen nothing, nor of what followed the one call that it asked for, and the tokens hold it.
  if (finish_ == FinishReason::kNone || !stop_.empty() || job.resume || parser_.cut()) return;
  memory.Remember(job.name_space, job.prompt, message_, tokens_);
}

AnswerForm FormOf(const ChatFormat& format, const ChatOptions& options, const Tools& tools) {
  return {.tools = tools.callable() ? format.tools : ToolForm::kNone,
          .declared = &tools,
          .one_call = !tools.parallel,
          .may_think = MayThink(format) && !HasChannels(format),
          .opens_thoughts = OpensThoughts(format, options),
          .thoughts = ThoughtMarkersOf(format),
          .begins_with_space = AnswersBeginWithSpace(format),
          .channels = HasChannels(format),
          .opens_final = OpensFinal(format, options)};
}

void StopAfterCall(const ChatFormat& format, const Tools& tools, SamplingOptions& sampling) {
  const std::string_view end = CallEnd(format.tools);
  if (!end.empty() && tools.callable() && !tools.parallel) sampling.stop.emplace_back(end);
}

}  // namespace reprise::serve
