// What OpenAI's and llama.cpp's clients read of a generation beside its text.
#pragma once

#include <memory>
#include <span>
#include <string>

#include "serve/json_fields.h"
#include "serve/service.h"

namespace reprise::serve {

using Jobs = std::vector<std::shared_ptr<Job>>;

OrderedJson UsageJson(std::span<const std::shared_ptr<Job>> jobs);
OrderedJson TimingsJson(const Job& job);  // as llama.cpp's server has them
OrderedJson RepriseJson(const Job& job);  // where reuse came from, and the capsules that the choices ended at
OrderedJson ChatLogprobJson(const Tokenizer& tokenizer, const Event& event);
const char* FinishWord(FinishReason reason);

// One event of a stream.
std::string DataLine(const OrderedJson& json);

}  // namespace reprise::serve
