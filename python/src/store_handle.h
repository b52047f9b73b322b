// The store of a model, which keeps it alive.
#pragma once

#include "handles.h"

namespace reprise::python {

struct StoreHandle {
  Model model;
  std::shared_ptr<Gate> gate;
  CapsuleStore& store() const { return *model.store(); }
};

}  // namespace reprise::python
