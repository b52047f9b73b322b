// docs/capsule_format.md against the code: a file is read here with the offsets, sizes and types that the tables of the document give, and
// with nothing else.
#include <gtest/gtest.h>
#include <xxhash.h>

#include <map>
#include <sstream>

#include "base/file.h"
#include "capsule/capsule_test_support.h"

namespace reprise {
namespace {

using namespace testing_support;

std::string Trimmed(std::string text) {
  const auto keep = [](char c) { return c != ' ' && c != '`'; };
  while (!text.empty() && !keep(text.front())) text.erase(0, 1);
  while (!text.empty() && !keep(text.back())) text.pop_back();
  return text;
}

// The rows of the first table below `heading`, cell by cell, without its own heading and the line of dashes.
std::vector<std::vector<std::string>> Table(const std::string& document, const std::string& heading) {
  std::istringstream lines(document.substr(document.find("\n## " + heading + "\n") + 1));
  std::vector<std::vector<std::string>> rows;
  std::string line;
  std::getline(lines, line);
  while (std::getline(lines, line) && (rows.empty() || line.starts_with("|"))) {
    if (line.starts_with("##")) break;
    if (!line.starts_with("|")) continue;
    std::istringstream cells(line.substr(1));
    std::vector<std::string> row;
    for (std::string cell; std::getline(cells, cell, '|');) row.push_back(Trimmed(cell));
    rows.push_back(row);
  }
  rows.erase(rows.begin(), rows.begin() + std::min<std::ptrdiff_t>(2, static_cast<std::ptrdiff_t>(rows.size())));
  return rows;
}

uint64_t Number(std::span<const std::byte> bytes, size_t at, size_t size) {
  uint64_t value = 0;
  for (size_t i = 0; i < size; ++i) value |= static_cast<uint64_t>(bytes[at + i]) << (8 * i);
  return value;
}

TEST(CapsuleFormatDocTest, TheDocumentReadsAFileToItsLastByte) {
  auto read = ReadFile("docs/capsule_format.md", 1 << 20);
  ASSERT_TRUE(read.ok()) << read.status().message();
  const std::string document(reinterpret_cast<const char*>(read->data()), read->size());
  auto space = NewSpace(MixedLayout(), {.lanes = 1, .capsules = 4, .max_position = 1000});
  Model model;
  const Capsule capsule = CapsuleAt(space, 77, 3, &model);
  const std::string metadata = "what a store remembers";
  const auto bytes = *capsule.Serialize(metadata);

  std::map<std::string, uint64_t> header;
  size_t next = 0;
  for (const auto& row : Table(document, "Header")) {
    ASSERT_EQ(row.size(), 5u);
    const size_t offset = std::stoul(row[0]);
    const size_t size = std::stoul(row[1]);
    EXPECT_EQ(offset, next) << row[3] << ": the table has no gap";
    next = offset + size;
    if (row[2] != "bytes") {
      EXPECT_EQ(size, row[2] == "u32" ? 4u : 8u) << row[3];
      header[row[3]] = Number(bytes, offset, size);
    } else if (row[3] == "magic") {
      std::istringstream digits(row[4]);
      for (size_t i = 0; i < size; ++i) {
        std::string hex;
        digits >> hex;
        EXPECT_EQ(static_cast<unsigned>(bytes[i]), std::stoul(hex, nullptr, 16));
      }
    } else if (row[3] == "fingerprint") {
      EXPECT_EQ(0, std::memcmp(bytes.data() + offset, space->fingerprint().bytes.data(), size));
      EXPECT_EQ(size, space->fingerprint().bytes.size());
    } else {
      ASSERT_EQ(row[3], "reserved");
      for (size_t i = 0; i < size; ++i) EXPECT_EQ(bytes[offset + i], std::byte{0});
    }
  }
  ASSERT_EQ(header.size(), 9u);
  EXPECT_EQ(next, 128u);
  EXPECT_EQ(header["version"], 1u);
  EXPECT_EQ(header["state_count"], model.states.size());
  EXPECT_EQ(header["total_bytes"], bytes.size());
  EXPECT_EQ(header["position"], 77u);
  EXPECT_EQ(header["metadata_bytes"], metadata.size());
  const auto hash = [&](size_t at, size_t count) { return XXH3_64bits(bytes.data() + at, count); };
  EXPECT_EQ(header["header_checksum"], hash(0, 120));
  EXPECT_EQ(header["layout_checksum"], hash(128, header["layout_bytes"]));
  EXPECT_EQ(header["metadata_checksum"], hash(128 + header["layout_bytes"], metadata.size()));
  EXPECT_EQ(0, std::memcmp(bytes.data() + 128 + header["layout_bytes"], metadata.data(), metadata.size()));

  const auto entry = Table(document, "Layout entry");
  ASSERT_EQ(entry.size(), 9u);
  size_t at = 128;
  size_t payload = (128 + header["layout_bytes"] + metadata.size() + 63) / 64 * 64;
  for (size_t i = 0; i < header["state_count"]; ++i) {
    std::map<std::string, uint64_t> field;
    std::string name;
    std::vector<int64_t> shape;
    const size_t start = at;
    for (const auto& row : entry) {
      if (row[0] == "name") {
        name.assign(reinterpret_cast<const char*>(bytes.data() + at), field["name_bytes"]);
        at += name.size();
      } else if (row[0] == "shape") {
        for (size_t d = 0; d < field["dimensions"]; ++d, at += 8) shape.push_back(static_cast<int64_t>(Number(bytes, at, 8)));
      } else {
        const size_t size = std::stoul(row[1]);
        EXPECT_EQ(size, row[2] == "u32" ? 4u : 8u) << row[0];
        field[row[0]] = Number(bytes, at, size);
        at += size;
      }
    }
    const StateDecl& state = space->layout()[static_cast<int>(i)];
    EXPECT_EQ(at - start, 36 + name.size() + 8 * shape.size());
    EXPECT_EQ(name, state.name);
    EXPECT_EQ(shape, state.shape);
    EXPECT_EQ(field["growth"], state.growth == Growth::kAppend ? 1u : 0u);
    EXPECT_EQ(field["space"], state.space == Space::kHost ? 1u : 0u);
    static const std::map<ElementType, uint64_t> kTypes = {{ElementType::kBytes, 0}, {ElementType::kF32, 1}, {ElementType::kF16, 2},
                                                           {ElementType::kI32, 3},   {ElementType::kI64, 4}, {ElementType::kQ8_0, 5}};
    EXPECT_EQ(field["element_type"], kTypes.at(state.type));
    ASSERT_EQ(field["payload_bytes"], model.states[i].size());
    EXPECT_EQ(field["payload_checksum"], hash(payload, field["payload_bytes"]));
    EXPECT_EQ(0, std::memcmp(bytes.data() + payload, model.states[i].data(), model.states[i].size()));
    payload = (payload + field["payload_bytes"] + 63) / 64 * 64;
  }
  EXPECT_EQ(at, 128 + header["layout_bytes"]);
  EXPECT_EQ(payload, bytes.size());
}

}  // namespace
}  // namespace reprise
