#include "exec/port.h"

#include <gtest/gtest.h>

#include <cstring>

namespace reprise {
namespace {

std::span<const std::byte> BytesOf(const auto& values) { return std::as_bytes(std::span(values)); }

std::vector<float> Values(const Port& port) {
  std::vector<float> values(port.buffer().bytes / sizeof(float));
  std::memcpy(values.data(), port.buffer().address, port.buffer().bytes);
  return values;
}

TEST(BufferTest, IsNamedTypedZeroedAndAligned) {
  HostMemory memory;
  auto buffer = Buffer::Allocate(memory, "camera", ElementType::kF32, {2, 3});
  ASSERT_TRUE(buffer.ok());
  EXPECT_EQ(buffer->name, "camera");
  EXPECT_EQ(buffer->bytes, 24u);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(buffer->address) % kStateAlignment, 0u);
  for (size_t i = 0; i < buffer->bytes; ++i) EXPECT_EQ(buffer->address[i], std::byte{0});
}

TEST(BufferTest, RefusesImpossibleNamesAndShapes) {
  HostMemory memory;
  EXPECT_EQ(Buffer::Allocate(memory, "", ElementType::kF32, {2}).status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(Buffer::Allocate(memory, "a b", ElementType::kF32, {2}).status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(Buffer::Allocate(memory, "a", ElementType::kF32, {0}).status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(Buffer::Allocate(memory, "a", ElementType::kF32, {INT64_MAX, INT64_MAX}).status().code(), StatusCode::kInvalidArgument);
}

TEST(PortTest, SwapWritesTheWholeInputAtItsFixedAddress) {
  HostMemory memory;
  auto port = Port::Create({.name = "command", .type = ElementType::kF32, .shape = {3}}, memory);
  ASSERT_TRUE(port.ok()) << port.status().message();
  const std::byte* address = port->buffer().address;
  const std::vector<float> values = {1, 2, 3};
  EXPECT_TRUE(port->Write(BytesOf(values)).ok());
  EXPECT_EQ(Values(*port), values);
  port->Seal();
  EXPECT_TRUE(port->Write(BytesOf(std::vector<float>{4, 5, 6})).ok()) << "a seal is for the setup alone";
  EXPECT_EQ(port->buffer().address, address);
  for (const size_t wrong : {size_t{0}, size_t{2}, size_t{4}}) {
    const Status status = port->Write(BytesOf(std::vector<float>(wrong)));
    EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
    EXPECT_NE(status.message().find("'command' takes 12 bytes"), std::string::npos) << status.message();
  }
  EXPECT_EQ(Values(*port), (std::vector<float>{4, 5, 6}));
}

TEST(PortTest, StagedTransformsOnTheWayInAllOrNothing) {
  HostMemory memory;
  const PortTransform normalise = [](std::span<const std::byte> from, std::span<std::byte> to) -> Status {
    for (size_t i = 0; i < from.size(); ++i) {
      if (from[i] == std::byte{0xff}) return InvalidArgument("pixel " + std::to_string(i) + " is saturated");
      const float value = static_cast<float>(from[i]) / 255.0f;
      std::memcpy(to.data() + i * sizeof(float), &value, sizeof(float));
    }
    return Ok();
  };
  auto port = Port::Create({"camera", ElementType::kF32, {2, 2}, PortKind::kStaged, 4, normalise}, memory);
  ASSERT_TRUE(port.ok()) << port.status().message();
  EXPECT_TRUE(port->Write(BytesOf(std::vector<uint8_t>{0, 51, 102, 204})).ok());
  const std::vector<float> values = {0.0f, 51 / 255.0f, 102 / 255.0f, 204 / 255.0f};
  EXPECT_EQ(Values(*port), values);
  const Status status = port->Write(BytesOf(std::vector<uint8_t>{9, 9, 255, 9}));
  EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
  EXPECT_NE(status.message().find("'camera': pixel 2"), std::string::npos) << status.message();
  EXPECT_EQ(Values(*port), values) << "half a frame is no frame";
  EXPECT_EQ(port->Write(BytesOf(std::vector<uint8_t>(16))).code(), StatusCode::kInvalidArgument) << "the size is that of the source";
}

TEST(PortTest, SetupIsRefusedOnceSealed) {
  HostMemory memory;
  auto port = Port::Create({.name = "gains", .type = ElementType::kF32, .shape = {1}, .kind = PortKind::kSetup}, memory);
  ASSERT_TRUE(port.ok());
  EXPECT_TRUE(port->Write(BytesOf(std::vector<float>{1})).ok());
  EXPECT_TRUE(port->Write(BytesOf(std::vector<float>{2})).ok());
  port->Seal();
  const Status status = port->Write(BytesOf(std::vector<float>{3}));
  EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
  EXPECT_NE(status.message().find("'gains' is of the setup"), std::string::npos) << status.message();
  EXPECT_EQ(Values(*port), (std::vector<float>{2}));
}

TEST(PortTest, RefusesDeclarationsThatContradictThemselves) {
  HostMemory memory;
  const PortTransform any = [](std::span<const std::byte>, std::span<std::byte>) { return Ok(); };
  const auto code = [&](InputDecl input) { return Port::Create(input, memory).status().code(); };
  EXPECT_EQ(code({"a", ElementType::kF32, {1}, PortKind::kStaged, 4, {}}), StatusCode::kInvalidArgument);
  EXPECT_EQ(code({"a", ElementType::kF32, {1}, PortKind::kStaged, 0, any}), StatusCode::kInvalidArgument);
  EXPECT_EQ(code({"a", ElementType::kF32, {1}, PortKind::kSwap, 4, any}), StatusCode::kInvalidArgument);
  EXPECT_EQ(code({"a", ElementType::kF32, {1}, static_cast<PortKind>(9), 0, {}}), StatusCode::kInvalidArgument);
  EXPECT_EQ(code({"a", ElementType::kF32, {-1}, PortKind::kSwap, 0, {}}), StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace reprise
