// Which format a template writes, and formats by name.
#include <gtest/gtest.h>

#include <algorithm>
#include <optional>
#include <string>
#include <vector>

#include "text/chat_test_support.h"

namespace reprise {
namespace {

using namespace testing_support;

TEST(Chat, RecognisesTheKnownTemplates) {
  const Tokenizer t = Make();
  const std::string markers = "{{ '<|im_start|>' }}{{ '<|im_end|>' }}";
  EXPECT_EQ(RecogniseChatFormat(t, "")->default_system, "");
  EXPECT_EQ(RecogniseChatFormat(t, markers)->style, ChatStyle::kChatMl);
  EXPECT_EQ(RecogniseChatFormat(t, markers + "You are a helpful AI assistant named SmolLM, trained by Hugging Face")->default_system,
            "You are a helpful AI assistant named SmolLM, trained by Hugging Face");
  EXPECT_EQ(RecogniseChatFormat(t, markers + "You are a helpful assistant.<|im_end|>")->default_system, "You are a helpful assistant.");
  const auto qwen3 = RecogniseChatFormat(t, markers + "reasoning_content enable_thinking is false");
  EXPECT_EQ(qwen3->style, ChatStyle::kQwen3);
  EXPECT_TRUE(qwen3->thinks);
  const auto qwen35 = RecogniseChatFormat(t, markers + "reasoning_content render_content enable_thinking is true");
  EXPECT_EQ(qwen35->style, ChatStyle::kQwen35);
  EXPECT_FALSE(qwen35->thinks);
  // LFM2's says nothing when nobody does.
  const auto lfm2 = RecogniseChatFormat(t, "{{- bos_token -}}" + markers + "{%- if ns.system_prompt -%} <|tool_list_start|>");
  EXPECT_EQ(lfm2->style, ChatStyle::kChatMl);
  EXPECT_EQ(Joined(*RenderChat(*lfm2, std::vector<ChatMessage>{{"user", "a"}})), "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n");
}

// Some files do not say that their vocabulary begins texts with it.
TEST(Chat, APromptBeginsWithTheTokenThatTheTemplateWrites) {
  const auto first = [](int bos, bool add_bos, const std::string& chat_template) {
    const Tokenizer t = Make({"<|im_start|>", "<|im_end|>", "<s>"}, bos, add_bos);
    const std::optional<int32_t> token = FirstTokenOf(t, *RecogniseChatFormat(t, chat_template));
    return token ? t.TokenBytes(*token) : "";
  };
  const std::string turns = "<|im_start|> <|im_end|>";
  EXPECT_EQ(first(2, false, turns), "");
  EXPECT_EQ(first(2, true, turns), "<s>");
  EXPECT_EQ(first(2, false, "{{bos_token}}" + turns), "<s>") << "Falcon-H1's";
  EXPECT_EQ(first(2, true, "{{bos_token}}" + turns), "<s>");
  EXPECT_EQ(first(-1, false, "{{bos_token}}" + turns), "");
}

TEST(Chat, AnUnknownTemplateIsRefusedWithTheKnownOnes) {
  const auto refused = [](const Tokenizer& t, const std::string& chat_template, StatusCode code, const std::string& said) {
    const auto format = RecogniseChatFormat(t, chat_template);
    ASSERT_FALSE(format.ok());
    EXPECT_EQ(format.status().code(), code);
    EXPECT_NE(format.status().message().find(said), std::string::npos) << format.status().message();
  };
  refused(Make(), "{{ '[INST]' }}", StatusCode::kUnsupported, "known are ChatML");
  refused(Make({}), "", StatusCode::kUnsupported, "known are ChatML");
  refused(Make({}), "<|im_start|><|im_end|>", StatusCode::kCorrupt, "not tokens of its vocabulary");
}

TEST(Chat, AFormatCanBeChosenByName) {
  const Tokenizer t = Make(kEveryMarker);
  for (const std::string& name : ChatFormatNames())
    EXPECT_EQ(NamedChatFormat(t, name).ok(), name != "phi3") << name;  // which is of other vocabularies
  for (const char* name :
       {"mistral-v1", "mistral-v3", "mistral-v3-tekken", "mistral-v7", "mistral-v7-tekken", "mistral-v11", "mistral-v13", "mistral-v15"}) {
    const auto format = NamedChatFormat(t, name);
    ASSERT_TRUE(format.ok()) << format.status().message();
    EXPECT_EQ(ChatStyleName(format->style), "mistral");
    EXPECT_EQ(MayThink(*format), name == std::string("mistral-v13") || name == std::string("mistral-v15"));
    EXPECT_EQ(NamedChatFormat(Make(), name).status().code(), StatusCode::kUnsupported);
  }
  for (const char* name : {"chatml", "qwen3", "qwen3.5", "llama3", "granite", "gemma", "gemma4", "phi4", "phi4-mini", "harmony", "plain",
                           "jamba-reasoning", "nemotron-nano"}) {
    const auto format = NamedChatFormat(t, name);
    ASSERT_TRUE(format.ok()) << format.status().message();
    EXPECT_EQ(ChatStyleName(format->style), name);
  }
  EXPECT_EQ(NamedChatFormat(t, "vicuna").status().code(), StatusCode::kInvalidArgument);
  EXPECT_NE(NamedChatFormat(t, "vicuna").status().message().find("llama3"), std::string::npos);
  EXPECT_EQ(NamedChatFormat(Make(), "llama3").status().code(), StatusCode::kUnsupported);
  EXPECT_TRUE(NamedChatFormat(Make({}), "plain").ok());
  EXPECT_EQ(RecogniseChatFormat(t, "<|start_header_id|> <|eot_id|>")->style, ChatStyle::kLlama3);

  const std::vector<ChatMessage> messages = {{"system", "s"}, {"user", " a "}};
  EXPECT_EQ(Joined(*RenderChat({.style = ChatStyle::kLlama3}, messages)),
            "<|start_header_id|>system<|end_header_id|>\n\ns<|eot_id|><|start_header_id|>user<|end_header_id|>\n\na<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\n");
  EXPECT_EQ(Joined(*RenderChat({.style = ChatStyle::kPlain}, messages)), "s\n\n a \n\n");
}

// Granite 4's template, of which there are versions that say a default system message and versions that only define it.
TEST(Chat, GranitesDefaultGivesWayToTools) {
  const Tokenizer t = Make(kEveryMarker);
  const std::string kDefault = "You are a helpful assistant. Please ensure responses are professional, accurate, and safe.";
  const std::string written =
      "{{- '<|start_of_role|>' + message.role + '<|end_of_role|>' + content.val + '<|end_of_text|>\n' }}<tool_call>";
  const auto silent = RecogniseChatFormat(t, "{%- set g4_default_system_message = '" + kDefault + "' %}" + written);
  ASSERT_TRUE(silent.ok()) << silent.status().message();
  EXPECT_EQ(silent->style, ChatStyle::kGranite);
  EXPECT_EQ(silent->tools, ToolForm::kJson);
  EXPECT_EQ(silent->default_system, "");
  const auto format = RecogniseChatFormat(t, "'" + kDefault + "'" + written + "'<|end_of_role|>' + ns.default_system_message + ''");
  EXPECT_EQ(format->default_system, kDefault);
  EXPECT_FALSE(RecogniseChatFormat(t, "<|start_of_role|>available_tools<|end_of_role|> <|end_of_text|>").ok()) << "Granite 3";

  const std::vector<ChatMessage> question = {{"user", " a "}};
  const std::string asked = "<|start_of_role|>user<|end_of_role|> a <|end_of_text|>\n<|start_of_role|>assistant<|end_of_role|>";
  EXPECT_EQ(Joined(*RenderChat(*silent, question)), asked);
  EXPECT_EQ(Joined(*RenderChat(*format, question)), "<|start_of_role|>system<|end_of_role|>" + kDefault + "<|end_of_text|>\n" + asked);
  const std::string told = Joined(*RenderChat(*format, question, {.tools = {R"({"name": "read"})"}}));
  EXPECT_TRUE(told.starts_with("<|start_of_role|>system<|end_of_role|>You are a helpful assistant with access to the following tools. "))
      << told;
  EXPECT_NE(told.find("<tools>\n{\"name\": \"read\"}\n</tools>\n\nFor each tool call, return"), std::string::npos) << told;
  EXPECT_TRUE(
      told.ends_with("</tool_call>. If a tool does not exist in the provided list of tools, notify the user that you do not have "
                     "the ability to fulfill the request.<|end_of_text|>\n" +
                     asked))
      << told;
}

// What its templates write is in text_goldens_test.cc.
TEST(Chat, Gemma4IsRecognisedByItsTurns) {
  const Tokenizer t = Make(kEveryMarker);
  const std::string turns = "{{ '<|turn>' + role + '\\n' }}{{ '<turn|>\\n' }}{{ '<|turn>model\\n' }}";
  const auto small = RecogniseChatFormat(t, turns + "{{ '<|channel>thought\\n' + thinking_text + '\\n<channel|>' }}");
  ASSERT_TRUE(small.ok()) << small.status().message();
  EXPECT_EQ(small->style, ChatStyle::kGemma4);
  EXPECT_EQ(small->tools, ToolForm::kNone);
  EXPECT_FALSE(small->thinks || small->empty_thoughts || HasChannels(*small) || OpensThoughts(*small, {.thinking = Thinking::kOn}));
  EXPECT_TRUE(MayThink(*small));
  const auto large = RecogniseChatFormat(t, turns + "{{ '<|channel>thought\\n<channel|>' }}");
  ASSERT_TRUE(large.ok());
  EXPECT_TRUE(large->empty_thoughts);
  EXPECT_FALSE(RecogniseChatFormat(Make({"<|turn>", "<turn|>"}), turns).ok());

  ChatOptions with_tools;
  with_tools.tools = {"{}"};
  const auto refused = RenderChat(*small, std::vector<ChatMessage>{{"user", "a"}}, with_tools);
  EXPECT_EQ(refused.status().code(), StatusCode::kInvalidArgument);
  EXPECT_NE(refused.status().message().find("words for tools are not known"), std::string::npos);
}

// Bits of what its templates have; what they write is in text_goldens_test.cc.
TEST(Chat, MistralsVersionsAreRecognised) {
  const Tokenizer t = Make(kEveryMarker);
  const Tokenizer without = Make({"</s>"});
  const auto form = [](const Tokenizer& tokenizer, const std::string& chat_template) {
    const auto format = RecogniseChatFormat(tokenizer, chat_template);
    EXPECT_TRUE(format.ok()) << format.status().message();
    EXPECT_EQ(format->style, ChatStyle::kMistral);
    const MistralForm& m = format->mistral;
    return std::string(m.spaces ? "spaces " : "") + (m.as_text ? "text " : "") + (m.own_system ? "system " : "") +
           (m.in_last ? "last " : "") + (m.strips ? "strips " : "") + (m.thoughts ? "thoughts " : "") + (m.settings ? "settings " : "") +
           (format->tools == ToolForm::kNone ? "" : std::string(ToolFormName(format->tools)) + " ") + format->default_system;
  };
  const std::string v3 = "{{ '[INST] ' + message['content'] + '[/INST]' }}", tekken = "{{ '[INST]' + message['content'] + '[/INST]' }}";
  const std::string system = "{{ '[SYSTEM_PROMPT]' + system_message + '[/SYSTEM_PROMPT]' }}";
  EXPECT_EQ(form(without, "{{ '[INST] ' + message['content'] + ' [/INST]' }}"), "spaces text ");
  EXPECT_EQ(form(t, v3 + "{{ ' ' + message['content']|trim + eos_token }}"), "spaces last strips ");
  EXPECT_EQ(form(t, v3 + "{%- if loop.first and system_message is defined %}"), "spaces ");
  EXPECT_EQ(form(t, tekken), "last ");
  EXPECT_EQ(form(t, v3 + system), "spaces system ");
  EXPECT_EQ(form(t, tekken + system + "[THINK]"), "system thoughts ");
  // A default is what the template says, if it says it in one string.
  const std::string set = "{%- set default_system_message = ";
  EXPECT_EQ(form(t, tekken + system + set + R"('Don\'t\n "think". \\' %})"), "system Don't\n \"think\". \\");
  EXPECT_EQ(form(t, tekken + system + set + R"("Today is " + today + "." %})"), "system ");
  EXPECT_EQ(form(t, tekken + system + set + R"('Never ends)"), "system ");
  EXPECT_EQ(form(t, tekken + system + set + R"('\x41' %})"), "system ");

  EXPECT_EQ(RecogniseChatFormat(without, v3).status().code(), StatusCode::kCorrupt);
  EXPECT_EQ(RecogniseChatFormat(Make({"[INST]", "[/INST]", "</s>"}), tekken + system).status().code(), StatusCode::kCorrupt);
  EXPECT_EQ(RecogniseChatFormat(t, v3 + "<<SYS>>").status().code(), StatusCode::kUnsupported) << "Llama 2";
  EXPECT_EQ(form(t, tekken + system + "[THINK][MODEL_SETTINGS]"), "system thoughts settings ");
  EXPECT_EQ(
      RecogniseChatFormat(Make({"[INST]", "[/INST]", "</s>", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"}), tekken + system + "[MODEL_SETTINGS]")
          .status()
          .code(),
      StatusCode::kCorrupt);
  EXPECT_EQ(form(t, v3 + "[TOOL_CALLS] [TOOL_RESULTS] {\"content\": , \"call_id\": "), "spaces last mistral-list ");
  EXPECT_EQ(form(t, tekken + "[TOOL_CALLS] [TOOL_RESULTS]"), "last ") << "the second version, whose calls have no ids";
  EXPECT_EQ(form(t, tekken + system + "[TOOL_CALLS] tool_call_id [TOOL_CONTENT]"), "system mistral-list ");
  EXPECT_EQ(form(t, tekken + system + "'[TOOL_CALLS]' + name + '[CALL_ID]' + id + '[ARGS]'"), "system mistral-ids ");
  EXPECT_EQ(form(t, tekken + system + "'[TOOL_CALLS]' + name + '[ARGS]'"), "system mistral ");
  std::vector<std::string> fewer = kEveryMarker;
  std::erase(fewer, "[TOOL_CONTENT]");
  EXPECT_EQ(form(Make(fewer), tekken + system + "'[TOOL_CALLS]' + name + '[CALL_ID]' + id + '[ARGS]'"), "system ");
  EXPECT_EQ(form(Make(fewer), tekken + "[TOOL_CALLS] [TOOL_RESULTS] {\"content\": , \"call_id\": "), "last mistral-list ");
}

TEST(Chat, MistralsDefaultSaysWhereThoughtsGo) {
  const Tokenizer t = Make(kEveryMarker);
  ChatFormat format = *NamedChatFormat(t, "mistral-v13");
  format.default_system = "First [THINK]think[/THINK], then speak.";
  const std::vector<ChatMessage> chat = {{"user", "a [THINK]"}, {"assistant", "[THINK]Hm.[/THINK]b", ""}, {"user", "c"}};
  const auto tokens = EncodeChat(t, format, chat);
  ASSERT_TRUE(tokens.ok());
  const std::string text =
      "[SYSTEM_PROMPT]First [THINK]think[/THINK], then speak.[/SYSTEM_PROMPT][INST]a [THINK][/INST][THINK]Hm.[/THINK]b</s>[INST]c[/INST]";
  EXPECT_EQ(t.Decode(*tokens), text);
  EXPECT_EQ(std::count(tokens->begin(), tokens->end(), *t.Find("[THINK]")), 2) << "the template's and the answer's, and no content's";
  EXPECT_EQ(Joined(*RenderChat(format, std::span(chat).last(1), {.continues = true})), "[INST]c[/INST]");
  // What a chat's own system message spells stays text, and so do thoughts of models that have none.
  const std::vector<ChatMessage> own = {{"system", format.default_system}, chat[0]};
  EXPECT_EQ(std::count(tokens->begin(), tokens->end(), *t.Find("[/THINK]")), 2);
  const auto told = EncodeChat(t, format, own);
  EXPECT_EQ(std::count(told->begin(), told->end(), *t.Find("[THINK]")), 0);
  EXPECT_EQ(
      Joined(*RenderChat(*NamedChatFormat(t, "mistral-v7-tekken"), std::vector<ChatMessage>{{"user", "a"}, {"assistant", "b", "Hm."}})),
      "[INST]a[/INST]b</s>");
}

TEST(Chat, RecognisesHowToolsAreCalled) {
  const Tokenizer t = Make();
  const std::string markers = "{{ '<|im_start|>' }}{{ '<|im_end|>' }}";
  EXPECT_EQ(RecogniseChatFormat(t, markers + "'<tool_call>\\n{\"name\": '")->tools, ToolForm::kJson);
  EXPECT_EQ(RecogniseChatFormat(t, markers + "'<tool_call>\\n<function=' + name + '>' '<parameter='")->tools, ToolForm::kXml);
  EXPECT_EQ(NamedChatFormat(t, "qwen3.5")->tools, ToolForm::kXml);
  EXPECT_EQ(NamedChatFormat(t, "qwen3")->tools, ToolForm::kJson);
  EXPECT_EQ(NamedChatFormat(t, "plain")->tools, ToolForm::kNone);
}

// Bits of what gpt-oss's template has.
TEST(Chat, HarmonysCallsEndByAMarkerOfTheirOwn) {
  const Tokenizer t = Make(kEveryMarker);
  const std::string messages = "{{- \"<|start|>assistant<|channel|>final<|message|>\" + message.content + \"<|end|>\" }}";
  const std::string calls = "{{- \"functions.\" + tool_call.name + \"<|channel|>commentary \" }}", end = "{{- \"<|call|>\" }}";
  EXPECT_EQ(RecogniseChatFormat(t, messages + calls + end)->tools, ToolForm::kHarmony);
  EXPECT_EQ(RecogniseChatFormat(t, messages)->tools, ToolForm::kNone);
  EXPECT_EQ(RecogniseChatFormat(t, messages + calls)->tools, ToolForm::kNone);
  EXPECT_EQ(NamedChatFormat(t, "harmony")->tools, ToolForm::kHarmony);
  std::vector<std::string> without;
  std::copy_if(kEveryMarker.begin(), kEveryMarker.end(), std::back_inserter(without),
               [](const std::string& marker) { return marker != "<|call|>"; });
  const Tokenizer mute = Make(without);
  EXPECT_EQ(RecogniseChatFormat(mute, messages + calls + end)->tools, ToolForm::kNone);
  EXPECT_EQ(NamedChatFormat(mute, "harmony")->tools, ToolForm::kNone);
}

}  // namespace
}  // namespace reprise
