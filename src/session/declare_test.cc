// What is told of a model without loading it is what the loaded model says of itself, and takes no memory of the device.
#include "session/declare.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <set>
#include <utility>

#include "backend/devices.h"
#include "session/engine.h"

namespace reprise {
namespace {

// Weights that were asked for, and memory that was given out.
struct Asked {
  int checked = 0;
  int loaded = 0;
  size_t allocations = 0;
};

// The CPU, whose memory and weights are counted.
class CountedBackend : public Backend {
 public:
  CountedBackend(std::unique_ptr<Backend> cpu, Asked& asked) : cpu_(std::move(cpu)), asked_(asked) {}

  std::string_view name() const override { return cpu_->name(); }
  std::string description() const override { return cpu_->description(); }
  std::string numerics() const override { return cpu_->numerics(); }
  int threads() const override { return cpu_->threads(); }
  BackendLimits MeasureLimits() override { return cpu_->MeasureLimits(); }
  bool ordinary_memory() const override { return true; }
  Result<std::byte*> Allocate(size_t bytes, std::string_view what) override {
    ++asked_.allocations;
    return cpu_->Allocate(bytes, what);
  }
  Status CheckLoad(const WeightSource& source) const override {
    ++asked_.checked;
    return cpu_->CheckLoad(source);
  }
  Result<const Matrix*> LoadMatrix(const WeightSource& source) override {
    ++asked_.loaded;
    return cpu_->LoadMatrix(source);
  }
  Result<std::unique_ptr<Plan>> Capture(const StepTable& table, const std::function<void(Ops&)>& record) override {
    return cpu_->Capture(table, record);
  }
  Stream& stream() override { return cpu_->stream(); }

 private:
  std::unique_ptr<Backend> cpu_;
  Asked& asked_;
};

TEST(ModelOutline, IsTheLoadedModelsOwnAndTakesNoMemory) {
  static Asked asked;
  AddDevice("counted", []() -> Result<std::unique_ptr<Backend>> {
    REPRISE_ASSIGN_OR_RETURN(auto cpu, MakeCpuBackend({.threads = 1}));
    return std::unique_ptr<Backend>(std::make_unique<CountedBackend>(std::move(cpu), asked));
  });
  std::set<std::string> architectures;
  for (const auto& entry : std::filesystem::directory_iterator("tests/data/goldens")) {
    if (entry.path().extension() != ".gguf" || entry.path().stem() == "quants") continue;  // which is tensors alone
    for (const KeyValueType kv : {KeyValueType::kAuto, KeyValueType::kF16}) {
      SCOPED_TRACE(entry.path());
      const ModelOptions options = {.device = "counted", .context = 128, .lanes = 1, .capsules = 4, .chunk = 16, .kv = kv};
      asked = {};
      const auto file = GgufFile::Open(entry.path());
      ASSERT_TRUE(file.ok()) << file.status().message();
      const auto outline = OutlineModel(*file, options);
      ASSERT_TRUE(outline.ok()) << outline.status().message();
      EXPECT_EQ(asked.loaded, 0);
      EXPECT_EQ(asked.allocations, 0U);
      const int checked = std::exchange(asked.checked, 0);

      const auto model = Model::Load(entry.path(), options);
      ASSERT_TRUE(model.ok()) << model.status().message();
      EXPECT_EQ(asked.loaded, checked) << "every weight that is loaded was asked about, and no other";
      EXPECT_GT(asked.allocations, 0U);
      EXPECT_TRUE(outline->layout == model->layout());
      EXPECT_EQ(outline->fingerprint, model->info().fingerprint);
      EXPECT_EQ(outline->backend, model->info().backend);
      EXPECT_EQ(outline->network.parameters, model->info().parameters);
      EXPECT_EQ(outline->network.has_draft, model->info().has_draft);
      EXPECT_EQ(outline->tokenizer.has_value(), model->engine().tokenizer().ok());
      architectures.insert(outline->network.architecture);
    }
  }
  EXPECT_GE(architectures.size(), 5U) << "the golden models are of every architecture";
}

// How long a session may become decides how Phi's positions are told. Of other models it is no part of what their state is.
TEST(ModelOutline, WhatIsTurnedForLongTextsIsAnotherModels) {
  const auto fingerprint = [](const char* name, int context) {
    const auto file = GgufFile::Open(std::string("tests/data/goldens/") + name + ".gguf");
    const auto outline = OutlineModel(*file, {.threads = 1, .context = context});
    EXPECT_TRUE(outline.ok()) << outline.status().message();
    return outline->fingerprint.Hex();
  };
  EXPECT_EQ(fingerprint("phi3", 100), fingerprint("phi3", 256));  // the context of the first training
  EXPECT_NE(fingerprint("phi3", 256), fingerprint("phi3", 257));
  EXPECT_EQ(fingerprint("phi3", 257), fingerprint("phi3", 0));
  EXPECT_EQ(fingerprint("llama_gqa", 100), fingerprint("llama_gqa", 0));
}

TEST(ModelOutline, TellsHowFarTheFileIsRead) {
  const auto file = GgufFile::Open("tests/data/goldens/qwen35_equal.gguf");
  ASSERT_TRUE(file.ok());
  std::vector<double> told;
  ModelOptions options;
  options.progress = [&](double fraction) { told.push_back(fraction); };
  ASSERT_TRUE(OutlineModel(*file, options).ok());
  ASSERT_FALSE(told.empty());
  EXPECT_TRUE(std::is_sorted(told.begin(), told.end()));
  EXPECT_GT(told.back(), 0.5);
  EXPECT_LE(told.back(), 1.0);
}

}  // namespace
}  // namespace reprise
