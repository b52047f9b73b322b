// /v1/messages and /v1/messages/count_tokens, as Anthropic's clients speak them.
#include "serve/generate_request.h"
#include "serve/openai_answer.h"

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
    const std::vector<ChatMessage> messages = ReadAnthropicMessages(fields);
    if (!error.ok()) return;
    const Continued continued = ReadContinued(engines_, caller, fields);
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
    if (!stream_) {
      if (ended) exchange_.Respond(200, kJsonType, Dump(Message()));
      return;
    }
    if (!exchange_.streaming()) return;
    if (ended) {
      exchange_.Write(EventLines("content_block_stop", {{"index", 0}}) +
                      EventLines("message_delta", {{"delta", Stop()}, {"usage", Usage(*job_)}, {"reprise", RepriseJson(*job_)}}) +
                      EventLines("message_stop", OrderedJson::object()));
    } else if (!error.ok()) {
      exchange_.Write("event: error\ndata: " + AnthropicErrorBody(error) + "\n\n");
    }
    exchange_.EndStream();
  }

 private:
  OrderedJson Stop() const {
    const char* reason = finish_ == FinishReason::kLength ? "max_tokens" : stop_.empty() ? "end_turn" : "stop_sequence";
    return {{"stop_reason", reason}, {"stop_sequence", stop_.empty() ? OrderedJson() : OrderedJson(stop_)}};
  }

  OrderedJson Message() const {
    OrderedJson message = Opening();
    message["content"] = {{{"type", "text"}, {"text", text_}}};
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
    return exchange_.Write(": still working\n\n");
  }

  bool Take(const Event& event) {
    if (event.kind == Event::Kind::kProgress) return true;
    if (event.finish != FinishReason::kNone) {
      finish_ = event.finish;
      stop_ = event.stop;
    }
    text_ += event.text;
    if (!stream_) return true;
    if (event.kind == Event::Kind::kStarted) {
      if (!exchange_.streaming() && !exchange_.StartStream(kEventStream)) return false;
      OrderedJson message = Opening();
      message["usage"] = {{"input_tokens", event.prefill.computed},
                          {"cache_creation_input_tokens", 0},
                          {"cache_read_input_tokens", event.prefill.reused},
                          {"output_tokens", 0}};
      return exchange_.Write(EventLines("message_start", {{"message", std::move(message)}}) +
                             EventLines("content_block_start", {{"index", 0}, {"content_block", {{"type", "text"}, {"text", ""}}}}));
    }
    if (event.text.empty()) return true;
    return exchange_.Write(EventLines("content_block_delta", {{"index", 0}, {"delta", {{"type", "text_delta"}, {"text", event.text}}}}));
  }

  Service& service_;
  Engines& engines_;
  Exchange& exchange_;
  std::shared_ptr<Job> job_ = std::make_shared<Job>();
  bool stream_ = false;
  std::string text_;
  std::string stop_;
  FinishReason finish_ = FinishReason::kNone;
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
