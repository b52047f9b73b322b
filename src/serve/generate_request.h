// What a body asks for: read into jobs, the same way for every route that generates.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "serve/json_fields.h"
#include "serve/service.h"

namespace reprise::serve {

// The fields of sampling that OpenAI's and llama.cpp's interfaces name; temperature is 1 where nothing is said.
SamplingOptions ReadSampling(Fields& fields, bool& any);
void ReadStops(Fields& fields, const char* name, SamplingOptions& sampling);

// What a "session" or "capsule" field says to go on from.
struct Continued {
  std::vector<int32_t> tokens;
  std::string session;
  std::optional<StoreEntry> entry;
  bool any() const { return entry.has_value(); }
};
Continued ReadContinued(const Engines& engines, const Caller& caller, Fields& fields);

// The chat as the job's prompt, with the boundaries worth keeping. The job has its namespace already.
void FillChatPrompt(Engines& engines, const std::vector<ChatMessage>& messages, const Continued& continued, const ChatOptions& options,
                    Job& job, ApiError& error);
ChatOptions ReadChatOptions(Fields& fields);

}  // namespace reprise::serve
