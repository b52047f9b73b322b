// Between numpy's arrays and bytes of state, and between Python's sequences and tokens. What comes out of Reprise is always a copy: no array that
// Python keeps ever shows a state that has since been changed, or lets one be changed from outside.
#pragma once

#include <nanobind/nanobind.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "reprise/layout.h"

namespace reprise::python {

namespace nb = nanobind;

// f32, f16, i32, i64 or bytes, or what numpy takes for a dtype of those.
ElementType ElementTypeFrom(nb::handle dtype);

// An array of this shape with a copy of `bytes`, which are as many as it needs. Elements that numpy has no type for are bytes, the last dimension
// in bytes.
nb::object ArrayOf(ElementType type, std::vector<int64_t> shape, std::span<const std::byte> bytes);
nb::object ArrayOf(std::span<const float> values);

// Writes `value` (an array, or whatever makes one; it is broadcast) into `to`, by numpy's rules for values of the same kind.
void CopyInto(std::span<std::byte> to, ElementType type, const std::vector<int64_t>& shape, nb::handle value);

// A list, a tuple or an array of integers as tokens.
std::vector<int32_t> TokensFrom(nb::handle value);
nb::list ListOf(std::span<const int32_t> tokens);

// Bytes of anything with the buffer protocol; valid while the object lives and is not changed.
class BytesOf {
 public:
  explicit BytesOf(nb::handle value);
  ~BytesOf() { PyBuffer_Release(&buffer_); }
  BytesOf(const BytesOf&) = delete;
  BytesOf& operator=(const BytesOf&) = delete;
  std::span<const std::byte> span() const { return {static_cast<const std::byte*>(buffer_.buf), static_cast<size_t>(buffer_.len)}; }

 private:
  Py_buffer buffer_ = {};
};

nb::bytes BytesFrom(std::span<const std::byte> bytes);
nb::str TextFrom(std::string_view utf8);  // what is no UTF-8 becomes U+FFFD
std::string PathFrom(nb::handle path);    // a str or an os.PathLike, ~ included
nb::tuple TupleOf(const std::vector<int64_t>& numbers);

}  // namespace reprise::python
