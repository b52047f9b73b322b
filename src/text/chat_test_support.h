// Vocabularies of bytes and markers, for tests of chats.
#pragma once

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "text/byte_level.h"
#include "text/chat.h"

namespace reprise::testing_support {

// `bos`: the number of a control token.
inline Tokenizer Make(const std::vector<std::string>& control = {"<|im_start|>", "<|im_end|>"}, int bos = -1, bool add_bos = false) {
  Vocabulary v;
  if (bos >= 0) v.bos = 256 + bos;
  v.add_bos = add_bos;
  v.pre = "qwen2";
  for (int b = 0; b < 256; b++) {
    const char c = static_cast<char>(b);
    v.tokens.emplace_back();
    AppendSpellingOfBytes({&c, 1}, v.tokens.back());
    v.types.push_back(static_cast<int32_t>(TokenType::kNormal));
  }
  for (const std::string& name : control) {
    v.tokens.push_back(name);
    v.types.push_back(static_cast<int32_t>(TokenType::kControl));
  }
  for (const char* name : {"<think>", "</think>"}) {
    v.tokens.emplace_back(name);
    v.types.push_back(static_cast<int32_t>(TokenType::kUserDefined));
  }
  auto t = Tokenizer::Create(std::move(v));
  EXPECT_TRUE(t.ok()) << t.status().message();
  return *std::move(t);
}

// SentencePiece's, of printable ASCII, in which text begins with a space.
inline Tokenizer MakePieces(const std::vector<std::string>& control) {
  Vocabulary v;
  v.kind = VocabularyKind::kSentencePiece;
  v.add_space_prefix = true;
  const auto add = [&](const std::string& name, TokenType type) {
    v.tokens.push_back(name);
    v.types.push_back(static_cast<int32_t>(type));
    v.scores.push_back(0);
  };
  for (const std::string& name : control) add(name, TokenType::kControl);
  for (char c = 0x21; c < 0x7f; c++) add(std::string(1, c), TokenType::kNormal);
  add("\u2581", TokenType::kNormal);
  add("\n", TokenType::kNormal);
  auto t = Tokenizer::Create(std::move(v));
  EXPECT_TRUE(t.ok()) << t.status().message();
  return *std::move(t);
}

inline std::string Joined(const std::vector<ChatSegment>& segments) {
  std::string text;
  for (const ChatSegment& segment : segments) text += segment.text;
  return text;
}

inline const std::vector<std::string> kEveryMarker = {"<|im_start|>",
                                                      "<|im_end|>",
                                                      "<|start_header_id|>",
                                                      "<|end_header_id|>",
                                                      "<|eot_id|>",
                                                      "<|start_of_role|>",
                                                      "<|end_of_role|>",
                                                      "<|end_of_text|>",
                                                      "<start_of_turn>",
                                                      "<end_of_turn>",
                                                      "<|start|>",
                                                      "<|channel|>",
                                                      "<|message|>",
                                                      "<|end|>",
                                                      "<|return|>",
                                                      "<|call|>",
                                                      "<SPECIAL_10>",
                                                      "<SPECIAL_11>",
                                                      "<SPECIAL_12>",
                                                      "<|im_sep|>",
                                                      "<|system|>",
                                                      "<|user|>",
                                                      "<|assistant|>",
                                                      "<|turn>",
                                                      "<turn|>",
                                                      "<|think|>",
                                                      "<|channel>",
                                                      "<channel|>",
                                                      "<|tool>",
                                                      "<tool|>",
                                                      "<|tool_call>",
                                                      "<tool_call|>",
                                                      "<|tool_response>",
                                                      "<tool_response|>",
                                                      "<|\"|>",
                                                      "[INST]",
                                                      "[/INST]",
                                                      "[SYSTEM_PROMPT]",
                                                      "[/SYSTEM_PROMPT]",
                                                      "[THINK]",
                                                      "[/THINK]",
                                                      "</s>",
                                                      "[AVAILABLE_TOOLS]",
                                                      "[/AVAILABLE_TOOLS]",
                                                      "[TOOL_CALLS]",
                                                      "[ARGS]",
                                                      "<|tool_list_start|>",
                                                      "<|tool_list_end|>",
                                                      "<|tool_call_start|>",
                                                      "<|tool_call_end|>",
                                                      "<|tool_response_start|>",
                                                      "<|tool_response_end|>",
                                                      "[CALL_ID]",
                                                      "[TOOL_CONTENT]",
                                                      "[MODEL_SETTINGS]",
                                                      "[/MODEL_SETTINGS]",
                                                      "[TOOL_RESULTS]",
                                                      "[/TOOL_RESULTS]"};

}  // namespace reprise::testing_support
