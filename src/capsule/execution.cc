#include "reprise/execution.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <string>
#include <utility>

#include "exec/lane.h"
#include "exec/memory.h"
#include "exec/port.h"
#include "exec/state_space.h"

namespace reprise {

struct ExecutionCore {
  std::shared_ptr<StateSpace> space;
  std::shared_ptr<HostMemory> memory;
  std::vector<Port> ports;
  std::atomic<bool> has_lanes{false};  // from here on addresses and the origin are fixed
  std::atomic<bool> sealed{false};
};

struct LaneCore {
  LaneCore(std::shared_ptr<ExecutionCore> c, std::unique_ptr<Lane> l)
      : core(std::move(c)), lane(std::move(l)), written(core->space->layout().states().size()) {}

  const StateLayout& layout() const { return core->space->layout(); }
  const StateDecl* Find(int state, Growth growth) const {
    if (state < 0 || static_cast<size_t>(state) >= layout().states().size()) return nullptr;
    const StateDecl& decl = layout()[state];
    return decl.growth == growth ? &decl : nullptr;
  }

  std::shared_ptr<ExecutionCore> core;  // before the lane: outlives it
  std::unique_ptr<Lane> lane;
  // Of the open step.
  int rows = 0;
  const char* misuse = nullptr;  // the first call of the step that could not be
  std::vector<uint8_t> written;  // [state]: its part of the write block is the step's own by now
};

int64_t StepView::position() const { return lane_.lane->position(); }
int StepView::rows() const { return lane_.rows; }

std::span<const std::byte> StepView::ReadBytes(int state) const {
  const StateDecl* decl = lane_.Find(state, Growth::kRecurrent);
  if (decl == nullptr) {
    lane_.misuse = "it read a recurrent state by a handle that is not of this execution";
    return {};
  }
  return {lane_.lane->read(decl->space) + decl->offset, decl->bytes};
}

std::span<std::byte> StepView::WriteBytes(int state, bool keep) {
  const StateDecl* decl = lane_.Find(state, Growth::kRecurrent);
  if (decl == nullptr) {
    lane_.misuse = "it wrote a recurrent state by a handle that is not of this execution";
    return {};
  }
  if (lane_.rows == 0 && decl->space == Space::kDevice) {
    lane_.misuse = "it wrote a device state, which a step of no rows may not";
    return {};
  }
  std::byte* bytes = lane_.lane->write(decl->space) + decl->offset;
  uint8_t& written = lane_.written[static_cast<size_t>(state)];
  if (!written && decl->space == Space::kDevice) {  // the host part starts as a copy in any case
    if (keep) std::memcpy(bytes, lane_.lane->read(decl->space) + decl->offset, decl->bytes);
#ifndef NDEBUG
    else
      std::memset(bytes, 0xCC, decl->bytes);  // whoever relies on what was there finds out
#endif
  }
  written = 1;
  return {bytes, decl->bytes};
}

std::span<std::byte> StepView::RowBytes(int state, int row) {
  const StateDecl* decl = lane_.Find(state, Growth::kAppend);
  if (decl == nullptr || row < 0 || row >= lane_.rows) {
    lane_.misuse = "it wrote a row that is not of this step, or by a handle that is not of this execution";
    return {};
  }
  return {lane_.lane->row(*decl, lane_.lane->position() + row), decl->bytes};
}

std::span<const std::byte> StepView::HistoryBytes(int state, int64_t position) const {
  const StateDecl* decl = lane_.Find(state, Growth::kAppend);
  if (decl == nullptr || position < 0 || position >= lane_.lane->position() + int64_t{lane_.rows}) {
    lane_.misuse = "it read a row that is not in its history, or by a handle that is not of this execution";
    return {};
  }
  return {lane_.lane->row(*decl, static_cast<int32_t>(position)), decl->bytes};
}

std::span<const std::byte> StepView::InputBytes(int input) const {
  if (input < 0 || static_cast<size_t>(input) >= lane_.core->ports.size()) {
    lane_.misuse = "it read an input by a handle that is not of this execution";
    return {};
  }
  const Buffer& buffer = lane_.core->ports[static_cast<size_t>(input)].buffer();
  return {buffer.address, buffer.bytes};
}

ExecutionLane::ExecutionLane(std::unique_ptr<LaneCore> core) : core_(std::move(core)) {}
ExecutionLane::ExecutionLane(ExecutionLane&&) noexcept = default;
ExecutionLane& ExecutionLane::operator=(ExecutionLane&&) noexcept = default;
ExecutionLane::~ExecutionLane() = default;

int64_t ExecutionLane::position() const { return core_->lane->position(); }

Status ExecutionLane::RunStep(int rows, void* fn, Status (*call)(void*, StepView&)) {
  Lane& lane = *core_->lane;
  if (lane.in_step()) return InvalidArgument("a lane cannot step in the middle of a step");
  if (!core_->core->sealed.load(std::memory_order_relaxed)) core_->core->sealed = true;
  REPRISE_RETURN_IF_ERROR(rows == 0 ? lane.BeginHost() : lane.Begin(rows));
  struct AbortUnlessCommitted {  // also when the step function throws
    Lane& lane;
    ~AbortUnlessCommitted() {
      if (lane.in_step()) lane.Abort();
    }
  } guard{lane};

  core_->rows = rows;
  core_->misuse = nullptr;
  std::fill(core_->written.begin(), core_->written.end(), uint8_t{0});
  const auto states = core_->layout().states();
  // A row that the step forgets must not bring up what its memory held before.
  for (const StateDecl& state : states) {
    if (state.growth != Growth::kAppend) continue;
    for (int row = 0; row < rows; ++row) std::memset(lane.row(state, lane.position() + row), 0, state.bytes);
  }
  StepView view(*core_);
  REPRISE_RETURN_IF_ERROR(call(fn, view));
  if (core_->misuse != nullptr) return InvalidArgument(std::string("the step was undone: ") + core_->misuse);
  if (rows > 0) {
    for (size_t i = 0; i < states.size(); ++i) {
      const StateDecl& state = states[i];
      if (state.growth != Growth::kRecurrent || state.space != Space::kDevice || core_->written[i]) continue;
      std::memcpy(lane.write(Space::kDevice) + state.offset, lane.read(Space::kDevice) + state.offset, state.bytes);
    }
  }
  lane.Commit();
  return Ok();
}

Capsule ExecutionLane::Snapshot() { return Capsule::Take(*core_->lane); }
Status ExecutionLane::Restore(const Capsule& capsule) { return capsule.RestoreTo(*core_->lane); }

Status ExecutionLane::Reset() {
  if (core_->lane->in_step()) return InvalidArgument("a lane cannot be reset in the middle of a step");
  core_->lane->Reset();
  return Ok();
}

std::span<const std::byte> ExecutionLane::ReadBytes(int state) const {
  const StateDecl* decl = core_->Find(state, Growth::kRecurrent);
  if (decl == nullptr) return {};
  return {core_->lane->read(decl->space) + decl->offset, decl->bytes};
}

std::span<const std::byte> ExecutionLane::HistoryBytes(int state, int64_t position) const {
  const StateDecl* decl = core_->Find(state, Growth::kAppend);
  if (decl == nullptr || position < 0 || position >= core_->lane->position()) return {};
  return {core_->lane->row(*decl, static_cast<int32_t>(position)), decl->bytes};
}

Result<Execution> Execution::Create(StateLayout layout, const ExecutionOptions& options, std::string_view identity) {
  if (identity.empty()) return InvalidArgument("an execution needs an identity: a name and a version");
  return Create(std::move(layout), options, FingerprintBuilder().Add("execution", identity).Finish());
}

Result<Execution> Execution::Create(StateLayout layout, const ExecutionOptions& options, const Fingerprint& fingerprint) {
  auto core = std::make_shared<ExecutionCore>();
  core->memory = std::make_shared<HostMemory>();
  const StateSpaceOptions space_options = {
      .lanes = options.lanes, .capsules = options.capsules, .rows = options.rows, .max_position = options.max_position};
  REPRISE_ASSIGN_OR_RETURN(core->space, StateSpace::Create(std::move(layout), space_options, fingerprint, core->memory));
  return Execution(std::move(core));
}

const StateLayout& Execution::layout() const { return core_->space->layout(); }
const Fingerprint& Execution::fingerprint() const { return core_->space->fingerprint(); }

Result<int> Execution::FindState(std::string_view name, Growth growth, bool (*is)(ElementType)) const {
  const int index = layout().Find(name);
  if (index < 0) return NotFound("no state is named '" + std::string(name) + "'");
  const StateDecl& state = layout()[index];
  if (state.growth != growth) {
    return InvalidArgument("the state '" + state.name + "' is " +
                           (state.growth == Growth::kAppend ? "append-only, not recurrent" : "recurrent, not append-only"));
  }
  if (!is(state.type))
    return InvalidArgument("the state '" + state.name + "' holds " + std::string(ElementTypeName(state.type)) + ", not the type asked for");
  return index;
}

Result<int> Execution::FindInputIndex(std::string_view name, bool (*is)(ElementType)) const {
  for (size_t i = 0; i < core_->ports.size(); ++i) {
    const Buffer& buffer = core_->ports[i].buffer();
    if (buffer.name != name) continue;
    if (is != nullptr && !is(buffer.type)) {
      return InvalidArgument("the input '" + buffer.name + "' holds " + std::string(ElementTypeName(buffer.type)) +
                             ", not the type asked for");
    }
    return static_cast<int>(i);
  }
  return NotFound("no input is named '" + std::string(name) + "'");
}

Status Execution::AddInput(const InputDecl& input) {
  if (core_->has_lanes) return InvalidArgument("input '" + input.name + "' comes too late: inputs are added before the first lane");
  if (FindInputIndex(input.name, nullptr).ok()) return InvalidArgument("the input '" + input.name + "' is declared twice");
  REPRISE_ASSIGN_OR_RETURN(Port port, Port::Create(input, *core_->memory, Space::kHost));
  if (core_->sealed) port.Seal();
  core_->ports.push_back(std::move(port));
  return Ok();
}

Status Execution::SetOriginBytes(int state, std::span<const std::byte> bytes) {
  if (state < 0 || static_cast<size_t>(state) >= layout().states().size() || layout()[state].growth != Growth::kRecurrent) {
    return InvalidArgument("the origin was set by a handle that is not of this execution");
  }
  if (core_->has_lanes)
    return InvalidArgument("the origin of '" + layout()[state].name + "' comes too late: it is set before the first lane");
  const auto origin = core_->space->origin(state);
  if (bytes.size() != origin.size()) {
    return InvalidArgument("the state '" + layout()[state].name + "' has " + std::to_string(origin.size()) + " bytes, not " +
                           std::to_string(bytes.size()));
  }
  std::memcpy(origin.data(), bytes.data(), bytes.size());
  return Ok();
}

Status Execution::Write(std::string_view input, std::span<const std::byte> bytes) {
  REPRISE_ASSIGN_OR_RETURN(const int index, FindInputIndex(input, nullptr));
  return WriteInput(index, bytes);
}

Status Execution::WriteInput(int input, std::span<const std::byte> bytes) {
  if (input < 0 || static_cast<size_t>(input) >= core_->ports.size())
    return InvalidArgument("an input was written by a handle that is not of this execution");
  Port& port = core_->ports[static_cast<size_t>(input)];
  if (core_->sealed) port.Seal();
  return port.Write(bytes);
}

void Execution::Seal() { core_->sealed = true; }

Result<ExecutionLane> Execution::NewLane() {
  REPRISE_ASSIGN_OR_RETURN(auto lane, core_->space->NewLane());
  core_->has_lanes = true;
  return ExecutionLane(std::make_unique<LaneCore>(core_, std::move(lane)));
}

Result<std::vector<ExecutionLane>> Execution::Fork(const Capsule& capsule, int n) {
  if (n < 0) return InvalidArgument("a fork into " + std::to_string(n) + " lanes was asked for");
  std::vector<ExecutionLane> lanes;
  for (int i = 0; i < n; ++i) {
    REPRISE_ASSIGN_OR_RETURN(ExecutionLane lane, NewLane());
    REPRISE_RETURN_IF_ERROR(lane.Restore(capsule));
    lanes.push_back(std::move(lane));
  }
  return lanes;
}

Result<Capsule> Execution::Deserialize(std::span<const std::byte> bytes, std::string* metadata) {
  return DeserializeCapsule(bytes, core_->space, metadata);
}

void Execution::SetEvictor(std::function<bool()> evictor) { core_->space->SetEvictor(std::move(evictor)); }
size_t Execution::bytes_in_use() const { return core_->space->usage().bytes; }

}  // namespace reprise
