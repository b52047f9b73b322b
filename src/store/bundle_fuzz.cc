// Hostile bundles (docs/store_format.md): unsigned ones with header and digest made right, so that objects and their tree are what is tried. Whatever
// comes, the store that was asked to import it stays sound, and holds a bundle's capsules or none of them.
#include <sodium.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "store/bundle.h"
#include "store/bundle_format.h"
#include "store/object_format.h"
#include "store/simulated_machine.h"

namespace {

using namespace reprise;

void Require(bool condition) {
  if (!condition) std::abort();
}

const std::string& Path() {
  static const std::string path = [] {
    const bool in_memory = ::access("/dev/shm", W_OK) == 0;
    return (in_memory ? std::string("/dev/shm") : std::filesystem::temp_directory_path().string()) + "/reprise_fuzz." +
           std::to_string(::getpid());
  }();
  [[maybe_unused]] static const bool cleaned = std::atexit([] { std::filesystem::remove(Path()); }) == 0;
  return path;
}

void Try(const std::vector<uint8_t>& bytes) {
  std::ofstream(Path(), std::ios::binary).write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  if (!SummariseBundle(Path()).ok()) return;
  // An empty store, made once.
  static const testing_support::SimulatedDisk* const empty = [] {
    auto* const made = new testing_support::SimulatedDisk;
    Require(testing_support::Machine(*made).Open().ok());
    return made;
  }();
  const auto copy = empty->PowerCut(empty->history(), testing_support::SimulatedDisk::Loss::kNothing, 0);
  testing_support::SimulatedDisk& disk = *copy;
  testing_support::Machine machine(disk);
  auto tier = machine.Open();
  Require(tier.ok());
  const auto ids = ImportBundle(**tier, Path(), {.name_space = "ns"});
  const auto report = (*tier)->Check();
  Require(report.ok() && report->faults.empty());
  Require(ids.ok() ? report->capsules > 0 : report->capsules == 0 && !ids.status().message().empty());
  for (const auto& [name, inode] : disk.names) Require(!name.starts_with("tmp/"));
}

// The sizes, the header's checksum and the body's digest made right.
std::vector<uint8_t> Sealed(std::vector<uint8_t> bytes) {
  using namespace bundle_format;
  if (bytes.size() < kHeaderBytes + kTrailerBytes) return bytes;
  const uint64_t total = bytes.size();
  const uint64_t plain = total - kHeaderBytes - kTrailerBytes;
  std::memcpy(bytes.data() + 16, &total, sizeof(total));
  std::memcpy(bytes.data() + 24, &plain, sizeof(plain));
  const uint64_t checksum = object_format::Checksum(std::as_bytes(std::span(bytes)).first(kChecksumOffset));
  std::memcpy(bytes.data() + kChecksumOffset, &checksum, sizeof(checksum));
  crypto_generichash(bytes.data() + kHeaderBytes + plain, 32, bytes.data() + kHeaderBytes, plain, nullptr, 0);
  return bytes;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::vector<uint8_t> bytes(data, data + size);
  Try(bytes);
  Try(Sealed(bytes));
  return 0;
}
