// Snapshot, restore and fork for anything that steps: a voice detector, a robot policy, a simulator.
#include "reprise/execution.h"

#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/string_view.h>
#include <nanobind/stl/vector.h>

#include <atomic>
#include <map>
#include <shared_mutex>
#include <thread>

#include "arrays.h"
#include "handles.h"

namespace reprise::python {
namespace {

// How many steps of any execution this thread is in.
thread_local int steps_here = 0;
struct StepHere {
  StepHere() { ++steps_here; }
  ~StepHere() { --steps_here; }
  StepHere(const StepHere&) = delete;
  StepHere& operator=(const StepHere&) = delete;
};

struct Shared {
  explicit Shared(Execution made) : execution(std::move(made)) {}
  Execution execution;
  std::map<std::string, InputDecl, std::less<>> inputs = {};
  // Steps read inputs, and a write must not run beside them.
  std::shared_mutex inputs_mutex = {};
};

struct ExecutionHandle {
  std::shared_ptr<Shared> shared;
  Execution& execution() const { return shared->execution; }
};

// Takes `mutex`, without the interpreter where that takes waiting: whoever has it may need the interpreter to let go.
template <class Lock>
class Waited {
 public:
  explicit Waited(std::shared_mutex& mutex) : lock_(mutex, std::try_to_lock) {
    if (lock_.owns_lock()) return;
    const nb::gil_scoped_release released;
    lock_.lock();
  }

 private:
  Lock lock_;
};

struct Declared {
  int index;
  const StateDecl& state;
};

Declared Find(const Execution& execution, std::string_view name, Growth growth, std::string_view instead) {
  const StateLayout& layout = execution.layout();
  const int index = layout.Find(name);
  if (index < 0) Check(NotFound("there is no state '" + std::string(name) + "'"));
  if (layout[index].growth != growth) {
    Refuse("'" + std::string(name) + "' is " + (growth == Growth::kAppend ? "a recurrent" : "an append-only") +
           " state: " + std::string(instead));
  }
  return {index, layout[index]};
}

Declared FindRecurrent(const Execution& execution, std::string_view name) {
  return Find(execution, name, Growth::kRecurrent, "its rows are read with history() and written with row()");
}

Declared FindRows(const Execution& execution, std::string_view name) {
  return Find(execution, name, Growth::kAppend, "it is read and written as a whole, with [name]");
}

std::vector<int64_t> WithRows(const StateDecl& state, int64_t rows) {
  std::vector<int64_t> shape = state.shape;
  shape.insert(shape.begin(), rows);
  return shape;
}

// Rows [start, stop) as one array, each from `row`.
template <class Row>
nb::object RowsOf(const StateDecl& state, int64_t start, std::optional<int64_t> stop, int64_t end, Row&& row) {
  const int64_t until = stop.value_or(end);
  if (start < 0 || until < start || until > end) {
    Refuse("there are rows 0 to " + std::to_string(end) + ", not " + std::to_string(start) + " to " + std::to_string(until));
  }
  std::vector<std::byte> bytes;
  bytes.reserve(static_cast<size_t>(until - start) * state.bytes);
  for (int64_t position = start; position < until; ++position) {
    const std::span<const std::byte> one = row(position);
    bytes.insert(bytes.end(), one.begin(), one.end());
  }
  return ArrayOf(state.type, WithRows(state, until - start), bytes);
}

// A step as Python's function has it: `view` is null once the function has returned.
class StepHandle {
 public:
  StepHandle(std::shared_ptr<Shared> shared, StepView& view) : shared_(std::move(shared)), view_(&view) {}
  void End() { view_ = nullptr; }

  StepView& view() const {
    if (view_ == nullptr) Refuse("a step is there for its own function alone, while that runs");
    return *view_;
  }
  int64_t position() const { return view().position(); }
  int rows() const { return view().rows(); }

  nb::object Read(std::string_view name) const {
    const auto [index, state] = FindRecurrent(shared_->execution, name);
    return ArrayOf(state.type, state.shape, view().Read(RecurrentState<std::byte>{index}));
  }
  void Write(std::string_view name, nb::handle value) const {
    const auto [index, state] = FindRecurrent(shared_->execution, name);
    // From what it was, so that a value that cannot be written leaves it so, whatever the function does with the exception.
    CopyInto(Writable(view().Update(RecurrentState<std::byte>{index}), state), state.type, state.shape, value);
  }
  void Row(std::string_view name, nb::handle value, int row) const {
    const auto [index, state] = FindRows(shared_->execution, name);
    if (row < 0 || row >= rows()) Refuse("the step has " + std::to_string(rows()) + " rows, and no row " + std::to_string(row));
    CopyInto(Writable(view().Row(RowState<std::byte>{index}, row), state), state.type, state.shape, value);
  }
  nb::object History(std::string_view name, int64_t start, std::optional<int64_t> stop) const {
    const Declared rows = FindRows(shared_->execution, name);
    return RowsOf(rows.state, start, stop, position() + this->rows(),
                  [&](int64_t at) { return view().History(RowState<std::byte>{rows.index}, at); });
  }
  nb::object ReadInput(std::string_view name) const {
    const auto input = Value(shared_->execution.FindInput<std::byte>(name));
    const InputDecl& decl = shared_->inputs.find(name)->second;
    return ArrayOf(decl.type, decl.shape, view().Read(input));
  }

 private:
  // The core gives nothing for what may not be written in this step, and says why when the step ends; here it is said at once.
  std::span<std::byte> Writable(std::span<std::byte> bytes, const StateDecl& state) const {
    if (bytes.empty()) Refuse("'" + state.name + "' cannot be written in this step: one of 0 rows writes states of the host alone");
    return bytes;
  }

  std::shared_ptr<Shared> shared_;
  StepView* view_;
};

class LaneHandle {
 public:
  LaneHandle(std::shared_ptr<Shared> shared, ExecutionLane lane) : shared_(std::move(shared)), lane_(std::move(lane)) {}
  LaneHandle(LaneHandle&& other) noexcept : shared_(std::move(other.shared_)), lane_(std::move(other.lane_)) {}

  // The lane, for the thread that has it; others are told so instead of waiting, since a lane is one line of steps.
  class Own {
   public:
    explicit Own(LaneHandle& handle) : handle_(handle) {
      std::thread::id nobody;
      first_ = handle.owner_.compare_exchange_strong(nobody, std::this_thread::get_id());
      if (!first_ && nobody != std::this_thread::get_id()) Refuse("the lane is in use on another thread; each is for one thread at a time");
      if (handle.lane_) return;
      if (first_) handle.owner_.store({});
      Refuse("the lane is closed");
    }
    ~Own() {
      if (first_) handle_.owner_.store({});
    }
    ExecutionLane* operator->() const { return &*handle_.lane_; }
    bool within_a_step() const { return !first_; }

   private:
    LaneHandle& handle_;
    bool first_ = false;
  };

  nb::object Step(const nb::callable& function, int rows) {
    const Own lane(*this);
    // A step within a step (of another lane) reads the same inputs, which the outer one holds already.
    std::optional<Waited<std::shared_lock<std::shared_mutex>>> reading;
    if (steps_here == 0) reading.emplace(shared_->inputs_mutex);
    std::optional<nb::python_error> error;
    nb::object result = nb::none();
    const StepHere here;
    const Status status = lane->Step(rows, [&](StepView& view) -> Status {
      const nb::object step = nb::cast(new StepHandle(shared_, view), nb::rv_policy::take_ownership);
      auto& handle = nb::cast<StepHandle&>(step);
      Status done;
      try {
        result = function(step);
      } catch (nb::python_error& raised) {
        error.emplace(std::move(raised));
        done = Cancelled("the step's function raised an exception");
      }
      handle.End();
      return done;
    });
    if (error) throw nb::python_error(*std::exchange(error, std::nullopt));
    Check(status);
    return result;
  }

  void Close() {
    if (!lane_) return;
    if (Own(*this).within_a_step()) Refuse("a lane is closed between its steps");
    lane_.reset();
  }
  const std::shared_ptr<Shared>& shared() const { return shared_; }

 private:
  std::shared_ptr<Shared> shared_;
  std::optional<ExecutionLane> lane_;
  std::atomic<std::thread::id> owner_ = {};
};

ExecutionHandle Create(const StateLayout& layout, std::string_view identity, int lanes, int capsules, int64_t rows, int max_position) {
  const ExecutionOptions options = {.lanes = lanes, .capsules = capsules, .rows = rows, .max_position = max_position};
  return {std::make_shared<Shared>(Value(Execution::Create(layout, options, identity)))};
}

void AddInput(ExecutionHandle& self, std::string name, nb::handle dtype, std::vector<int64_t> shape, std::string_view port,
              size_t source_bytes, nb::handle transform) {
  InputDecl decl{.name = std::move(name), .type = ElementTypeFrom(dtype), .shape = std::move(shape), .source_bytes = source_bytes};
  if (port == "swap") {
    decl.kind = PortKind::kSwap;
  } else if (port == "setup") {
    decl.kind = PortKind::kSetup;
  } else if (port == "staged") {
    decl.kind = PortKind::kStaged;
    if (!nb::isinstance<nb::callable>(transform)) Refuse("a staged input needs a transform: a function of the bytes given");
    decl.transform = [transform = nb::borrow(transform), type = decl.type, shape = decl.shape](std::span<const std::byte> from,
                                                                                               std::span<std::byte> to) -> Status {
      try {
        CopyInto(to, type, shape, transform(ArrayOf(ElementType::kBytes, {static_cast<int64_t>(from.size())}, from)));
        return Ok();
      } catch (nb::python_error& raised) {
        raised.restore();  // for WriteInput, which called
        return Cancelled("the transform raised an exception");
      }
    };
  } else {
    Refuse("port is swap, staged or setup, not '" + std::string(port) + "'");
  }
  Check(self.execution().AddInput(decl));
  decl.transform = nullptr;
  const std::string key = decl.name;
  self.shared->inputs.emplace(key, std::move(decl));
}

void WriteInput(ExecutionHandle& self, std::string_view name, nb::handle value) {
  Shared& shared = *self.shared;
  const auto found = shared.inputs.find(name);
  if (found == shared.inputs.end()) Check(NotFound("there is no input '" + std::string(name) + "'"));
  if (steps_here > 0) Refuse("an input is written between steps, not within one");
  const InputDecl& decl = found->second;
  std::vector<std::byte> bytes;
  if (decl.kind == PortKind::kStaged) {
    const nb::object array = nb::module_::import_("numpy").attr("ascontiguousarray")(value);
    const BytesOf given(array);
    bytes.assign(given.span().begin(), given.span().end());
  } else {
    size_t count = ElementSize(decl.type);
    for (const int64_t dimension : decl.shape) count *= static_cast<size_t>(dimension);
    bytes.resize(count);
    CopyInto(bytes, decl.type, decl.shape, value);
  }
  const Waited<std::unique_lock<std::shared_mutex>> writing(shared.inputs_mutex);
  const Status status = shared.execution.Write(name, bytes);
  if (PyErr_Occurred() != nullptr) nb::raise_python_error();
  Check(status);
}

std::vector<LaneHandle> Fork(ExecutionHandle& self, const CapsuleHandle& capsule, int count) {
  auto lanes = Value(self.execution().Fork(capsule.capsule, count));
  std::vector<LaneHandle> handles;
  handles.reserve(lanes.size());
  for (ExecutionLane& lane : lanes) handles.emplace_back(self.shared, std::move(lane));
  return handles;
}

void Declare(StateLayout& self, std::string name, nb::handle dtype, std::vector<int64_t> shape, bool host, Growth growth) {
  StateLayout next = self;  // a layout remembers its first mistake; this one must not
  const Space space = host ? Space::kHost : Space::kDevice;
  if (growth == Growth::kRecurrent) {
    next.Recurrent(std::move(name), ElementTypeFrom(dtype), std::move(shape), space);
  } else {
    next.Append(std::move(name), ElementTypeFrom(dtype), std::move(shape), space);
  }
  Check(next.Check());
  self = std::move(next);
}

void BindLayout(nb::module_& module) {
  nb::class_<StateLayout>(module, "Layout", "The one declaration of everything that an execution remembers.")
      .def(nb::init<>())
      .def(
          "recurrent",
          [](StateLayout& self, std::string name, nb::handle dtype, std::vector<int64_t> shape, bool host) {
            Declare(self, std::move(name), dtype, std::move(shape), host, Growth::kRecurrent);
            return nb::find(self);
          },
          nb::arg("name"), nb::arg("dtype"), nb::arg("shape"), nb::kw_only(), nb::arg("host") = false,
          nb::sig("def recurrent(self, name: str, dtype: object, shape: collections.abc.Sequence[int], *, host: bool = False) -> Layout"),
          "A state that is rewritten as a whole at each step. dtype: f32, f16, i32, i64 or bytes, or numpy's for one of these. host: it "
          "may be written by "
          "a step of no rows. Returns the layout.")
      .def(
          "append",
          [](StateLayout& self, std::string name, nb::handle dtype, std::vector<int64_t> shape, bool host) {
            Declare(self, std::move(name), dtype, std::move(shape), host, Growth::kAppend);
            return nb::find(self);
          },
          nb::arg("name"), nb::arg("dtype"), nb::arg("shape"), nb::kw_only(), nb::arg("host") = false,
          nb::sig("def append(self, name: str, dtype: object, shape: collections.abc.Sequence[int], *, host: bool = False) -> Layout"),
          "A state that grows by one row of this shape a position, and never changes a row. Returns the layout.")
      .def_prop_ro("states", [](const StateLayout& self) { return StatesOf(self); });
}

void BindStep(nb::module_& module) {
  nb::class_<StepHandle>(module, "Step", "What a step sees of its lane, while its function runs. All arrays are copies.")
      .def_prop_ro("position", &StepHandle::position, "Of the step's first row: how many positions were committed before it.")
      .def_prop_ro("rows", &StepHandle::rows, "New positions of this step.")
      .def("__getitem__", &StepHandle::Read, nb::arg("state"), nb::sig("def __getitem__(self, state: str) -> numpy.ndarray"),
           "A recurrent state as it was before the step.")
      .def("__setitem__", &StepHandle::Write, nb::arg("state"), nb::arg("value"),
           nb::sig("def __setitem__(self, state: str, value: object) -> None"),
           "The recurrent state after the step; what is not set stays as it was.")
      .def("row", &StepHandle::Row, nb::arg("state"), nb::arg("value"), nb::arg("row") = 0,
           nb::sig("def row(self, state: str, value: object, row: int = 0) -> None"),
           "Sets one of this step's rows of an append-only state.")
      .def("history", &StepHandle::History, nb::arg("state"), nb::arg("start") = 0, nb::arg("stop") = nb::none(),
           nb::sig("def history(self, state: str, start: int = 0, stop: int | None = None) -> numpy.ndarray"),
           "Rows of an append-only state by position: of the past, and of this step as set so far.")
      .def("input", &StepHandle::ReadInput, nb::arg("name"), nb::sig("def input(self, name: str) -> numpy.ndarray"));
}

void BindLane(nb::module_& module) {
  nb::class_<LaneHandle>(
      module, "Lane",
      "One live execution, for one thread at a time. It takes one of the execution's lanes until it is closed or no longer used.")
      .def("close", &LaneHandle::Close, "Makes room for another. Closing twice is fine.")
      .def(
          "__enter__", [](LaneHandle& self) { return nb::find(self); }, nb::sig("def __enter__(self) -> Lane"))
      .def(
          "__exit__", [](LaneHandle& self, const nb::args&) { self.Close(); }, nb::sig("def __exit__(self, *error: object) -> None"))
      .def_prop_ro("position", [](LaneHandle& self) { return LaneHandle::Own(self)->position(); })
      .def("step", &LaneHandle::Step, nb::arg("function"), nb::arg("rows") = 1,
           nb::sig("def step(self, function: collections.abc.Callable[[Step], T], rows: int = 1) -> T"),
           "Runs one step of `rows` new positions and returns what the function returns. It is a transaction: if the function raises, the "
           "lane is as it was "
           "before.")
      .def(
          "snapshot", [](LaneHandle& self) { return CapsuleHandle{LaneHandle::Own(self)->Snapshot()}; },
          "Of the last committed boundary: microseconds, nothing copied.")
      .def(
          "restore", [](LaneHandle& self, const CapsuleHandle& c) { Check(LaneHandle::Own(self)->Restore(c.capsule)); }, nb::arg("capsule"),
          "Every byte is back. MismatchError for a capsule of another execution.")
      .def(
          "reset", [](LaneHandle& self) { Check(LaneHandle::Own(self)->Reset()); }, "Back to the origin.")
      .def(
          "__getitem__",
          [](LaneHandle& self, std::string_view name) {
            const auto [index, state] = FindRecurrent(self.shared()->execution, name);
            return ArrayOf(state.type, state.shape, LaneHandle::Own(self)->Read(RecurrentState<std::byte>{index}));
          },
          nb::arg("state"), nb::sig("def __getitem__(self, state: str) -> numpy.ndarray"), "A recurrent state as committed. A copy.")
      .def(
          "history",
          [](LaneHandle& self, std::string_view name, int64_t start, std::optional<int64_t> stop) {
            const Declared rows = FindRows(self.shared()->execution, name);
            const LaneHandle::Own lane(self);
            return RowsOf(rows.state, start, stop, lane->position(),
                          [&](int64_t at) { return lane->Row(RowState<std::byte>{rows.index}, at); });
          },
          nb::arg("state"), nb::arg("start") = 0, nb::arg("stop") = nb::none(),
          nb::sig("def history(self, state: str, start: int = 0, stop: int | None = None) -> numpy.ndarray"),
          "Committed rows of an append-only state. A copy.");
}

}  // namespace

void BindExecution(nb::module_& module) {
  BindLayout(module);
  BindStep(module);
  BindLane(module);
  const ExecutionOptions defaults;
  nb::class_<ExecutionHandle>(
      module, "Execution",
      "Snapshot, restore and fork for anything that steps: a closed set of named states, and lanes that step on them. identity: a "
      "name and a version that change whenever the same bytes would mean something else. Capsules move as bytes between "
      "executions of equal identity and layout alone.")
      .def(
          "__init__",
          [](ExecutionHandle* self, const StateLayout& layout, std::string_view identity, int lanes, int capsules, int64_t rows,
             int max_position) { new (self) ExecutionHandle(Create(layout, identity, lanes, capsules, rows, max_position)); },
          nb::arg("layout"), nb::arg("identity"), nb::kw_only(), nb::arg("lanes") = defaults.lanes, nb::arg("capsules") = defaults.capsules,
          nb::arg("rows") = defaults.rows, nb::arg("max_position") = defaults.max_position,
          "lanes: live at once. capsules: with recurrent state of their own. rows: append-only rows in all, 0 for lanes * max_position.")
      .def_prop_ro("fingerprint", [](const ExecutionHandle& self) { return self.execution().fingerprint().Hex(); })
      .def_prop_ro(
          "bytes_in_use", [](const ExecutionHandle& self) { return self.execution().bytes_in_use(); },
          "By lanes, capsules and the origin; shared memory counted once.")
      .def("add_input", &AddInput, nb::arg("name"), nb::arg("dtype"), nb::arg("shape"), nb::kw_only(), nb::arg("port") = "swap",
           nb::arg("source_bytes") = 0, nb::arg("transform") = nb::none(),
           nb::sig("def add_input(self, name: str, dtype: object, shape: collections.abc.Sequence[int], *, port: str = 'swap', "
                   "source_bytes: int = 0, "
                   "transform: collections.abc.Callable[[numpy.ndarray], object] | None = None) -> None"),
           "Before the first lane: what steps read and capsules do not hold. swap: written as it is, any time between steps. staged: "
           "`transform` makes it of "
           "the `source_bytes` bytes given. setup: as swap, until the first step.")
      .def("write", &WriteInput, nb::arg("input"), nb::arg("value"), nb::sig("def write(self, input: str, value: object) -> None"),
           "Writes a whole input, between steps: waits for those that run.")
      .def(
          "set_origin",
          [](ExecutionHandle& self, std::string_view name, nb::handle value) {
            const auto [index, state] = FindRecurrent(self.execution(), name);
            std::vector<std::byte> bytes(state.bytes);
            CopyInto(bytes, state.type, state.shape, value);
            Check(self.execution().SetOrigin(RecurrentState<std::byte>{index}, bytes));
          },
          nb::arg("state"), nb::arg("value"), nb::sig("def set_origin(self, state: str, value: object) -> None"),
          "Before the first lane: what every lane starts from, zero where nothing is set.")
      .def(
          "lane", [](ExecutionHandle& self) { return LaneHandle(self.shared, Value(self.execution().NewLane())); }, "A lane at the origin.")
      .def("fork", &Fork, nb::arg("capsule"), nb::arg("count"), "New lanes at the capsule: all of them, or none and an exception.")
      .def(
          "import_capsule",
          [](ExecutionHandle& self, nb::handle bytes) {
            const BytesOf given(bytes);
            CapsuleHandle handle;
            handle.capsule = Value(self.execution().Deserialize(given.span(), &handle.metadata));
            return handle;
          },
          nb::arg("bytes"), nb::sig("def import_capsule(self, bytes: bytes | bytearray | memoryview) -> Capsule"),
          "A capsule from bytes: refused unless whole, of the same layout and the same identity.");
}

}  // namespace reprise::python
