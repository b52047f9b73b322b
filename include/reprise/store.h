// CapsuleStore: where capsules live when nobody holds them, so that nothing is prefilled twice.
//
// The store keeps capsules in a tree over token ids. A prompt walks down the tree; the deepest capsule on its path is restored, at its exact
// position, and only the rest is computed. Rows are shared by reference in memory and stored once on disk, so a capsule costs one recurrent
// block plus the rows that nobody stored before. A hit never consumes or moves the entry.
//
// There are two tiers, each with one budget in bytes that it never passes: memory (by reference, in the pools of the state space), and a
// directory. What is put into the store is in memory at once and written to disk in the background; a full tier means less reuse and never a
// failure. After a crash every capsule that the directory lists is whole.
//
// Namespaces (one for each API key, say) never see each other's capsules, neither by content nor by the timing of a hit. Capsules of another
// fingerprint lie in the same directory unseen.
//
// Thread-safety: every call may come from any thread, but FindDeepest, Get and Read come from the one that uses the model, as restoring what they
// give does: a capsule read from disk takes memory of the pools. FindDeepest and Put hold a lock for microseconds; only a hit on disk waits for
// a file, and whoever has other work meanwhile asks MustRead and Read first. None is called between the tokens of a generation.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "reprise/capsule.h"
#include "reprise/fingerprint.h"
#include "reprise/status.h"

namespace reprise {

class FileSystem;

struct StoreOptions {
  uint64_t memory_budget =
      0;  // bytes that entries may keep in the pools; 0: as many capsules, with 512 rows each, as the model is loaded for
  std::string directory = {};  // "": memory alone. Created with mode 0700 if it is missing
  uint64_t disk_budget = uint64_t{8} << 30;
  uint64_t write_rate = uint64_t{200} << 20;  // most bytes a second written in the background; 0: no limit
  double write_delay = 0.5;  // seconds that an entry must live before it is written: what is superseded sooner never wears the disk
  double tip_delay =
      5;  // the same for the end of a question, prompt or reply, which the next turn usually supersedes (policy.h); at least write_delay
  bool read_only = false;                  // use what the directory holds and change nothing there
  std::shared_ptr<FileSystem> files = {};  // null: the machine's own. For tests (src/store/file_system.h)
};

// Which memory answered. kLive: the session's own lane or checkpoints.
enum class Tier { kNone, kLive, kMemory, kDisk };
std::string_view TierName(Tier tier);

// Why a capsule was kept. It decides what the entry is worth when a tier is full (src/store/policy.h has the reasons).
enum class Keep : uint32_t {
  kRequested = 0,   // by the user: never thinned; pinned or named ones are never evicted
  kSystem = 1,      // end of the system prompt and tools
  kTurn = 2,        // before an assistant turn
  kPrompt = 3,      // end of a prompt
  kReply = 4,       // end of a reply
  kStop = 5,        // where a request was cancelled or timed out
  kDivergence = 6,  // where a prompt left a known path
  kStride = 7,      // on the way through a long prefill; thinned as it ages
};
std::string_view KeepName(Keep keep);

struct StoreEntry {
  uint64_t id = 0;      // unique in the store for good, across restarts
  uint64_t parent = 0;  // the nearest entry above it on its path, or 0
  std::string name_space;
  std::string name;  // "" unless named; unique within its namespace
  bool pinned = false;
  Keep keep = Keep::kRequested;
  int32_t position = 0;
  uint64_t bytes = 0;  // that dropping it would free in the tier that holds it: its block, and the rows nobody else needs
  bool in_memory = false;
  bool on_disk = false;
  int64_t created = 0;  // seconds since the epoch
  int64_t used = 0;     // likewise: the last hit, or when it was put
  int64_t hits = 0;
  std::string metadata;  // of whoever put it: a title, a transcript; at most Capsule::kMaxMetadata bytes
};

class CapsuleStore {
 public:
  static constexpr size_t kMaxName = 200;  // bytes

  // Adopts what the directory holds for this fingerprint. A directory that cannot be used is an error; one that cannot be written is used
  // read-only, and notices() says so.
  static Result<std::shared_ptr<CapsuleStore>> Open(const StoreOptions& options, std::shared_ptr<StateSpace> space);
  virtual ~CapsuleStore() = default;  // flushes

  struct Found {
    Capsule capsule;  // not valid() on a miss
    uint64_t id = 0;
    int32_t position = 0;  // of the capsule; 0 on a miss
    Tier tier = Tier::kNone;
    int32_t known = 0;  // how many tokens of the prompt lie on a path that the store has seen; a capsule at `known` is worth taking
    uint64_t diverged_from = 0;        // the entry whose path the prompt left at `known`, or 0 when the prompt only goes on
    std::string reason;                // why nothing, or less than `known`, was reused; "" when there is nothing to explain
    std::shared_ptr<const void> hold;  // while a copy lives, the entry is not evicted: for as long as the prompt is in hand
  };
  // The deepest capsule on the prompt's path, at most prompt.size() and more than `deeper_than` tokens down, which the caller has already. A
  // damaged file is quarantined, reported once through TakeNotices(), and the next best answers.
  virtual Found FindDeepest(std::string_view name_space, std::span<const int32_t> prompt, int32_t deeper_than = 0) = 0;

  // A capsule on its way from disk into memory. While this lives what was read stays there, and what could not be read is not tried again; so it is
  // let go of once FindDeepest or Get has answered. A read that nobody waits for any more is given up.
  class Reading {
   public:
    virtual ~Reading() = default;   // `done` is not called any more
    virtual bool over() const = 0;  // well or not: FindDeepest and Get wait for that file no more. From any thread
  };
  // The id of the capsule that FindDeepest would read from disk for this prompt, or 0 when it would wait for no file.
  virtual uint64_t MustRead(std::string_view name_space, std::span<const int32_t> prompt) = 0;
  virtual bool MustRead(std::string_view name_space, uint64_t id) = 0;  // whether Get would
  // Has it read by a thread of the store's own, in the order of asking. `done` is called on that thread when it is over, also when the store goes
  // first; it must not call the store. Null when there is nothing to wait for: no such entry on disk, no memory for it, or a device whose memory only
  // the steps' thread may write; FindDeepest and Get then do what they can by themselves.
  virtual std::unique_ptr<Reading> Read(std::string_view name_space, uint64_t id, std::function<void()> done) = 0;

  struct PutOptions {
    Keep keep = Keep::kRequested;
    std::string name = {};  // a name that another entry of the namespace has moves to this one
    bool pinned = false;
    std::string metadata = {};
  };
  // Keeps `capsule`, taken where exactly `tokens` were committed. An automatic entry at the same place is refreshed instead of doubled. Returns its
  // id, or 0 when the budget has no room for it that is worth more than what is there: less reuse, no failure.
  virtual Result<uint64_t> Put(std::string_view name_space, std::span<const int32_t> tokens, const Capsule& capsule,
                               const PutOptions& options) = 0;

  // By id or by name; from disk if need be. kNotFound. `tier`, where it is given: which one answered.
  virtual Result<Capsule> Get(std::string_view name_space, uint64_t id, Tier* tier = nullptr) = 0;
  virtual Result<StoreEntry> Find(std::string_view name_space, std::string_view name) = 0;
  virtual Result<StoreEntry> Show(std::string_view name_space, uint64_t id) = 0;
  virtual Result<std::vector<int32_t>> Tokens(std::string_view name_space, uint64_t id) = 0;
  virtual std::vector<StoreEntry> List(std::string_view name_space) = 0;  // by path: a parent stands before its children

  // What is pinned or named is written before the rest, and others make room for it on disk. When even that does not do, a notice names it, and so does
  // the error of Flush.
  virtual Status Pin(std::string_view name_space, uint64_t id, bool pinned) = 0;
  virtual Status Name(std::string_view name_space, uint64_t id, std::string_view name) = 0;  // "" takes the name away
  virtual Status Remove(std::string_view name_space, uint64_t id) = 0;                       // from every tier

  // Returns when everything that is worth it is on disk; an error when something pinned or named is not. On a device whose memory only the steps' thread may read, that thread calls it, and it is
  // what writes; elsewhere a thread of the store's own writes too.
  virtual Status Flush() = 0;

  // That computing `tokens` of a prompt took `seconds`: what reading a capsule from disk is weighed against.
  virtual void Measured(int64_t tokens, double seconds) = 0;
  // Drops from memory what is worth least there. False when there is nothing that may go. For the pools' owner, when one of them is empty.
  virtual bool DropOne() = 0;

  struct Stats {
    uint64_t memory_bytes = 0, memory_budget = 0;
    uint64_t disk_bytes = 0, disk_budget = 0;
    uint64_t entries_in_memory = 0, entries_on_disk = 0;
    uint64_t hits_memory = 0, hits_disk = 0, misses = 0;
    uint64_t evicted_memory = 0, evicted_disk = 0, quarantined = 0;
    uint64_t bytes_written = 0;  // to the directory since Open, payloads and index
    uint64_t rows_written = 0;   // append-only rows among them
    uint64_t waiting = 0;        // entries that are still to be written
  };
  virtual Stats stats() const = 0;
  // What happened that a person should know (a full disk, a damaged file): each is given once.
  virtual std::vector<std::string> TakeNotices() = 0;
};

}  // namespace reprise
