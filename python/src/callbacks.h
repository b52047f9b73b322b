// Python's functions, called from within a call that has let go of the interpreter; and signals, which only Python's main thread hears.
#pragma once

#include <nanobind/nanobind.h>

#include <atomic>
#include <optional>
#include <utility>

namespace reprise::python {

namespace nb = nanobind;

// A function of the user's, or none. The first exception, of the function or of a signal (Ctrl-C), is kept, and asks for the call to end.
class Callback {
 public:
  explicit Callback(nb::handle function) : function_(nb::borrow(function)) {}
  bool given() const { return !function_.is_none(); }

  // From within: takes the interpreter, lets signals be handled, and where there is a function does `work`, which calls it. False once anything was
  // raised.
  template <class Work>
  bool Do(Work&& work) {
    const nb::gil_scoped_acquire acquired;
    if (error_) return false;
    try {
      if (PyErr_CheckSignals() != 0) nb::raise_python_error();
      if (given()) work(function_);
    } catch (nb::python_error& error) {
      error_.emplace(std::move(error));
      cancel_.store(true);
      return false;
    }
    return true;
  }
  template <class... Args>
  bool Call(Args... args) {
    return Do([&](const nb::object& function) { function(args...); });
  }
  const std::atomic<bool>* cancel() const { return &cancel_; }

  // When the call has ended and the interpreter is held again.
  void Rethrow() {
    if (error_) throw nb::python_error(*std::exchange(error_, std::nullopt));
  }

 private:
  nb::object function_;
  std::optional<nb::python_error> error_;
  std::atomic<bool> cancel_ = false;
};

}  // namespace reprise::python
