// A loaded model.
#include "reprise/model.h"

#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/string_view.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <array>

#include "arrays.h"
#include "callbacks.h"
#include "reprise/chat.h"
#include "store_handle.h"

namespace reprise::python {
namespace {

KeyValueType KeyValuesFrom(std::string_view name) {
  constexpr std::array<std::pair<std::string_view, KeyValueType>, 4> kTypes = {
      {{"auto", KeyValueType::kAuto}, {"f16", KeyValueType::kF16}, {"f32", KeyValueType::kF32}, {"q8_0", KeyValueType::kQ8_0}}};
  const auto found = std::find_if(kTypes.begin(), kTypes.end(), [&](const auto& type) { return type.first == name; });
  if (found == kTypes.end()) Refuse("kv is auto, f16, f32 or q8_0, not '" + std::string(name) + "'");
  return found->second;
}

void Load(ModelHandle* self, nb::handle path, std::string_view device, int threads, bool pin_threads, int context, int lanes, int capsules,
          size_t state_budget, size_t spill_budget, int chunk, std::string_view kv, std::string_view instruction_set, nb::handle store,
          nb::handle progress) {
  ModelOptions options;
  options.device = device;
  options.threads = threads;
  options.pin_threads = pin_threads;
  options.context = context;
  options.lanes = lanes;
  options.capsules = capsules;
  options.state_budget = state_budget;
  options.spill_budget = spill_budget;
  options.chunk = chunk;
  options.kv = KeyValuesFrom(kv);
  options.instruction_set = instruction_set;
  if (StoreOptions given; nb::try_cast(store, given, false)) {
    options.store = given;
  } else if (!store.is_none()) {
    options.store = StoreOptions{.directory = PathFrom(store)};
  }
  Callback report(progress);
  if (report.given()) {
    options.progress = [&](double fraction) { report.Call(fraction); };
  }
  const std::string file =
      PathFrom(path.is_none() ? nb::object(nb::module_::import_("reprise._embedded").attr("MODEL")) : nb::borrow(path));
  auto model = [&] {
    const nb::gil_scoped_release released;
    return Model::Load(file, options);
  }();
  report.Rethrow();
  new (self) ModelHandle{Value(std::move(model))};
}

std::vector<Message> MessagesFrom(nb::handle messages) {
  std::vector<Message> read;
  const nb::str role("role");
  const nb::str content("content");
  for (const nb::handle message : nb::iter(messages)) {
    try {
      read.push_back({nb::cast<std::string>(message[role]), nb::cast<std::string>(message[content])});
    } catch (const nb::cast_error&) {
      Refuse("message " + std::to_string(read.size()) + ": role and content are texts");
    }
  }
  return read;
}

void BindInfo(nb::module_& module) {
  nb::class_<ModelInfo>(module, "ModelInfo", "What a loaded model is.")
      .def_ro("path", &ModelInfo::path)
      .def_prop_ro("name", [](const ModelInfo& i) { return TextFrom(i.name); })
      .def_ro("architecture", &ModelInfo::architecture)
      .def_ro("parameters", &ModelInfo::parameters)
      .def_ro("used_parameters", &ModelInfo::used_parameters, "By one token: fewer where there are experts.")
      .def_ro("experts", &ModelInfo::experts)
      .def_ro("experts_used", &ModelInfo::experts_used)
      .def_ro("file_bytes", &ModelInfo::file_bytes)
      .def_ro("layers", &ModelInfo::layers)
      .def_ro("width", &ModelInfo::width)
      .def_ro("vocabulary", &ModelInfo::vocabulary)
      .def_ro("context", &ModelInfo::context, "Most positions of a session here.")
      .def_ro("lanes", &ModelInfo::lanes, "Sessions that can be live at once.")
      .def_ro("capsules", &ModelInfo::capsules)
      .def_ro("has_draft", &ModelInfo::has_draft, "Whether it has a block that foretells the token after next (MTP).")
      .def_ro("backend", &ModelInfo::backend)
      .def_prop_ro(
          "fingerprint", [](const ModelInfo& i) { return i.fingerprint.Hex(); }, "Capsules are exchanged between models of the same one.")
      .def_ro("weight_bytes", &ModelInfo::weight_bytes, "That a step of one token reads.")
      .def("__repr__", [](const ModelInfo& i) { return "<reprise.ModelInfo " + i.architecture + " on " + i.backend + ">"; });
}

void BindChatPrompt(nb::module_& module) {
  nb::class_<ChatPrompt>(module, "ChatPrompt", "A chat as a prompt: its tokens, and the boundaries that later prompts are likely to share.")
      .def_prop_ro(
          "tokens", [](const ChatPrompt& p) { return ListOf(p.tokens); }, nb::sig("def tokens(self) -> list[int]"))
      .def("__len__", [](const ChatPrompt& p) { return p.tokens.size(); });
}

}  // namespace

void BindModel(nb::module_& module) {
  BindInfo(module);
  BindChatPrompt(module);
  const ModelOptions defaults;
  nb::class_<ModelHandle>(
      module, "Model",
      "A loaded model file, its memory, and the sessions that run on it. Calls may come from any thread: those that need the model "
      "run one after another, and leave the interpreter to others meanwhile.")
      .def("__init__", &Load, nb::arg("path") = nb::none(), nb::kw_only(), nb::arg("device") = "", nb::arg("threads") = defaults.threads,
           nb::arg("pin_threads") = defaults.pin_threads, nb::arg("context") = defaults.context, nb::arg("lanes") = defaults.lanes,
           nb::arg("capsules") = defaults.capsules, nb::arg("state_budget") = defaults.state_budget,
           nb::arg("spill_budget") = defaults.spill_budget, nb::arg("chunk") = defaults.chunk, nb::arg("kv") = "auto",
           nb::arg("instruction_set") = "", nb::arg("store") = nb::none(), nb::arg("progress") = nb::none(),
           "path: a GGUF file; without one the embedded model, which is small and knows nothing. device: \"cpu\", \"cuda\", \"cuda:1\". "
           "threads 0: all. "
           "context 0: what the model was made for. store: a directory, or StoreOptions. progress: called with fractions from 0 to 1. The "
           "others are as "
           "in include/reprise/model.h.")
      .def_prop_ro("info", [](const ModelHandle& self) { return self.model.info(); })
      .def_prop_ro(
          "states", [](const ModelHandle& self) { return StatesOf(self.model.layout()); },
          "Everything that a session of it remembers, by name.")
      .def_prop_ro(
          "store",
          [](const ModelHandle& self) {
            return self.model.store() != nullptr ? std::optional<StoreHandle>({self.model, self.gate}) : std::nullopt;
          },
          "The store that was asked for, or None.")
      .def(
          "session",
          [](const ModelHandle& self, std::string_view name_space) {
            auto session = self.gate->Run([&] { return self.model.NewSession({.name_space = std::string(name_space)}); });
            return SessionHandle(self.gate, Value(std::move(session)));
          },
          nb::arg("namespace") = "", "A session at position 0. What it puts into the store, and finds there, is of its namespace alone.")
      .def(
          "chat",
          [](const ModelHandle& self, nb::handle messages, std::optional<bool> think) {
            return Value(ChatPrompt::Of(self.model, MessagesFrom(messages), {.think = think}));
          },
          nb::arg("messages"), nb::arg("think") = nb::none(),
          nb::sig("def chat(self, messages: collections.abc.Iterable[collections.abc.Mapping[str, str]], think: bool | None = None) -> "
                  "ChatPrompt"),
          "Messages ({\"role\": ..., \"content\": ...}) in the model's own format, for Session.prefill. think: whether the answer begins "
          "with thoughts, "
          "where the model knows such.")
      .def(
          "tokenize",
          [](const ModelHandle& self, std::string_view text, bool parse_special) {
            return ListOf(Value(self.model.Tokenize(text, parse_special)));
          },
          nb::arg("text"), nb::arg("parse_special") = false,
          nb::sig("def tokenize(self, text: str, parse_special: bool = False) -> list[int]"),
          "Control tokens written in the text become those tokens only with parse_special: never for text from people you do not trust.")
      .def(
          "detokenize",
          [](const ModelHandle& self, nb::handle tokens) { return TextFrom(Value(self.model.Detokenize(TokensFrom(tokens)))); },
          nb::arg("tokens"), nb::sig("def detokenize(self, tokens: collections.abc.Iterable[int]) -> str"))
      .def(
          "detokenize_bytes",
          [](const ModelHandle& self, nb::handle tokens) {
            const std::string text = Value(self.model.Detokenize(TokensFrom(tokens)));
            return BytesFrom(std::as_bytes(std::span(text)));
          },
          nb::arg("tokens"), nb::sig("def detokenize_bytes(self, tokens: collections.abc.Iterable[int]) -> bytes"),
          "The same without an end in half a character being replaced.")
      .def(
          "is_end_of_generation", [](const ModelHandle& self, int32_t token) { return self.model.IsEndOfGeneration(token); },
          nb::arg("token"))
      .def(
          "import_capsule",
          [](const ModelHandle& self, nb::handle bytes) {
            const BytesOf given(bytes);
            Capsule capsule = Value(self.gate->Run([&] { return self.model.ImportCapsule(given.span()); }));
            return CapsuleHandle{std::move(capsule), self.gate, Value(SummariseCapsule(given.span())).metadata};
          },
          nb::arg("bytes"), nb::sig("def import_capsule(self, bytes: bytes | bytearray | memoryview) -> Capsule"),
          "A capsule of this model from bytes, made here or anywhere: refused unless whole and of the same fingerprint.")
      .def("__repr__", [](const ModelHandle& self) {
        return "<reprise.Model " + nb::cast<std::string>(nb::repr(TextFrom(self.model.info().name))) + " (" +
               self.model.info().architecture + ") on " + self.model.info().backend + ">";
      });
}

}  // namespace reprise::python
