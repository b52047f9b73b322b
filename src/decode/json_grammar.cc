// The grammars of JSON that sessions are given (reprise/grammar.h).
#include "decode/json_rules.h"

namespace reprise {

Grammar Grammar::JsonObject() {
  GrammarBuilder builder;
  JsonRules rules(builder);
  builder.Call(rules.Object()).Accept();
  (void)rules.WriteRules();  // only schemas can be wrong
  return *builder.Finish();
}

Result<Grammar> Grammar::JsonSchema(std::string_view text) {
  constexpr int kMostDepth = 200;  // what it is written with goes as deep
  bool deep = false;
  const auto shallow = [&](int depth, JsonRules::Json::parse_event_t, JsonRules::Json&) { return !(deep = deep || depth > kMostDepth); };
  const JsonRules::Json schema = JsonRules::Json::parse(text, shallow, /*allow_exceptions=*/false);
  if (deep) return InvalidArgument("the schema is deeper than " + std::to_string(kMostDepth) + " levels");
  if (schema.is_discarded()) return InvalidArgument("the schema is no JSON");
  GrammarBuilder builder;
  JsonRules rules(builder);
  builder.Call(rules.Schema(schema, schema, "#", JsonRules::Rigour::kStrict)).Accept();
  REPRISE_RETURN_IF_ERROR(rules.WriteRules());
  return builder.Finish();
}

}  // namespace reprise
