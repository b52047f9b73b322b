// Random programs of every verb over many lanes, against a model that copies everything. After each operation every byte of every live lane
// and capsule must be the model's, and every block and extent in use must be held by what the program still has, no more and no less.
#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <algorithm>
#include <optional>

#include "capsule/capsule_test_support.h"

namespace reprise {
namespace {

using namespace testing_support;

struct Op {
  enum Kind { kStep, kTentative, kHostStep, kAbort, kSnapshot, kRestore, kRollback, kFork, kMove, kDropCapsule, kDropLane, kReset, kKinds };
  Kind kind;
  unsigned a;
  unsigned b;
  unsigned seed;
};

void showValue(const Op& op, std::ostream& os) {
  static constexpr const char* kNames[] = {"step",     "tentative step", "host step", "abort",        "snapshot",  "restore",
                                           "rollback", "fork",           "move",      "drop capsule", "drop lane", "reset"};
  os << kNames[op.kind] << '(' << op.a << ", " << op.b << ", " << op.seed << ')';
}

rc::Gen<Op> GenOp() {
  // Steps and snapshots are what programs are made of; the rest is spread evenly.
  const auto kind = rc::gen::weightedElement<Op::Kind>({{6, Op::kStep},
                                                        {3, Op::kTentative},
                                                        {2, Op::kHostStep},
                                                        {2, Op::kAbort},
                                                        {5, Op::kSnapshot},
                                                        {3, Op::kRestore},
                                                        {2, Op::kRollback},
                                                        {3, Op::kFork},
                                                        {2, Op::kMove},
                                                        {2, Op::kDropCapsule},
                                                        {1, Op::kDropLane},
                                                        {1, Op::kReset}});
  const auto number = rc::gen::inRange<unsigned>(0, 1000);
  return rc::gen::map(rc::gen::tuple(kind, number, number, number), [](const std::tuple<Op::Kind, unsigned, unsigned, unsigned>& t) {
    return Op{std::get<0>(t), std::get<1>(t), std::get<2>(t), std::get<3>(t)};
  });
}

struct World {
  struct LivingLane {
    std::unique_ptr<Lane> lane;
    Model model;
  };
  struct KeptCapsule {
    Capsule capsule;
    Model model;
  };
  std::shared_ptr<StateSpace> space;
  std::vector<KeptCapsule> capsules;
  std::vector<LivingLane> lanes;
  size_t max_lanes;
  int exhausted = 0;
  int moved = 0;

  World(StateLayout layout, const StateSpaceOptions& options)
      : space(NewSpace(std::move(layout), options)), max_lanes(static_cast<size_t>(options.lanes)) {
    lanes.push_back({*space->NewLane(), OriginModel(*space)});
  }

  // Mostly small, sometimes across one or more extents.
  static int Rows(unsigned n) {
    return n % 10 < 6 ? 1 + static_cast<int>(n % 5) : n % 10 < 9 ? 1 + static_cast<int>(n % 70) : static_cast<int>(n % 150) + 1;
  }

  // What a refused operation must leave behind is checked like everything else, after each operation.
  void Refused(const Status& status, const StateSpace::Usage& before) {
    RC_ASSERT(status.code() == StatusCode::kExhausted);
    RC_ASSERT(!status.message().empty());
    RC_ASSERT(SameUsage(space->usage(), before));
    ++exhausted;
  }

  void Do(const Op& op) {
    const auto usage = space->usage();
    const StateLayout& layout = space->layout();
    LivingLane* lane = lanes.empty() ? nullptr : &lanes[op.a % lanes.size()];
    KeptCapsule* capsule = capsules.empty() ? nullptr : &capsules[op.b % capsules.size()];
    switch (op.kind) {
      case Op::kStep: {
        if (lane == nullptr) return;
        const int rows = Rows(op.b);
        if (const Status status = StepLane(*lane->lane, rows, op.seed); !status.ok()) return Refused(status, usage);
        StepModel(layout, lane->model, rows, op.seed);
        return;
      }
      case Op::kTentative: {
        if (lane == nullptr) return;
        const int rows = Rows(op.b);
        const int kept = 1 + static_cast<int>(op.seed) % rows;
        if (const Status status = TentativeStepLane(*lane->lane, rows, kept, op.seed); !status.ok()) return Refused(status, usage);
        StepModel(layout, lane->model, kept, op.seed);
        return;
      }
      case Op::kHostStep: {
        if (lane == nullptr) return;
        if (const Status status = HostStepLane(*lane->lane, op.seed); !status.ok()) return Refused(status, usage);
        HostStepModel(layout, lane->model, op.seed);
        return;
      }
      case Op::kAbort: {
        if (lane == nullptr) return;
        const int rows = Rows(op.b);
        if (const Status status = lane->lane->Begin(rows); !status.ok()) return Refused(status, usage);
        ComputeStep(*lane->lane, rows, op.seed);
        lane->lane->Abort();
        RC_ASSERT(SameUsage(space->usage(), usage));
        return;
      }
      case Op::kSnapshot:
        if (lane == nullptr) return;
        capsules.push_back({Capsule::Take(*lane->lane), lane->model});
        RC_ASSERT(SameUsage(space->usage(), usage));
        return;
      case Op::kRollback:  // to the newest capsule at or before a position behind the lane's own
      case Op::kRestore: {
        if (lane == nullptr || capsule == nullptr) return;
        if (op.kind == Op::kRollback) {
          const int64_t wanted = lane->lane->position() - static_cast<int64_t>(op.seed % 80);
          const auto older =
              std::find_if(capsules.rbegin(), capsules.rend(), [&](const KeptCapsule& c) { return c.capsule.position() <= wanted; });
          if (older == capsules.rend()) return;
          capsule = &*older;
        }
        RC_ASSERT(capsule->capsule.RestoreTo(*lane->lane).ok());
        lane->model = capsule->model;
        return;
      }
      case Op::kFork: {
        if (capsule == nullptr) return;
        auto fresh = space->NewLane();
        if (!fresh.ok()) {
          RC_ASSERT(lanes.size() == max_lanes);
          return Refused(fresh.status(), usage);
        }
        RC_ASSERT(capsule->capsule.RestoreTo(**fresh).ok());
        RC_ASSERT(SameUsage(space->usage(), usage));
        lanes.push_back({*std::move(fresh), capsule->model});
        return;
      }
      case Op::kMove: {
        if (capsule == nullptr) return;
        auto bytes = capsule->capsule.Serialize("moved");
        RC_ASSERT(bytes.ok());
        std::string metadata;
        auto moved_capsule = DeserializeCapsule(*bytes, space, &metadata);
        if (!moved_capsule.ok()) return Refused(moved_capsule.status(), usage);
        RC_ASSERT(metadata == "moved");
        capsules.push_back({*std::move(moved_capsule), Model(capsule->model)});
        ++moved;
        return;
      }
      case Op::kDropCapsule:
        if (capsule != nullptr) capsules.erase(capsules.begin() + (capsule - capsules.data()));
        return;
      case Op::kDropLane:
        if (lanes.size() > 1) lanes.erase(lanes.begin() + (lane - lanes.data()));
        return;
      case Op::kReset:
        if (lane == nullptr) return;
        lane->lane->Reset();
        lane->model = OriginModel(*space);
        return;
      case Op::kKinds: return;
    }
  }

  void Check() {
    for (const LivingLane& one : lanes) RC_ASSERT(ReadLane(*one.lane) == one.model);
    for (const KeptCapsule& one : capsules) RC_ASSERT(ReadCapsule(one.capsule) == one.model);
    // Hold() adds a hold to each; counted with the hold of its owner, every object is in the list twice.
    std::vector<HeldState> held;
    held.reserve(1 + lanes.size() + capsules.size());
    held.push_back(space->Origin());
    for (const LivingLane& one : lanes) held.push_back(one.lane->Hold());
    for (const KeptCapsule& one : capsules) held.push_back(one.capsule.Hold());
    std::vector<const HeldState*> twice;
    for (const HeldState& one : held) twice.insert(twice.end(), {&one, &one});
    const std::string wrong = Unaccounted(*space, twice);
    if (!wrong.empty()) RC_FAIL(wrong);
  }
};

struct Totals {
  int programs = 0;
  int64_t operations = 0;
  int64_t exhausted = 0;
  int64_t moved = 0;
};

Totals RunPrograms(const char* what, const StateLayout& layout, const StateSpaceOptions& options, int programs, int length) {
  Totals totals;
  rc::detail::TestParams params;
  params.seed = 20250711;  // the same programs every time; a failure prints the program, reduced
  params.maxSuccess = programs;
  params.maxSize = length;
  rc::detail::TestMetadata metadata;
  metadata.id = what;
  metadata.description = what;
  const auto result = rc::detail::checkTestable(
      [&] {
        const auto program = *rc::gen::container<std::vector<Op>>(GenOp());
        World world(layout, options);
        world.Check();
        for (const Op& op : program) {
          world.Do(op);
          world.Check();
        }
        world.lanes.clear();
        world.capsules.clear();
        RC_ASSERT(world.space->usage().blocks[0] == 1);
        RC_ASSERT(world.space->usage().blocks[1] == 1);
        RC_ASSERT(world.space->usage().extents == 0);
        ++totals.programs;
        totals.operations += static_cast<int64_t>(program.size());
        totals.exhausted += world.exhausted;
        totals.moved += world.moved;
      },
      metadata, params);
  if (!result.template is<rc::detail::SuccessResult>()) {
    std::ostringstream text;
    rc::detail::printResultMessage(result, text);
    ADD_FAILURE() << what << ": " << text.str();
  }
  std::printf("%s: %d programs, %lld operations, %lld refused, %lld moved\n", what, totals.programs,
              static_cast<long long>(totals.operations), static_cast<long long>(totals.exhausted), static_cast<long long>(totals.moved));
  return totals;
}

TEST(CapsulePropertyTest, RandomProgramsWithRoomEnough) {
  const Totals totals = RunPrograms("roomy", MixedLayout(), {.lanes = 6, .capsules = 200, .rows = 64 * 400, .max_position = 600}, 250, 250);
  EXPECT_GT(totals.moved, 100);
}

TEST(CapsulePropertyTest, RandomProgramsInPoolsThatRunOut) {
  const Totals totals = RunPrograms("tight", MixedLayout(), {.lanes = 3, .capsules = 3, .rows = 64 * 6, .max_position = 300}, 800, 250);
  EXPECT_GT(totals.exhausted, 1000);
  EXPECT_GT(totals.moved, 100);
}

TEST(CapsulePropertyTest, RandomProgramsInTheSmallestPools) {
  const Totals totals = RunPrograms("smallest", MixedLayout(), {.lanes = 2, .capsules = 0, .rows = 64, .max_position = 130}, 800, 100);
  EXPECT_GT(totals.exhausted, 1000);
}

TEST(CapsulePropertyTest, RandomProgramsOverLayoutsThatLackAKind) {
  RunPrograms("recurrent alone", RecurrentLayout(), {.lanes = 4, .capsules = 5, .max_position = 300}, 200, 150);
  RunPrograms("append-only alone", AppendLayout(), {.lanes = 4, .capsules = 5, .rows = 64 * 9, .max_position = 300}, 200, 150);
  RunPrograms("host alone", HostLayout(), {.lanes = 4, .capsules = 5, .rows = 64 * 9, .max_position = 300}, 200, 150);
}

}  // namespace
}  // namespace reprise
