// Renderer: a chat's segments as they are written, and what is remembered on the way: where encoding starts anew, and which of them are answers.
// For chat.cc.
#pragma once

#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "text/chat_forms.h"

namespace reprise {

class Renderer {
 public:
  explicit Renderer(const ChatFormat& format) : style_(format.style), mistral_(format.mistral) {}
  void Marker(std::string_view name) { segments_.push_back({std::string(name), true}); }
  void Text(std::string_view text) {
    if (text.empty()) return;
    if (segments_.empty() || segments_.back().marker || cut_ == segments_.size()) segments_.push_back({});
    segments_.back().text += text;
  }
  // What follows is encoded on its own: a prompt ended here.
  void Cut() {
    cut_ = segments_.size();
    cuts_.push_back(cut_);
  }
  void Open(std::string_view role) {
    if (style_ == ChatStyle::kPlain) return;
    role_ = role;
    const TurnForm form = FormOf(style_, role);
    if (RoleIsPhis(style_)) return Marker(form.start);
    if (style_ == ChatStyle::kMistral) {
      if (form.start.empty()) return;
      if (mistral_.as_text) Text(" ");
      Marker(form.start);
      return Text(mistral_.spaces ? " " : "");
    }
    Marker(form.start);
    Text(NameOfRole(style_, role));
    if (style_ == ChatStyle::kHarmony && role == "assistant") return;  // the answer says on which channel it goes on
    if (!form.header_end.empty()) Marker(form.header_end);
    Text(form.after_header);
  }
  // Harmony's messages: what follows the role; and after one of them the next of an answer.
  void OpenChannel(std::string_view channel) {
    Marker(kChannel);
    Text(channel);
    Marker(kMessage);
  }
  void NextMessage() {
    Marker(kMessageEnd);
    Marker(kMessageStart);
    Text("assistant");
  }
  // By the turn's own end, unless another is given.
  void Close(std::string_view end = {}) {
    if (style_ == ChatStyle::kPlain) return Text("\n\n");
    const TurnForm form = FormOf(style_, role_);
    if (mistral_.as_text && role_ == "user") Text(" ");
    EndAnswer();
    if (style_ == ChatStyle::kNemotron && role_ == "assistant") Text("\n");
    if (const std::string_view marker = end.empty() ? form.end : end; !marker.empty()) Marker(marker);
    Text(form.after_end);
  }
  // Where its turn goes on, or with it.
  void EndAnswer() {
    if (in_answer_) answers_.back().end = segments_.size();
    in_answer_ = false;
  }
  // Mistral's, each as JSON.
  void Tools(std::span<const std::string> tools) {
    Marker(kAvailableTools);
    Text(mistral_.spaces ? " " : "");
    for (size_t i = 0; i < tools.size(); i++) Text((i == 0 ? "[" : ", ") + tools[i]);
    Text("]");
    Marker(kAvailableToolsEnd);
  }
  // Text of a template's, in which each of these, in this order, is the marker that it is.
  void TextWithMarkers(std::string_view text, std::initializer_list<std::string_view> markers) {
    for (const std::string_view marker : markers) {
      const size_t at = text.find(marker);
      if (at == std::string_view::npos) continue;
      Text(text.substr(0, at));
      Marker(marker);
      text.remove_prefix(at + marker.size());
    }
    Text(text);
  }
  // Gemma 4's, which name their channel.
  void OpenThoughts() {
    Marker(kChannelStart);
    Text(kThoughtStart.substr(kChannelStart.size()));
    Text("\n");
  }
  void Thoughts(std::string_view thoughts) {
    if (style_ == ChatStyle::kMistral) {
      Marker(kMistralThinkStart);
      Text(thoughts);
      return Marker(kMistralThinkEnd);
    }
    if (style_ == ChatStyle::kGemma4) {
      OpenThoughts();
      Text(thoughts);
      if (!thoughts.empty()) Text("\n");
      return Marker(kChannelEnd);
    }
    const bool lines = style_ != ChatStyle::kLfm2;
    Marker(kThinkStart);
    Text(lines ? "\n" : "");
    Text(thoughts);
    Text(lines ? "\n" : "");
    Marker(kThinkEnd);
    Text(lines ? "\n\n" : "");
  }
  void BeginAnswer(size_t message, bool thoughts_shown, bool as_generated) {
    Cut();
    if (as_generated) answers_.push_back({segments_.size(), message, thoughts_shown});
    in_answer_ = as_generated;
  }

  struct Answered {
    size_t segment, message;  // the first segment that is the answer's own
    bool thoughts_shown;
    size_t end = 0;  // the segment after it
  };
  struct Rendered {
    std::vector<ChatSegment> segments;
    std::vector<size_t> cuts;  // segments before which encoding starts anew, ascending
    std::vector<Answered> answers;
    size_t system_turns = 0;
  };
  Rendered Take(size_t system_turns) { return {std::move(segments_), std::move(cuts_), std::move(answers_), system_turns}; }

 private:
  ChatStyle style_;
  MistralForm mistral_;
  std::string role_;  // of the turn that is open
  std::vector<ChatSegment> segments_;
  std::vector<size_t> cuts_;
  std::vector<Answered> answers_;
  bool in_answer_ = false;  // the last of them, which is not closed
  size_t cut_ = static_cast<size_t>(-1);
};

}  // namespace reprise
