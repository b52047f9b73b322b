#include "serve/call_reader.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "decode/python_values.h"
#include "decode/quoted_values.h"
#include "serve/answer_text.h"
#include "text/chat_tools.h"

namespace reprise::serve {
namespace {

constexpr std::string_view kFunction = "<function=";
constexpr std::string_view kFunctionEnd = "</function>";
constexpr std::string_view kParameter = "<parameter=";
constexpr std::string_view kParameterEnd = "</parameter>";
constexpr int kMostDepth = 64;

bool BelongsInJson(char c) {
  return IsSpace(c) || (c >= '0' && c <= '9') || std::string_view("{}[]:,+-.\"eEtrufalsn").find(c) != std::string_view::npos;
}

// A parameter's value of a type that is not text is JSON; where it is not, or the type is not known, it is text.
Json TypedValue(const Json& schema, const std::string& key, std::string_view text) {
  const auto properties = schema.find("properties");
  const bool declared = properties != schema.end() && properties->is_object() && properties->contains(key);
  const Json* type = nullptr;
  if (declared && (*properties)[key].is_object() && (*properties)[key].contains("type")) type = &(*properties)[key]["type"];
  const bool text_type = !declared || (type != nullptr && *type == "string");
  if (!text_type) {
    int depth = 0;
    int deepest = 0;
    for (const char c : text) {
      if (c == '[' || c == '{') deepest = std::max(deepest, ++depth);
      if (c == ']' || c == '}') --depth;
    }
    Json value = deepest <= kMostDepth ? Json::parse(text, nullptr, /*allow_exceptions=*/false) : Json(Json::value_t::discarded);
    if (!value.is_discarded()) return value;
  }
  return Json(std::string(text));
}

// <function=NAME> and parameters, which were scanned already.
bool ParseParameters(std::string_view body, const Tools& tools, ToolUse& use) {
  const size_t name = kFunction.size();
  const size_t name_end = body.find('>');
  use.name = body.substr(name, name_end - name);
  const Tool* tool = tools.Find(use.name);
  if (tool == nullptr) return false;
  use.arguments = Json::object();
  for (size_t at = SkipSpace(body, name_end + 1); body.substr(at).starts_with(kParameter); at = SkipSpace(body, at)) {
    const size_t key = at + kParameter.size();
    const size_t key_end = body.find('>', key);
    const size_t end = body.find(kParameterEnd, key_end);
    std::string_view value = body.substr(key_end + 1, end - key_end - 1);
    if (value.starts_with('\n')) value.remove_prefix(1);
    if (value.ends_with('\n')) value.remove_suffix(1);
    const std::string key_name(body.substr(key, key_end - key));
    if (use.arguments.size() >= kMostFields) return false;
    use.arguments[key_name] = TypedValue(tool->parameters, key_name, value);
    at = end + kParameterEnd.size();
  }
  return true;
}

bool ParseObjectCall(std::string_view body, const Tools& tools, ToolUse& use) {
  if (!BoundedJson(body)) return false;
  Json call = Json::parse(body, nullptr, /*allow_exceptions=*/false);
  if (!call.is_object() || !call.contains("name") || !call["name"].is_string()) return false;
  use.name = call["name"].get<std::string>();
  if (tools.Find(use.name) == nullptr) return false;
  if (call.contains("id") && call["id"].is_string()) use.id = call["id"].get<std::string>();
  const char* key = call.contains("arguments") ? "arguments" : "parameters";
  if (!call.contains(key)) {
    use.arguments = Json::object();
    return true;
  }
  Json& arguments = call[key];
  // Some models quote them once more.
  if (arguments.is_string() && BoundedJson(arguments.get_ref<const std::string&>())) {
    arguments = Json::parse(arguments.get<std::string>(), nullptr, /*allow_exceptions=*/false);
  }
  if (!arguments.is_object()) return false;
  use.arguments = std::move(arguments);
  return true;
}

bool ParsePythonArguments(const Tool& tool, std::string_view body, ToolUse& use) {
  std::vector<std::string> names;
  if (const Json& properties = In(tool.parameters, "properties"); properties.is_object()) {
    for (const auto& [name, schema] : properties.items()) names.push_back(name);
  }
  auto arguments = ReadPythonArguments(body, names);
  if (!arguments) return false;
  use.arguments = *std::move(arguments);
  return true;
}

bool ParseArguments(ToolForm form, const Tools& tools, const std::string& name, std::string_view body, ToolUse& use) {
  use.name = name;
  if (form == ToolForm::kPython) return ParsePythonArguments(*tools.Find(name), body.substr(0, body.size() - 1), use);
  if (form == ToolForm::kGemma) {
    auto arguments = ReadQuoted(body, kGemmaQuote);
    if (arguments) use.arguments = *std::move(arguments);
    return use.arguments.is_object();
  }
  if (!BoundedJson(body)) return false;
  use.arguments = Json::parse(body, nullptr, /*allow_exceptions=*/false);
  return use.arguments.is_object();
}

}  // namespace

void CallReader::Begin(size_t body, std::string_view name) {
  in_list_ = false;
  body_ = scanned_ = body;
  depth_ = 0;
  in_string_ = escaped_ = is_json_ = false;
  name_ = name;
  id_.clear();
}

// The name before the arguments, and what stands between the two: then body_ is where these begin.
CallReader::Scan CallReader::ScanName(std::string_view text) {
  const bool gemma = form_ == ToolForm::kGemma;
  const std::string_view before = gemma ? kGemmaCall : std::string_view(), after = gemma ? std::string_view("{") : kMistralArguments;
  const std::string_view held = text.substr(body_);
  if (!held.starts_with(before)) return before.starts_with(held) ? Scan::kMore : Scan::kBad;
  const size_t end = held.find(after, before.size());
  const bool none = end == std::string_view::npos;
  if (none ? held.size() > kMostHeaderBytes + after.size() : end > kMostHeaderBytes) return Scan::kBad;
  if (none) return Scan::kMore;
  std::string_view name = held.substr(before.size(), end - before.size());
  if (const size_t id = name.find(kMistralCallId); !gemma && id != std::string_view::npos) {
    id_ = name.substr(id + kMistralCallId.size());
    name = name.substr(0, id);
  }
  name_ = name;
  if (declared_->Find(name_) == nullptr) return Scan::kBad;
  body_ = scanned_ = SkipSpace(text, body_ + end + (gemma ? 0 : after.size()));
  return Scan::kDone;
}

// Up to the end of the body, and of what closes it: then scanned_ is where the body ends.
CallReader::Scan CallReader::Read(std::string_view text, bool last) {
  const bool named = form_ == ToolForm::kMistral || form_ == ToolForm::kMistralIds || form_ == ToolForm::kGemma;
  if (named && name_.empty()) {
    const Scan name = ScanName(text);
    if (name != Scan::kDone) return name;
  }
  const bool python = form_ == ToolForm::kPython, list = python || IsJsonList(form_);
  if (list && !in_list_ && scanned_ == body_ && name_.empty()) {
    body_ = scanned_ = SkipSpace(text, body_);
    in_list_ = body_ < text.size() && text[body_] == '[';
    if (in_list_) scanned_ = ++body_;
  }
  if (python && name_.empty() && !is_json_) {
    const Scan name = ScanPythonName(text);
    if (name != Scan::kDone) return name;
  }
  if (scanned_ == body_ && !(python && !name_.empty())) {
    if (form_ != ToolForm::kLlama) body_ = SkipSpace(text, body_);
    scanned_ = body_;
    const std::string_view rest = text.substr(body_);
    if (rest.empty()) return Scan::kMore;
    is_json_ = rest[0] == '{';
    if (!is_json_ && !name_.empty()) return Scan::kBad;
    if (!is_json_ && !rest.starts_with(kFunction)) return kFunction.starts_with(rest) ? Scan::kMore : Scan::kBad;
  }
  const Scan scan = form_ == ToolForm::kGemma ? ScanQuoted(text)
                    : is_json_                ? ScanJson(text)
                    : python                  ? ScanPython(text, last)
                                              : ScanParameters(text);
  return scan == Scan::kDone ? ScanEnd(text, last) : scan;
}

// What closes a call may be missing, and must not be torn apart.
CallReader::Scan CallReader::ScanEnd(std::string_view text, bool last) const {
  const std::string_view tag = CallEnd(form_);
  size_t at = SkipSpace(text, scanned_);
  if (last || (tag.empty() && !in_list_)) return Scan::kDone;
  if (in_list_) {
    if (at == text.size()) return Scan::kMore;
    if (text[at] == ',') return Scan::kDone;
    if (text[at] == ']') at = SkipSpace(text, at + 1);
  }
  const std::string_view rest = text.substr(at);
  return rest.size() < tag.size() && tag.starts_with(rest) ? Scan::kMore : Scan::kDone;
}

// The name before the parentheses: then body_ is behind the first of them, and name_ is known. Of JSON nothing.
CallReader::Scan CallReader::ScanPythonName(std::string_view text) {
  const size_t at = SkipSpace(text, body_);
  if (at == text.size()) return Scan::kMore;
  if (text[at] == '{') return Scan::kDone;
  const size_t open = text.find('(', at);
  if (open == std::string_view::npos) return text.size() - at > kMostHeaderBytes ? Scan::kBad : Scan::kMore;
  name_ = text.substr(at, open - at);
  if (declared_->Find(name_) == nullptr) return Scan::kBad;
  body_ = scanned_ = open + 1;
  depth_ = 1;
  return Scan::kDone;
}

// Arguments up to what closes the first parenthesis, by brackets and strings.
CallReader::Scan CallReader::ScanPython(std::string_view text, bool last) {
  while (depth_ > 0 && scanned_ < text.size()) {
    const char c = text[scanned_];
    const std::string_view rest = text.substr(scanned_);
    if (in_string_) {
      if (!escaped_ && rest.size() < quote_.size() && std::string_view(quote_).starts_with(rest)) return Scan::kMore;
      const bool ends = !escaped_ && rest.starts_with(quote_);
      escaped_ = !escaped_ && c == '\\';
      in_string_ = !ends;
      scanned_ += ends ? quote_.size() : 1;
      continue;
    }
    if (c == '"' || c == '\'') {
      // One quotation mark, or three.
      if (!last && rest.size() < 3 && rest == std::string(rest.size(), c)) return Scan::kMore;
      quote_.assign(rest.substr(0, 3) == std::string(3, c) ? 3 : 1, c);
      in_string_ = true;
      scanned_ += quote_.size();
      continue;
    }
    if (c == '(' || c == '[' || c == '{') {
      if (++depth_ > kMostDepth) return Scan::kBad;
    } else if (c == ')' || c == ']' || c == '}') {
      if (--depth_ == 0 && c != ')') return Scan::kBad;
    }
    ++scanned_;
  }
  return depth_ == 0 ? Scan::kDone : Scan::kMore;
}

// One object of Gemma's, by its brackets and the marks around its texts.
CallReader::Scan CallReader::ScanQuoted(std::string_view text) {
  while (depth_ > 0 || scanned_ == body_) {
    // Up to the next mark, before which there may be brackets where it opens a text.
    const size_t mark = text.find(kGemmaQuote, scanned_);
    const size_t sure = mark != std::string_view::npos ? mark : text.size() - BeginsAtEnd(text.substr(scanned_), kGemmaQuote);
    for (; !in_string_ && scanned_ < sure; ++scanned_) {
      const char c = text[scanned_];
      if ((c == '{' || c == '[') && ++depth_ > kMostDepth) return Scan::kBad;
      if ((c == '}' || c == ']') && --depth_ == 0) {
        ++scanned_;
        return Scan::kDone;
      }
    }
    scanned_ = sure;
    if (mark == std::string_view::npos) return Scan::kMore;
    scanned_ += kGemmaQuote.size();
    in_string_ = !in_string_;
  }
  return Scan::kDone;
}

// One object, by its brackets and strings; whether it is JSON is seen once it is whole.
CallReader::Scan CallReader::ScanJson(std::string_view text) {
  if (scanned_ > body_ && depth_ == 0) return Scan::kDone;
  for (; scanned_ < text.size(); ++scanned_) {
    const char c = text[scanned_];
    if (in_string_) {
      if (escaped_) {
        escaped_ = false;
      } else if (c == '\\') {
        escaped_ = true;
      } else if (c == '"') {
        in_string_ = false;
      }
    } else if (c == '"') {
      in_string_ = true;
    } else if (c == '{' || c == '[') {
      if (++depth_ > kMostDepth) return Scan::kBad;
    } else if (c == '}' || c == ']') {
      if (--depth_ == 0) {
        ++scanned_;
        return Scan::kDone;
      }
    } else if (!BelongsInJson(c)) {
      return Scan::kBad;
    }
  }
  return Scan::kMore;
}

// <function=NAME>, any number of <parameter=KEY>VALUE</parameter>, </function>. scanned_ goes from one of them to the next, depth_ is 1 within a value
// and 2 at the end.
CallReader::Scan CallReader::ScanParameters(std::string_view text) {
  while (true) {
    if (depth_ == 2) return Scan::kDone;
    if (depth_ == 1) {
      const size_t end = text.find(kParameterEnd, scanned_);
      if (end == std::string_view::npos) {
        // What may be the beginning of the end is looked at again.
        scanned_ = text.size() - BeginsAtEnd(text.substr(scanned_), kParameterEnd);
        return Scan::kMore;
      }
      scanned_ = end + kParameterEnd.size();
      depth_ = 0;
      continue;
    }
    const size_t at = scanned_ == body_ ? body_ : SkipSpace(text, scanned_);
    const std::string_view rest = text.substr(at);
    const std::string_view opener = scanned_ == body_ ? kFunction : kParameter;
    if (scanned_ != body_ && rest.starts_with(kFunctionEnd)) {
      scanned_ = at + kFunctionEnd.size();
      depth_ = 2;
      continue;
    }
    if (!rest.starts_with(opener)) {
      const bool may_come = opener.starts_with(rest) || (scanned_ != body_ && kFunctionEnd.starts_with(rest));
      return may_come ? Scan::kMore : Scan::kBad;
    }
    const size_t close = rest.find_first_of(">\n", opener.size());
    if (close == std::string_view::npos) return rest.size() > 4096 ? Scan::kBad : Scan::kMore;
    if (rest[close] != '>' || close == opener.size()) return Scan::kBad;
    depth_ = scanned_ == body_ ? 0 : 1;
    scanned_ = at + close + 1;
  }
}

bool CallReader::Take(std::string_view text, ToolUse& use) {
  const std::string_view body = text.substr(body_, scanned_ - body_);
  const bool good = !name_.empty() ? ParseArguments(form_, *declared_, name_, body, use)
                    : is_json_     ? ParseObjectCall(body, *declared_, use)
                                   : ParseParameters(body, *declared_, use);
  if (!name_.empty()) use.id = id_;
  if (!HasCallIds(form_)) use.id.clear();
  return good;
}

size_t CallReader::Leave(std::string_view text) {
  size_t at = SkipSpace(text, scanned_);
  if (in_list_) {
    in_list_ = at < text.size() && text[at] == ',';
    if (in_list_) return at + 1;
    if (at < text.size() && text[at] == ']') at = SkipSpace(text, at + 1);
  }
  const std::string_view tag = CallEnd(form_);  // every text starts with none
  return at + (text.substr(at).starts_with(tag) ? tag.size() : 0);
}

bool CallReader::BeginNext() {
  if (!in_list_) return false;
  Begin(0);
  return in_list_ = true;
}

}  // namespace reprise::serve
