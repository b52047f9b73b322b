// WeightlessBackend: another backend, as far as loading a model asks of it, without its memory. It takes exactly the weights that the other
// takes, and packs none; what it allocates is nowhere. For whoever wants to know what a model declares, and not to run it.
#pragma once

#include <deque>
#include <memory>
#include <string>
#include <string_view>

#include "backend/backend.h"

namespace reprise {

class WeightlessBackend : public Backend {
 public:
  explicit WeightlessBackend(Backend& like) : like_(like) {}  // which must live as long

  std::string_view name() const override { return like_.name(); }
  std::string description() const override { return like_.description(); }
  std::string numerics() const override { return like_.numerics(); }
  int threads() const override { return like_.threads(); }
  BackendLimits MeasureLimits() override { return like_.MeasureLimits(); }

  // Null, whatever the size: nothing is to be read or written there.
  Result<std::byte*> Allocate(size_t, std::string_view) override { return static_cast<std::byte*>(nullptr); }

  Status CheckLoad(const WeightSource& source) const override { return like_.CheckLoad(source); }
  Result<const Matrix*> LoadMatrix(const WeightSource& source) override;
  // kUnsupported: a plan would be of addresses that are none.
  Result<std::unique_ptr<Plan>> Capture(const StepTable& table, const std::function<void(Ops&)>& record) override;
  Stream& stream() override { return stream_; }

 private:
  // What is copied goes nowhere.
  class NoStream : public Stream {
   public:
    Status Replay(const Plan&) override { return Unsupported("a backend without memory runs nothing"); }
    Status Copy(std::byte*, const std::byte*, size_t) override { return Ok(); }
    Event Record() override { return {this, 0}; }
    Status Wait(const Event&) override { return Ok(); }
    Status Synchronize() override { return Ok(); }
  };

  Backend& like_;
  std::deque<Matrix> matrices_;
  NoStream stream_;
};

}  // namespace reprise
