#include "serve/answer_parser.h"

#include <algorithm>

#include "serve/answer_text.h"
#include "text/chat_tools.h"

namespace reprise::serve {
namespace {

constexpr std::string_view kRecipient = " to=functions.";  // what an answer may begin with that is a call
constexpr size_t kMostHeaderBytes = CallReader::kMostHeaderBytes;

// Before `end`, less the white space there.
size_t TrimmedEnd(std::string_view text, size_t end) {
  while (end > 0 && IsSpace(text[end - 1])) --end;
  return end;
}

}  // namespace

AnswerParser::AnswerParser(const AnswerForm& form)
    : form_(form),
      call_(form.tools, form.declared),
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
    out.push_back({kind, std::string(text), {}});
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
  call_.Begin(body, name);
  return true;
}

bool AnswerParser::StepCall(bool last, std::vector<AnswerPiece>& out) {
  switch (call_.Read(buffer_, last)) {
    case CallReader::Scan::kDone:
      if (!TakeCall(out)) NotACall(out);
      return true;
    case CallReader::Scan::kBad: NotACall(out); return true;
    case CallReader::Scan::kMore: break;
  }
  if (!last && buffer_.size() - call_.body() <= kMostCallBytes) return false;
  // Unclosed, or longer than any call: whatever else is in it, it is text.
  Emit(AnswerPiece::Kind::kText, buffer_.size(), out);
  state_ = State::kText;
  skip_space_ = may_begin_call_ = false;
  return false;
}

bool AnswerParser::TakeCall(std::vector<AnswerPiece>& out) {
  ToolUse use;
  if (!call_.Take(buffer_, use)) return false;
  out.push_back({AnswerPiece::Kind::kCall, "", std::move(use)});
  called_ = true;
  buffer_.erase(0, call_.Leave(buffer_));
  if (call_.BeginNext()) return true;
  state_ = State::kText;
  skip_space_ = true;
  return true;
}

// What looked like one is text up to where its body begins; the body may yet hold a call.
void AnswerParser::NotACall(std::vector<AnswerPiece>& out) {
  const bool opened = form_.tools != ToolForm::kLlama;
  Emit(AnswerPiece::Kind::kText, opened ? call_.body() : std::max(call_.body(), call_.scanned()), out);
  state_ = State::kText;
  skip_space_ = may_begin_call_ = false;
}

}  // namespace reprise::serve
