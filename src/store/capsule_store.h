// TieredStore: the CapsuleStore. A tree for each namespace, the memory tier, and a directory that a thread of its own writes to.
//
// One lock guards everything in memory and is never held while a file is touched, a pool is asked for memory, or a capsule is copied: so nobody
// who takes it waits for longer than another's look-up. What the disk says is merged under the lock afterwards.
//
// Files: capsule_store.cc puts and names; find.cc finds; eviction.cc makes room in memory; write_behind.cc moves entries to the directory, and
// reading.cc from it.
#pragma once

#include <condition_variable>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "reprise/store.h"
#include "store/disk_tier.h"
#include "store/memory_tier.h"
#include "store/policy.h"
#include "store/reading.h"
#include "store/stored.h"
#include "store/token_tree.h"

namespace reprise {

struct NameSpace {
  std::string name;
  TokenTree tree;
  std::map<std::string, Stored*, std::less<>> names;
};

class TieredStore final : public CapsuleStore {
 public:
  // `disk` may be null: memory alone.
  static Result<std::shared_ptr<CapsuleStore>> Make(const StoreOptions& options, std::shared_ptr<StateSpace> space,
                                                    std::unique_ptr<DiskTier> disk);
  ~TieredStore() override;

  Found FindDeepest(std::string_view name_space, std::span<const int32_t> prompt, int32_t deeper_than) override;
  Result<uint64_t> Put(std::string_view name_space, std::span<const int32_t> tokens, const Capsule& capsule,
                       const PutOptions& options) override;
  Result<Capsule> Get(std::string_view name_space, uint64_t id, Tier* tier) override;
  uint64_t MustRead(std::string_view name_space, std::span<const int32_t> prompt) override;
  bool MustRead(std::string_view name_space, uint64_t id) override;
  std::unique_ptr<Reading> Read(std::string_view name_space, uint64_t id, std::function<void()> done) override;
  Result<StoreEntry> Find(std::string_view name_space, std::string_view name) override;
  Result<StoreEntry> Show(std::string_view name_space, uint64_t id) override;
  Result<std::vector<int32_t>> Tokens(std::string_view name_space, uint64_t id) override;
  std::vector<StoreEntry> List(std::string_view name_space) override;
  Status Pin(std::string_view name_space, uint64_t id, bool pinned) override;
  Status Name(std::string_view name_space, uint64_t id, std::string_view name) override;
  Status Remove(std::string_view name_space, uint64_t id) override;
  Status Flush() override;
  void Measured(int64_t tokens, double seconds) override;
  bool DropOne() override;
  Stats stats() const override;
  std::vector<std::string> TakeNotices() override;

 private:
  using Lock = std::unique_lock<std::mutex>;

  TieredStore(const StoreOptions& options, std::shared_ptr<StateSpace> space, std::unique_ptr<DiskTier> disk);

  // All below but what says otherwise is called with the lock held.
  NameSpace& SpaceOf(std::string_view name);
  Stored* EntryOf(std::string_view name_space, uint64_t id) const;
  Status NoSuch(uint64_t id) const;
  StoreEntry Describe(const Stored& entry) const;
  Stored* NewEntry(NameSpace& space, TokenTree::Node* node, DiskNote note);
  void Install(Stored* entry, const Capsule& capsule);
  void Touch(Stored* entry);
  void TakeName(Stored* entry, std::string_view name);
  void Forget(Stored* entry);       // from the tree and from memory; what is on disk is the caller's business
  void LeaveMemory(Stored* entry);  // and the store, if it is nowhere else
  void Supersede(Stored* entry);
  void Notice(std::string text);

  // find.cc
  struct Sight {  // what there is on a prompt's path
    TokenTree::Match match;
    Stored* deepest = nullptr;
    Stored* at_hand = nullptr;  // the deepest of which no file has to be read
    Stored* to_read = nullptr;  // the deepest on disk, where it is deeper and reading it is faster than computing
    std::string reason;         // why what is on disk is not read
    std::string trouble;        // what could not be read
  };
  Sight Look(NameSpace& space, std::span<const int32_t> prompt, int32_t deeper_than, const std::vector<uint64_t>& unreadable) const;
  static std::shared_ptr<DiskRead> ReadOf(const Stored& entry);
  static Capsule AtHand(const Stored& entry);
  static Capsule BaseOf(const Stored& entry);
  Capsule Take(Stored* entry, Tier& tier);

  // reading.cc
  Result<Capsule> Bring(Lock& lock, uint64_t id, const Capsule& base);  // into memory; the lock is let go of meanwhile
  void Settle(Lock& lock, uint64_t id, const Result<Capsule>& capsule, int32_t shared, StoreClock::time_point start);
  void ReadInTurn();
  void StopReading();

  // eviction.cc
  bool MakeRoom(const Capsule& capsule, bool proven);
  bool Evict(bool proven_too);
  void Survey();
  double WeightOf(Stored* entry);
  double WorthOf(Stored* entry) const;
  bool Proven(const Stored& entry) const;
  double ReadSeconds(int32_t rows) const;

  // write_behind.cc
  static policy::Place PlaceOf(const Stored& entry);
  int32_t RowsToWrite(const Stored& entry) const;
  bool WorthWriting(const Stored& entry, bool closing) const;
  void Queue(Stored* entry, double delay);
  bool Hurry(Stored* entry);
  Status Write(Lock& lock, Stored* entry);
  Status WriteEverything(Lock& lock);
  Status Unsaved(const Status& why) const;
  void UpdateNotes(Lock& lock, bool usage_too);
  void Run();
  void LookAround(Lock& lock);  // whether another process has written
  void Resync(Lock& lock);
  void Merge(std::vector<DiskEntry> listed, const std::unordered_set<int64_t>& before);
  void GoneFromDisk(int64_t disk_id);

  const StoreOptions options_;
  const std::shared_ptr<StateSpace> space_;
  const std::unique_ptr<DiskTier> disk_;
  const bool writes_;  // there is a directory, and it may be written

  mutable std::mutex mutex_;
  MemoryTier memory_;
  std::map<std::string, std::unique_ptr<NameSpace>, std::less<>> spaces_;
  std::unordered_map<uint64_t, std::unique_ptr<Stored>> entries_;
  std::unordered_map<int64_t, Stored*> by_disk_id_;
  Stats stats_;
  std::vector<std::string> notices_;
  std::string last_trouble_;  // told once, until something else happens

  // Eviction: entries as the last survey ranked them, what is worth least at the back.
  uint64_t survey_ = 0;
  std::vector<uint64_t> ranked_;
  size_t trusted_ = 0;  // how many of them may go before another survey is made
  uint64_t proven_bytes_ = 0;

  double tokens_per_second_ = 0;  // 0 until measured
  double read_bytes_per_second_ = 1e9;

  std::multimap<StoreClock::time_point, uint64_t> waiting_;  // ids of what is to be written, by when
  bool writing_ = false;
  bool stop_ = false;
  bool trouble_ = false;  // the last write failed
  std::condition_variable wake_;
  std::condition_variable idle_;
  std::thread thread_;

  std::deque<std::shared_ptr<DiskRead>> reads_;  // in their turn; the first is under way
  bool stop_reading_ = false;
  std::condition_variable read_wake_;
  std::thread reader_;
};

}  // namespace reprise
