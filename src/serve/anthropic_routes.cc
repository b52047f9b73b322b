// /v1/messages and /v1/messages/count_tokens, as Anthropic's clients speak them.
#include "serve/answer_grammar.h"
#include "serve/chat_messages.h"
#include "serve/generate_request.h"
#include "serve/openai_answer.h"
#include "serve/reply.h"

namespace reprise::serve {
namespace {

OrderedJson Usage(const Job& job) {
  return {{"input_tokens", job.prefill.computed},
          {"cache_creation_input_tokens", 0},
          {"cache_read_input_tokens", job.prefill.reused},
          {"output_tokens", job.predicted}};
}

std::string EventLines(const char* name, const OrderedJson& json) {
  OrderedJson event = {{"type", name}};
  event.update(json);
  return std::string("event: ") + name + "\ndata: " + Dump(event) + "\n\n";
}

class MessagesAnswer {
 public:
  MessagesAnswer(Service& service, Engines& engines, Exchange& exchange) : service_(service), engines_(engines), exchange_(exchange) {
    job_->id = NewId("msg_");
  }

  void Read(const Json& body, const Caller& caller, bool counting, ApiError& error) {
    Fields fields(body, error);
    bool any = false;
    SamplingOptions sampling = ReadSampling(fields, any);
    ReadStops(fields, "stop_sequences", sampling);
    if (const Status status = sampling.Check(); !status.ok()) error.Set(400, status.message(), "stop_sequences", "invalid_value");
    const auto most = fields.Integer("max_tokens", 0, INT32_MAX);
    if (!most && !counting) fields.Fail("max_tokens", "is missing");
    stream_ = fields.Bool("stream").value_or(false);
    ChatOptions options;
    if (const Json* thinking = fields.Object("thinking")) {
      const std::string type = Fields(*thinking, error, "thinking.").String("type").value_or("");
      options.thinking = type == "enabled" ? Thinking::kOn : type == "disabled" ? Thinking::kOff : Thinking::kByFormat;
    }
    tools_ = ReadAnthropicTools(fields);
    const std::vector<ChatMessage> messages = ReadAnthropicMessages(fields);
    if (!error.ok()) return;
    const Continued continued = ReadContinued(engines_, caller, fields);
    options.after_result = !messages.empty() && messages.back().role == "tool";
    if (engines_.chat) {
      options.thinking = ThinkingFor(*engines_.chat, messages, options.thinking);
      tools_.Tell(*engines_.chat, options);
      StopAfterCall(*engines_.chat, tools_, sampling);
      sampling.grammar = GrammarOf({}, tools_, *engines_.chat, options, error);
      reply_ = Reply(FormOf(*engines_.chat, options, tools_), "toolu_");
    }
    job_->name_space = caller.name_space;
    job_->sampling = std::move(sampling);
    job_->keep = fields.Bool("keep").value_or(false);
    job_->max_tokens = static_cast<int>(most.value_or(0));
    FillChatPrompt(engines_, messages, continued, options, *job_, error);
  }

  const Job& job() const { return *job_; }

  void Run(ApiError& error) {
    if (!CheckPrompt(engines_, *job_, error)) return;
    std::vector<std::shared_ptr<Job>> jobs = {job_};
    if (!SubmitAll(service_, jobs, error)) return;
    const bool ended =
        FollowAll({service_, exchange_, jobs, [&](size_t, const Event& event) { return Take(event); }, [&] { return Ping(); }}, error);
    reply_.Remember(engines_.answers, *job_);
    if (!stream_) {
      if (ended) exchange_.Respond(200, kJsonType, Dump(Message()));
      return;
    }
    if (!exchange_.streaming()) return;
    if (ended) {
      if (blocks_ == 0) OpenBlock("text");
      CloseBlock();
      exchange_.Write(TakeOut() +
                      EventLines("message_delta", {{"delta", Stop()}, {"usage", Usage(*job_)}, {"reprise", RepriseJson(*job_)}}) +
                      EventLines("message_stop", OrderedJson::object()));
    } else if (!error.ok()) {
      exchange_.Write("event: error\ndata: " + AnthropicErrorBody(error) + "\n\n");
    }
    exchange_.EndStream();
  }

 private:
  OrderedJson Stop() const {
    const std::string& stop = reply_.stop();
    const char* reason = reply_.finish() == FinishReason::kLength ? "max_tokens"
                         : !stop.empty()                          ? "stop_sequence"
                         : reply_.calls()                         ? "tool_use"
                                                                  : "end_turn";
    return {{"stop_reason", reason}, {"stop_sequence", stop.empty() ? OrderedJson() : OrderedJson(stop)}};
  }

  OrderedJson Message() const {
    OrderedJson message = Opening();
    const ChatMessage& said = reply_.message();
    OrderedJson& content = message["content"];
    if (!said.reasoning.empty()) content.push_back({{"type", "thinking"}, {"thinking", said.reasoning}, {"signature", ""}});
    if (!said.content.empty() || !reply_.calls()) content.push_back({{"type", "text"}, {"text", said.content}});
    for (const ChatToolCall& call : said.tool_calls) {
      OrderedJson block = CallBlock(call);
      block["input"] = Json::parse(call.arguments);
      content.push_back(std::move(block));
    }
    message.update(Stop());
    message["usage"] = Usage(*job_);
    message["reprise"] = RepriseJson(*job_);
    return message;
  }

  OrderedJson Opening() const {
    return {{"id", job_->id},
            {"type", "message"},
            {"role", "assistant"},
            {"model", engines_.model_id},
            {"content", OrderedJson::array()},
            {"stop_reason", nullptr},
            {"stop_sequence", nullptr}};
  }

  // Its clients expect the message's start before all else, and that holds how much of the prompt was cached: until then there are comments.
  bool Ping() {
    if (!stream_) return true;
    if (!exchange_.streaming() && !exchange_.StartStream(kEventStream)) return false;
    written_ = Clock::now();
    return exchange_.Write(": still working\n\n");
  }

  bool Take(const Event& event) {
    if (event.kind == Event::Kind::kProgress) return true;
    const std::vector<ReplyPiece> pieces = reply_.Take(event, engines_.tokenizer());
    if (!stream_) return true;
    if (event.kind == Event::Kind::kStarted) {
      if (!exchange_.streaming() && !exchange_.StartStream(kEventStream)) return false;
      OrderedJson message = Opening();
      message["usage"] = {{"input_tokens", event.prefill.computed},
                          {"cache_creation_input_tokens", 0},
                          {"cache_read_input_tokens", event.prefill.reused},
                          {"output_tokens", 0}};
      return exchange_.Write(EventLines("message_start", {{"message", std::move(message)}}));
    }
    for (const ReplyPiece& piece : pieces) WritePiece(piece);
    // While a call is made there is nothing to tell, and clients do not wait for ever.
    if (out_.empty()) return Clock::now() - written_ < service_.ping || Ping();
    written_ = Clock::now();
    return exchange_.Write(TakeOut());
  }

  static OrderedJson CallBlock(const ChatToolCall& call) {
    return {{"type", "tool_use"}, {"id", call.id}, {"name", call.name}, {"input", OrderedJson::object()}};
  }

  void WritePiece(const ReplyPiece& piece) {
    switch (piece.kind) {
      case AnswerPiece::Kind::kText:
        OpenBlock("text");
        Delta({{"type", "text_delta"}, {"text", piece.text}});
        break;
      case AnswerPiece::Kind::kThoughts:
        OpenBlock("thinking");
        Delta({{"type", "thinking_delta"}, {"thinking", piece.text}});
        break;
      case AnswerPiece::Kind::kCall:
        CloseBlock();
        BeginBlock("tool_use", CallBlock(piece.call));
        Delta({{"type", "input_json_delta"}, {"partial_json", piece.call.arguments}});
        CloseBlock();
        break;
    }
  }

  // Blocks follow one another: a piece of another kind than the open block's ends it. Into out_.
  void OpenBlock(const std::string& kind) {
    if (open_ == kind) return;
    CloseBlock();
    BeginBlock(kind, kind == "text" ? OrderedJson{{"type", "text"}, {"text", ""}}
                                    : OrderedJson{{"type", "thinking"}, {"thinking", ""}, {"signature", ""}});
  }
  void BeginBlock(const std::string& kind, OrderedJson block) {
    open_ = kind;
    out_ += EventLines("content_block_start", {{"index", blocks_}, {"content_block", std::move(block)}});
    ++blocks_;
  }
  void Delta(OrderedJson delta) { out_ += EventLines("content_block_delta", {{"index", blocks_ - 1}, {"delta", std::move(delta)}}); }
  void CloseBlock() {
    if (open_.empty()) return;
    if (open_ == "thinking") Delta({{"type", "signature_delta"}, {"signature", ""}});
    out_ += EventLines("content_block_stop", {{"index", blocks_ - 1}});
    open_.clear();
  }
  std::string TakeOut() { return std::exchange(out_, ""); }

  Service& service_;
  Engines& engines_;
  Exchange& exchange_;
  std::shared_ptr<Job> job_ = std::make_shared<Job>();
  bool stream_ = false;
  Tools tools_;
  Reply reply_{AnswerForm(), ""};
  std::string open_;  // the kind of the block that is open
  int blocks_ = 0;
  std::string out_;
  Clock::time_point written_ = Clock::now();
};

}  // namespace

void ServeMessages(Service& service, Engines& engines, Exchange& exchange, const Caller& caller) {
  ApiError error;
  const Json body = ParseObject(exchange.request().body, error);
  MessagesAnswer answer(service, engines, exchange);
  if (error.ok()) answer.Read(body, caller, /*counting=*/false, error);
  if (error.ok()) answer.Run(error);
  if (!error.ok() && exchange.status() == 0) RespondError(exchange, error);
}

void ServeCountTokens(Service& service, Engines& engines, Exchange& exchange, const Caller& caller) {
  ApiError error;
  const Json body = ParseObject(exchange.request().body, error);
  MessagesAnswer answer(service, engines, exchange);
  if (error.ok()) answer.Read(body, caller, /*counting=*/true, error);
  if (!error.ok()) return RespondError(exchange, error);
  exchange.Respond(200, kJsonType, Dump(OrderedJson{{"input_tokens", answer.job().prompt.size()}}));
}

}  // namespace reprise::serve
