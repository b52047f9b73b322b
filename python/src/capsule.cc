// Capsules, and the declarations of what they hold.
#include "reprise/capsule.h"

#include <nanobind/stl/string.h>
#include <nanobind/stl/string_view.h>

#include "arrays.h"
#include "handles.h"

namespace reprise::python {
namespace {

std::vector<int64_t> ShapeAt(const StateDecl& state, int64_t rows) {
  std::vector<int64_t> shape = state.shape;
  if (state.growth == Growth::kAppend) shape.insert(shape.begin(), rows);
  return shape;
}

nb::object Read(const CapsuleHandle& self, std::string_view name) {
  const Capsule& capsule = self.capsule;
  const auto read = [&] { return capsule.Read(name); };
  const auto bytes = Value(self.gate ? self.gate->Run(read) : read());
  const StateDecl& state = capsule.layout()[capsule.layout().Find(name)];
  return ArrayOf(state.type, ShapeAt(state, capsule.position()), bytes);
}

nb::bytes ToBytes(const CapsuleHandle& self, nb::handle metadata) {
  const BytesOf given(metadata);
  const std::string_view text(reinterpret_cast<const char*>(given.span().data()), given.span().size());
  const auto serialise = [&] { return self.capsule.Serialize(text); };
  return BytesFrom(Value(self.gate ? self.gate->Run(serialise) : serialise()));
}

}  // namespace

nb::typed<nb::list, StateDecl> StatesOf(const StateLayout& layout) {
  nb::list states;
  for (const StateDecl& state : layout.states()) states.append(nb::cast(state, nb::rv_policy::copy));
  return nb::typed<nb::list, StateDecl>(states);
}

void BindCapsule(nb::module_& module) {
  nb::class_<StateDecl>(module, "State", "One declared state: its name, kind and shape.")
      .def_ro("name", &StateDecl::name)
      .def_prop_ro(
          "growth", [](const StateDecl& s) { return s.growth == Growth::kAppend ? "append" : "recurrent"; },
          "\"recurrent\": rewritten as a whole at each step. \"append\": one row a position, never changed.")
      .def_prop_ro(
          "space", [](const StateDecl& s) { return s.space == Space::kHost ? "host" : "device"; },
          "\"device\": of what computes the step. \"host\": changed between steps.")
      .def_prop_ro(
          "dtype", [](const StateDecl& s) { return ElementTypeName(s.type); }, "f32, f16, i32, i64, bytes or q8_0.")
      .def_prop_ro(
          "shape", [](const StateDecl& s) { return TupleOf(s.shape); }, nb::sig("def shape(self) -> tuple[int, ...]"),
          "Of the whole state, or of one row of an append-only one.")
      .def_ro("nbytes", &StateDecl::bytes, "Of the whole state, or of one row.")
      .def("__repr__", [](const StateDecl& s) {
        return "<reprise.State '" + s.name + "' " + (s.growth == Growth::kAppend ? "append " : "recurrent ") +
               std::string(ElementTypeName(s.type)) + " " + nb::cast<std::string>(nb::repr(TupleOf(s.shape))) + ">";
      });

  nb::class_<CapsuleHandle>(module, "Capsule",
                            "Everything that one session or lane remembered at a boundary. It never changes. Taking and keeping one copies "
                            "nothing; it shares its memory with whatever it was taken from.")
      .def_prop_ro(
          "position", [](const CapsuleHandle& c) { return c.capsule.position(); }, "How many positions had been committed.")
      .def_prop_ro("id", [](const CapsuleHandle& c) { return c.capsule.id(); })
      .def_prop_ro(
          "parent", [](const CapsuleHandle& c) { return c.capsule.parent(); }, "The capsule taken or restored before it there, or 0.")
      .def_prop_ro(
          "fingerprint", [](const CapsuleHandle& c) { return c.capsule.fingerprint().Hex(); }, "Whose state it is.")
      .def_prop_ro("recurrent_bytes", [](const CapsuleHandle& c) { return c.capsule.recurrent_bytes(); })
      .def_prop_ro(
          "row_bytes", [](const CapsuleHandle& c) { return c.capsule.row_bytes(); }, "Of all its append-only rows.")
      .def_prop_ro(
          "metadata", [](const CapsuleHandle& c) { return BytesFrom(std::as_bytes(std::span(c.metadata))); },
          "What came with it as bytes; b\"\" for a capsule taken here.")
      .def_prop_ro(
          "states", [](const CapsuleHandle& c) { return StatesOf(c.capsule.layout()); }, "What it holds, as it was declared.")
      .def("read", &Read, nb::arg("state"),
           "A copy of one state as an array: the whole of a recurrent one, or `position` rows of an append-only one.")
      .def("to_bytes", &ToBytes, nb::arg("metadata") = nb::bytes(""),
           "The capsule as bytes (docs/capsule_format.md), with up to 65,536 bytes of the caller's own. Session.export says whose it is as "
           "well.")
      .def("__repr__", [](const CapsuleHandle& c) {
        return "<reprise.Capsule " + std::to_string(c.capsule.id()) + " at " + std::to_string(c.capsule.position()) + ">";
      });
}

}  // namespace reprise::python
