// Chats read back from their tokens.
#include <algorithm>
#include <optional>
#include <utility>

#include "text/chat_forms.h"

namespace reprise {
namespace {

// A turn of Harmony's as what was said to it or by it; false for what neither is: the fixed system's, and an answer's messages before the last. `role`
// comes as the whole header. Calls are shown with theirs.
bool ReadHarmonyTurn(std::string& role, std::string& content) {
  const MessageHeader header = ReadMessageHeader(role);
  if (header.role == "system") return false;
  if (header.role == kDeveloper) {
    role = "system";
    std::string_view said = content;
    if (said.starts_with(kDeveloperBefore)) said.remove_prefix(kDeveloperBefore.size());
    if (said.ends_with(kDeveloperAfter)) said.remove_suffix(kDeveloperAfter.size());
    content = std::string(said);
    return true;
  }
  if (header.role.starts_with(kFunctions)) {
    role = "tool";
    return true;
  }
  if (header.role != "assistant") return true;
  const bool call = !CalledBy(header).empty();
  const bool last = call || header.channel.empty() || header.channel == kFinalChannel;
  if (call) content = role.substr(header.role.size()).append(kMessage).append(content);
  role = "assistant";
  return last;
}

// A turn of Gemma 4's model as what it said, what tools gave back, and what it said to that, where it said anything. Thoughts and calls are shown with
// what is said, as they stand there.
void AddGemmaParts(const Tokenizer& tokenizer, std::span<const int32_t> tokens, size_t begin, size_t until, size_t header,
                   std::vector<ChatTurn>& turns) {
  const std::optional<int32_t> start = tokenizer.Find(kGemmaResultStart), end = tokenizer.Find(kGemmaResultEnd);
  const auto add = [&](const char* role, size_t at, size_t from, size_t to) {
    turns.push_back({static_cast<int>(at), role, tokenizer.Decode(tokens.subspan(from, to - from))});
  };
  for (size_t at = begin, from = header; at < until;) {
    size_t to = from;
    while (to < until && tokens[to] != start) ++to;
    if (to > from || (at == begin && to == until)) add("assistant", at, from, to);
    if (to == until) return;
    size_t result_end = to + 1;
    while (result_end < until && tokens[result_end] != end) ++result_end;
    if (result_end > to + 1) add("tool", to, to + 1, result_end);
    at = from = std::min(result_end + 1, until);
  }
}

// A turn goes from what opens it to what opens the next one, or to the end of what was said.
std::vector<ChatTurn> MarkedTurnsOf(const Tokenizer& tokenizer, const ChatFormat& format, std::span<const int32_t> tokens) {
  std::vector<ChatTurn> turns;
  const auto name = [&](size_t i) { return tokenizer.IsControl(tokens[i]) ? tokenizer.TokenBytes(tokens[i]) : std::string_view(); };
  const std::string_view end = FormOf(format.style).end;
  const auto ends = [&](size_t i) { return OpensTurn(format, name(i)) || name(i) == kSystemPromptEnd || name(i) == end; };
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (!OpensTurn(format, name(i))) continue;
    std::string_view role = "assistant";
    for (const std::string_view known : {"system", "user", "tool"}) {
      if (FormOf(format.style, known).start == name(i)) role = known;
    }
    size_t until = i + 1;
    while (until < tokens.size() && !ends(until)) ++until;
    // Tools are no turn, and between one result and the next there is no answer.
    const bool empty = until == i + 1 && until < tokens.size() && OpensTurn(format, name(until));
    if (name(i) == kAvailableTools || (role == "assistant" && empty)) continue;
    std::string content = tokenizer.Decode(tokens.subspan(i + 1, until - i - 1));
    if (format.mistral.spaces && !tokenizer.adds_space() && content.starts_with(' ')) content.erase(0, 1);
    turns.push_back({static_cast<int>(i), std::string(role), std::move(content)});
    i = until - 1;
  }
  return turns;
}

// Questions of Nemotron's end with their line, answers with a marker on one of its own.
std::vector<int32_t> EndOfNemotronTurn(const Tokenizer& tokenizer, std::span<const int32_t> tokens) {
  const std::optional<int32_t> start = tokenizer.Find(kNemotronStart), system_start = tokenizer.Find(kNemotronSystem);
  const std::optional<int32_t> marker = tokenizer.Find(kNemotronEnd);
  const auto opens = [&](int32_t token) { return token == start || token == system_start; };
  const auto turn = std::find_if(tokens.rbegin(), tokens.rend(), opens).base();  // what follows what opens it
  const bool answers = tokenizer.Decode({turn, tokens.end()}).starts_with(NameOfRole(ChatStyle::kNemotron, "assistant"));
  std::vector<int32_t> end;
  const auto end_line = [&] {
    const std::vector<int32_t> line = tokenizer.Encode("\n", {.continues = true});
    end.insert(end.end(), line.begin(), line.end());
  };
  if (!tokenizer.TokenBytes(tokens.back()).ends_with('\n')) end_line();
  const bool marked = std::find(turn, tokens.end(), marker.value_or(-1)) != tokens.end();
  if (!answers || marked || !marker) return end;
  end.push_back(*marker);
  end_line();
  return end;
}

std::string LastGemmaCallOf(const Tokenizer& tokenizer, std::span<const int32_t> tokens) {
  const std::optional<int32_t> start = tokenizer.Find(kGemmaCallStart), end = tokenizer.Find(kGemmaCallEnd);
  const auto last = std::find(tokens.rbegin(), tokens.rend(), start.value_or(-1));
  if (last == tokens.rend()) return "";
  const std::string call = tokenizer.Decode({last.base(), std::find(last.base(), tokens.end(), end.value_or(-1))});
  if (!call.starts_with(kGemmaCall)) return "";
  return call.substr(kGemmaCall.size(), call.find('{') - kGemmaCall.size());
}

}  // namespace

std::vector<ChatTurn> TurnsOf(const Tokenizer& tokenizer, const ChatFormat& format, std::span<const int32_t> tokens) {
  std::vector<ChatTurn> turns;
  if (RoleIsMarker(format.style)) return MarkedTurnsOf(tokenizer, format, tokens);
  const TurnForm form = FormOf(format.style);
  const std::optional<int32_t> start = tokenizer.Find(form.start);
  const std::optional<int32_t> end = tokenizer.Find(form.end);
  const std::optional<int32_t> system_start = tokenizer.Find(FormOf(format.style, "system").start);
  if (format.style == ChatStyle::kPlain || !start || !end) return turns;
  const std::string header = std::string(form.header_end) + std::string(form.after_header);
  const auto ends = [&](int32_t token) { return token == *end || (HasChannels(format) && tokenizer.IsEndOfGeneration(token)); };
  const auto opens = [&](int32_t token) { return token == *start || token == system_start; };
  int answer = -1;  // where an answer of several messages began
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (!opens(tokens[i])) continue;
    size_t until = i + 1;
    while (until < tokens.size() && !opens(tokens[until]) && !ends(tokens[until])) ++until;
    const std::string text = tokenizer.Decode(tokens.subspan(i + 1, until - i - 1));
    const size_t split = text.find(header);
    std::string role(RoleNamed(format.style, text.substr(0, split)));
    std::string content = split == std::string::npos ? "" : text.substr(split + header.size());
    if (format.style == ChatStyle::kNemotron && content.ends_with('\n')) content.pop_back();
    if (format.tools == ToolForm::kGemma && role == "assistant" && split != std::string::npos) {
      size_t said = i + 1;
      for (size_t bytes = 0; bytes < split + header.size(); ++said) bytes += tokenizer.TokenBytes(tokens[said]).size();
      AddGemmaParts(tokenizer, tokens, i, until, said, turns);
      i = until - 1;
      continue;
    }
    const std::string asked = std::string(kGemma4Think) + "\n";
    if (format.style == ChatStyle::kGemma4 && role == "system" && content.starts_with(asked)) content.erase(0, asked.size());
    const auto position = static_cast<int>(i);
    i = until - 1;
    if (HasChannels(format) && !ReadHarmonyTurn(role, content)) {
      if (role == "assistant" && answer < 0) answer = position;
      continue;
    }
    turns.push_back({role == "assistant" && answer >= 0 ? answer : position, std::move(role), std::move(content)});
    answer = -1;
  }
  return turns;
}

std::string LastCallOf(const Tokenizer& tokenizer, const ChatFormat& format, std::span<const int32_t> tokens) {
  if (format.tools == ToolForm::kGemma) return LastGemmaCallOf(tokenizer, tokens);
  const std::optional<int32_t> start = tokenizer.Find(kMessageStart), message = tokenizer.Find(kMessage);
  if (format.tools != ToolForm::kHarmony || !start || !message) return "";
  size_t end = tokens.size();  // of the header that is looked for
  for (size_t i = tokens.size(); i-- > 0;) {
    if (tokens[i] == *message) end = i;
    if (tokens[i] != *start) continue;
    const std::string header = tokenizer.Decode(tokens.subspan(i + 1, end - i - 1));
    if (const std::string_view called = CalledBy(ReadMessageHeader(header)); !called.empty()) return std::string(called);
    end = i;
  }
  return "";
}

std::vector<int32_t> EndOfTurn(const Tokenizer& tokenizer, const ChatFormat& format, std::span<const int32_t> tokens,
                               std::string_view next_role) {
  std::vector<int32_t> end;
  if (format.tools == ToolForm::kGemma && !tokens.empty()) {
    // Calls, results and what the model says to them are one turn; a call without a result is followed by what would begin it.
    const auto ends_with = [&](std::string_view marker) { return tokenizer.Find(marker) == tokens.back(); };
    const bool goes_on = next_role == "tool" || next_role == "assistant";
    if (ends_with(kGemmaResultStart)) return end;
    if (ends_with(kGemmaCallEnd) && !goes_on) end.push_back(*tokenizer.Find(kGemmaResultStart));
    if (ends_with(kGemmaCallEnd) || (ends_with(kGemmaResultEnd) && goes_on)) return end;
  }
  if (format.style == ChatStyle::kNemotron && !tokens.empty()) return EndOfNemotronTurn(tokenizer, tokens);
  if (format.style == ChatStyle::kPlain) return tokens.empty() ? end : tokenizer.Encode("\n\n", {.continues = true});
  const TurnForm form = FormOf(format.style);
  const std::optional<int32_t> marker = tokenizer.Find(form.end);
  if (tokens.empty() || !marker) return end;
  const std::vector<int32_t> after = tokenizer.Encode(form.after_end);
  const bool ended = tokens.size() > after.size() && tokens[tokens.size() - after.size() - 1] == *marker &&
                     std::equal(after.begin(), after.end(), tokens.end() - static_cast<ptrdiff_t>(after.size()));
  const bool system_ended = format.style == ChatStyle::kMistral && tokenizer.Find(kSystemPromptEnd) == tokens.back();
  if (ended || system_ended || (HasChannels(format) && tokenizer.IsEndOfGeneration(tokens.back()))) return end;
  if (tokens.back() != *marker) end.push_back(*marker);
  end.insert(end.end(), after.begin(), after.end());
  return end;
}

}  // namespace reprise
