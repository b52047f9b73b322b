// Errors of Reprise as Python's exceptions: one class for each StatusCode (reprise/errors.py). The interpreter is held by whoever calls.
#pragma once

#include <string>
#include <utility>

#include "reprise/status.h"

namespace reprise::python {

// Throws the exception of `status`, unless it is fine.
void Check(const Status& status);
[[noreturn]] void Refuse(std::string why);  // InvalidArgumentError

// The value of a result that has one; otherwise its exception.
template <class T>
T Value(Result<T> result) {
  Check(result.status());
  return *std::move(result);
}

}  // namespace reprise::python
