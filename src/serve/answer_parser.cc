#include "serve/answer_parser.h"

#include <algorithm>

#include "decode/python_values.h"
#include "decode/quoted_values.h"
#include "text/chat_tools.h"

namespace reprise::serve {
namespace {

constexpr std::string_view kFunction = "<function=";
constexpr std::string_view kFunctionEnd = "</function>";
constexpr std::string_view kParameter = "<parameter=";
constexpr std::string_view kParameterEnd = "</parameter>";
constexpr std::string_view kRecipient = " to=functions.";  // what an answer may begin with that is a call
constexpr int kMostDepth = 64;
constexpr size_t kMostHeaderBytes = 512;  // names have at most half of that

bool IsSpace(char c) { return c == ' ' || c == '\n' || c == '\r' || c == '\t'; }

size_t SkipSpace(std::string_view text, size_t at) {
  while (at < text.size() && IsSpace(text[at])) ++at;
  return at;
}

// How much of the end of `text` may be the beginning of `tag`.
size_t BeginsAtEnd(std::string_view text, std::string_view tag) {
  for (size_t n = std::min(text.size(), tag.size() - 1); n > 0; --n) {
    if (text.ends_with(tag.substr(0, n))) return n;
  }
  return 0;
}

// Before `end`, less the white space there.
size_t TrimmedEnd(std::string_view text, size_t end) {
  while (end > 0 && IsSpace(text[end - 1])) --end;
  return end;
}

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
bool ParseParameters(std::string_view body, const Tools& tools, AnswerPiece& piece) {
  const size_t name = kFunction.size();
  const size_t name_end = body.find('>');
  piece.name = body.substr(name, name_end - name);
  const Tool* tool = tools.Find(piece.name);
  if (tool == nullptr) return false;
  piece.arguments = Json::object();
  for (size_t at = SkipSpace(body, name_end + 1); body.substr(at).starts_with(kParameter); at = SkipSpace(body, at)) {
    const size_t key = at + kParameter.size();
    const size_t key_end = body.find('>', key);
    const size_t end = body.find(kParameterEnd, key_end);
    std::string_view value = body.substr(key_end + 1, end - key_end - 1);
    if (value.starts_with('\n')) value.remove_prefix(1);
    if (value.ends_with('\n')) value.remove_suffix(1);
    const std::string key_name(body.substr(key, key_end - key));
    if (piece.arguments.size() >= kMostFields) return false;
    piece.arguments[key_name] = TypedValue(tool->parameters, key_name, value);
    at = end + kParameterEnd.size();
  }
  return true;
}

bool TakeObjectCall(Json call, const Tools& tools, AnswerPiece& piece) {
  if (!call.is_object() || !call.contains("name") || !call["name"].is_string()) return false;
  piece.name = call["name"].get<std::string>();
  if (tools.Find(piece.name) == nullptr) return false;
  const char* key = call.contains("arguments") ? "arguments" : "parameters";
  if (!call.contains(key)) {
    piece.arguments = Json::object();
    return true;
  }
  Json& arguments = call[key];
  // Some models quote them once more.
  if (arguments.is_string() && BoundedJson(arguments.get_ref<const std::string&>())) {
    arguments = Json::parse(arguments.get<std::string>(), nullptr, /*allow_exceptions=*/false);
  }
  if (!arguments.is_object()) return false;
  piece.arguments = std::move(arguments);
  if (call.contains("id") && call["id"].is_string()) piece.id = call["id"].get<std::string>();
  return true;
}

bool ParseObjectCall(std::string_view body, const Tools& tools, AnswerPiece& piece) {
  return BoundedJson(body) && TakeObjectCall(Json::parse(body, nullptr, /*allow_exceptions=*/false), tools, piece);
}

bool ParsePythonArguments(const Tool& tool, std::string_view body, AnswerPiece& piece) {
  std::vector<std::string> names;
  if (const Json& properties = In(tool.parameters, "properties"); properties.is_object()) {
    for (const auto& [name, schema] : properties.items()) names.push_back(name);
  }
  auto arguments = ReadPythonArguments(body, names);
  if (arguments) piece.arguments = *std::move(arguments);
  return arguments.has_value();
}

bool ParseArguments(ToolForm form, const Tools& tools, const std::string& name, std::string_view body, AnswerPiece& piece) {
  piece.name = name;
  if (form == ToolForm::kPython) return ParsePythonArguments(*tools.Find(name), body.substr(0, body.size() - 1), piece);
  if (form == ToolForm::kGemma) {
    auto arguments = ReadQuoted(body, kGemmaQuote);
    if (arguments) piece.arguments = *std::move(arguments);
    return piece.arguments.is_object();
  }
  if (!BoundedJson(body)) return false;
  piece.arguments = Json::parse(body, nullptr, /*allow_exceptions=*/false);
  return piece.arguments.is_object();
}

}  // namespace

AnswerParser::AnswerParser(const AnswerForm& form)
    : form_(form),
      state_(form.channels         ? (form.opens_final ? State::kText : State::kHeader)
             : form.opens_thoughts ? State::kThoughts
             : form.may_think      ? State::kOpening
                                   : State::kText),
      skip_space_(form.opens_thoughts || form.begins_with_space),
      may_begin_call_(true) {}

void AnswerParser::Feed(std::string_view text, std::vector<AnswerPiece>& out) {
  buffer_ += text;
  while (Step(/*last=*/false, out)) {
  }
}

void AnswerParser::Finish(std::vector<AnswerPiece>& out) {
  while (Step(/*last=*/true, out)) {
  }
}

// Gives the first `bytes` of what is held.
void AnswerParser::Emit(AnswerPiece::Kind kind, size_t bytes, std::vector<AnswerPiece>& out) {
  if (bytes == 0) return;
  const std::string_view text = std::string_view(buffer_).substr(0, bytes);
  if (!out.empty() && out.back().kind == kind) {
    out.back().text += text;
  } else {
    out.push_back({kind, std::string(text), "", "", Json()});
  }
  buffer_.erase(0, bytes);
}

// One thing done; false when there is nothing more to do with what is held.
bool AnswerParser::Step(bool last, std::vector<AnswerPiece>& out) {
  if (called_ && form_.one_call) {
    cut_ = cut_ || SkipSpace(buffer_, 0) < buffer_.size();
    buffer_.clear();
    return false;
  }
  if (skip_space_ && state_ != State::kCall) {
    size_t at = SkipSpace(buffer_, 0);
    // Llama's models part calls by semicolons.
    while (form_.tools == ToolForm::kLlama && at < buffer_.size() && buffer_[at] == ';') at = SkipSpace(buffer_, at + 1);
    buffer_.erase(0, at);
    if (buffer_.empty()) return false;
  }
  switch (state_) {
    case State::kOpening: return StepOpening(last);
    case State::kHeader: return StepHeader(last);
    case State::kThoughts: return StepThoughts(last, out);
    case State::kText: return StepText(last, out);
    case State::kCall: return StepCall(last, out);
  }
  return false;
}

bool AnswerParser::StepOpening(bool last) {
  const size_t at = SkipSpace(buffer_, 0);
  const std::string_view rest = std::string_view(buffer_).substr(at);
  if (rest.starts_with(form_.thoughts.start)) {
    buffer_.erase(0, at + form_.thoughts.start.size());
    state_ = State::kThoughts;
    skip_space_ = true;
    return true;
  }
  if (form_.thoughts.start.starts_with(rest) && !last) return false;
  state_ = State::kText;
  return true;
}

// <|channel|>NAME...<|message|>, after the first message with <|start|>assistant before it, and with the name of the function where it is a call. What is
// on the final channel or the commentary is text, what is on any other thoughts, and what has no header is text.
bool AnswerParser::StepHeader(bool last) {
  const std::string_view held = buffer_;
  const auto may_begin = [&](std::string_view marker) { return held.starts_with(marker) || marker.starts_with(held); };
  const size_t end = held.find(kMessage);
  const bool none = end == std::string_view::npos;
  if ((!may_begin(kChannel) && !may_begin(kMessageStart) && !may_begin(kRecipient)) ||
      (none ? held.size() > kMostHeaderBytes + kMessage.size() : end > kMostHeaderBytes)) {
    state_ = State::kText;
    return true;
  }
  if (none) {
    if (last) buffer_.clear();  // cut short before anything was said
    return false;
  }
  skip_space_ = false;
  const MessageHeader header = ReadMessageHeader(held.substr(0, end));
  const size_t body = end + kMessage.size();
  if (const std::string_view name = CalledBy(header); !name.empty() && form_.tools == ToolForm::kHarmony && form_.declared->Find(name)) {
    return BeginCall(body, name);
  }
  const bool no_call = !header.recipient.empty() && header.channel != kThoughtsChannel;  // but looks like one
  const bool said = header.channel == kFinalChannel || header.channel == kCommentaryChannel;
  state_ = said || no_call ? State::kText : State::kThoughts;
  if (!no_call) buffer_.erase(0, body);
  return true;
}

bool AnswerParser::StepThoughts(bool last, std::vector<AnswerPiece>& out) {
  const std::string_view tag = form_.channels ? kMessageEnd : form_.thoughts.end;
  const size_t end = buffer_.find(tag);
  if (end != std::string::npos) {
    const size_t trimmed = TrimmedEnd(buffer_, end);
    Emit(AnswerPiece::Kind::kThoughts, trimmed, out);
    buffer_.erase(0, end - trimmed + tag.size());
    state_ = form_.channels ? State::kHeader : State::kText;
    skip_space_ = !form_.channels;
    return true;
  }
  size_t sure = buffer_.size();
  if (!last) sure = TrimmedEnd(buffer_, sure - BeginsAtEnd(buffer_, tag));
  if (sure > 0) skip_space_ = false;
  Emit(AnswerPiece::Kind::kThoughts, sure, out);
  return false;
}

bool AnswerParser::StepText(bool last, std::vector<AnswerPiece>& out) {
  if (form_.channels) {
    const size_t end = buffer_.find(kMessageEnd);
    const size_t held = last ? 0 : BeginsAtEnd(buffer_, kMessageEnd);
    skip_space_ = skip_space_ && (end == 0 || buffer_.size() == held);
    Emit(AnswerPiece::Kind::kText, end != std::string::npos ? end : buffer_.size() - held, out);
    if (end == std::string::npos) return false;
    buffer_.erase(0, kMessageEnd.size());
    state_ = State::kHeader;
    return true;
  }
  if (form_.tools == ToolForm::kNone) {
    skip_space_ = skip_space_ && buffer_.empty();
    Emit(AnswerPiece::Kind::kText, buffer_.size(), out);
    return false;
  }
  if (form_.tools == ToolForm::kLlama) {
    if (may_begin_call_) {
      const size_t at = SkipSpace(buffer_, 0);
      if (at == buffer_.size() && !last) return false;
      if (at < buffer_.size() && buffer_[at] == '{') return BeginCall(at);
      may_begin_call_ = false;
    }
    Emit(AnswerPiece::Kind::kText, buffer_.size(), out);
    skip_space_ = false;
    return false;
  }
  const std::string_view start = CallStart(form_.tools);
  const size_t tag = buffer_.find(start);
  if (tag != std::string::npos) {
    // White space before a call is layout, unless it is none.
    const size_t trimmed = TrimmedEnd(buffer_, tag);
    Emit(AnswerPiece::Kind::kText, trimmed, out);
    return BeginCall(tag - trimmed + start.size());
  }
  size_t sure = buffer_.size();
  if (!last) sure = TrimmedEnd(buffer_, sure - BeginsAtEnd(buffer_, start));
  if (sure > 0) skip_space_ = false;
  Emit(AnswerPiece::Kind::kText, sure, out);
  return false;
}

bool AnswerParser::BeginCall(size_t body, std::string_view name) {
  state_ = State::kCall;
  in_list_ = false;
  body_ = scanned_ = body;
  depth_ = 0;
  in_string_ = escaped_ = is_json_ = false;
  name_ = name;
  id_.clear();
  return true;
}

bool AnswerParser::StepCall(bool last, std::vector<AnswerPiece>& out) {
  switch (ScanBody(last)) {
    case Scan::kDone:
      if (!TakeCall(out)) NotACall(out);
      return true;
    case Scan::kBad: NotACall(out); return true;
    case Scan::kMore: break;
  }
  if (!last && buffer_.size() - body_ <= kMostCallBytes) return false;
  // Unclosed, or longer than any call: whatever else is in it, it is text.
  Emit(AnswerPiece::Kind::kText, buffer_.size(), out);
  state_ = State::kText;
  skip_space_ = may_begin_call_ = false;
  return false;
}

// The name before the arguments, and what stands between the two: then body_ is where these begin.
AnswerParser::Scan AnswerParser::ScanName() {
  const bool gemma = form_.tools == ToolForm::kGemma;
  const std::string_view before = gemma ? kGemmaCall : std::string_view(), after = gemma ? std::string_view("{") : kMistralArguments;
  const std::string_view held = std::string_view(buffer_).substr(body_);
  if (!held.starts_with(before)) return before.starts_with(held) ? Scan::kMore : Scan::kBad;
  const size_t end = held.find(after, before.size());
  if (end == std::string_view::npos) return held.size() > kMostHeaderBytes + after.size() ? Scan::kBad : Scan::kMore;
  std::string_view name = held.substr(before.size(), end - before.size());
  if (const size_t id = name.find(kMistralCallId); !gemma && id != std::string_view::npos) {
    id_ = name.substr(id + kMistralCallId.size());
    name = name.substr(0, id);
  }
  name_ = name;
  if (form_.declared->Find(name_) == nullptr) return Scan::kBad;
  body_ = scanned_ = SkipSpace(buffer_, body_ + end + (gemma ? 0 : after.size()));
  return Scan::kDone;
}

// Up to the end of the body, and of what closes it: then scanned_ is where the body ends.
AnswerParser::Scan AnswerParser::ScanBody(bool last) {
  const bool named = form_.tools == ToolForm::kMistral || form_.tools == ToolForm::kMistralIds || form_.tools == ToolForm::kGemma;
  if (named && name_.empty()) {
    const Scan name = ScanName();
    if (name != Scan::kDone) return name;
  }
  const bool python = form_.tools == ToolForm::kPython, list = python || form_.tools == ToolForm::kMistralList;
  if (list && !in_list_ && scanned_ == body_ && name_.empty()) {
    body_ = scanned_ = SkipSpace(buffer_, body_);
    in_list_ = body_ < buffer_.size() && buffer_[body_] == '[';
    if (in_list_) scanned_ = ++body_;
  }
  if (python && name_.empty() && !is_json_) {
    const Scan name = ScanPythonName();
    if (name != Scan::kDone) return name;
  }
  if (scanned_ == body_ && !(python && !name_.empty())) {
    if (form_.tools != ToolForm::kLlama) body_ = SkipSpace(buffer_, body_);
    scanned_ = body_;
    const std::string_view rest = std::string_view(buffer_).substr(body_);
    if (rest.empty()) return Scan::kMore;
    is_json_ = rest[0] == '{';
    if (!is_json_ && !name_.empty()) return Scan::kBad;
    if (!is_json_ && !rest.starts_with(kFunction)) return kFunction.starts_with(rest) ? Scan::kMore : Scan::kBad;
  }
  const Scan scan = form_.tools == ToolForm::kGemma ? ScanQuoted() : is_json_ ? ScanJson() : python ? ScanPython(last) : ScanParameters();
  return scan == Scan::kDone ? ScanEnd(last) : scan;
}

// What closes a call may be missing, and must not be torn apart.
AnswerParser::Scan AnswerParser::ScanEnd(bool last) const {
  const std::string_view tag = CallEnd(form_.tools);
  size_t at = SkipSpace(buffer_, scanned_);
  if (last || (tag.empty() && !in_list_)) return Scan::kDone;
  if (in_list_) {
    if (at == buffer_.size()) return Scan::kMore;
    if (buffer_[at] != ']') return Scan::kDone;
    at = SkipSpace(buffer_, at + 1);
  }
  const std::string_view rest = std::string_view(buffer_).substr(at);
  return rest.size() < tag.size() && tag.starts_with(rest) ? Scan::kMore : Scan::kDone;
}

// The name before the parentheses: then body_ is behind the first of them, and name_ is known. Of JSON nothing.
AnswerParser::Scan AnswerParser::ScanPythonName() {
  const size_t at = SkipSpace(buffer_, body_);
  if (at == buffer_.size()) return Scan::kMore;
  if (buffer_[at] == '{') return Scan::kDone;
  const size_t open = buffer_.find('(', at);
  if (open == std::string::npos) return buffer_.size() - at > kMostHeaderBytes ? Scan::kBad : Scan::kMore;
  name_ = buffer_.substr(at, open - at);
  if (form_.declared->Find(name_) == nullptr) return Scan::kBad;
  body_ = scanned_ = open + 1;
  depth_ = 1;
  return Scan::kDone;
}

// Arguments up to what closes the first parenthesis, by brackets and strings.
AnswerParser::Scan AnswerParser::ScanPython(bool last) {
  const std::string_view text = buffer_;
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
      --depth_;
    }
    ++scanned_;
  }
  return depth_ == 0 ? Scan::kDone : Scan::kMore;
}

// One object of Gemma's, by its brackets and the marks around its texts.
AnswerParser::Scan AnswerParser::ScanQuoted() {
  const std::string_view text = buffer_;
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
AnswerParser::Scan AnswerParser::ScanJson() {
  if (scanned_ > body_ && depth_ == 0) return Scan::kDone;
  for (; scanned_ < buffer_.size(); ++scanned_) {
    const char c = buffer_[scanned_];
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
AnswerParser::Scan AnswerParser::ScanParameters() {
  const std::string_view text = buffer_;
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

bool AnswerParser::TakeCall(std::vector<AnswerPiece>& out) {
  AnswerPiece piece;
  piece.kind = AnswerPiece::Kind::kCall;
  const std::string_view body = std::string_view(buffer_).substr(body_, scanned_ - body_);
  const bool good = !name_.empty() ? ParseArguments(form_.tools, *form_.declared, name_, body, piece)
                    : is_json_     ? ParseObjectCall(body, *form_.declared, piece)
                                   : ParseParameters(body, *form_.declared, piece);
  if (!good) return false;
  if (!name_.empty()) piece.id = id_;
  out.push_back(std::move(piece));
  called_ = true;
  if (in_list_) {
    TakeDelimiter();
    return true;
  }
  const size_t end = SkipSpace(buffer_, scanned_);
  const std::string_view tag = CallEnd(form_.tools);  // every text starts with none
  buffer_.erase(0, end + (std::string_view(buffer_).substr(end).starts_with(tag) ? tag.size() : 0));
  state_ = State::kText;
  skip_space_ = true;
  return true;
}

// What stands behind a call of a list: another, or the end of it. Where only one is wanted, the end may stay.
void AnswerParser::TakeDelimiter() {
  const size_t at = SkipSpace(buffer_, scanned_);
  const char delimiter = at < buffer_.size() ? buffer_[at] : ']';
  buffer_.erase(0, std::min(at + (delimiter == ',' || delimiter == ']' ? 1 : 0), buffer_.size()));
  if (delimiter == ',') {
    BeginCall(0);
    in_list_ = true;
    return;
  }
  const std::string_view tag = CallEnd(form_.tools);
  const size_t end = SkipSpace(buffer_, 0);
  if (!tag.empty() && std::string_view(buffer_).substr(end).starts_with(tag)) buffer_.erase(0, end + tag.size());
  in_list_ = false;
  state_ = State::kText;
  skip_space_ = true;
}

// What looked like one is text up to where its body begins; the body may yet hold a call.
void AnswerParser::NotACall(std::vector<AnswerPiece>& out) {
  const bool opened = form_.tools != ToolForm::kLlama;
  Emit(AnswerPiece::Kind::kText, opened ? body_ : std::max<size_t>(body_, scanned_), out);
  state_ = State::kText;
  skip_space_ = may_begin_call_ = false;
}

}  // namespace reprise::serve
