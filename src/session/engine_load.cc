// How an Engine comes to be: file, weights, state, plans, in this order.
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "models/model_fingerprint.h"
#include "session/declare.h"
#include "session/engine.h"

namespace reprise {
namespace {

// A backend as the memory of state.
class BackendMemory : public DeviceMemory {
 public:
  explicit BackendMemory(std::shared_ptr<Backend> backend) : backend_(std::move(backend)) {}
  Result<std::byte*> Allocate(size_t bytes, std::string_view what) override { return backend_->Allocate(bytes, what); }
  void Copy(std::byte* to, const std::byte* from, size_t bytes) override { (void)backend_->stream().Copy(to, from, bytes); }
  void Synchronize() override { (void)backend_->stream().Synchronize(); }
  bool ordinary() const override { return backend_->ordinary_memory(); }
  Stream* steps() override { return &backend_->stream(); }
  Stream* copies() override { return backend_->copies(); }
  Result<std::byte*> AllocateForHost(size_t bytes, std::string_view what) override { return backend_->AllocateForHost(bytes, what); }

 private:
  std::shared_ptr<Backend> backend_;
};

size_t HalfOfMemory() {
  const long pages = ::sysconf(_SC_PHYS_PAGES);
  const long page = ::sysconf(_SC_PAGESIZE);
  return pages > 0 && page > 0 ? static_cast<size_t>(pages) / 2 * static_cast<size_t>(page) : size_t{1} << 30;
}

// How many rows each lane's ReplayLog keeps: a rollback of 64 tokens begins at the checkpoint below, and where rows are short, any that a session has
// the sampler's state of.
int LogRows(size_t row_bytes) {
  constexpr size_t kLeast = 64 + Checkpoints::kStride, kMost = Checkpoints::kMarks + Checkpoints::kStride, kBytes = size_t{16} << 20;
  return static_cast<int>(std::clamp(kBytes / row_bytes, kLeast, kMost));
}

}  // namespace

Result<std::shared_ptr<Engine>> Engine::Load(const std::string& path, const ModelOptions& options) {
  REPRISE_RETURN_IF_ERROR(CheckOptions(options));
  std::shared_ptr<Engine> engine(new Engine);
  REPRISE_ASSIGN_OR_RETURN(engine->file_, GgufFile::Open(path));
  engine->info_.path = path;
  engine->options_ = options;
  engine->options_.progress = {};
  engine->info_.file_bytes = engine->file_->bytes().size();
  REPRISE_ASSIGN_OR_RETURN(engine->backend_, MakeBackendFor(options));
  if (Status status = engine->Declare(options); !status.ok()) return status.Within("'" + path + "'");
  REPRISE_RETURN_IF_ERROR(engine->MakeSpace(options));
  if (options.store) {
    StoreOptions store = *options.store;
    store.memory_budget = engine->store_budget_;
    REPRISE_ASSIGN_OR_RETURN(engine->store_, CapsuleStore::Open(store, engine->space_));
  }
  REPRISE_RETURN_IF_ERROR(engine->CapturePlans());
  return engine;
}

Status Engine::Declare(const ModelOptions& options) {
  REPRISE_ASSIGN_OR_RETURN(DeclaredModel declared, DeclareModel(*file_, *backend_, options));
  network_ = std::move(declared.network);
  layout_ = std::move(declared.layout);
  history_ = declared.history;
  decode_ = declared.decode;
  tokenizer_ = std::move(declared.tokenizer);
  tokenizer_status_ = std::move(declared.tokenizer_status);
  table_.emplace(declared.max_rows, options.lanes);
  last_table_.emplace(options.lanes, options.lanes);
  return Ok();
}

Status Engine::MakeSpace(const ModelOptions& options) {
  const NetworkInfo& network = network_->info();
  StateSpaceOptions space;
  space.lanes = options.lanes;
  space.capsules = options.capsules;
  space.host_blocks = options.lanes * Checkpoints::kMarks;
  space.max_position = ContextOf(options.context, network.context);
  // Two whole contexts, and room for every lane to go its own way for a while.
  space.rows = 2 * int64_t{space.max_position} + int64_t{options.lanes} * 2048;
  space.log_row_bytes = network_->log_row_bytes();
  space.log_rows = LogRows(space.log_row_bytes);
  const size_t budget = options.state_budget > 0      ? options.state_budget
                        : backend_->free_memory() > 0 ? backend_->free_memory() / 2
                                                      : HalfOfMemory();
  const auto block_bytes = layout_.block_bytes(Space::kDevice) + layout_.block_bytes(Space::kHost);
  const auto bytes = [&] {
    return static_cast<size_t>(2 * space.lanes + space.capsules + 1) * block_bytes +
           static_cast<size_t>(space.host_blocks) * layout_.block_bytes(Space::kHost) +
           static_cast<size_t>(space.rows) * layout_.row_bytes() +
           static_cast<size_t>(space.lanes) * static_cast<size_t>(space.log_rows) * space.log_row_bytes;
  };
  while (bytes() > budget && space.capsules > 16) space.capsules /= 2;
  if (bytes() > budget) space.log_rows = 0;  // what is taken back is computed again then
  while (bytes() > budget && space.capsules > 4) space.capsules /= 2;
  if (bytes() > budget) space.rows = space.max_position + int64_t{options.lanes} * kExtentRows;
  if (bytes() > budget) {
    return Exhausted("a context of " + std::to_string(space.max_position) + " positions and " + std::to_string(space.lanes) +
                     " lanes needs " + std::to_string(bytes() >> 20) + " MiB of state, and the budget is " + std::to_string(budget >> 20) +
                     " MiB; ask for a shorter context or fewer lanes, or give a larger budget");
  }
  if (options.store) MakeRoomForStore(*options.store, budget - bytes(), space);
  if (options.spill_budget > 0) {
    if (backend_->copies() == nullptr)
      return InvalidArgument("a budget for state moved to the host's memory is for a device that has its own");
    MakeRoomForSpill(options.spill_budget, space);
  }

  info_.fingerprint = ModelFingerprint(*file_, network, layout_, backend_->numerics());
  REPRISE_ASSIGN_OR_RETURN(space_,
                           StateSpace::Create(std::move(layout_), space, info_.fingerprint, std::make_shared<BackendMemory>(backend_)));
  decode_.InitialiseOrigin(*space_);
  space_->SetEvictor([this] { return DropCheckpoint() || (store_ && store_->DropOne()); });

  info_.name = network.name;
  info_.architecture = network.architecture;
  info_.parameters = network.parameters;
  info_.experts = network.experts;
  info_.experts_used = network.experts_used;
  info_.layers = network.layers;
  info_.width = network.width;
  info_.vocabulary = network.vocabulary;
  info_.has_draft = network.has_draft;
  info_.context = space.max_position;
  info_.lanes = space.lanes;
  info_.capsules = space.capsules;
  info_.backend = backend_->description();
  for (const GgufTensor& tensor : file_->tensors()) {
    const double share = network.UsedShare(tensor);
    info_.weight_bytes += static_cast<uint64_t>(share * static_cast<double>(tensor.data.size()));
    info_.used_parameters += static_cast<uint64_t>(share * static_cast<double>(tensor.elements()));
  }
  workspace_.emplace(network.vocabulary);
  token_scratch_.resize(static_cast<size_t>(space.max_position));
  return Ok();
}

// What the store may hold comes on top of what live sessions need. Its budget is in bytes, and how they divide into blocks and rows is the
// workload's business, so either pool could take all of them; but a block comes with at least an extent of rows. Pages are used as they are
// first touched.
void Engine::MakeRoomForStore(const StoreOptions& options, size_t room, StateSpaceOptions& space) {
  const auto block_bytes = layout_.block_bytes(Space::kDevice) + layout_.block_bytes(Space::kHost);
  const auto extent_bytes = layout_.extent_bytes(Space::kDevice) + layout_.extent_bytes(Space::kHost);
  const size_t wanted =
      options.memory_budget > 0 ? options.memory_budget : static_cast<size_t>(space.capsules) * (block_bytes + 8 * extent_bytes);
  store_budget_ = std::min<size_t>(wanted, room / 2);
  const size_t blocks = store_budget_ / (block_bytes + extent_bytes) + 1;
  space.capsules += static_cast<int>(std::min<size_t>(blocks, 1 << 20));
  if (layout_.row_bytes() > 0) space.rows += static_cast<int64_t>(store_budget_ / layout_.row_bytes());
}

// Capsules that the device has no room for, each with as many rows of its own as MakeRoomForStore reckons with. The store counts them as its memory.
void Engine::MakeRoomForSpill(size_t budget, StateSpaceOptions& space) {
  constexpr int kExtentsEach = 8;
  const auto each = layout_.block_bytes(Space::kDevice) + kExtentsEach * layout_.extent_bytes(Space::kDevice);
  space.spilled_capsules = static_cast<int>(std::min<size_t>(budget / each, 1 << 20));
  space.spilled_rows = int64_t{space.spilled_capsules} * kExtentsEach * kExtentRows;
  if (store_budget_ > 0) store_budget_ += budget;
}

Status Engine::CapturePlans() {
  const auto vocabulary = static_cast<size_t>(info_.vocabulary);
  const auto rows = static_cast<size_t>(std::max(kMaxLogitRows, max_lanes()));
  REPRISE_ASSIGN_OR_RETURN(std::byte * logits, backend_->Allocate(rows * vocabulary * sizeof(float), "logits"));
  REPRISE_ASSIGN_OR_RETURN(std::byte * greedy, backend_->AllocateForHost(rows * sizeof(int32_t), "greedy choices"));
  REPRISE_ASSIGN_OR_RETURN(std::byte * hidden, backend_->Allocate(rows * static_cast<size_t>(info_.width) * sizeof(float), "hidden rows"));
  logits_ = {reinterpret_cast<float*>(logits), info_.vocabulary, info_.vocabulary, Domain::kRows};
  greedy_ = reinterpret_cast<int32_t*>(greedy);
  host_logits_ = logits_.data;
  if (!backend_->ordinary_memory()) {
    REPRISE_ASSIGN_OR_RETURN(std::byte * copy, backend_->AllocateForHost(rows * vocabulary * sizeof(float), "logits for the host"));
    host_logits_ = reinterpret_cast<float*>(copy);
  }
  if (backend_->finds_best()) {
    REPRISE_ASSIGN_OR_RETURN(std::byte * values, backend_->AllocateForHost(rows * kBestValues * sizeof(float), "the best logits"));
    REPRISE_ASSIGN_OR_RETURN(std::byte * ids, backend_->AllocateForHost(rows * kBestValues * sizeof(int32_t), "the best logits' tokens"));
    best_ = {greedy_, reinterpret_cast<float*>(values), reinterpret_cast<int32_t*>(ids), static_cast<int>(rows)};
    const size_t parts = (vocabulary + kWeighedPart - 1) / kWeighedPart;
    REPRISE_ASSIGN_OR_RETURN(std::byte * weighed, backend_->AllocateForHost(sizeof(WeighedRow), "the name of a row"));
    REPRISE_ASSIGN_OR_RETURN(std::byte * weights, backend_->AllocateForHost(parts * sizeof(double), "a row's weights"));
    weighed_ = reinterpret_cast<WeighedRow*>(weighed);
    part_weights_ = {reinterpret_cast<double*>(weights), parts};
    REPRISE_ASSIGN_OR_RETURN(weigh_, backend_->Capture(*table_, [&](Ops& ops) { ops.Weigh(part_weights_.data(), weighed_, logits_); }));
  }
  const auto choose = [&](Ops& ops, const Rows& from) {
    if (best_.rows > 0) {
      ops.Best(best_, from);
    } else {
      ops.ArgMax(greedy_, from);
    }
  };
  lane_hidden_ = {reinterpret_cast<float*>(hidden), info_.width, info_.width, Domain::kLanes};

  const auto capture_body = [&](Body body) { return backend_->Capture(*table_, [&](Ops& ops) { network_->RecordBody(ops, body); }); };
  REPRISE_ASSIGN_OR_RETURN(body_, capture_body(Body::kWhole));
  REPRISE_ASSIGN_OR_RETURN(history_body_, capture_body(Body::kHistory));
  REPRISE_ASSIGN_OR_RETURN(last_rows_, backend_->Capture(*last_table_, [&](Ops& ops) { network_->RecordLastRows(ops); }));
  REPRISE_ASSIGN_OR_RETURN(logged_body_, capture_body(Body::kLogged));
  REPRISE_ASSIGN_OR_RETURN(replay_, backend_->Capture(*table_, [&](Ops& ops) { network_->RecordReplay(ops); }));
  REPRISE_ASSIGN_OR_RETURN(recall_, backend_->Capture(*table_, [&](Ops& ops) { network_->RecordRecall(ops); }));
  REPRISE_ASSIGN_OR_RETURN(lane_head_, backend_->Capture(*table_, [&](Ops& ops) {
    Rows logits_of_lanes = logits_;
    logits_of_lanes.domain = Domain::kLanes;
    ops.LoadLast(lane_hidden_, network_->last_hidden());
    network_->RecordHead(ops, logits_of_lanes, lane_hidden_);
    choose(ops, logits_of_lanes);
  }));
  REPRISE_ASSIGN_OR_RETURN(row_head_, backend_->Capture(*table_, [&](Ops& ops) {
    network_->RecordHead(ops, logits_, network_->hidden());
    choose(ops, logits_);
  }));
  if (info_.has_draft) {
    REPRISE_ASSIGN_OR_RETURN(draft_head_, backend_->Capture(*table_, [&](Ops& ops) {
      network_->RecordDraftHead(ops, logits_, network_->draft_hidden());
      ops.ArgMax(greedy_, logits_);
    }));
    const auto capture_guess = [&](bool chained) {
      return backend_->Capture(*table_, [&](Ops& ops) {
        network_->RecordDraftStep(ops, chained);
        network_->RecordDraftHead(ops, logits_, network_->draft_hidden());
        ops.ArgMax(greedy_, logits_);
      });
    };
    REPRISE_ASSIGN_OR_RETURN(first_guess_, capture_guess(false));
    REPRISE_ASSIGN_OR_RETURN(next_guess_, capture_guess(true));
  }
  return Ok();
}

}  // namespace reprise
