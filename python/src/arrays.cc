#include "arrays.h"

#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <cstring>
#include <limits>
#include <memory>

#include "errors.h"

namespace reprise::python {
namespace {

struct Named {
  ElementType type;
  const char* ours;
  const char* numpys;
  nb::dlpack::dtype dtype;
};
constexpr Named kTypes[] = {
    {ElementType::kBytes, "bytes", "uint8", {static_cast<uint8_t>(nb::dlpack::dtype_code::UInt), 8, 1}},
    {ElementType::kF32, "f32", "float32", {static_cast<uint8_t>(nb::dlpack::dtype_code::Float), 32, 1}},
    {ElementType::kF16, "f16", "float16", {static_cast<uint8_t>(nb::dlpack::dtype_code::Float), 16, 1}},
    {ElementType::kI32, "i32", "int32", {static_cast<uint8_t>(nb::dlpack::dtype_code::Int), 32, 1}},
    {ElementType::kI64, "i64", "int64", {static_cast<uint8_t>(nb::dlpack::dtype_code::Int), 64, 1}},
};

const Named* Find(ElementType type) {
  for (const Named& named : kTypes) {
    if (named.type == type) return &named;
  }
  return nullptr;
}

std::vector<size_t> Sizes(const std::vector<int64_t>& shape) { return {shape.begin(), shape.end()}; }

int32_t TokenFrom(int64_t value) {
  if (value < std::numeric_limits<int32_t>::min() || value > std::numeric_limits<int32_t>::max()) {
    Refuse(std::to_string(value) + " is no token id");
  }
  return static_cast<int32_t>(value);
}

}  // namespace

ElementType ElementTypeFrom(nb::handle dtype) {
  if (nb::isinstance<nb::str>(dtype)) {
    const auto name = nb::cast<std::string>(dtype);
    for (const Named& named : kTypes) {
      if (name == named.ours) return named.type;
    }
  }
  std::string name;
  try {
    name = nb::cast<std::string>(nb::module_::import_("numpy").attr("dtype")(dtype).attr("name"));
  } catch (const nb::python_error&) {
    name = nb::cast<std::string>(nb::str(dtype));
  }
  for (const Named& named : kTypes) {
    if (name == named.numpys) return named.type;
  }
  Refuse("states are of f32, f16, i32, i64 or bytes (numpy's float32, float16, int32, int64 and uint8), not '" + name + "'");
}

nb::object ArrayOf(ElementType type, std::vector<int64_t> shape, std::span<const std::byte> bytes) {
  const Named* named = Find(type);
  if (named == nullptr) {
    named = Find(ElementType::kBytes);
    if (shape.empty()) shape.push_back(1);
    shape.back() *= static_cast<int64_t>(ElementSize(type));
  }
  auto copy = std::make_unique<std::byte[]>(bytes.empty() ? 1 : bytes.size());
  if (!bytes.empty()) std::memcpy(copy.get(), bytes.data(), bytes.size());
  std::byte* data = copy.get();
  const nb::capsule owner(copy.release(), [](void* p) noexcept { delete[] static_cast<std::byte*>(p); });
  const std::vector<size_t> sizes = Sizes(shape);
  return nb::cast(nb::ndarray<nb::numpy>(data, sizes.size(), sizes.data(), owner, nullptr, named->dtype));
}

nb::object ArrayOf(std::span<const float> values) {
  return ArrayOf(ElementType::kF32, {static_cast<int64_t>(values.size())}, std::as_bytes(values));
}

void CopyInto(std::span<std::byte> to, ElementType type, const std::vector<int64_t>& shape, nb::handle value) {
  const Named* named = Find(type);
  const nb::module_ numpy = nb::module_::import_("numpy");
  // Made first, so that no code of `value`'s ever sees the state itself.
  const nb::object from = numpy.attr("array")(value, nb::arg("subok") = false);
  const std::vector<size_t> sizes = Sizes(shape);
  const nb::object view = nb::cast(nb::ndarray<nb::numpy>(to.data(), sizes.size(), sizes.data(), nb::handle(), nullptr, named->dtype),
                                   nb::rv_policy::reference);
  numpy.attr("copyto")(view, from, nb::arg("casting") = "same_kind");
}

std::vector<int32_t> TokensFrom(nb::handle value) {
  std::vector<int32_t> tokens;
  nb::ndarray<const int32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu> array;
  if (nb::try_cast(value, array, false)) return {array.data(), array.data() + array.size()};
  nb::ndarray<const int64_t, nb::ndim<1>, nb::c_contig, nb::device::cpu> wide;
  if (nb::try_cast(value, wide, false)) {
    tokens.reserve(wide.size());
    for (size_t i = 0; i < wide.size(); ++i) tokens.push_back(TokenFrom(wide.data()[i]));
    return tokens;
  }
  if (nb::isinstance<nb::str>(value) || nb::isinstance<nb::bytes>(value)) Refuse("tokens are integers; Model.tokenize makes them of text");
  for (const nb::handle item : nb::iter(value)) {
    const nb::object index = nb::steal(PyNumber_Index(item.ptr()));
    if (!index.is_valid()) nb::raise_python_error();
    int overflow = 0;
    const long long number = PyLong_AsLongLongAndOverflow(index.ptr(), &overflow);
    if (overflow != 0) Refuse("a number far outside of the vocabulary is no token id");
    tokens.push_back(TokenFrom(number));
  }
  return tokens;
}

nb::list ListOf(std::span<const int32_t> tokens) {
  nb::list list;
  for (const int32_t token : tokens) list.append(token);
  return list;
}

BytesOf::BytesOf(nb::handle value) {
  if (PyObject_GetBuffer(value.ptr(), &buffer_, PyBUF_SIMPLE) != 0) nb::raise_python_error();
}

nb::bytes BytesFrom(std::span<const std::byte> bytes) { return nb::bytes(reinterpret_cast<const char*>(bytes.data()), bytes.size()); }

nb::str TextFrom(std::string_view utf8) {
  PyObject* text = PyUnicode_DecodeUTF8(utf8.data(), static_cast<Py_ssize_t>(utf8.size()), "replace");
  if (text == nullptr) nb::raise_python_error();
  return nb::steal<nb::str>(text);
}

std::string PathFrom(nb::handle path) {
  const nb::module_ os = nb::module_::import_("os");
  const nb::object name = os.attr("path").attr("expanduser")(os.attr("fsdecode")(path));
  const nb::object bytes = os.attr("fsencode")(name);
  const BytesOf raw(bytes);
  return {reinterpret_cast<const char*>(raw.span().data()), raw.span().size()};
}

nb::tuple TupleOf(const std::vector<int64_t>& numbers) {
  nb::list list;
  for (const int64_t number : numbers) list.append(number);
  return nb::tuple(list);
}

}  // namespace reprise::python
