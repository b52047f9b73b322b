// ApiError: what a client did wrong, or what went wrong here, in the form that its kind of client reads.
#pragma once

#include <string>
#include <string_view>

#include "reprise/status.h"

namespace reprise::serve {

struct ApiError {
  int status = 0;  // of HTTP; 0: no error
  std::string message;
  std::string param;  // the field at fault
  std::string code;   // a word for programs

  bool ok() const { return status == 0; }
  // The first error is the one that is told.
  void Set(int http_status, std::string text, std::string field = "", std::string word = "") {
    if (!ok()) return;
    *this = {http_status, std::move(text), std::move(field), std::move(word)};
  }
  void Set(const Status& why);
};

std::string OpenAiErrorBody(const ApiError& error);
std::string AnthropicErrorBody(const ApiError& error);

}  // namespace reprise::serve
