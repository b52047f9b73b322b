#include "serve/answer_grammar.h"

#include <fmt/format.h>

#include "decode/json_rules.h"
#include "text/chat_tools.h"

namespace reprise::serve {
namespace {

constexpr int kMostCalls = 16;  // of one answer
constexpr std::string_view kParameterEnd = "\n</parameter>\n";

class AnswerWriter {
 public:
  explicit AnswerWriter(ApiError& error)
      : error_(error),
        rules_(builder_),
        quoted_rules_(builder_, JsonRules::Notation::kQuoted, kGemmaQuote),
        python_rules_(builder_, JsonRules::Notation::kPython) {}

  void WriteThoughts(const ChatFormat& format, const ChatOptions& options) {
    const ThoughtMarkers thoughts = ThoughtMarkersOf(format);
    const auto to_the_end = [&] { builder_.Until(thoughts.end).Repeat(0, 2, [this] { builder_.Literal("\n"); }); };
    if (HasChannels(format)) {
      if (OpensFinal(format, options) || options.thinking == Thinking::kOff) return;
      builder_.Optional([&] {
        WriteHeader(kThoughtsChannel);
        builder_.Until(kMessageEnd).Literal(kMessageStart).Literal("assistant");
      });
    } else if (OpensThoughts(format, options)) {
      to_the_end();
    } else if (MayThink(format) && options.thinking != Thinking::kOff) {
      builder_.Optional([&] {
        builder_.Literal(thoughts.start);
        to_the_end();
      });
    }
  }

  void WriteHeader(std::string_view channel) { builder_.Literal(kChannel).Literal(channel).Literal(kMessage); }

  void WriteJson(const AnswerShape& shape) {
    if (shape.kind == AnswerShape::Kind::kSchema) {
      builder_.Call(rules_.Schema(shape.schema, shape.schema, "#", JsonRules::Rigour::kStrict));
    } else {
      builder_.Call(rules_.Object());
    }
  }

  void WriteCalls(const Tools& tools, ToolForm form) {
    std::vector<const Tool*> callable;
    for (const Tool& tool : tools.list) {
      if (tools.only.empty() || tool.name == tools.only) callable.push_back(&tool);
    }
    if (form == ToolForm::kHarmony) return WriteMessage(callable);
    if (form == ToolForm::kGemma) return WriteQuotedCalls(callable, tools.parallel);
    if (form == ToolForm::kPython) return WritePythonCalls(callable, tools.parallel);
    if (IsJsonList(form)) return WriteCallList(callable, tools.parallel, form);
    const Label call = builder_.NewLabel(), end = builder_.NewLabel();
    builder_.Call(call);
    // Of Llama's form an answer is one call.
    const bool tagged = form == ToolForm::kJson || form == ToolForm::kXml;
    const bool mistral = form == ToolForm::kMistral || form == ToolForm::kMistralIds;
    const auto next = [&] {
      if (!mistral) builder_.Literal("\n");
      builder_.Call(call);
    };
    if (tools.parallel && form != ToolForm::kLlama) builder_.Repeat(0, kMostCalls - 1, next);
    builder_.Jump(end).Place(call);
    if (tagged) builder_.Literal(kToolCallStart).Literal("\n");
    builder_.Literal(mistral ? kMistralCall : form == ToolForm::kXml ? "<function=" : "{\"name\": \"");
    builder_.OneOf(callable.size(), [&](size_t i) {
      const Tool& tool = *callable[i];
      builder_.Literal(tool.name);
      if (form == ToolForm::kXml) {
        builder_.Literal(">\n");
        WriteParameters(tool);
        builder_.Literal("</function>");
      } else {
        if (form == ToolForm::kMistralIds) {
          builder_.Literal(kMistralCallId);
          WriteCallId();
        }
        builder_.Literal(mistral ? kMistralArguments : form == ToolForm::kLlama ? "\", \"parameters\": " : "\", \"arguments\": ");
        builder_.Call(RuleOf(tool));
        if (!mistral) builder_.Literal("}");
      }
    });
    if (tagged) builder_.Literal("\n").Literal(kToolCallEnd);
    builder_.Return().Place(end);
  }

  Grammar Finish(const char* field) {
    builder_.Accept();
    Status status = rules_.WriteRules();
    if (status.ok()) status = quoted_rules_.WriteRules();
    if (status.ok()) status = python_rules_.WriteRules();
    auto grammar = status.ok() ? builder_.Finish() : Result<Grammar>(status);
    if (grammar.ok()) return *std::move(grammar);
    error_.Set(400, grammar.status().message(), field, "invalid_value");
    return Grammar();
  }

  GrammarBuilder& builder() { return builder_; }

 private:
  using Label = GrammarBuilder::Label;

  // Of Harmony's form: an answer is one call, whose header says what it is to before the channel, as the template writes it, or after it, as models do.
  void WriteMessage(const std::vector<const Tool*>& callable) {
    const Label end = builder_.NewLabel(), type = builder_.NewLabel();
    builder_.OneOf(2, [&](size_t form) {
      const bool channel_first = form == 1;
      if (channel_first) builder_.Literal(kChannel).Literal(kCommentaryChannel);
      builder_.Literal(" to=").Literal(kFunctions);
      builder_.OneOf(callable.size(), [&](size_t i) {
        builder_.Literal(callable[i]->name);
        if (!channel_first) builder_.Literal(kChannel).Literal(kCommentaryChannel);
        builder_.Call(type).Call(RuleOf(*callable[i]));
      });
    });
    builder_.Jump(end).Place(type);
    builder_.Literal(" ").Optional([this] { builder_.Literal(kConstrain); });
    builder_.Literal("json").Literal(kMessage).Return().Place(end);
  }

  // All of them. Mistral's older vocabularies put a space before the list.
  void WriteCallList(const std::vector<const Tool*>& callable, bool parallel, ToolForm form) {
    const bool ids = HasCallIds(form);
    const Label call = builder_.NewLabel(), end = builder_.NewLabel();
    builder_.Literal(CallStart(form));
    if (ids) builder_.Optional([this] { builder_.Literal(" "); });
    builder_.Literal("[").Call(call);
    if (parallel) builder_.Repeat(0, kMostCalls - 1, [&] { builder_.Literal(", ").Call(call); });
    builder_.Literal("]").Literal(CallEnd(form)).Jump(end).Place(call).Literal("{\"name\": \"");
    builder_.OneOf(callable.size(),
                   [&](size_t i) { builder_.Literal(callable[i]->name).Literal("\", \"arguments\": ").Call(RuleOf(*callable[i])); });
    if (ids) {
      builder_.Literal(", \"id\": \"");
      WriteCallId();
      builder_.Literal("\"");
    }
    builder_.Literal("}").Return().Place(end);
  }

  // Of LFM2's, as a list.
  void WritePythonCalls(const std::vector<const Tool*>& callable, bool parallel) {
    const auto call = [&] {
      builder_.OneOf(callable.size(), [&](size_t i) {
        const Tool& tool = *callable[i];
        builder_.Literal(tool.name).Call(
            python_rules_.Arguments(ArgumentsOf(tool), tool.parameters, fmt::format("tools '{}'", tool.name), RigourOf(tool)));
      });
    };
    builder_.Literal(kPythonCallStart).Literal("[");
    call();
    const auto next = [&] {
      builder_.Literal(", ");
      call();
    };
    if (parallel) builder_.Repeat(0, kMostCalls - 1, next);
    builder_.Literal("]").Literal(kPythonCallEnd);
  }

  void WriteCallId() {
    builder_.Repeat(9, 9, [this] { builder_.Set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"); });
  }

  // Of Gemma's form, one after the other.
  void WriteQuotedCalls(const std::vector<const Tool*>& callable, bool parallel) {
    builder_.Repeat(1, parallel ? kMostCalls : 1, [&] {
      builder_.Literal(kGemmaCallStart).Literal(kGemmaCall);
      builder_.OneOf(callable.size(), [&](size_t i) { builder_.Literal(callable[i]->name).Call(RuleOf(*callable[i], quoted_rules_)); });
      builder_.Literal(kGemmaCallEnd);
    });
  }

  // Of its arguments.
  Label RuleOf(const Tool& tool) { return RuleOf(tool, rules_); }
  Label RuleOf(const Tool& tool, JsonRules& rules) {
    return rules.Schema(ArgumentsOf(tool), tool.parameters, fmt::format("tools '{}'", tool.name), RigourOf(tool));
  }

  static JsonRules::Rigour RigourOf(const Tool& tool) { return tool.strict ? JsonRules::Rigour::kStrict : JsonRules::Rigour::kLenient; }

  // Arguments are an object, whether the schema says so or not.
  const Json& ArgumentsOf(const Tool& tool) {
    if (tool.parameters.contains("type") || tool.parameters.contains("$ref") || tool.parameters.contains("anyOf")) return tool.parameters;
    static const Json kAnyArguments = {{"type", "object"}};
    return tool.parameters.contains("properties") ? tool.parameters : kAnyArguments;
  }

  // Texts bare, up to the end of the parameter; all else as JSON.
  void WriteParameters(const Tool& tool) {
    const auto properties = tool.parameters.find("properties");
    if (properties == tool.parameters.end() || !properties->is_object()) return;
    const auto required = tool.parameters.find("required");
    for (const auto& [name, schema] : properties->items()) {
      if (name.find_first_of(">\n") != std::string::npos) {
        return error_.Set(400, fmt::format("no call can be written that names the parameter '{}' of '{}'", name, tool.name), "tools",
                          "invalid_value");
      }
      const auto write = [&, &key = name, &value = schema] {
        builder_.Literal("<parameter=" + key + ">\n");
        std::vector<std::string> texts;
        if (!DescribesString(value, texts)) {
          builder_.Call(rules_.Schema(value, tool.parameters, fmt::format("tools '{}' {}", tool.name, key), RigourOf(tool)))
              .Literal(kParameterEnd);
        } else if (texts.empty()) {
          builder_.Until(kParameterEnd);
        } else {
          for (std::string& text : texts) text += kParameterEnd;
          builder_.OneOfTexts(std::move(texts));
        }
      };
      const bool must = required != tool.parameters.end() && required->is_array() &&
                        std::find(required->begin(), required->end(), Json(name)) != required->end();
      if (must) {
        write();
      } else {
        builder_.Optional(write);
      }
    }
  }

  ApiError& error_;
  GrammarBuilder builder_;
  JsonRules rules_, quoted_rules_, python_rules_;
};

}  // namespace

AnswerShape ReadResponseFormat(Fields& fields) {
  AnswerShape shape;
  const Json* format = fields.Object("response_format");
  if (format == nullptr) return shape;
  Fields inner(*format, fields.error(), "response_format.");
  const std::string type = inner.String("type").value_or("text");
  if (type == "json_object") {
    shape.kind = AnswerShape::Kind::kJson;
  } else if (type == "json_schema") {
    shape.kind = AnswerShape::Kind::kSchema;
    const Json* given = inner.Object("json_schema");
    const Json* schema = given == nullptr ? nullptr : Fields(*given, fields.error(), "response_format.json_schema.").Object("schema");
    if (schema == nullptr) {
      inner.Fail("json_schema", "must have a 'schema'");
    } else {
      shape.schema = *schema;
    }
  } else if (type != "text") {
    inner.Fail("type", "must be 'text', 'json_object' or 'json_schema'");
  }
  return shape;
}

Grammar GrammarOf(const AnswerShape& shape, ApiError& error) {
  if (shape.kind == AnswerShape::Kind::kText || !error.ok()) return Grammar();
  AnswerWriter writer(error);
  writer.WriteJson(shape);
  return writer.Finish("response_format");
}

Grammar GrammarOf(const AnswerShape& shape, const Tools& tools, const ChatFormat& format, const ChatOptions& options, ApiError& error) {
  const bool must_call = tools.choice == Tools::Choice::kRequired;
  if ((shape.kind == AnswerShape::Kind::kText && !must_call) || !error.ok()) return Grammar();
  const bool calls = tools.callable() && format.tools != ToolForm::kNone;
  AnswerWriter writer(error);
  writer.WriteThoughts(format, options);
  const bool json = !must_call;
  writer.builder().OneOf((calls ? 1 : 0) + (json ? 1 : 0), [&](size_t i) {
    if (calls && i == 0) {
      writer.WriteCalls(tools, format.tools);
    } else {
      if (HasChannels(format) && !OpensFinal(format, options)) writer.WriteHeader(kFinalChannel);
      writer.WriteJson(shape);
    }
  });
  return writer.Finish(must_call ? "tools" : "response_format");
}

}  // namespace reprise::serve
