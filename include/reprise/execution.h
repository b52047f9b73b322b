// Execution: snapshot, restore, fork and rollback for anything that steps. A voice detector, a robot policy, a simulator: no language model
// is in sight here.
//
//   StateLayout layout;                                            // everything that must be remembered, declared once
//   layout.Recurrent("policy.h", ElementType::kF32, {256});        // rewritten at each step
//   layout.Append("actions", ElementType::kF32, {7});              // one row a position, never changed
//   auto execution = Execution::Create(layout, {.lanes = 8}, "my-policy 3");
//   auto h = execution->FindRecurrent<float>("policy.h");          // names are resolved once
//   auto lane = execution->NewLane();
//   lane->Step(1, [&](StepView& step) { ... step.Read(*h) ... step.Write(*h) ... });
//   Capsule here = lane->Snapshot();                               // microseconds; copies nothing
//   lane->Restore(here);                                           // every byte is back
//   auto futures = execution->Fork(here, 8);                       // eight lanes that share what they have in common
//
// The contract:
//   - State lives in the declared states and nowhere else. What a step leaves in captured variables is not in a capsule.
//   - A step is a transaction. If the step function returns an error (or throws), or a pool is full, the lane is as it was before.
//   - Within a step, Read gives the state before it, and never changes. A state that the step does not ask to write stays as it was.
//   - Inputs (reprise/port.h) are not state. All lanes of an execution read the same ones.
//   - Stepping, snapshots, restores and drops allocate nothing. Memory is sized by ExecutionOptions; when it is used up a call fails with
//     kExhausted and says which part is full.
//   - Capsules are as capsule.h says. They belong to the Execution they were taken in; to others, of the same layout and identity, they move
//     as bytes (Capsule::Serialize, Execution::Deserialize).
//
// Ownership: an Execution and its lanes are handles that keep what they need alive, in any order of destruction; a copied Execution is the
// same execution.
//
// Thread-safety: different lanes may step, snapshot and restore on different threads, each lane on one thread at a time. Write must not run
// while a step that reads the input does; AddInput and SetOrigin come before the first lane. All other calls are safe on any thread.
#pragma once

#include <concepts>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "reprise/capsule.h"
#include "reprise/fingerprint.h"
#include "reprise/layout.h"
#include "reprise/port.h"
#include "reprise/status.h"

namespace reprise {

struct ExecutionOptions {
  int lanes = 1;               // live at once
  int capsules = 64;           // capsules with recurrent state of their own
  int64_t rows = 0;            // append-only rows in all, shared ones counted once; 0 for lanes * max_position
  int max_position = 1 << 16;  // of any lane
};

// Names of states and inputs, resolved to a typed handle: T must be the C++ type of the declared ElementType (float, int32_t, int64_t,
// uint16_t for f16) or, for any of them, std::byte. Valid in the execution that gave it.
template <class T>
struct RecurrentState {
  int index = -1;
};
template <class T>
struct RowState {
  int index = -1;
};
template <class T>
struct Input {
  int index = -1;
};

// Whether elements of `type` are T in C++.
template <class T>
bool ElementIs(ElementType type) {
  if constexpr (std::same_as<T, std::byte>) return true;
  if constexpr (std::same_as<T, uint8_t>) return type == ElementType::kBytes;
  if constexpr (std::same_as<T, float>) return type == ElementType::kF32;
  if constexpr (std::same_as<T, uint16_t>) return type == ElementType::kF16;
  if constexpr (std::same_as<T, int32_t>) return type == ElementType::kI32;
  if constexpr (std::same_as<T, int64_t>) return type == ElementType::kI64;
  return false;
}

struct ExecutionCore;  // of an execution: its state space and its inputs
struct LaneCore;       // of one lane of it

// What a step sees of its lane. Valid during the step function alone; the spans too.
class StepView {
 public:
  StepView(const StepView&) = delete;
  StepView& operator=(const StepView&) = delete;

  int64_t position() const;  // of the step's first row, which is how many positions were committed before it
  int rows() const;          // new positions of this step; 0 in a step of host state alone

  // A recurrent state as it was before the step.
  template <class T>
  std::span<const T> Read(RecurrentState<T> state) const {
    return As<const T>(ReadBytes(state.index));
  }
  // A recurrent state to be written in full: what is in it at first means nothing.
  template <class T>
  std::span<T> Write(RecurrentState<T> state) {
    return As<T>(WriteBytes(state.index, /*keep=*/false));
  }
  // A recurrent state to be changed in place: it starts as Read gives it, or as this step has written it so far.
  template <class T>
  std::span<T> Update(RecurrentState<T> state) {
    return As<T>(WriteBytes(state.index, /*keep=*/true));
  }
  // Row `row` of this step's own, 0 <= row < rows(). Zero until it is written.
  template <class T>
  std::span<T> Row(RowState<T> state, int row) {
    return As<T>(RowBytes(state.index, row));
  }
  // The row at `position`, 0 <= position < position() + rows(): of the past, or of this step as written so far.
  template <class T>
  std::span<const T> History(RowState<T> state, int64_t position) const {
    return As<const T>(HistoryBytes(state.index, position));
  }
  template <class T>
  std::span<const T> Read(Input<T> input) const {
    return As<const T>(InputBytes(input.index));
  }

 private:
  friend class ExecutionLane;
  explicit StepView(LaneCore& lane) : lane_(lane) {}

  template <class T, class Byte>
  static std::span<T> As(std::span<Byte> bytes) {
    return {reinterpret_cast<T*>(bytes.data()), bytes.size() / sizeof(T)};
  }
  // A handle or a number that cannot be makes the span empty, and the step fails with kInvalidArgument when its function returns.
  std::span<const std::byte> ReadBytes(int state) const;
  std::span<std::byte> WriteBytes(int state, bool keep);
  std::span<std::byte> RowBytes(int state, int row);
  std::span<const std::byte> HistoryBytes(int state, int64_t position) const;
  std::span<const std::byte> InputBytes(int input) const;

  LaneCore& lane_;
};

// One live execution. Move-only; destroying it makes room for another.
class ExecutionLane {
 public:
  ExecutionLane(ExecutionLane&& other) noexcept;
  ExecutionLane& operator=(ExecutionLane&& other) noexcept;
  ~ExecutionLane();

  int64_t position() const;

  // Runs one step of `rows` new positions; `fn` is called once, with a StepView&, and returns a Status or nothing. `rows` may be 0: then the
  // step may write kHost states alone. Verbs of the same lane are refused within its step, but for Snapshot, which is of the state before it.
  template <class Fn>
  Status Step(int rows, Fn&& fn) {
    using Function = std::remove_reference_t<Fn>;
    return RunStep(rows, const_cast<void*>(static_cast<const void*>(std::addressof(fn))), [](void* f, StepView& view) -> Status {
      if constexpr (std::is_void_v<std::invoke_result_t<Function&, StepView&>>) {
        (*static_cast<Function*>(f))(view);
        return Ok();
      } else {
        return (*static_cast<Function*>(f))(view);
      }
    });
  }

  Capsule Snapshot();                      // of the last committed boundary
  Status Restore(const Capsule& capsule);  // kMismatch, and nothing changed, for a capsule of another execution
  Status Reset();                          // back to the origin

  // The committed state, between steps; the span is good until the lane's next verb. Empty for a handle or position that cannot be.
  template <class T>
  std::span<const T> Read(RecurrentState<T> state) const {
    const auto bytes = ReadBytes(state.index);
    return {reinterpret_cast<const T*>(bytes.data()), bytes.size() / sizeof(T)};
  }
  template <class T>
  std::span<const T> Row(RowState<T> state, int64_t position) const {
    const auto bytes = HistoryBytes(state.index, position);
    return {reinterpret_cast<const T*>(bytes.data()), bytes.size() / sizeof(T)};
  }

 private:
  friend class Execution;
  explicit ExecutionLane(std::unique_ptr<LaneCore> core);
  Status RunStep(int rows, void* fn, Status (*call)(void*, StepView&));
  std::span<const std::byte> ReadBytes(int state) const;
  std::span<const std::byte> HistoryBytes(int state, int64_t position) const;

  std::unique_ptr<LaneCore> core_;
};

class Execution {
 public:
  // `identity` says whose state this is: a name and a version that change whenever the same bytes would mean something else (weights, code,
  // units). Capsules move between executions of equal identity and layout alone.
  static Result<Execution> Create(StateLayout layout, const ExecutionOptions& options, std::string_view identity);
  static Result<Execution> Create(StateLayout layout, const ExecutionOptions& options, const Fingerprint& fingerprint);

  const StateLayout& layout() const;
  const Fingerprint& fingerprint() const;

  // kNotFound for a name that is not declared; kInvalidArgument for one of another kind or element type.
  template <class T>
  Result<RecurrentState<T>> FindRecurrent(std::string_view name) const {
    REPRISE_ASSIGN_OR_RETURN(const int index, FindState(name, Growth::kRecurrent, &ElementIs<T>));
    return RecurrentState<T>{index};
  }
  template <class T>
  Result<RowState<T>> FindRows(std::string_view name) const {
    REPRISE_ASSIGN_OR_RETURN(const int index, FindState(name, Growth::kAppend, &ElementIs<T>));
    return RowState<T>{index};
  }
  template <class T>
  Result<Input<T>> FindInput(std::string_view name) const {
    REPRISE_ASSIGN_OR_RETURN(const int index, FindInputIndex(name, &ElementIs<T>));
    return Input<T>{index};
  }

  // Before the first lane: the inputs, and the state that every lane starts from (zero where nothing is set).
  Status AddInput(const InputDecl& input);
  template <class T>
  Status SetOrigin(RecurrentState<T> state, std::type_identity_t<std::span<const T>> values) {
    return SetOriginBytes(state.index, std::as_bytes(values));
  }

  // Writes a whole input through its port. kSetup inputs are refused from the first step on, or from Seal.
  Status Write(std::string_view input, std::span<const std::byte> bytes);
  template <class T>
  Status Write(Input<T> input, std::span<const std::byte> bytes) {
    return WriteInput(input.index, bytes);
  }
  void Seal();

  Result<ExecutionLane> NewLane();                                         // at the origin
  Result<std::vector<ExecutionLane>> Fork(const Capsule& capsule, int n);  // n new lanes at the capsule: all of them, or none and an error

  // A capsule of this execution from bytes, which are hostile until proven: see capsule.h.
  Result<Capsule> Deserialize(std::span<const std::byte> bytes, std::string* metadata = nullptr);

  // Called on a thread whose step or Deserialize finds a pool full; returns whether it dropped a capsule, and is then asked again if that was
  // not enough. It must not use lanes. Set it before the first lane.
  void SetEvictor(std::function<bool()> evictor);
  size_t bytes_in_use() const;  // by live lanes, by capsules and by the origin; shared memory counted once

 private:
  explicit Execution(std::shared_ptr<ExecutionCore> core) : core_(std::move(core)) {}
  Result<int> FindState(std::string_view name, Growth growth, bool (*is)(ElementType)) const;
  Result<int> FindInputIndex(std::string_view name, bool (*is)(ElementType)) const;
  Status SetOriginBytes(int state, std::span<const std::byte> bytes);
  Status WriteInput(int input, std::span<const std::byte> bytes);

  std::shared_ptr<ExecutionCore> core_;
};

}  // namespace reprise
