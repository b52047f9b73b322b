#include "exec/port.h"

#include <string>
#include <utility>

namespace reprise {

std::string_view PortKindName(PortKind kind) {
  switch (kind) {
    case PortKind::kSwap: return "swap";
    case PortKind::kStaged: return "staged";
    case PortKind::kSetup: return "setup";
  }
  return "unknown";
}

Result<Buffer> Buffer::Allocate(DeviceMemory& memory, std::string name, ElementType type, std::vector<int64_t> shape, Space space) {
  StateLayout layout;  // knows the rules for names, types and shapes, and what they come to in bytes
  layout.Recurrent(name, type, shape, space);
  REPRISE_RETURN_IF_ERROR(layout.Check().Within("buffer"));
  Buffer buffer;
  buffer.bytes = layout[0].bytes;
  REPRISE_ASSIGN_OR_RETURN(buffer.address, memory.Allocate(buffer.bytes, "buffer '" + name + "'"));
  buffer.name = std::move(name);
  buffer.type = type;
  buffer.shape = std::move(shape);
  buffer.space = space;
  return buffer;
}

Result<Port> Port::Create(const InputDecl& input, DeviceMemory& memory, Space space) {
  const bool staged = input.kind == PortKind::kStaged;
  if (PortKindName(input.kind) == "unknown") return InvalidArgument("input '" + input.name + "' has an unknown kind of port");
  if (staged && (!input.transform || input.source_bytes == 0)) {
    return InvalidArgument("the staged input '" + input.name + "' needs a transform and the number of bytes it is given");
  }
  if (!staged && (input.transform || input.source_bytes != 0)) {
    return InvalidArgument("input '" + input.name + "' has a transform, but its port is " + std::string(PortKindName(input.kind)) +
                           ", not staged");
  }
  Port port;
  REPRISE_ASSIGN_OR_RETURN(port.buffer_, Buffer::Allocate(memory, input.name, input.type, input.shape, space));
  port.memory_ = &memory;
  port.kind_ = input.kind;
  port.source_bytes_ = staged ? input.source_bytes : port.buffer_.bytes;
  port.transform_ = input.transform;
  if (staged) port.staging_.resize(port.buffer_.bytes);
  return port;
}

Status Port::Write(std::span<const std::byte> bytes) {
  if (bytes.size() != source_bytes_) {
    return InvalidArgument("input '" + buffer_.name + "' takes " + std::to_string(source_bytes_) + " bytes, not " +
                           std::to_string(bytes.size()));
  }
  if (kind_ == PortKind::kSetup && sealed_) {
    return InvalidArgument("input '" + buffer_.name + "' is of the setup: it can be written until the first step, and no longer");
  }
  if (kind_ == PortKind::kStaged) {
    if (Status status = transform_(bytes, staging_); !status.ok()) return status.Within("input '" + buffer_.name + "'");
    bytes = staging_;
  }
  memory_->Copy(buffer_.address, bytes.data(), bytes.size());
  memory_->Synchronize();  // the caller's bytes are the caller's again
  return Ok();
}

}  // namespace reprise
