// Where the time of a step goes: a model's body and head, op by op, for some lanes that share a history.
//
//   step_bench MODEL.gguf [--lanes 1,8] [--rows 1] [--position 512,2048] [--threads 2] [--runs 9] [--isa NAME] [--kv f16|q8_0]
//
// Each op of the model is captured as a plan of its own, and the plans run in the model's order, so that caches are as a step leaves them.
// The best of the runs, because on a shared machine the others tell of the neighbours; `whole` is the same step as one plan. Bytes and multiply-adds are those that the mathematics needs: weights once,
// keys and values once for each lane, recurrent state read and written.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <optional>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "backend/cpu/cpu_backend.h"
#include "backend/cpu/packed_matrix.h"
#include "base/half.h"
#include "models/network.h"

namespace reprise {
namespace {

using Clock = std::chrono::steady_clock;
double Microseconds(Clock::time_point start) { return std::chrono::duration<double, std::micro>(Clock::now() - start).count(); }

struct Recorded {
  std::string name;
  std::function<void(Ops&)> record;
  double bytes = 0;    // that must come from or go to memory, of weights
  double macs = 0;     // a row
  bool lanes = false;  // of one row a lane
};

// Keeps every call instead of making it.
class Recorder : public Ops {
 public:
  std::vector<Recorded> calls;

  void Embed(Rows out, const Matrix& table, float scale) override {
    Keep("embed", [=, &table](Ops& ops) { ops.Embed(out, table, scale); });
  }
  void RmsNorm(Rows out, Rows in, Vector weight, float eps) override {
    Keep("norm", [=](Ops& ops) { ops.RmsNorm(out, in, weight, eps); });
  }
  void AddRmsNorm(Rows out, Rows in, Vector weight, float eps, float scale) override {
    Keep("norm", [=](Ops& ops) { ops.AddRmsNorm(out, in, weight, eps, scale); });
  }
  void MatMul(Rows in, std::span<const Product> products) override {
    std::vector<Product> list(products.begin(), products.end());
    Recorded& call =
        Keep("matmul " + std::to_string(in.width) + " to " + std::to_string(Outputs(list)), [=](Ops& ops) { ops.MatMul(in, list); });
    for (const Product& product : list) {
      call.bytes += static_cast<double>(dynamic_cast<const PackedMatrix&>(*product.weight).total_bytes());
      call.macs += static_cast<double>(product.weight->inputs) * product.weight->outputs;
    }
    call.lanes = in.domain == Domain::kLanes;
  }
  void SwiGlu(Rows out, Rows gate, Rows up) override {
    Keep("swiglu", [=](Ops& ops) { ops.SwiGlu(out, gate, up); });
  }
  void GeGlu(Rows out, Rows gate, Rows up) override {
    Keep("geglu", [=](Ops& ops) { ops.GeGlu(out, gate, up); });
  }
  void ReluSquared(Rows out, Rows in) override {
    Keep("relu squared", [=](Ops& ops) { ops.ReluSquared(out, in); });
  }
  void MixExperts(Rows out, Rows in, Rows scores, const Experts& experts) override {
    Recorded& call = Keep("experts", [=](Ops& ops) { ops.MixExperts(out, in, scores, experts); });
    for (const Matrix* matrix : {experts.gate, experts.up, experts.down}) {
      if (matrix == nullptr) continue;
      const double share = static_cast<double>(experts.used) / experts.count;
      call.bytes += share * static_cast<double>(dynamic_cast<const PackedMatrix&>(*matrix).total_bytes());
      call.macs += share * matrix->inputs * matrix->outputs;
    }
  }
  void SigmoidGate(Rows rows, Rows gate) override {
    Keep("sigmoid gate", [=](Ops& ops) { ops.SigmoidGate(rows, gate); });
  }
  void AddBias(Rows rows, Vector bias) override {
    Keep("bias", [=](Ops& ops) { ops.AddBias(rows, bias); });
  }
  void Multiply(Rows out, Rows a, Rows b) override {
    Keep("multiply", [=](Ops& ops) { ops.Multiply(out, a, b); });
  }
  void SoftCap(Rows rows, float cap) override {
    Keep("soft cap", [=](Ops& ops) { ops.SoftCap(rows, cap); });
  }
  void ScaleByPosition(Rows rows, Vector factors, int every) override {
    Keep("scale by position", [=](Ops& ops) { ops.ScaleByPosition(rows, factors, every); });
  }
  void NormRope(Heads heads, Vector weight, float eps, const RopeSpec& rope) override {
    Keep("norm and rope", [=](Ops& ops) { ops.NormRope(heads, weight, eps, rope); });
  }
  void Append(StateRef state, Rows in) override {
    Keep("append", [=](Ops& ops) { ops.Append(state, in); });
  }
  void Attention(Rows out, Heads q, StateRef k, StateRef v, Heads gate, const AttentionSpec& spec) override {
    Keep("attention", [=](Ops& ops) { ops.Attention(out, q, k, v, gate, spec); });
  }
  void CausalConv(Rows out, Rows in, StateRef tail, Vector weight, Vector bias, int kernel, bool silu) override {
    Keep("conv", [=](Ops& ops) { ops.CausalConv(out, in, tail, weight, bias, kernel, silu); });
  }
  void DeltaNet(Rows out, Rows qkv, Rows alpha, Rows beta, Vector a, Vector dt, StateRef state, const DeltaNetShape& shape) override {
    Keep("delta net", [=](Ops& ops) { ops.DeltaNet(out, qkv, alpha, beta, a, dt, state, shape); });
  }
  void Ssm(Rows out, Rows xbc, Rows dt, Vector a, Vector dt_bias, Vector d, StateRef state, const SsmShape& shape) override {
    Keep("ssm", [=](Ops& ops) { ops.Ssm(out, xbc, dt, a, dt_bias, d, state, shape); });
  }
  void SelectiveScan(Rows out, Rows x, Rows dt, Rows b, Rows c, Vector a, Vector dt_bias, Vector d, StateRef state) override {
    Keep("selective scan", [=](Ops& ops) { ops.SelectiveScan(out, x, dt, b, c, a, dt_bias, d, state); });
  }
  void KeepLog(std::span<const LogPart> parts) override {
    Keep("log", [list = std::vector<LogPart>(parts.begin(), parts.end())](Ops& ops) { ops.KeepLog(list); });
  }
  void RecallLog(std::span<const LogPart> parts) override {
    Keep("log", [list = std::vector<LogPart>(parts.begin(), parts.end())](Ops& ops) { ops.RecallLog(list); });
  }
  void GatedRmsNorm(Rows out, Rows in, Rows gate, Vector weight, float eps) override {
    Keep("gated norm", [=](Ops& ops) { ops.GatedRmsNorm(out, in, gate, weight, eps); });
  }
  void Previous(Rows out, Rows in, StateRef last) override {
    Keep("last", [=](Ops& ops) { ops.Previous(out, in, last); });
  }
  void SaveLast(StateRef last, Rows in) override {
    Keep("last", [=](Ops& ops) { ops.SaveLast(last, in); });
  }
  void LoadLast(Rows out, StateRef last) override {
    Keep("last", [=](Ops& ops) { ops.LoadLast(out, last); });
  }
  void LastRows(Rows out, Rows in) override {
    Keep("last", [=](Ops& ops) { ops.LastRows(out, in); });
  }
  void ArgMax(int32_t* index, Rows in) override {
    Keep("argmax", [=](Ops& ops) { ops.ArgMax(index, in); });
  }
  void Best(const BestRows& out, Rows in) override {
    Keep("best", [=](Ops& ops) { ops.Best(out, in); });
  }
  void Weigh(double* parts, const WeighedRow* row, Rows in) override {
    Keep("weigh", [=](Ops& ops) { ops.Weigh(parts, row, in); });
  }

 private:
  static int Outputs(const std::vector<Product>& list) {
    int outputs = 0;
    for (const Product& product : list) outputs += product.weight->outputs;
    return outputs;
  }
  Recorded& Keep(std::string name, std::function<void(Ops&)> record) {
    calls.push_back({std::move(name), std::move(record)});
    return calls.back();
  }
};

struct Options {
  std::string model;
  std::vector<int> lanes{1, 8}, positions{512, 2048};
  int rows = 1, threads = 2, runs = 9;
  std::string isa;
  ElementType kv = ElementType::kF16;
};

template <class T>
T Must(Result<T> result) {
  if (result.ok()) return *std::move(result);
  std::fprintf(stderr, "%s\n", result.status().message().c_str());
  std::exit(1);
}

// Bytes a second that all threads together read from memory.
double ReadBandwidth(int threads) {
  constexpr size_t kBytes = size_t{512} << 20;
  std::vector<uint64_t> memory(kBytes / 8, 1);
  double best = 0;
  for (int run = 0; run < 5; ++run) {
    std::vector<std::thread> team;
    std::vector<uint64_t> sums(static_cast<size_t>(threads) * 8);
    const auto start = Clock::now();
    for (int t = 0; t < threads; ++t) {
      team.emplace_back([&, t] {
        const size_t from = memory.size() * static_cast<size_t>(t) / static_cast<size_t>(threads);
        const size_t to = memory.size() * (static_cast<size_t>(t) + 1) / static_cast<size_t>(threads);
        uint64_t sum[8] = {};
        for (size_t i = from; i + 8 <= to; i += 8) {
          for (size_t j = 0; j < 8; ++j) sum[j] += memory[i + j];
        }
        for (size_t j = 0; j < 8; ++j) sums[static_cast<size_t>(t) * 8] += sum[j];
      });
    }
    for (std::thread& thread : team) thread.join();
    best = std::max(best, kBytes / Microseconds(start) * 1e-3);
  }
  return best;
}

double Median(std::vector<double> x) {
  std::nth_element(x.begin(), x.begin() + static_cast<int64_t>(x.size() / 2), x.end());
  return x[x.size() / 2];
}

class Profile {
 public:
  explicit Profile(const Options& options) : options_(options) {
    file_ = Must(GgufFile::Open(options.model));
    backend_ = Must(MakeCpuBackend({.threads = options.threads, .isa = options.isa}));
    NetworkOptions network;
    network.max_lanes = *std::max_element(options.lanes.begin(), options.lanes.end());
    network.max_rows = network.max_lanes * options.rows;
    network.kv_type = options.kv;
    network_ = Must(Network::Load(*file_, *backend_, layout_, network));
    table_.emplace(network.max_rows, network.max_lanes);
    last_table_.emplace(network.max_lanes, network.max_lanes);
    // As an engine's steps: of more rows than lanes, the last block ends with each lane's last row.
    Recorder body, rest, head;
    network_->RecordBody(body, options.rows > 1 ? Body::kHistory : Body::kWhole);
    if (options.rows > 1) network_->RecordLastRows(rest);
    logits_ = {reinterpret_cast<float*>(Must(backend_->Allocate(
                   sizeof(float) * static_cast<size_t>(network.max_lanes) * static_cast<size_t>(network_->info().vocabulary), "logits"))),
               network_->info().vocabulary, network_->info().vocabulary, Domain::kLanes};
    Rows last{reinterpret_cast<float*>(Must(backend_->Allocate(
                  sizeof(float) * static_cast<size_t>(network.max_lanes) * static_cast<size_t>(network_->info().width), "last"))),
              network_->info().width, network_->info().width, Domain::kLanes};
    head.LoadLast(last, network_->last_hidden());
    network_->RecordHead(head, logits_, last);
    size_t launches = 0;
    launches += Add("", body, *table_);
    if (!rest.calls.empty()) launches += Add("last row: ", rest, *last_table_);
    launches += Add("head ", head, *table_);
    std::printf("%s, %s, %zu launches a step, reads %.1f GB/s\n", options.model.c_str(), backend_->description().c_str(), launches,
                ReadBandwidth(options.threads));
  }

  void Run(int lanes, int position) {
    Bind(lanes, position);
    std::vector<std::vector<double>> times(plans_.size());
    std::vector<double> whole;
    for (int run = 0; run < options_.runs + 1; ++run) {
      for (size_t i = 0; i < plans_.size(); ++i) {
        const double time = Replay(*plans_[i]);
        if (run > 0) times[i].push_back(time);
      }
      Turn(lanes);
      double time = 0;
      for (const auto& part : whole_) time += Replay(*part);
      Turn(lanes);
      if (run > 0) whole.push_back(time);
    }
    struct Line {
      int calls = 0;
      double us = 0, bytes = 0, macs = 0;
    };
    std::map<std::string, Line> lines;
    double all = 0;
    const double best = *std::min_element(whole.begin(), whole.end());
    for (size_t i = 0; i < plans_.size(); ++i) {
      Line& line = lines[calls_[i].name];
      const double us = *std::min_element(times[i].begin(), times[i].end());
      ++line.calls;
      line.us += us;
      line.bytes += calls_[i].bytes;
      line.macs += calls_[i].macs * lanes * (calls_[i].lanes ? 1 : options_.rows);
      all += us;
    }
    std::printf("\n%d lanes of %d rows after %d positions: whole step %.2f ms (median %.2f), op by op %.2f ms; %.0f tokens/s\n", lanes,
                options_.rows, position, best * 1e-3, Median(whole) * 1e-3, all * 1e-3, lanes * options_.rows / best * 1e6);
    std::vector<std::pair<std::string, Line>> sorted(lines.begin(), lines.end());
    std::sort(sorted.begin(), sorted.end(), [](const auto& a, const auto& b) { return a.second.us > b.second.us; });
    for (const auto& [name, line] : sorted) {
      std::printf("  %-28s %4d calls %9.1f us %5.1f %%", name.c_str(), line.calls, line.us, 100 * line.us / all);
      if (line.bytes > 0) std::printf("  %6.1f GB/s %6.1f GMAC/s", line.bytes / line.us * 1e-3, line.macs / line.us * 1e-3);
      std::printf("\n");
    }
  }

 private:
  // The calls one by one, and all of them together, which is how many launches.
  size_t Add(const std::string& prefix, Recorder& recorder, const StepTable& table) {
    for (Recorded& call : recorder.calls) {
      call.name = prefix + call.name;
      call.lanes |= &table == &*last_table_;
      plans_.push_back(Must(backend_->Capture(table, call.record)));
      calls_.push_back(call);
    }
    whole_.push_back(Must(backend_->Capture(table, [&](Ops& ops) {
      for (const Recorded& call : recorder.calls) call.record(ops);
    })));
    return whole_.back()->launches();
  }

  double Replay(const Plan& plan) {
    const auto start = Clock::now();
    if (!backend_->stream().Replay(plan).ok()) std::exit(1);
    return Microseconds(start);
  }

  // What one step wrote, the next one reads.
  void Turn(int lanes) {
    for (int i = 0; i < lanes; ++i) {
      LaneBinding& lane = table_->lane[static_cast<size_t>(i)];
      auto* const write = lane.write;
      lane.write = const_cast<std::byte*>(lane.read);
      lane.read = write;
    }
    last_table_->TakeLastRows(*table_);
  }

  // Lanes that share every whole extent before `position`, and have an extent of their own after it.
  void Bind(int lanes, int position) {
    const size_t bytes = layout_.extent_bytes(Space::kDevice), block = layout_.block_bytes(Space::kDevice);
    const int shared = position / kExtentRows;
    while (static_cast<int>(shared_.size()) < shared) shared_.push_back(NewExtent(bytes));
    extents_.resize(static_cast<size_t>(lanes));
    for (int i = 0; i < lanes; ++i) {
      auto& list = extents_[static_cast<size_t>(i)];
      list.assign(shared_.begin(), shared_.begin() + shared);
      while (static_cast<int>(list.size()) * kExtentRows < position + options_.rows) list.push_back(NewExtent(bytes));
      while (blocks_.size() < 2 * static_cast<size_t>(i + 1)) blocks_.push_back(Must(backend_->Allocate(block, "block")));
      LaneBinding& lane = table_->lane[static_cast<size_t>(i)];
      lane = {blocks_[2 * static_cast<size_t>(i)],
              blocks_[2 * static_cast<size_t>(i) + 1],
              list.data(),
              i * options_.rows,
              options_.rows,
              position};
      for (int r = 0; r < options_.rows; ++r) {
        const auto row = static_cast<size_t>(i * options_.rows + r);
        table_->row_lane[row] = i;
        table_->row_position[row] = position + r;
        table_->token[row] = static_cast<int32_t>(random_() % static_cast<unsigned>(network_->info().vocabulary));
      }
    }
    table_->lanes = lanes;
    table_->rows = lanes * options_.rows;
    last_table_->TakeLastRows(*table_);
  }

  std::byte* NewExtent(size_t bytes) {
    std::byte* const extent = Must(backend_->Allocate(bytes, "extent"));
    auto* const halves = reinterpret_cast<uint16_t*>(extent);
    for (size_t i = 0; i < bytes / 2; ++i) halves[i] = static_cast<uint16_t>(0x3000 + random_() % 0x0800 + (random_() & 1) * 0x8000);
    return extent;
  }

  const Options options_;
  std::optional<GgufFile> file_;
  std::unique_ptr<Backend> backend_;
  StateLayout layout_;
  std::unique_ptr<Network> network_;
  std::optional<StepTable> table_, last_table_;
  Rows logits_;
  std::vector<Recorded> calls_;
  std::vector<std::unique_ptr<Plan>> plans_;
  std::vector<std::unique_ptr<Plan>> whole_;  // one after another
  std::vector<std::byte*> shared_, blocks_;
  std::vector<std::vector<std::byte*>> extents_;
  std::minstd_rand random_{1};
};

std::vector<int> Numbers(const char* text) {
  std::vector<int> list;
  for (const char* at = text; *at != '\0';) {
    char* end;
    list.push_back(static_cast<int>(std::strtol(at, &end, 10)));
    at = *end == ',' ? end + 1 : end;
    if (end == at && *at != '\0') break;
  }
  return list;
}

}  // namespace
}  // namespace reprise

int main(int argc, char** argv) {
  reprise::Options options;
  for (int i = 1; i < argc; ++i) {
    const std::string flag = argv[i];
    const auto value = [&] { return i + 1 < argc ? argv[++i] : ""; };
    if (flag == "--lanes")
      options.lanes = reprise::Numbers(value());
    else if (flag == "--position")
      options.positions = reprise::Numbers(value());
    else if (flag == "--rows")
      options.rows = std::atoi(value());
    else if (flag == "--threads")
      options.threads = std::atoi(value());
    else if (flag == "--runs")
      options.runs = std::atoi(value());
    else if (flag == "--isa")
      options.isa = value();
    else if (flag == "--kv")
      options.kv = value() == std::string("q8_0") ? reprise::ElementType::kQ8_0 : reprise::ElementType::kF16;
    else
      options.model = flag;
  }
  if (options.model.empty()) {
    std::fprintf(stderr,
                 "usage: step_bench MODEL.gguf [--lanes 1,8] [--rows 1] [--position 512,2048] [--threads 2] [--runs 9] [--isa NAME] "
                 "[--kv f16|q8_0]\n");
    return 2;
  }
  reprise::Profile profile(options);
  for (int position : options.positions) {
    for (int lanes : options.lanes) profile.Run(lanes, position);
  }
}
