// Promise 6: bytes that are not a whole capsule of this model are refused, by an error that names what is wrong, and nothing has changed.
#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <utility>

#include "capsule/capsule_format.h"
#include "session/verify_internal.h"

namespace reprise::verify {
namespace {

using Bytes = std::vector<std::byte>;

// Where things lie in a capsule file; see docs/capsule_format.md.
constexpr size_t kVersionAt = 8, kStatesAt = 12, kTotalAt = 16, kPositionAt = 24, kFingerprintAt = 32, kLayoutBytesAt = 64,
                 kLayoutChecksumAt = 72;
constexpr size_t kMetadataBytesAt = 80, kMetadataChecksumAt = 88, kReservedAt = 96;

template <class T>
T Get(const Bytes& bytes, size_t at) {
  T value;
  std::memcpy(&value, bytes.data() + at, sizeof(T));
  return value;
}
template <class T>
void Put(Bytes& bytes, size_t at, T value) {
  std::memcpy(bytes.data() + at, &value, sizeof(T));
}

struct Section {
  std::string name;
  size_t begin = 0;
  size_t end = 0;
  size_t size_at = 0;      // of a state: where its entry says how many bytes it has
  size_t checksum_at = 0;  // and which checksum
};

// A good file taken apart: the states' payloads, in order.
std::vector<Section> Payloads(const Bytes& file, const StateLayout& layout) {
  size_t entry = capsule_format::kHeaderBytes;
  const auto align = [](size_t n) {
    return (n + capsule_format::kPayloadAlignment - 1) / capsule_format::kPayloadAlignment * capsule_format::kPayloadAlignment;
  };
  size_t at = align(entry + Get<uint64_t>(file, kLayoutBytesAt) + Get<uint64_t>(file, kMetadataBytesAt));
  std::vector<Section> sections;
  for (const StateDecl& state : layout.states()) {
    entry += capsule_format::kStateEntryBytes + state.name.size() + state.shape.size() * sizeof(int64_t);
    const size_t size_at = entry - 2 * sizeof(uint64_t);
    const size_t size = Get<uint64_t>(file, size_at);
    sections.push_back({state.name, at, at + size, size_at, size_at + sizeof(uint64_t)});
    at = align(at + size);
  }
  return sections;
}

// Makes every checksum right again, so that only the lie itself is wrong.
void SealLayout(Bytes& file) {
  Put(file, kLayoutChecksumAt,
      capsule_format::Checksum(std::span(file).subspan(capsule_format::kHeaderBytes, Get<uint64_t>(file, kLayoutBytesAt))));
}
void SealHeader(Bytes& file) {
  Put(file, capsule_format::kChecksumOffset, capsule_format::Checksum(std::span(file).first(capsule_format::kChecksumOffset)));
}
void SealPayload(Bytes& file, const Section& payload) {
  Put(file, payload.checksum_at, capsule_format::Checksum(std::span(file).subspan(payload.begin, payload.end - payload.begin)));
  SealLayout(file);
  SealHeader(file);
}

class Refusals {
 public:
  Refusals(Setup& setup, Findings& findings) : setup_(setup), findings_(findings) {}

  Status Run() {
    VerifySubject& subject = setup_.subject;
    REPRISE_RETURN_IF_ERROR(MakeRich(setup_, 0));
    const Capsule capsule = subject.Snapshot(0);
    REPRISE_ASSIGN_OR_RETURN(good_, subject.Serialise(capsule));
    // The live state that must stay as it is: another line of thought than the one in the bytes.
    REPRISE_RETURN_IF_ERROR(setup_.Dirty(0));
    REPRISE_ASSIGN_OR_RETURN(live_, Digests(subject, 0));
    {
      auto whole = subject.Import(good_);
      if (!whole.ok()) findings_.Fail("the bytes as they were written are refused: " + whole.status().message());
    }
    usage_ = subject.usage();
    payloads_ = Payloads(good_, subject.layout());

    REPRISE_RETURN_IF_ERROR(Truncations());
    REPRISE_RETURN_IF_ERROR(Flips());
    REPRISE_RETURN_IF_ERROR(Lies());
    REPRISE_RETURN_IF_ERROR(ImpossibleStates());
    REPRISE_RETURN_IF_ERROR(CheckLive("all of that", true));
    std::string kinds;
    for (const auto& [kind, count] : counts_) kinds += (kinds.empty() ? "" : ", ") + fmt::format("{} {}", count, kind);
    findings_.Note(
        fmt::format("Of {} bytes, {}: each refused with an error that names what is wrong, with every byte of the live state and every "
                    "block of memory as "
                    "before.",
                    good_.size(), kinds));
    return Ok();
  }

 private:
  // `words`: one of them must be in the error.
  Status Refused(const Bytes& bytes, const std::string& kind, const std::string& what, const std::vector<std::string>& words) {
    ++counts_[kind];
    {
      auto taken = setup_.subject.Import(bytes);
      if (taken.ok()) {
        findings_.Fail(what + " is accepted");
      } else {
        const std::string& message = taken.status().message();
        const bool names =
            std::any_of(words.begin(), words.end(), [&](const std::string& word) { return message.find(word) != std::string::npos; });
        if (message.empty() || taken.status().code() == StatusCode::kInternal || !names) {
          findings_.Fail(fmt::format("{} is refused, but the error does not say so: '{}'", what, message));
        }
      }
    }
    // Reading every byte of the live state is dear; the cheap half of the check is made each time.
    return CheckLive(what, ++tried_ % 16 == 0);
  }

  Status CheckLive(const std::string& what, bool bytes) {
    const auto now = setup_.subject.usage();
    if (now.blocks[0] != usage_.blocks[0] || now.blocks[1] != usage_.blocks[1] || now.extents != usage_.extents) {
      findings_.Fail(what + ": memory is not as it was before");
      usage_ = now;
    }
    if (!bytes) return Ok();
    REPRISE_ASSIGN_OR_RETURN(const auto live, Digests(setup_.subject, 0));
    if (const auto state = FirstDifference(setup_.subject.layout(), live_, live)) {
      findings_.Fail(fmt::format("{}: {} of the live state has changed", what, *state));
      live_ = live;
    }
    return Ok();
  }

  Status Truncations() {
    const size_t total = good_.size();
    std::vector<size_t> lengths = {0, 1, 7, 8, 127, 128, 129, total - 1, total - 64};
    for (const Section& payload : payloads_) {
      if (payloads_.size() > 64 && setup_.random() % 4 != 0) continue;
      lengths.insert(lengths.end(), {payload.begin, payload.begin + 1, payload.end});
    }
    for (const size_t length : lengths) {
      if (length >= total) continue;
      const Bytes cut(good_.begin(), good_.begin() + static_cast<ptrdiff_t>(length));
      REPRISE_RETURN_IF_ERROR(Refused(cut, "truncations", fmt::format("a capsule cut after {} of {} bytes", length, total), {"bytes"}));
    }
    Bytes longer = good_;
    longer.resize(total + 64);
    return Refused(longer, "truncations", "a capsule with bytes after its end", {"bytes", "goes on"});
  }

  Status Flip(size_t at, const std::string& section, const std::vector<std::string>& words) {
    const auto bit = std::byte{1} << static_cast<int>(setup_.random() % 8);
    const std::byte was = good_[at];
    good_[at] ^= bit;
    Status status = Refused(good_, "flipped bits", fmt::format("a bit flipped at offset {} ({})", at, section), words);
    good_[at] = was;
    return status;
  }

  Status Flips() {
    const size_t layout_end = capsule_format::kHeaderBytes + Get<uint64_t>(good_, kLayoutBytesAt);
    const size_t metadata_end = layout_end + Get<uint64_t>(good_, kMetadataBytesAt);
    for (size_t at = 0; at < capsule_format::kHeaderBytes; at += setup_.quick ? 5 : 1)
      REPRISE_RETURN_IF_ERROR(Flip(at, "header", {"header", "capsule"}));
    for (int i = 0; i < 24; ++i)
      REPRISE_RETURN_IF_ERROR(
          Flip(capsule_format::kHeaderBytes + setup_.random() % (layout_end - capsule_format::kHeaderBytes), "layout", {"layout"}));
    for (int i = 0; i < 8 && metadata_end > layout_end; ++i)
      REPRISE_RETURN_IF_ERROR(Flip(layout_end + setup_.random() % (metadata_end - layout_end), "metadata", {"metadata"}));
    for (size_t i = 0; i < payloads_.size(); ++i) {
      const Section& payload = payloads_[i];
      for (const size_t at : {payload.begin, payload.end - 1, payload.begin + setup_.random() % (payload.end - payload.begin)}) {
        REPRISE_RETURN_IF_ERROR(Flip(at, payload.name, {"'" + payload.name + "'"}));
      }
      setup_.Progress(0.8 * static_cast<double>(i + 1) / static_cast<double>(payloads_.size()));
    }
    return Ok();
  }

  // One field changed, with every checksum made right.
  template <class T>
  Status Lie(size_t at, T value, const std::string& what, const std::vector<std::string>& words) {
    const Bytes was(good_.begin() + static_cast<ptrdiff_t>(at), good_.begin() + static_cast<ptrdiff_t>(at + sizeof(T)));
    const Bytes header(good_.begin(), good_.begin() + capsule_format::kHeaderBytes);
    Put(good_, at, value);
    if (at >= capsule_format::kHeaderBytes) SealLayout(good_);
    SealHeader(good_);
    Status status = Refused(good_, "lies with good checksums", what, words);
    std::copy(header.begin(), header.end(), good_.begin());
    std::copy(was.begin(), was.end(), good_.begin() + static_cast<ptrdiff_t>(at));
    return status;
  }

  Status Lies() {
    const auto fingerprint = static_cast<unsigned char>(good_[kFingerprintAt]);
    REPRISE_RETURN_IF_ERROR(Lie<unsigned char>(kFingerprintAt, fingerprint ^ 1, "a capsule of another model", {"fingerprint"}));
    REPRISE_RETURN_IF_ERROR(Lie<uint32_t>(kVersionAt, 2, "a capsule of another version", {"version"}));
    REPRISE_RETURN_IF_ERROR(Lie<uint8_t>(kReservedAt, 1, "a header with reserved bytes in use", {"reserved"}));
    const auto total = Get<uint64_t>(good_, kTotalAt);
    const auto states = Get<uint32_t>(good_, kStatesAt);
    const auto position = Get<uint64_t>(good_, kPositionAt);
    const auto layout_bytes = Get<uint64_t>(good_, kLayoutBytesAt);
    const auto metadata_bytes = Get<uint64_t>(good_, kMetadataBytesAt);
    const std::vector<std::string> any = {"bytes", "states", "layout", "metadata", "position", "context", "padding", "damaged", "length"};
    for (const uint64_t n : {uint64_t{0}, total - 64, total + 64, UINT64_MAX})
      REPRISE_RETURN_IF_ERROR(Lie(kTotalAt, n, fmt::format("a total size of {}", n), {"bytes"}));
    for (const uint32_t n : {0u, states - 1, states + 1, 0xffffffffu})
      REPRISE_RETURN_IF_ERROR(Lie(kStatesAt, n, fmt::format("{} states", n), any));
    for (const uint64_t n : {uint64_t{0}, position + 1, position - 1, uint64_t{1} << 31, UINT64_MAX}) {
      REPRISE_RETURN_IF_ERROR(Lie(kPositionAt, n, fmt::format("a position of {}", n), any));
    }
    for (const uint64_t n : {uint64_t{0}, layout_bytes - 1, layout_bytes + 1, UINT64_MAX})
      REPRISE_RETURN_IF_ERROR(Lie(kLayoutBytesAt, n, fmt::format("a layout of {} bytes", n), any));
    for (const uint64_t n : {metadata_bytes + 1, metadata_bytes + 64, UINT64_MAX})
      REPRISE_RETURN_IF_ERROR(Lie(kMetadataBytesAt, n, fmt::format("metadata of {} bytes", n), any));
    for (const Section& payload : payloads_) {
      const uint64_t size = payload.end - payload.begin;
      for (const uint64_t n : {size + 1, size - 1, UINT64_MAX - 8}) {
        REPRISE_RETURN_IF_ERROR(
            Lie(payload.size_at, n, fmt::format("{} that says it has {} bytes", payload.name, n), {"'" + payload.name + "'"}));
      }
    }
    return Ok();
  }

  // Whole files, of this model, in which a state holds what no step could have written.
  Status ImpossibleStates() {
    for (const Section& payload : payloads_) {
      const bool tokens = payload.name == "history.tokens";
      if (!tokens && payload.name != "decode.pending" && payload.name != "decode.options" && payload.name != "decode.biases" &&
          payload.name != "decode.grammar" && payload.name != "decode.threads" && payload.name != "decode.stops" &&
          payload.name != "decode.utf8")
        continue;
      const Bytes was(good_.begin() + static_cast<ptrdiff_t>(payload.begin), good_.begin() + static_cast<ptrdiff_t>(payload.end));
      const Bytes head(good_.begin(), good_.begin() + static_cast<ptrdiff_t>(payloads_[0].begin));
      std::fill(good_.begin() + static_cast<ptrdiff_t>(payload.begin), good_.begin() + static_cast<ptrdiff_t>(payload.end),
                std::byte{0x7f});
      SealPayload(good_, payload);
      Status status = Refused(good_, "impossible states", "impossible content of " + payload.name, {payload.name, "token"});
      std::copy(head.begin(), head.end(), good_.begin());
      std::copy(was.begin(), was.end(), good_.begin() + static_cast<ptrdiff_t>(payload.begin));
      REPRISE_RETURN_IF_ERROR(status);
    }
    return Ok();
  }

  Setup& setup_;
  Findings& findings_;
  Bytes good_;
  std::vector<uint64_t> live_;
  StateSpace::Usage usage_{};
  std::vector<Section> payloads_;
  std::map<std::string, int> counts_;
  size_t tried_ = 0;
};

}  // namespace

Status CheckRefusing(Setup& setup, Findings& findings) { return Refusals(setup, findings).Run(); }

}  // namespace reprise::verify
