#include "errors.h"

#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>

namespace nb = nanobind;

namespace reprise::python {

void Check(const Status& status) {
  if (status.ok()) return;
  const nb::object type = nb::module_::import_("reprise.errors").attr("BY_CODE")[nb::int_(static_cast<int>(status.code()))];
  PyErr_SetObject(type.ptr(), nb::cast(status.message()).ptr());
  throw nb::python_error();
}

void Refuse(std::string why) {
  Check(InvalidArgument(std::move(why)));
  throw nb::python_error();  // never reached
}

}  // namespace reprise::python
