// JsonRules: JSON, and what JSON schemas describe, as rules of a grammar; or the same values between marks (decode/quoted_values.h), or with Python's
// words (decode/python_values.h).
//
// A rule is a label to Call. Rules are asked for while the grammar is written, and written themselves at the end, by WriteRules; those of a schema are
// one for each of its parts, so that a schema may refer to itself. What is understood of schemas stands in reprise/grammar.h.
#pragma once

#include <array>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "decode/grammar_builder.h"
#include "decode/json_characters.h"

namespace reprise {

class JsonRules {
 public:
  using Json = nlohmann::ordered_json;  // properties come in the order that the schema has them in
  using Label = GrammarBuilder::Label;

  // kStrict refuses what cannot be enforced; kLenient passes over it.
  enum class Rigour { kStrict, kLenient };

  enum class Notation { kJson, kQuoted, kPython };

  // `mark`: with kQuoted, what texts stand between; neither their length nor a pattern can be held.
  explicit JsonRules(GrammarBuilder& builder, Notation notation = Notation::kJson, std::string_view mark = {})
      : builder_(builder), notation_(notation), mark_(mark), characters_(builder) {
    digits_.fill(-1);
  }
  JsonRules(const JsonRules&) = delete;

  Label Value();   // any
  Label Object();  // any
  // Of `schema`, whose references are into `root`. Both stay until WriteRules. `name` begins what errors say of places in it, such as "#".
  Label Schema(const Json& schema, const Json& root, const std::string& name, Rigour rigour);

  // The fields of an object of it as arguments, (name="text", other=2), with kPython.
  Label Arguments(const Json& schema, const Json& root, const std::string& name, Rigour rigour);

  // After everything else. What was wrong with a schema is said here.
  Status WriteRules();

 private:
  // A schema, and where it is.
  struct Part {
    const Json* schema;
    const Json* root;
    std::string where;
    Rigour rigour;
    Part Under(const Json& part, const std::string& key) const { return {&part, root, where + "/" + key, rigour}; }
  };

  bool quoted() const { return notation_ == Notation::kQuoted; }
  // How it may be written. Python's words and JSON's are both understood.
  std::vector<std::string> Texts(const Json& value) const;
  std::string Written(const Json& value) const { return Texts(value)[0]; }
  Label Space();
  Label String();
  Label BareName();  // of a field, any
  Label Character();
  Label Escape();
  Label Number();
  Label WholeNumber();
  Label Digits(size_t most);  // none to `most`, which is not 0
  Label Array();
  Label RuleOf(const Part& part);
  Label Shared(Label& label, std::function<void()> write);

  void WriteSchema(const Part& part);
  void WriteReference(const Part& part);
  void WriteChoices(const Part& part, const std::string& keyword);
  void WriteConstants(const Part& part);
  void WriteType(const Part& part, const std::string& type);
  // What stands around the fields of an object, and between their names and values.
  struct Fields {
    char open, close;
    std::string_view after_name;
    bool bare_names;
  };
  void WriteFields(const Part& part, const Fields& form);
  void WriteArray(const Part& part);
  void WriteString(const Part& part);
  bool WritePattern(const Part& part);
  void WriteInteger(const Part& part);
  void WriteNumber(const Part& part);
  void WriteBoundedNumber(const Part& part);
  void WriteFraction(std::string_view least, std::string_view most);
  Fields ObjectFields() const { return {'{', '}', ":", quoted()}; }
  void WriteMap(const Fields& form, const std::function<void()>& value);
  // `item` least to most times, with commas, in brackets or braces, after `first` others.
  void WriteList(char open, char close, int least, int most, const std::function<void()>& item, size_t first = 0,
                 const std::function<void(size_t)>& first_item = {});

  bool Refuses(const Part& part, std::initializer_list<const char*> keywords, const std::string& beside = "");
  // The keyword's whole number, or what is said where there is none.
  int Count(const Part& part, const char* keyword, int otherwise);
  // False when a bound is no number, which it says.
  bool ForEachBound(const Part& part, const std::function<void(const Json& value, bool is_least, bool is_exclusive)>& visit);
  std::optional<int> PowerOfTenIn(const Part& part);
  const Json* Resolve(const Part& part, const std::string& reference);
  void Fail(Status why) {
    if (status_.ok()) status_ = std::move(why);
  }

  GrammarBuilder& builder_;
  const Notation notation_;
  const std::string mark_;
  JsonCharacters characters_;
  Status status_;
  std::map<const Json*, Label> parts_;
  std::map<std::string, Label> patterns_, numbers_;  // by what they say
  std::array<Label, 16> digits_;                     // as many as numbers have after the point
  Label space_ = -1, string_ = -1, character_ = -1, escape_ = -1, number_ = -1, whole_number_ = -1, array_ = -1, object_ = -1, value_ = -1,
        name_ = -1;
};

// Whether a schema is of type string; then `texts` are those to choose from, if it names such.
bool DescribesString(const JsonRules::Json& schema, std::vector<std::string>& texts);

}  // namespace reprise
