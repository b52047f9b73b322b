// What Python's objects hold: the C++ handle, and the gate of its model. They keep what they need alive, in any order of destruction.
#pragma once

#include <nanobind/nanobind.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "errors.h"
#include "gate.h"
#include "reprise/capsule.h"
#include "reprise/session.h"

namespace reprise::python {

struct ModelHandle {
  Model model;
  std::shared_ptr<Gate> gate = std::make_shared<Gate>();
};

struct CapsuleHandle {
  Capsule capsule;
  std::shared_ptr<Gate> gate = {};  // of its model; none for a capsule of an Execution
  std::string metadata = {};        // that came with it as bytes
};

class SessionHandle {
 public:
  SessionHandle(std::shared_ptr<Gate> gate, Session session) : gate_(std::move(gate)), session_(std::move(session)) {}
  SessionHandle(SessionHandle&& other) noexcept : gate_(std::move(other.gate_)), session_(std::exchange(other.session_, std::nullopt)) {}
  SessionHandle& operator=(SessionHandle&&) = delete;
  ~SessionHandle() { Close(); }

  void Close() {
    if (session_) gate_->LetGo(*std::exchange(session_, std::nullopt));
  }
  bool closed() const { return !session_; }
  const std::shared_ptr<Gate>& gate() const { return gate_; }

  // Alone on the model. Another thread may close the session while this one waits, so whether it is open is asked within.
  template <class Work>
  auto Run(Work&& work) {
    auto result = gate_->Run([&] {
      using Value = decltype(work(*session_));
      return session_ ? std::optional<Value>(work(*session_)) : std::optional<Value>();
    });
    if (!result) Refuse("the session is closed");
    return *std::move(result);
  }
  Session* get() { return session_ ? &*session_ : nullptr; }  // within the gate

 private:
  std::shared_ptr<Gate> gate_;
  std::optional<Session> session_;
};

nanobind::typed<nanobind::list, StateDecl> StatesOf(const StateLayout& layout);  // the declarations, in order

void BindCapsule(nanobind::module_& module);
void BindSampling(nanobind::module_& module);
void BindStore(nanobind::module_& module);
void BindModel(nanobind::module_& module);
void BindSession(nanobind::module_& module);
void BindExecution(nanobind::module_& module);

}  // namespace reprise::python
