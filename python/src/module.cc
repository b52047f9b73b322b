// reprise._reprise: the C++ interface as Python has it. The package (../reprise) names what of it is public.
#include <nanobind/nanobind.h>

#include "handles.h"
#include "reprise/reprise.h"

NB_MODULE(_reprise, module) {
  // Whoever keeps a session in a global variable to the end has lost nothing.
  nanobind::set_leak_warnings(false);
  module.attr("VERSION") = reprise_version();
  reprise::python::BindCapsule(module);
  reprise::python::BindSampling(module);
  reprise::python::BindStore(module);
  reprise::python::BindModel(module);
  reprise::python::BindSession(module);
  reprise::python::BindExecution(module);
}
