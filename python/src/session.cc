// One line of thought on a model.
#include "reprise/session.h"

#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/string_view.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <array>
#include <limits>

#include "arrays.h"
#include "callbacks.h"
#include "handles.h"
#include "reprise/chat.h"

namespace reprise::python {
namespace {

// A token with text of its own.
struct Chosen {
  int32_t id = -1;
  std::string text;
  Finish finish = Finish::kNone;
};

Chosen Copied(const Token& token) { return {token.id, std::string(token.text), token.finish}; }

std::optional<std::string> FinishOf(Finish finish) {
  if (finish == Finish::kNone) return std::nullopt;
  std::string name(FinishName(finish));
  std::replace(name.begin(), name.end(), ' ', '_');
  return name;
}

// A text, tokens, or a chat with the boundaries worth keeping.
struct Prompt {
  std::optional<std::string> text;
  std::vector<int32_t> tokens;
  std::vector<Boundary> boundaries;
};

Prompt PromptFrom(nb::handle given) {
  Prompt prompt;
  const ChatPrompt* chat = nullptr;
  if (nb::isinstance<nb::str>(given)) {
    prompt.text = nb::cast<std::string>(given);
  } else if (nb::try_cast(given, chat, false) && chat != nullptr) {
    prompt.tokens = chat->tokens;
    prompt.boundaries = chat->boundaries;
  } else {
    prompt.tokens = TokensFrom(given);
  }
  return prompt;
}

PrefillReport Prefill(SessionHandle& self, nb::handle given, nb::handle progress) {
  const Prompt prompt = PromptFrom(given);
  Callback between(progress);
  const PrefillOptions options = {
      .progress = [&](int done, int total) { between.Call(done, total); }, .cancel = between.cancel(), .boundaries = prompt.boundaries};
  auto report = self.Run(
      [&](Session& session) { return prompt.text ? session.Prefill(*prompt.text, options) : session.Prefill(prompt.tokens, options); });
  between.Rethrow();
  return Value(std::move(report));
}

void Append(SessionHandle& self, nb::handle given, nb::handle progress) {
  const std::vector<int32_t> tokens = TokensFrom(given);
  Callback between(progress);
  const PrefillOptions options = {.progress = [&](int done, int total) { between.Call(done, total); }, .cancel = between.cancel()};
  const Status status = self.Run([&](Session& session) { return session.Append(tokens, options); });
  between.Rethrow();
  Check(status);
}

Result<Chosen> NextOf(Session& session) {
  REPRISE_ASSIGN_OR_RETURN(const Token token, session.Next());
  return Copied(token);
}

// The last token chosen need not be fed, so one more fits than there are positions.
int RoomOf(const Session& session) {
  return session.model().info().context - session.position() - (session.pending_token() >= 0 ? 1 : 0) + 1;
}

// What Session.generate gives: the next token each time.
struct Tokens {
  nb::object session;
  int64_t left;
  bool ended = false;
};

Chosen NextOfTokens(Tokens& self) {
  if (self.ended || self.left <= 0) throw nb::stop_iteration();
  auto& session = nb::cast<SessionHandle&>(self.session);
  auto chosen = session.Run([](Session& s) -> Result<std::optional<Chosen>> {
    if (RoomOf(s) <= 0) return std::optional<Chosen>();
    REPRISE_ASSIGN_OR_RETURN(Chosen token, NextOf(s));
    return std::optional(std::move(token));
  });
  std::optional<Chosen> token = Value(std::move(chosen));
  if (!token) throw nb::stop_iteration();
  --self.left;
  self.ended = token->finish != Finish::kNone;
  return *std::move(token);
}

struct Completion {
  std::string text;
  std::vector<int32_t> tokens;
  Finish finish = Finish::kLength;
};

Completion Complete(SessionHandle& self, std::optional<int64_t> max_tokens, nb::handle on_text, bool flush) {
  if (max_tokens && *max_tokens < 0) Refuse("max_tokens is not negative");
  Callback each(on_text);
  Completion done;
  const auto show = [&](std::string_view text) {
    done.text += text;
    return each.Do([&](const nb::object& function) {
      if (!text.empty()) function(TextFrom(text));
    });
  };
  const Status status = self.Run([&](Session& session) -> Status {
    const int64_t room = std::min<int64_t>(max_tokens.value_or(std::numeric_limits<int>::max()), std::max(RoomOf(session), 0));
    if (room > 0) {
      // Stopping at the last token too leaves to what follows what becomes of text that is held back.
      REPRISE_ASSIGN_OR_RETURN(done.finish, session.Generate(static_cast<int>(room), [&](const Token& token) {
        if (token.id >= 0) done.tokens.push_back(token.id);
        return show(token.text) && static_cast<int64_t>(done.tokens.size()) < room;
      }));
      if (done.finish == Finish::kCancelled && static_cast<int64_t>(done.tokens.size()) == room) done.finish = Finish::kLength;
    }
    if (flush && done.finish == Finish::kLength) {
      REPRISE_ASSIGN_OR_RETURN(const std::string_view rest, session.FlushText());
      if (!rest.empty()) show(rest);
    }
    return Ok();
  });
  each.Rethrow();
  Check(status);
  return done;
}

std::vector<Chosen> NextBatch(const std::vector<SessionHandle*>& handles) {
  if (handles.empty()) return {};
  for (SessionHandle* handle : handles) {
    if (handle == nullptr) Refuse("a batch is of sessions");
    if (handle->gate() != handles.front()->gate()) Refuse("the sessions of a batch are of one model");
  }
  std::vector<Chosen> chosen;
  Check(handles.front()->gate()->Run([&]() -> Status {
    std::vector<Session*> sessions;
    for (SessionHandle* handle : handles) {
      if (handle->get() == nullptr) return InvalidArgument("a session of the batch is closed");
      sessions.push_back(handle->get());
    }
    std::vector<Token> tokens(sessions.size());
    REPRISE_RETURN_IF_ERROR(Session::NextBatch(sessions, tokens));
    for (const Token& token : tokens) chosen.push_back(Copied(token));
    return Ok();
  }));
  return chosen;
}

std::vector<SessionHandle> Fork(SessionHandle& self, const CapsuleHandle& capsule, int count) {
  auto sessions = Value(self.Run([&](Session& session) { return session.Fork(capsule.capsule, count); }));
  std::vector<SessionHandle> handles;
  handles.reserve(sessions.size());
  for (Session& session : sessions) handles.emplace_back(self.gate(), std::move(session));
  return handles;
}

void SetSpeculation(SessionHandle& self, int draft, std::string_view source, bool adapt) {
  using Source = Speculation::Source;
  constexpr std::array<std::pair<std::string_view, Source>, 3> kSources = {
      {{"auto", Source::kAuto}, {"mtp", Source::kMtp}, {"lookup", Source::kLookup}}};
  const auto found = std::find_if(kSources.begin(), kSources.end(), [&](const auto& s) { return s.first == source; });
  if (found == kSources.end()) Refuse("source is auto, mtp or lookup, not '" + std::string(source) + "'");
  const Speculation speculation = {.draft = draft, .source = found->second, .adapt = adapt};
  Check(self.Run([&](Session& session) { return session.SetSpeculation(speculation); }));
}

nb::object Logits(SessionHandle& self) {
  std::vector<float> logits;
  Check(self.Run([&](Session& session) -> Status {
    REPRISE_ASSIGN_OR_RETURN(const std::span<const float> row, session.Logits());
    logits.assign(row.begin(), row.end());
    return Ok();
  }));
  return ArrayOf(logits);
}

uint64_t Save(SessionHandle& self, std::string_view name, bool pinned, nb::handle metadata) {
  const BytesOf given(metadata);
  const CapsuleStore::PutOptions options = {
      .name = std::string(name), .pinned = pinned, .metadata = {reinterpret_cast<const char*>(given.span().data()), given.span().size()}};
  return Value(self.Run([&](Session& session) { return session.Save(options); }));
}

void BindReports(nb::module_& module) {
  nb::class_<PrefillReport>(module, "PrefillReport", "What of a prompt was already computed, and what was not.")
      .def_ro("reused", &PrefillReport::reused, "Tokens that were already computed.")
      .def_ro("computed", &PrefillReport::computed, "And those that were not.")
      .def_ro("seconds", &PrefillReport::seconds)
      .def_prop_ro(
          "tier", [](const PrefillReport& r) { return TierName(r.tier); }, "Where the reused ones came from.")
      .def_ro("known", &PrefillReport::known, "Tokens on a path that session or store has seen.")
      .def_ro("diverged_from", &PrefillReport::diverged_from, "The store's entry whose path the prompt left there, or 0.")
      .def_ro("reason", &PrefillReport::reason, "Why nothing, or less than `known`, was reused; \"\" when there is nothing to explain.")
      .def("__repr__", [](const PrefillReport& r) {
        return "<reprise.PrefillReport reused " + std::to_string(r.reused) + ", computed " + std::to_string(r.computed) + ">";
      });
  nb::class_<Chosen>(module, "Token", "A token that was chosen.")
      .def_ro("id", &Chosen::id)
      .def_prop_ro(
          "text", [](const Chosen& t) { return TextFrom(t.text); }, "What may be shown now: whole characters.")
      .def_prop_ro(
          "finish", [](const Chosen& t) { return FinishOf(t.finish); },
          "None, or why the answer ends here: \"end_of_text\", \"stop_string\" or \"complete\" (a grammar allows nothing more).")
      .def("__repr__", [](const Chosen& t) {
        return "<reprise.Token " + std::to_string(t.id) + " " + nb::cast<std::string>(nb::repr(TextFrom(t.text))) + ">";
      });
  nb::class_<Completion>(module, "Completion", "A whole answer.")
      .def_prop_ro("text", [](const Completion& c) { return TextFrom(c.text); })
      .def_prop_ro(
          "tokens", [](const Completion& c) { return ListOf(c.tokens); }, nb::sig("def tokens(self) -> list[int]"))
      .def_prop_ro(
          "finish", [](const Completion& c) { return FinishOf(c.finish); }, "Why it ended: as a token's, or \"length\".")
      .def("__repr__",
           [](const Completion& c) { return "<reprise.Completion " + nb::cast<std::string>(nb::repr(TextFrom(c.text))) + ">"; });
  nb::class_<SpeculationStats>(module, "SpeculationStats", "What guessing ahead was worth.")
      .def_ro("steps", &SpeculationStats::steps)
      .def_ro("drafted", &SpeculationStats::drafted)
      .def_ro("accepted", &SpeculationStats::accepted);
  nb::class_<Tokens>(module, "Tokens", "The tokens that a session chooses, one by one.")
      .def(
          "__iter__", [](Tokens& self) { return nb::find(self); }, nb::sig("def __iter__(self) -> Tokens"))
      .def("__next__", &NextOfTokens);
}

}  // namespace

void BindSession(nb::module_& module) {
  BindReports(module);
  nb::class_<SessionHandle>(module, "Session",
                            "One line of thought on a model, and the verbs on everything it remembers. Between any two calls it stands at "
                            "a committed boundary, after an "
                            "exception too. It takes one of the model's lanes until it is closed or no longer used.")
      .def("close", &SessionHandle::Close, "Gives its lane back. Closing twice is fine.")
      .def_prop_ro("closed", &SessionHandle::closed)
      .def(
          "__enter__", [](SessionHandle& self) { return nb::find(self); }, nb::sig("def __enter__(self) -> Session"))
      .def(
          "__exit__", [](SessionHandle& self, const nb::args&) { self.Close(); }, nb::sig("def __exit__(self, *error: object) -> None"))

      .def_prop_ro(
          "position", [](SessionHandle& self) { return self.Run([](Session& s) { return s.position(); }); },
          "Tokens in the context, all of them committed.")
      .def_prop_ro(
          "tokens", [](SessionHandle& self) { return ListOf(self.Run([](Session& s) { return s.tokens(); })); },
          nb::sig("def tokens(self) -> list[int]"))
      .def_prop_ro(
          "pending_token",
          [](SessionHandle& self) {
            const int32_t token = self.Run([](Session& s) { return s.pending_token(); });
            return token >= 0 ? std::optional(token) : std::nullopt;
          },
          "Chosen but not yet fed to the model, or None.")

      .def("prefill", &Prefill, nb::arg("prompt"), nb::kw_only(), nb::arg("progress") = nb::none(),
           nb::sig("def prefill(self, prompt: str | collections.abc.Iterable[int] | ChatPrompt, *, progress: "
                   "collections.abc.Callable[[int, int], object] "
                   "| None = None) -> PrefillReport"),
           "Makes the context exactly this prompt, computing only what neither this session nor the store already holds. progress: called "
           "with the tokens "
           "done and to do. An exception of it, or Ctrl-C, ends the call at the boundary reached, which is kept.")
      .def("append", &Append, nb::arg("tokens"), nb::kw_only(), nb::arg("progress") = nb::none(),
           nb::sig("def append(self, tokens: collections.abc.Iterable[int], *, progress: collections.abc.Callable[[int, int], object] | "
                   "None = None) -> "
                   "None"),
           "Adds to the context. A token chosen but not yet fed is fed first.")

      .def(
          "set_sampling",
          [](SessionHandle& self, const SamplingOptions& o) { Check(self.Run([&](Session& s) { return s.SetSampling(o); })); },
          nb::arg("sampling"), "How tokens are chosen from here on. Seeds the generator; part of what a capsule holds.")
      .def_prop_ro("sampling", [](SessionHandle& self) { return self.Run([](Session& s) { return s.sampling(); }); })
      .def("set_speculation", &SetSpeculation, nb::arg("draft"), nb::arg("source") = "auto", nb::arg("adapt") = true,
           "Guessing ahead in `complete`: up to `draft` tokens a step, 0 turns it off. Tokens are the same with and without; only the "
           "speed differs.")
      .def_prop_ro("speculation_stats", [](SessionHandle& self) { return self.Run([](Session& s) { return s.speculation_stats(); }); })

      .def(
          "next", [](SessionHandle& self) { return Value(self.Run([](Session& s) { return NextOf(s); })); },
          "Chooses the next token. The first call after a prompt chooses from logits that are already there; each later one feeds the "
          "token before.")
      .def(
          "generate",
          [](SessionHandle& self, std::optional<int64_t> max_tokens) {
            return Tokens{nb::find(self), max_tokens.value_or(std::numeric_limits<int64_t>::max())};
          },
          nb::arg("max_tokens") = nb::none(), nb::sig("def generate(self, max_tokens: int | None = None) -> Tokens"),
          "Tokens one by one, until the answer ends, there are max_tokens, or the context is full. Stop reading whenever you like: the "
          "session stands where "
          "you stopped.")
      .def("complete", &Complete, nb::arg("max_tokens") = nb::none(), nb::kw_only(), nb::arg("on_text") = nb::none(),
           nb::arg("flush") = true,
           nb::sig("def complete(self, max_tokens: int | None = None, *, on_text: collections.abc.Callable[[str], object] | None = None, "
                   "flush: bool = "
                   "True) -> Completion"),
           "The whole answer, guessing ahead where set_speculation asks for it. on_text hears text as it becomes certain. flush: at the "
           "end by length, text "
           "held back (it might have begun a stop string) is shown and forgotten; otherwise the session keeps it, and shows it later.")
      .def(
          "flush",
          [](SessionHandle& self) {
            return TextFrom(Value(self.Run([](Session& s) -> Result<std::string> {
              REPRISE_ASSIGN_OR_RETURN(const std::string_view text, s.FlushText());
              return std::string(text);
            })));
          },
          "The text still held back, once nothing more will follow.")
      .def("logits", &Logits, nb::sig("def logits(self) -> numpy.ndarray"),
           "Of the boundary: float32, one for each token of the vocabulary. A copy.")

      .def("save", &Save, nb::arg("name") = "", nb::kw_only(), nb::arg("pinned") = false, nb::arg("metadata") = nb::bytes(""),
           "Puts this boundary into the store, and returns its id; 0 when the budget has no room for it.")
      .def(
          "end_reply", [](SessionHandle& self) { Check(self.Run([](Session& s) { return s.EndReply(); })); },
          "A reply ends here: the store keeps the boundary, so that the next question goes on from it. Nothing without a store.")

      .def(
          "snapshot",
          [](SessionHandle& self) {
            return CapsuleHandle{self.Run([](Session& s) { return s.Snapshot(); }), self.gate()};
          },
          "Everything that the session remembers, by reference: microseconds, at any length of context.")
      .def(
          "restore", [](SessionHandle& self, const CapsuleHandle& c) { Check(self.Run([&](Session& s) { return s.Restore(c.capsule); })); },
          nb::arg("capsule"),
          "The same, bit for bit: what follows is what would have followed. MismatchError for a capsule of another model.")
      .def("fork", &Fork, nb::arg("capsule"), nb::arg("count"), "New sessions at the capsule: all of them, or none and an exception.")
      .def(
          "rollback", [](SessionHandle& self, int count) { Check(self.Run([&](Session& s) { return s.Rollback(count); })); },
          nb::arg("count"), "As if the last `count` tokens had not been, exactly. InvalidArgumentError when that boundary is out of reach.")
      .def(
          "export",
          [](SessionHandle& self, const CapsuleHandle& c) {
            return BytesFrom(Value(self.Run([&](Session& s) { return s.Export(c.capsule); })));
          },
          nb::arg("capsule"), "The capsule as bytes, with the model's name and a digest of its tokens. Model.import_capsule reads them.")
      .def("__repr__", [](SessionHandle& self) {
        if (self.closed()) return std::string("<reprise.Session, closed>");
        return "<reprise.Session at " + std::to_string(self.Run([](Session& s) { return s.position(); })) + ">";
      });

  module.def("next_batch", &NextBatch, nb::arg("sessions"),
             "Session.next for several sessions of one model, decoded as one batch: weights are read once for all of them. All of them "
             "choose or, with an "
             "exception, none.");
}

}  // namespace reprise::python
