// How the next token is chosen, and what ends a generation.
#include "reprise/sampling.h"

#include <nanobind/operators.h>
#include <nanobind/stl/map.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <map>

#include "arrays.h"
#include "handles.h"

namespace reprise::python {
namespace {

Grammar GrammarFrom(nb::handle schema) {
  if (schema.is_none()) return {};
  if (nb::isinstance<nb::bool_>(schema)) return nb::cast<bool>(schema) ? Grammar::JsonObject() : Grammar();
  const nb::object text = nb::isinstance<nb::str>(schema) ? nb::borrow(schema) : nb::module_::import_("json").attr("dumps")(schema);
  return Value(Grammar::JsonSchema(nb::cast<std::string>(text)));
}

}  // namespace

void BindSampling(nb::module_& module) {
  using Options = SamplingOptions;
  const Options defaults;
  nb::class_<Options>(
      module, "Sampling",
      "How the next token is chosen from the logits, and what ends a generation. The steps, in order: the grammar, penalties, biases, "
      "temperature, top_k, top_p, min_p, draw. What is chosen depends on the logits, these options, the context and the seed alone.")
      .def(
          "__init__",
          [](Options* self, float temperature, int top_k, float top_p, float min_p, float repetition_penalty, float presence_penalty,
             float frequency_penalty, int penalty_window, uint64_t seed, std::vector<std::string> stop,
             const std::map<int32_t, float>& bias, nb::handle json_schema) {
            Options options{.temperature = temperature,
                            .top_k = top_k,
                            .top_p = top_p,
                            .min_p = min_p,
                            .repetition_penalty = repetition_penalty,
                            .presence_penalty = presence_penalty,
                            .frequency_penalty = frequency_penalty,
                            .penalty_window = penalty_window,
                            .seed = seed,
                            .stop = std::move(stop),
                            .bias = {bias.begin(), bias.end()},
                            .grammar = GrammarFrom(json_schema)};
            Check(options.Check());
            new (self) Options(std::move(options));
          },
          nb::kw_only(), nb::arg("temperature") = defaults.temperature, nb::arg("top_k") = defaults.top_k,
          nb::arg("top_p") = defaults.top_p, nb::arg("min_p") = defaults.min_p, nb::arg("repetition_penalty") = defaults.repetition_penalty,
          nb::arg("presence_penalty") = defaults.presence_penalty, nb::arg("frequency_penalty") = defaults.frequency_penalty,
          nb::arg("penalty_window") = defaults.penalty_window, nb::arg("seed") = defaults.seed, nb::arg("stop") = nb::list(),
          nb::arg("bias") = nb::dict(), nb::arg("json_schema") = nb::none(),
          "temperature 0 is greedy. stop: texts that end the generation and are not shown. bias: added to the logits of tokens. "
          "json_schema: what the "
          "text must be, a schema as a dict or as JSON, or True for any JSON object.")
      .def_ro("temperature", &Options::temperature)
      .def_ro("top_k", &Options::top_k)
      .def_ro("top_p", &Options::top_p)
      .def_ro("min_p", &Options::min_p)
      .def_ro("repetition_penalty", &Options::repetition_penalty)
      .def_ro("presence_penalty", &Options::presence_penalty)
      .def_ro("frequency_penalty", &Options::frequency_penalty)
      .def_ro("penalty_window", &Options::penalty_window)
      .def_ro("seed", &Options::seed)
      .def_ro("stop", &Options::stop)
      .def_prop_ro("bias", [](const Options& self) { return std::map<int32_t, float>(self.bias.begin(), self.bias.end()); })
      .def_prop_ro("has_grammar", [](const Options& self) { return self.grammar.present(); })
      .def(nb::self == nb::self, nb::sig("def __eq__(self, other: object, /) -> bool"))
      .def("__hash__", [](const Options& self) { return self.seed ^ std::hash<float>()(self.temperature); });
}

}  // namespace reprise::python
