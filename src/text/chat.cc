#include "text/chat.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "text/chat_answers.h"
#include "text/chat_forms.h"
#include "text/chat_rendering.h"

namespace reprise {
namespace {

// Segments to tokens, one by one. `continues`: they go on from plain text.
class Encoder {
 public:
  Encoder(const Tokenizer& tokenizer, const ChatFormat& format, bool continues)
      : tokenizer_(tokenizer), format_(format), continues_(continues) {}

  void Flush() {
    if (text_.empty()) return;
    // Mistral's spaces are those that its vocabularies add by themselves.
    const bool has_space = !continues_ && format_.mistral.spaces && tokenizer_.adds_space() && text_[0] == ' ';
    Append(tokenizer_.Encode(std::string_view(text_).substr(has_space ? 1 : 0), {.continues = continues_}));
    text_.clear();
  }
  void Add(const ChatSegment& segment) {
    const std::optional<int32_t> token = segment.marker ? tokenizer_.Find(segment.text) : std::nullopt;
    if (!token) {
      text_ += segment.text;
      return;
    }
    Flush();
    if (OpensTurn(format_, segment.text)) chat_.turns.push_back(static_cast<int>(chat_.tokens.size()));
    chat_.tokens.push_back(*token);
    continues_ = false;
  }
  void Append(std::span<const int32_t> tokens) {
    chat_.tokens.insert(chat_.tokens.end(), tokens.begin(), tokens.end());
    continues_ = true;
  }
  EncodedChat& chat() { return chat_; }

 private:
  const Tokenizer& tokenizer_;
  const ChatFormat& format_;
  bool continues_;
  std::string text_;
  EncodedChat chat_;
};

// The openings that a rendered answer may have been generated after.
std::vector<std::vector<int32_t>> OpeningsOf(const Tokenizer& tokenizer, const ChatFormat& format) {
  if (!OpensWithThoughts(format.style) && !HasChannels(format) && !format.results_open_thoughts) return {{}};
  std::vector<std::vector<int32_t>> openings;
  for (const Thinking thinking : {Thinking::kOn, Thinking::kOff}) {
    Renderer out(format);
    RenderOpening(format, {.thinking = thinking, .after_result = true}, out);
    Encoder encoder(tokenizer, format, /*continues=*/true);
    for (const ChatSegment& segment : out.Take(0).segments) encoder.Add(segment);
    encoder.Flush();
    openings.push_back(std::move(encoder.chat().tokens));
  }
  return openings;
}

}  // namespace

Result<std::vector<ChatSegment>> RenderChat(const ChatFormat& format, std::span<const ChatMessage> messages, const ChatOptions& options) {
  REPRISE_ASSIGN_OR_RETURN(Renderer::Rendered rendered, RenderMessages(format, messages, options));
  std::vector<ChatSegment> joined;
  for (ChatSegment& segment : rendered.segments) {
    if (!joined.empty() && !joined.back().marker && !segment.marker) {
      joined.back().text += segment.text;
    } else {
      joined.push_back(std::move(segment));
    }
  }
  return joined;
}

Result<EncodedChat> EncodeChatTurns(const Tokenizer& tokenizer, const ChatFormat& format, std::span<const ChatMessage> messages,
                                    const ChatOptions& options) {
  REPRISE_ASSIGN_OR_RETURN(const Renderer::Rendered rendered, RenderMessages(format, messages, options));
  const bool recalls = options.recall && format.style != ChatStyle::kPlain;
  const auto openings = recalls ? OpeningsOf(tokenizer, format) : std::vector<std::vector<int32_t>>();
  Encoder encoder(tokenizer, format, options.continues);
  auto cut = rendered.cuts.begin();
  auto answer = rendered.answers.begin();
  const std::vector<ChatSegment>& segments = rendered.segments;
  for (size_t i = 0; i < segments.size(); ++i) {
    for (; cut != rendered.cuts.end() && *cut <= i; ++cut) {
      if (*cut == i) encoder.Flush();
    }
    if (answer != rendered.answers.end() && answer->segment == i) {
      const Renderer::Answered at = *answer++;
      std::optional<std::vector<int32_t>> known;
      for (size_t o = 0; o < openings.size() && !known; ++o) {
        known = options.recall(encoder.chat().tokens, openings[o], messages[at.message], at.thoughts_shown);
        if (known) encoder.Append(openings[o]);
      }
      if (known) {
        encoder.Append(*known);
        i = at.end - 1;  // another answer may follow
        continue;
      }
    }
    encoder.Add(segments[i]);
  }
  encoder.Flush();
  EncodedChat chat = std::move(encoder.chat());
  if (rendered.system_turns > 0 && chat.turns.size() > rendered.system_turns) chat.system_end = chat.turns[rendered.system_turns];
  return chat;
}

Result<std::vector<int32_t>> EncodeChat(const Tokenizer& tokenizer, const ChatFormat& format, std::span<const ChatMessage> messages,
                                        const ChatOptions& options) {
  REPRISE_ASSIGN_OR_RETURN(EncodedChat chat, EncodeChatTurns(tokenizer, format, messages, options));
  return std::move(chat.tokens);
}

}  // namespace reprise
