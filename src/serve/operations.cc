// /props, /tokenize, /detokenize and /slots.
#include "serve/json_fields.h"
#include "serve/service.h"

namespace reprise::serve {

void ServeProps(Service& service, Engines& engines, Exchange& exchange, const Caller&) {
  const ModelInfo& info = engines.model.info();
  OrderedJson json = {{"model", engines.model_id},
                      {"architecture", info.architecture},
                      {"parameters", info.parameters},
                      {"fingerprint", info.fingerprint.Hex()},
                      {"backend", info.backend},
                      {"n_ctx", info.context},
                      {"n_vocab", info.vocabulary},
                      {"total_slots", std::max(1, info.lanes - 1)},
                      {"chat_template", engines.chat ? OrderedJson(ChatStyleName(engines.chat->style)) : OrderedJson()},
                      {"default_generation_settings", {{"n_ctx", info.context}, {"params", {{"temperature", 1}, {"top_p", 1}}}}},
                      {"most_choices", service.most_choices},
                      {"store", nullptr}};
  if (!engines.chat) json["no_chat"] = engines.no_chat.message();
  if (CapsuleStore* store = engines.model.store()) {
    const CapsuleStore::Stats stats = store->stats();
    json["store"] = {{"memory_bytes", stats.memory_bytes},
                     {"memory_budget", stats.memory_budget},
                     {"disk_bytes", stats.disk_bytes},
                     {"disk_budget", stats.disk_budget}};
  }
  exchange.Respond(200, kJsonType, Dump(json));
}

void ServeTokenize(Service&, Engines& engines, Exchange& exchange, const Caller&) {
  ApiError error;
  const Json body = ParseObject(exchange.request().body, error);
  Fields fields(body, error);
  const auto content = fields.String("content");
  if (!content) fields.Fail("content", "is missing");
  const bool add_special = fields.Bool("add_special").value_or(false);
  const bool parse_special = fields.Bool("parse_special").value_or(false);
  const bool pieces = fields.Bool("with_pieces").value_or(false);
  if (!error.ok()) return RespondError(exchange, error);
  const Tokenizer& tokenizer = engines.tokenizer();
  OrderedJson tokens = OrderedJson::array();
  for (const int32_t id : tokenizer.Encode(*content, {.add_bos = add_special && tokenizer.add_bos(), .parse_special = parse_special})) {
    if (pieces) {
      tokens.push_back({{"id", id}, {"piece", std::string(tokenizer.TokenBytes(id))}});
    } else {
      tokens.push_back(id);
    }
  }
  exchange.Respond(200, kJsonType, Dump(OrderedJson{{"tokens", std::move(tokens)}}));
}

void ServeDetokenize(Service&, Engines& engines, Exchange& exchange, const Caller&) {
  ApiError error;
  const Json body = ParseObject(exchange.request().body, error);
  Fields fields(body, error);
  const Json* list = fields.Array("tokens");
  if (list == nullptr) fields.Fail("tokens", "is missing");
  std::vector<int32_t> tokens;
  for (size_t i = 0; list != nullptr && error.ok() && i < list->size(); ++i) {
    const Json& id = (*list)[i];
    const int64_t value = id.is_number_unsigned() ? static_cast<int64_t>(std::min<uint64_t>(id.get<uint64_t>(), INT32_MAX)) : -1;
    if (value < 0 || value >= engines.model.info().vocabulary) {
      fields.Fail("tokens", "must be a list of token ids of this model's vocabulary");
    } else {
      tokens.push_back(static_cast<int32_t>(value));
    }
  }
  if (!error.ok()) return RespondError(exchange, error);
  exchange.Respond(200, kJsonType, Dump(OrderedJson{{"content", engines.tokenizer().Decode(tokens)}}));
}

void ServeSlots(Service&, Engines& engines, Exchange& exchange, const Caller& caller) {
  OrderedJson slots = OrderedJson::array();
  const int lanes = std::max(1, engines.model.info().lanes - 1);
  for (const Scheduler::LineView& line : engines.scheduler.Lines()) {
    OrderedJson slot = {{"id", slots.size()}, {"is_processing", true}};
    // Of another key's work nothing shows but that it is there.
    if (line.name_space == caller.name_space) {
      slot.update({{"request", line.job},
                   {"choice", line.choice},
                   {"phase", line.prefilling ? "prefill" : "decode"},
                   {"n_prompt_tokens", line.prompt},
                   {"n_reused", line.reused},
                   {"n_past", line.position},
                   {"n_decoded", line.generated}});
    }
    slots.push_back(std::move(slot));
  }
  while (static_cast<int>(slots.size()) < lanes) slots.push_back({{"id", slots.size()}, {"is_processing", false}});
  exchange.Respond(200, kJsonType, Dump(slots));
}

}  // namespace reprise::serve
