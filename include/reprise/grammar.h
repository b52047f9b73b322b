// Grammar: which texts a generation may write. Every token chosen keeps to it, so what is generated is the beginning of a text of the grammar,
// and all of one when the generation ends by itself.
//
// Where the text stands within the grammar is state like any other: it lies in the session's capsules, so a snapshot in the middle of an object
// goes on in the middle of that object.
//
// What the text is follows the model's wishes among what is allowed: the logits of tokens that cannot follow count as minus infinity, before
// anything else that SamplingOptions says.
//
// A value; copy it freely.
#pragma once

#include <string>
#include <string_view>

#include "reprise/status.h"

namespace reprise {

class Grammar {
 public:
  // Any text.
  Grammar() = default;

  // A JSON object, with white space as it is usually written: between parts a space, or a line break and indentation.
  static Grammar JsonObject();

  // What a JSON schema describes. Every text of the grammar satisfies the schema (of `oneOf` any choice is taken for satisfied), but not every
  // instance has a text: properties come in the order of the schema, an object with properties has no others, integers have at most 18 digits and
  // numbers 15 before the point and after it, and parts nest to twenty or thirty levels. Numbers with bounds have no exponent and, between bounds
  // below 10^n, up to 15 - n digits after the point, which a double tells from the bounds. A string with a pattern has each character as itself, or as
  // an escape where JSON wants one; a pattern that may be followed in very many ways at a time may not find all its strings. `format`, `title`,
  // `description`, `default` and `examples` say nothing of the text.
  //
  // Understood are type, properties, required, additionalProperties, items, prefixItems, minItems, maxItems, enum, const, anyOf, oneOf, allOf of one,
  // minLength, maxLength, pattern, minimum, maximum and their exclusive forms, multipleOf powers of ten, and $ref within the schema. kUnsupported names
  // any other keyword that would have to be enforced, and where it stands; kInvalidArgument says what is no schema.
  //
  // A pattern is a regular expression of ECMA-262, looked for anywhere in the string; ^ and $ may stand at the ends of the whole or of its
  // alternatives. Refused are what looks around (\b too) or back, properties of Unicode (\p), and minLength or maxLength beside it. Bounds of numbers
  // are decimals of up to 15 digits.
  static Result<Grammar> JsonSchema(std::string_view schema);

  // The grammar as bytes, and the grammar of such bytes; empty for any text. kInvalidArgument for what no code() gave.
  const std::string& code() const { return code_; }
  static Result<Grammar> FromCode(std::string code);
  static constexpr size_t kMostBytes = 8188;

  bool present() const { return !code_.empty(); }
  bool operator==(const Grammar&) const = default;

 private:
  std::string code_;
};

}  // namespace reprise
