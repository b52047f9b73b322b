#include "serve/openai_answer.h"

#include <algorithm>

namespace reprise::serve {

OrderedJson UsageJson(std::span<const std::shared_ptr<Job>> jobs) {
  int64_t prompt = 0;
  int64_t cached = 0;
  int64_t predicted = 0;
  for (const auto& job : jobs) {
    prompt += job->prefill.reused + job->prefill.computed;
    cached += job->prefill.reused;
    predicted += job->predicted;
  }
  return {{"prompt_tokens", prompt},
          {"completion_tokens", predicted},
          {"total_tokens", prompt + predicted},
          {"prompt_tokens_details", {{"cached_tokens", cached}}}};
}

OrderedJson TimingsJson(const Job& job) {
  const Timings& t = job.timings;
  const double prompt_n = job.prefill.computed;
  const double predicted_n = job.predicted;
  const auto ratio = [](double a, double b) { return b > 0 ? a / b : 0.0; };
  return {{"cache_n", job.prefill.reused},
          {"prompt_n", job.prefill.computed},
          {"prompt_ms", t.prompt},
          {"prompt_per_token_ms", ratio(t.prompt, prompt_n)},
          {"prompt_per_second", ratio(prompt_n * 1000, t.prompt)},
          {"predicted_n", job.predicted},
          {"predicted_ms", t.predicted},
          {"predicted_per_token_ms", ratio(t.predicted, predicted_n)},
          {"predicted_per_second", ratio(predicted_n * 1000, t.predicted)},
          {"queued_ms", t.queued},
          {"first_token_ms", t.first_token}};
}

OrderedJson RepriseJson(const Job& job) {
  const PrefillReport& prefill = job.prefill;
  OrderedJson json = {
      {"request", job.id},      {"reused", prefill.reused}, {"computed", prefill.computed}, {"tier", TierName(prefill.tier)},
      {"known", prefill.known}, {"capsules", job.capsules}};
  if (!prefill.reason.empty()) json["reason"] = prefill.reason;
  if (prefill.diverged_from != 0) json["diverged_from"] = prefill.diverged_from;
  if (!job.session.empty()) json["session"] = job.session;
  return json;
}

OrderedJson ChatLogprobJson(const Tokenizer& tokenizer, const Event& event) {
  const auto one = [&](int32_t token, float logprob) {
    const std::string_view bytes = tokenizer.TokenBytes(token);
    OrderedJson list = OrderedJson::array();
    for (const char byte : bytes) list.push_back(static_cast<uint8_t>(byte));
    // A probability of zero has no logarithm that JSON could write.
    return OrderedJson{{"token", std::string(bytes)}, {"logprob", std::max(logprob, -9999.0f)}, {"bytes", std::move(list)}};
  };
  OrderedJson json = one(event.token, event.logprobs->chosen);
  json["top_logprobs"] = OrderedJson::array();
  for (const auto& [token, logprob] : event.logprobs->top) json["top_logprobs"].push_back(one(token, logprob));
  return json;
}

const char* FinishWord(FinishReason reason) { return reason == FinishReason::kLength ? "length" : "stop"; }

std::string DataLine(const OrderedJson& json) { return "data: " + Dump(json) + "\n\n"; }

}  // namespace reprise::serve
