// /v1/models, /v1/chat/completions and /v1/completions.
#include <fmt/format.h>

#include <chrono>

#include "serve/answer_grammar.h"
#include "serve/chat_messages.h"
#include "serve/generate_request.h"
#include "serve/openai_answer.h"
#include "serve/reply.h"

namespace reprise::serve {
namespace {

constexpr int kMostPrompts = 64;
constexpr int kMostTopLogprobs = 20;

int64_t Now() { return std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch()).count(); }

// One request of either route, from its jobs to the end of its answer.
class Answer {
 public:
  Answer(Service& service, Engines& engines, Exchange& exchange, bool chat)
      : service_(service), engines_(engines), exchange_(exchange), chat_(chat), created_(Now()) {
    id_ = NewId(chat ? "chatcmpl-" : "cmpl-");
  }

  // What both routes read alike.
  void ReadCommon(Fields& fields) {
    bool any_sampling = false;
    sampling_ = ReadSampling(fields, any_sampling);
    sampling_given_ = any_sampling;
    stream_ = fields.Bool("stream").value_or(false);
    if (const Json* options = fields.Object("stream_options")) {
      include_usage_ = Fields(*options, fields.error(), "stream_options.").Bool("include_usage").value_or(false);
    }
    choices_ = static_cast<int>(fields.Integer("n", 1, service_.most_choices).value_or(1));
    max_tokens_ = static_cast<int>(fields.Integer("max_tokens", -1, INT32_MAX).value_or(-1));
    max_tokens_ = static_cast<int>(fields.Integer("max_completion_tokens", 0, INT32_MAX).value_or(max_tokens_));
    progress_ = fields.Bool("return_progress").value_or(false);
    keep_ = fields.Bool("keep").value_or(false);
    shape_ = ReadResponseFormat(fields);
  }

  void ReadChat(const Json& body, const Caller& caller, ApiError& error) {
    Fields fields(body, error);
    ReadCommon(fields);
    const bool logprobs = fields.Bool("logprobs").value_or(false);
    const auto top = fields.Integer("top_logprobs", 0, kMostTopLogprobs);
    if (top && !logprobs) fields.Fail("top_logprobs", "needs 'logprobs' to be true");
    if (logprobs) top_logprobs_ = static_cast<int>(top.value_or(0));
    tools_ = ReadTools(fields);
    const std::vector<ChatMessage> messages = ReadMessages(fields);
    ChatOptions options = ReadChatOptions(fields);
    if (!error.ok()) return;
    const Continued continued = ReadContinued(engines_, caller, fields);
    options.after_result = !messages.empty() && messages.back().role == "tool";
    if (engines_.chat) {
      options.thinking = ThinkingFor(*engines_.chat, messages, options.thinking);
      tools_.Tell(*engines_.chat, options);
      StopAfterCall(*engines_.chat, tools_, sampling_);
      sampling_.grammar = GrammarOf(shape_, tools_, *engines_.chat, options, error);
      replies_.assign(static_cast<size_t>(choices_), Reply(FormOf(*engines_.chat, options, tools_), "call_"));
    }
    const auto job = NewJob(caller, 0);
    FillChatPrompt(engines_, messages, continued, options, *job, error);
    jobs_.push_back(job);
  }

  void ReadCompletion(const Json& body, const Caller& caller, ApiError& error) {
    Fields fields(body, error);
    ReadCommon(fields);
    if (!fields.Find("max_tokens") && !fields.Find("max_completion_tokens")) max_tokens_ = 16;  // as OpenAI's
    if (const Json* logprobs = fields.Find("logprobs"); logprobs != nullptr && !logprobs->is_boolean()) {
      if (const auto top = fields.Integer("logprobs", 0, kMostTopLogprobs)) top_logprobs_ = static_cast<int>(*top);
    } else if (logprobs != nullptr && logprobs->get<bool>()) {
      top_logprobs_ = 0;
    }
    echo_ = fields.Bool("echo").value_or(false);
    if (echo_ && top_logprobs_ >= 0) fields.Fail("echo", "cannot be combined with 'logprobs'");
    if (const auto best = fields.Integer("best_of", 1, service_.most_choices); best && *best != choices_) {
      fields.Fail("best_of", "must equal 'n'");
    }
    if (const auto suffix = fields.String("suffix"); suffix && !suffix->empty()) fields.Fail("suffix", "is not supported");
    sampling_.grammar = GrammarOf(shape_, error);
    sampling_given_ = sampling_given_ || sampling_.grammar.present();
    if (!error.ok()) return;
    const Continued continued = ReadContinued(engines_, caller, fields);
    std::vector<std::vector<int32_t>> prompts = ReadPrompts(fields, continued);
    if (!error.ok()) return;
    if (prompts.size() > 1 && !continued.session.empty()) fields.Fail("session", "goes with one prompt");
    for (size_t i = 0; i < prompts.size(); ++i) {
      const auto job = NewJob(caller, i);
      job->session = continued.session;
      if (prompts[i].empty() && continued.any()) {
        // Nothing new: what the capsule held goes on exactly, with its own sampler unless another is given.
        job->resume = continued.entry->id;
        if (!sampling_given_) job->sampling.reset();
      } else {
        job->prompt = continued.tokens;
        job->prompt.insert(job->prompt.end(), prompts[i].begin(), prompts[i].end());
      }
      if (echo_) echoes_.push_back(engines_.tokenizer().Decode(prompts[i]));
      jobs_.push_back(job);
    }
  }

  void Run(ApiError& error) {
    for (const auto& job : jobs_) {
      if (!CheckPrompt(engines_, *job, error)) return;
    }
    if (!SubmitAll(service_, jobs_, error)) return;
    choice_texts_.resize(jobs_.size() * static_cast<size_t>(choices_));
    choice_finishes_.assign(choice_texts_.size(), FinishReason::kNone);
    choice_logprobs_.assign(choice_texts_.size(), OrderedJson::array());
    const bool ended = FollowAll(
        {service_, exchange_, jobs_, [&](size_t index, const Event& event) { return Take(index, event); }, [&] { return Ping(); }}, error);
    for (const Reply& reply : replies_) reply.Remember(engines_.answers, *jobs_[0]);
    if (!stream_) {
      if (ended) exchange_.Respond(200, kJsonType, Dump(Whole()));
      return;
    }
    if (!ended && !exchange_.streaming()) return;  // an error that can still be an answer
    if (ended) {
      Begin();
      if (include_usage_) {
        OrderedJson last = Chunk(OrderedJson::array());
        last["usage"] = UsageJson(jobs_);
        exchange_.Write(DataLine(last));
      }
    } else if (!error.ok()) {
      exchange_.Write("data: " + OpenAiErrorBody(error) + "\n\n");
    }
    exchange_.Write("data: [DONE]\n\n");
    exchange_.EndStream();
  }

  const Jobs& jobs() const { return jobs_; }

 private:
  std::shared_ptr<Job> NewJob(const Caller& caller, size_t index) const {
    auto job = std::make_shared<Job>();
    job->id = index == 0 ? id_ : fmt::format("{}-{}", id_, index);
    job->name_space = caller.name_space;
    job->sampling = sampling_;
    job->choices = choices_;
    job->max_tokens = max_tokens_;
    job->top_logprobs = top_logprobs_;
    job->progress = progress_ && stream_;
    job->keep = keep_;
    return job;
  }

  std::vector<std::vector<int32_t>> ReadPrompts(Fields& fields, const Continued& continued) {
    const Tokenizer& tokenizer = engines_.tokenizer();
    const bool bos = tokenizer.add_bos() && !continued.any();
    const Json* prompt = fields.Find("prompt");
    if (prompt == nullptr) {
      if (!continued.any()) fields.Fail("prompt", "is missing");
      return {{}};
    }
    const auto text = [&](const Json& one) { return tokenizer.Encode(one.get_ref<const std::string&>(), {.add_bos = bos}); };
    const auto is_ids = [](const Json& list) {
      return list.is_array() && std::all_of(list.begin(), list.end(), [](const Json& id) { return id.is_number_integer(); });
    };
    const auto ids = [](const Json& list) {
      std::vector<int32_t> tokens;
      for (const Json& id : list) {
        const auto value = id.is_number_unsigned() && id.get<uint64_t>() > INT32_MAX ? -1 : id.get<int64_t>();
        tokens.push_back(value < 0 || value > INT32_MAX ? -1 : static_cast<int32_t>(value));
      }
      return tokens;
    };
    std::vector<std::vector<int32_t>> prompts;
    if (prompt->is_string()) {
      prompts.push_back(text(*prompt));
    } else if (is_ids(*prompt) && !prompt->empty()) {
      prompts.push_back(ids(*prompt));
    } else if (prompt->is_array() && !prompt->empty() && prompt->size() <= kMostPrompts) {
      for (const Json& one : *prompt) {
        if (one.is_string()) {
          prompts.push_back(text(one));
        } else if (is_ids(one)) {
          prompts.push_back(ids(one));
        } else {
          fields.Fail("prompt", "must be a string, a list of token ids, or a list of either");
          return {};
        }
      }
    } else {
      fields.Fail("prompt", fmt::format("must be a string, a list of token ids, or a list of at most {} of either", kMostPrompts));
    }
    return prompts;
  }

  int IndexOf(size_t job, int choice) const { return static_cast<int>(job) * choices_ + choice; }

  OrderedJson Chunk(OrderedJson choices) const {
    OrderedJson json = {{"id", id_},
                        {"object", chat_ ? "chat.completion.chunk" : "text_completion"},
                        {"created", created_},
                        {"model", engines_.model_id},
                        {"choices", std::move(choices)}};
    if (include_usage_) json["usage"] = nullptr;
    return json;
  }

  bool Begin() {
    if (exchange_.streaming()) return true;
    if (!exchange_.StartStream(kEventStream)) return false;
    for (size_t i = 0; i < choice_texts_.size(); ++i) {
      if (chat_) {
        const OrderedJson choice = {
            {"index", i}, {"delta", {{"role", "assistant"}, {"content", ""}}}, {"logprobs", nullptr}, {"finish_reason", nullptr}};
        if (!exchange_.Write(DataLine(Chunk({choice})))) return false;
      } else if (echo_) {
        const OrderedJson choice = {
            {"index", i}, {"text", echoes_[i / static_cast<size_t>(choices_)]}, {"logprobs", nullptr}, {"finish_reason", nullptr}};
        if (!exchange_.Write(DataLine(Chunk({choice})))) return false;
      }
    }
    return true;
  }

  bool Ping() {
    written_ = Clock::now();
    return !stream_ || (Begin() && exchange_.Write(": still working\n\n"));
  }

  bool Take(size_t job, const Event& event) {
    if (event.kind == Event::Kind::kStarted) return true;
    if (event.kind == Event::Kind::kProgress) {
      OrderedJson chunk = Chunk(OrderedJson::array());
      chunk["prompt_progress"] = {{"total", event.total},
                                  {"cache", event.prefill.reused},
                                  {"processed", event.done},
                                  {"time_ms", std::chrono::duration<double, std::milli>(Clock::now() - jobs_[job]->submitted).count()}};
      return Begin() && exchange_.Write(DataLine(chunk));
    }
    const auto index = static_cast<size_t>(IndexOf(job, event.choice));
    return stream_ ? TakeStreamed(index, event) : TakeWhole(index, event);
  }

  bool TakeWhole(size_t index, const Event& event) {
    if (chat_) {
      (void)replies_[index].Take(event, engines_.tokenizer());
    } else {
      choice_texts_[index] += event.text;
    }
    if (event.finish != FinishReason::kNone) choice_finishes_[index] = event.finish;
    if (event.logprobs) AddLogprob(choice_logprobs_[index], event);
    return true;
  }

  bool TakeStreamed(size_t index, const Event& event) {
    if (!Begin()) return false;
    OrderedJson logprobs;
    if (event.logprobs) {
      OrderedJson list = OrderedJson::array();
      AddLogprob(list, event);
      logprobs = LogprobsJson(std::move(list), index);
    }
    std::vector<OrderedJson> deltas;
    if (chat_) {
      for (const ReplyPiece& piece : replies_[index].Take(event, engines_.tokenizer())) AddDeltas(replies_[index], piece, deltas);
      if (event.logprobs && deltas.empty()) deltas.push_back({{"content", ""}});
    } else {
      choice_texts_[index] += event.text;
      if (!event.text.empty() || event.logprobs) deltas.emplace_back(event.text);
    }
    const bool ends = event.finish != FinishReason::kNone;
    // While a call is made there is nothing to tell, and clients do not wait for ever.
    if (deltas.empty() && !ends) return Clock::now() - written_ < service_.ping || Ping();
    if (ends && (chat_ || deltas.empty())) deltas.push_back(chat_ ? OrderedJson::object() : OrderedJson(""));
    std::string out;
    for (size_t i = 0; i < deltas.size(); ++i) {
      const bool last = ends && i + 1 == deltas.size();
      const OrderedJson choice = {{"index", index},
                                  {chat_ ? "delta" : "text", std::move(deltas[i])},
                                  {"logprobs", i == 0 ? logprobs : OrderedJson()},
                                  {"finish_reason", last ? OrderedJson(FinishOf(index, event.finish)) : OrderedJson()}};
      OrderedJson chunk = Chunk({choice});
      // With the last choice's end, where everything is known; a chunk without a choice would be a surprise to many clients.
      if (last && ++ended_ == choice_texts_.size()) {
        chunk["timings"] = TimingsJson(*jobs_[0]);
        chunk["reprise"] = RepriseJson(*jobs_[0]);
      }
      out += DataLine(chunk);
    }
    written_ = Clock::now();
    return exchange_.Write(out);
  }

  // A call comes as its name and then its arguments.
  static void AddDeltas(const Reply& reply, const ReplyPiece& piece, std::vector<OrderedJson>& deltas) {
    if (piece.kind == AnswerPiece::Kind::kText) return deltas.push_back({{"content", piece.text}});
    if (piece.kind == AnswerPiece::Kind::kThoughts) return deltas.push_back({{"reasoning_content", piece.text}});
    const auto& calls = reply.message().tool_calls;
    size_t number = 0;
    while (calls[number].id != piece.call.id) ++number;
    OrderedJson opening = CallJson(piece.call);
    opening["function"]["arguments"] = "";
    OrderedJson call = {{"index", number}};
    call.update(opening);
    deltas.push_back({{"tool_calls", OrderedJson::array({std::move(call)})}});
    deltas.push_back(
        {{"tool_calls", OrderedJson::array({OrderedJson{{"index", number}, {"function", {{"arguments", piece.call.arguments}}}}})}});
  }

  static OrderedJson CallJson(const ChatToolCall& call) {
    return {{"id", call.id}, {"type", "function"}, {"function", {{"name", call.name}, {"arguments", call.arguments}}}};
  }

  const char* FinishOf(size_t index, FinishReason reason) const {
    return reason == FinishReason::kStop && chat_ && replies_[index].calls() ? "tool_calls" : FinishWord(reason);
  }

  static OrderedJson MessageJson(const Reply& reply) {
    const ChatMessage& said = reply.message();
    OrderedJson message = {{"role", "assistant"}, {"content", said.content}, {"refusal", nullptr}};
    if (reply.calls() && said.content.empty()) message["content"] = nullptr;
    if (!said.reasoning.empty()) message["reasoning_content"] = said.reasoning;
    for (const ChatToolCall& call : said.tool_calls) message["tool_calls"].push_back(CallJson(call));
    return message;
  }

  void AddLogprob(OrderedJson& list, const Event& event) { list.push_back(ChatLogprobJson(engines_.tokenizer(), event)); }

  // As each route has them, from what ChatLogprobJson wrote.
  OrderedJson LogprobsJson(OrderedJson list, size_t index) const {
    if (chat_) return {{"content", std::move(list)}, {"refusal", nullptr}};
    OrderedJson json = {{"tokens", OrderedJson::array()},
                        {"token_logprobs", OrderedJson::array()},
                        {"top_logprobs", OrderedJson::array()},
                        {"text_offset", OrderedJson::array()}};
    size_t offset = stream_ ? choice_texts_[index].size() : 0;
    for (const OrderedJson& one : list) {
      OrderedJson top = OrderedJson::object();
      for (const OrderedJson& other : one["top_logprobs"]) top[other["token"].get<std::string>()] = other["logprob"];
      json["tokens"].push_back(one["token"]);
      json["token_logprobs"].push_back(one["logprob"]);
      json["top_logprobs"].push_back(std::move(top));
      json["text_offset"].push_back(offset);
      offset += one["token"].get_ref<const std::string&>().size();
    }
    return json;
  }

  OrderedJson Whole() {
    OrderedJson choices = OrderedJson::array();
    for (size_t i = 0; i < choice_texts_.size(); ++i) {
      OrderedJson choice = {{"index", i}};
      if (chat_) {
        choice["message"] = MessageJson(replies_[i]);
      } else {
        choice["text"] = (echo_ ? echoes_[i / static_cast<size_t>(choices_)] : "") + choice_texts_[i];
      }
      choice["logprobs"] = top_logprobs_ >= 0 ? LogprobsJson(std::move(choice_logprobs_[i]), i) : OrderedJson();
      choice["finish_reason"] = FinishOf(i, choice_finishes_[i]);
      choices.push_back(std::move(choice));
    }
    return {{"id", id_},
            {"object", chat_ ? "chat.completion" : "text_completion"},
            {"created", created_},
            {"model", engines_.model_id},
            {"choices", std::move(choices)},
            {"usage", UsageJson(jobs_)},
            {"timings", TimingsJson(*jobs_[0])},
            {"reprise", RepriseJson(*jobs_[0])}};
  }

  Service& service_;
  Engines& engines_;
  Exchange& exchange_;
  const bool chat_;
  const int64_t created_;
  std::string id_;
  Jobs jobs_;

  SamplingOptions sampling_;
  bool sampling_given_ = false;
  bool stream_ = false;
  bool include_usage_ = false;
  bool progress_ = false;
  bool keep_ = false;
  bool echo_ = false;
  int choices_ = 1;
  int max_tokens_ = -1;
  int top_logprobs_ = -1;
  std::vector<std::string> echoes_;  // of each prompt
  Tools tools_;                      // of a chat
  AnswerShape shape_;
  std::vector<Reply> replies_;  // of a chat, one for each choice

  size_t ended_ = 0;
  Clock::time_point written_ = Clock::now();
  std::vector<std::string> choice_texts_;
  std::vector<FinishReason> choice_finishes_;
  std::vector<OrderedJson> choice_logprobs_;
};

void Serve(Service& service, Engines& engines, Exchange& exchange, const Caller& caller, bool chat) {
  ApiError error;
  const Json body = ParseObject(exchange.request().body, error);
  Answer answer(service, engines, exchange, chat);
  if (error.ok()) chat ? answer.ReadChat(body, caller, error) : answer.ReadCompletion(body, caller, error);
  if (error.ok()) answer.Run(error);
  if (!error.ok() && exchange.status() == 0) RespondError(exchange, error);
}

}  // namespace

void ServeChat(Service& service, Engines& engines, Exchange& exchange, const Caller& caller) {
  Serve(service, engines, exchange, caller, true);
}

void ServeCompletions(Service& service, Engines& engines, Exchange& exchange, const Caller& caller) {
  Serve(service, engines, exchange, caller, false);
}

void ServeModels(Service& service, Engines& engines, Exchange& exchange, const Caller&) {
  const ModelInfo& info = engines.model.info();
  const OrderedJson model = {
      {"id", engines.model_id},
      {"object", "model"},
      {"created", service.started},
      {"owned_by", "reprise"},
      {"meta", {{"n_ctx", info.context}, {"n_vocab", info.vocabulary}, {"n_params", info.parameters}, {"size", info.file_bytes}}}};
  const auto& segments = exchange.request().segments;
  if (segments.size() == 2) {
    exchange.Respond(200, kJsonType, Dump(OrderedJson{{"object", "list"}, {"data", {model}}}));
  } else if (segments[2] == engines.model_id) {
    exchange.Respond(200, kJsonType, Dump(model));
  } else {
    RespondError(exchange, {404, "there is no such model here", "model", "model_not_found"});
  }
}

}  // namespace reprise::serve
