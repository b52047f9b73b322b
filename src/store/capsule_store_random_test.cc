// Random operations on the store: by one thread against a naive model, and by several at once.
#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <algorithm>
#include <atomic>
#include <set>
#include <thread>
#include <vector>

#include "store/tiered_store_test_support.h"

namespace reprise {
namespace {

using namespace testing_support;

// One thread uses the model; others look, pin, remove, flush and make room meanwhile, and the store's own thread writes.
TEST(CapsuleStoreThreads, OtherThreadsMayLookAndChangeMeanwhile) {
  const auto disk = std::make_shared<FakeDisk::Shared>();
  const auto space = DigestSpace();
  const auto store = NewStore(space, 20 * (BlockBytes(*space) + 4 * ExtentBytes(*space)), disk, /*delay=*/0.001);
  std::atomic<bool> stop{false};
  std::vector<std::thread> others;
  for (int n = 0; n < 3; ++n) {
    others.emplace_back([&, n] {
      for (int i = n; !stop.load(); ++i) {
        const auto list = store->List("");
        if (list.empty()) continue;
        const uint64_t id = list[static_cast<size_t>(i) % list.size()].id;
        if (i % 7 == 0) (void)store->Pin("", id, i % 2 == 0);
        if (i % 11 == 0) (void)store->Remove("", id);
        if (i % 13 == 0) (void)store->Name("", id, "name");
        if (i % 29 == 0) (void)store->Flush();
        if (i % 31 == 0) (void)store->DropOne();
        (void)store->Tokens("", id);
        (void)store->TakeNotices();
        EXPECT_LE(store->stats().memory_bytes, store->stats().memory_budget);
      }
    });
  }
  for (int i = 0; i < 300; ++i) {
    const Path path = Joined(Tokens(100, i % 5), Tokens(150, i));
    const auto found = store->FindDeepest("", path);
    if (found.capsule.valid()) {
      EXPECT_EQ(WrongIn(found.capsule, path), "");
    }
    EXPECT_TRUE(store->Put("", path, CapsuleAt(space, path, found.capsule), {.keep = i % 2 == 0 ? Keep::kTurn : Keep::kReply}).ok());
  }
  stop = true;
  for (std::thread& other : others) other.join();
}

struct Op {
  enum Kind { kPut, kExtend, kFind, kGet, kPin, kName, kRemove, kDrop, kHoldOn, kLetGo, kFlush, kKinds };
  Kind kind;
  unsigned a, b;
};
void showValue(const Op& op, std::ostream& os) { os << "op " << op.kind << '(' << op.a << ", " << op.b << ')'; }

class Naive {
 public:
  explicit Naive(bool with_disk) : space_(DigestSpace(512, 1 << 18)), disk_(with_disk ? std::make_shared<FakeDisk::Shared>() : nullptr) {
    budget_ = 24 * (BlockBytes(*space_) + 3 * ExtentBytes(*space_));
    store_ = NewStore(space_, budget_, disk_);
  }

  void Do(const Op& op) {
    const auto entries = store_->List("");
    switch (op.kind) {
      case Op::kPut: Add(Random(op), op); break;
      case Op::kExtend:
        if (!entries.empty())
          Add(Joined(*store_->Tokens("", entries[op.a % entries.size()].id),
                     Tokens(1 + static_cast<int>(op.b % 90), static_cast<int>(op.b % 3))),
              op);
        break;
      case Op::kFind: Check(Random(op)); break;
      case Op::kGet:
        if (!entries.empty()) {
          const StoreEntry& entry = entries[op.a % entries.size()];
          const auto capsule = store_->Get("", entry.id);
          RC_ASSERT(capsule.ok());
          RC_ASSERT(WrongIn(*capsule, *store_->Tokens("", entry.id)) == "");
          RC_ASSERT(capsule->position() == entry.position);
        }
        break;
      case Op::kPin:
        if (!entries.empty()) {
          const uint64_t id = entries[op.a % entries.size()].id;
          const bool pin = pinned_.size() < 4 && op.b % 2 == 0;
          RC_ASSERT(store_->Pin("", id, pin).ok());
          pin ? (void)pinned_.insert(id) : (void)pinned_.erase(id);
        }
        break;
      case Op::kName:
        if (!entries.empty()) RC_ASSERT(store_->Name("", entries[op.a % entries.size()].id, op.b % 2 == 0 ? "one" : "two").ok());
        break;
      case Op::kRemove:
        if (!entries.empty()) {
          const uint64_t id = entries[op.a % entries.size()].id;
          RC_ASSERT(store_->Remove("", id).ok());
          pinned_.erase(id);
          ++removed_;
        }
        break;
      case Op::kDrop: store_->DropOne(); break;
      case Op::kHoldOn: {
        auto found = store_->FindDeepest("", Random(op));
        if (found.capsule.valid()) held_.push_back({found.id, std::move(found.hold)});
        break;
      }
      case Op::kLetGo:
        if (!held_.empty()) held_.erase(held_.begin());
        break;
      case Op::kFlush: RC_ASSERT(store_->Flush().ok()); break;
      case Op::kKinds: break;
    }
    Invariants();
  }

 private:
  static Path Random(const Op& op) {
    return Joined(Tokens(40 + static_cast<int>(op.a % 3) * 64), Tokens(1 + static_cast<int>(op.b % 200), static_cast<int>(op.a % 7)));
  }

  void Add(const Path& path, const Op& op) {
    if (path.size() > 1500) return;
    static constexpr Keep kKeeps[] = {Keep::kRequested, Keep::kSystem, Keep::kTurn,      Keep::kPrompt,
                                      Keep::kReply,     Keep::kStop,   Keep::kDivergence};
    const Keep keep = kKeeps[op.b % 7];
    const size_t before = store_->List("").size();
    const auto evicted = Gone();
    const auto found = store_->FindDeepest("", path);
    const auto id = store_->Put("", path, CapsuleAt(space_, path, found.capsule), {.keep = keep});
    RC_ASSERT(id.ok());
    paths_.push_back(path);
    const size_t after = store_->List("").size();
    if (*id != 0) RC_ASSERT(store_->Show("", *id).ok());
    if (disk_ == nullptr) RC_ASSERT(after + (Gone() - evicted) == before || after + (Gone() - evicted) == before + 1);
  }

  uint64_t Gone() const { return store_->stats().evicted_memory; }

  void Check(const Path& prompt) {
    int32_t deepest = 0;
    for (const StoreEntry& entry : store_->List("")) {
      const Path path = *store_->Tokens("", entry.id);
      if (path.size() <= prompt.size() && std::equal(path.begin(), path.end(), prompt.begin())) deepest = std::max(deepest, entry.position);
    }
    size_t known = 0;
    for (const Path& path : paths_) {
      const auto [mine, other] = std::mismatch(path.begin(), path.end(), prompt.begin(), prompt.end());
      known = std::max(known, static_cast<size_t>(mine - path.begin()));
    }
    const auto found = store_->FindDeepest("", prompt);
    RC_ASSERT(found.position == deepest);
    RC_ASSERT(found.known == static_cast<int32_t>(known));
    if (deepest > 0) RC_ASSERT(WrongIn(found.capsule, prompt) == "");
  }

  void Invariants() {
    const auto stats = store_->stats();
    RC_ASSERT(stats.memory_bytes <= budget_);
    if (const uint64_t used = InPools(*space_); used != stats.memory_bytes) {
      // What is removed while it is being written is no longer counted, and gone when that is done.
      RC_ASSERT(disk_ != nullptr && used > stats.memory_bytes);
      RC_ASSERT(store_->Flush().ok());
      RC_ASSERT(store_->stats().memory_bytes == InPools(*space_));
    }
    uint64_t in_memory = 0;
    for (const StoreEntry& entry : store_->List("")) in_memory += entry.in_memory ? 1 : 0;
    RC_ASSERT(stats.entries_in_memory == in_memory);
    for (const uint64_t id : pinned_) RC_ASSERT(store_->Show("", id).ok());
    for (const auto& [id, hold] : held_) {
      const auto shown = store_->Show("", id);
      if (shown.ok()) RC_ASSERT(shown->in_memory || shown->on_disk);
    }
  }

  std::shared_ptr<StateSpace> space_;
  std::shared_ptr<FakeDisk::Shared> disk_;
  std::shared_ptr<CapsuleStore> store_;
  uint64_t budget_;
  std::vector<Path> paths_;
  std::set<uint64_t> pinned_;
  std::vector<std::pair<uint64_t, std::shared_ptr<const void>>> held_;
  int removed_ = 0;
};

rc::Gen<Op> GenOp() {
  const auto kind = rc::gen::weightedElement<Op::Kind>({{8, Op::kPut},
                                                        {8, Op::kExtend},
                                                        {6, Op::kFind},
                                                        {3, Op::kGet},
                                                        {1, Op::kPin},
                                                        {1, Op::kName},
                                                        {2, Op::kRemove},
                                                        {2, Op::kDrop},
                                                        {1, Op::kHoldOn},
                                                        {2, Op::kLetGo},
                                                        {1, Op::kFlush}});
  return rc::gen::apply(
      [](Op::Kind k, unsigned a, unsigned b) {
        return Op{k, a, b};
      },
      kind, rc::gen::resize(1000, rc::gen::inRange(0u, 1000u)), rc::gen::resize(1000, rc::gen::inRange(0u, 1000u)));
}

TEST(CapsuleStoreProperty, RandomOperationsAgainstANaiveModel) {
  for (const bool with_disk : {false, true}) {
    EXPECT_TRUE(rc::check(with_disk ? "memory and disk" : "memory", [with_disk] {
      Naive naive(with_disk);
      for (const Op& op : *rc::gen::resize(150, rc::gen::container<std::vector<Op>>(GenOp()))) naive.Do(op);
    }));
  }
}

}  // namespace
}  // namespace reprise
