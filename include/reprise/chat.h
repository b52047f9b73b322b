// Chats: messages as a prompt, written as the model was trained to read them.
//
//   auto prompt = ChatPrompt::Of(*model, messages);                                  // {"system", "Be brief."}, {"user", "Describe Lydia."}
//   session->Prefill(prompt->tokens, {.boundaries = prompt->boundaries});
//   session->Generate(200, emit);                                                    // the answer; it ends by itself
//   session->EndReply();                                                             // with a store: kept for the next question
//
// The format is recognised by the file's chat template, which is never run; a model that has none only continues text, and is given the messages one
// after another. Only the format's own markers become control tokens: what a message
// says stays text, so that no content ends its turn or begins another.
//
// A value. ChatPrompt::Of may be called beside a running session.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "reprise/model.h"
#include "reprise/session.h"
#include "reprise/status.h"

namespace reprise {

struct Message {
  std::string role;  // system, user or assistant
  std::string content;
};

struct ChatPrompt {
  std::vector<int32_t> tokens;  // ends with the opening of the assistant's answer
  // After the system message and after the last question: where later prompts are likely to part from this one.
  std::vector<Boundary> boundaries;

  struct Options {
    std::optional<bool> think = {};  // whether the answer begins with thoughts, where the model knows such; not said: as its format has it
  };
  // kUnsupported for a model whose chat template is none that is known here, or that has no tokenizer; kInvalidArgument for an empty chat or an unknown role.
  static Result<ChatPrompt> Of(const Model& model, std::span<const Message> messages, const Options& options);
  static Result<ChatPrompt> Of(const Model& model, std::span<const Message> messages) { return Of(model, messages, Options()); }
};

}  // namespace reprise
