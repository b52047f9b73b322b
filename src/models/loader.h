// Loader: what every architecture needs while it loads. Checked numbers, checked tensors, activation buffers, state by name.
//
// The first error is kept and later calls return harmless values, so that a model file reads as the model; the caller checks status() once,
// before anything is used.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "models/network.h"

namespace reprise {

class Loader {
 public:
  Loader(const GgufFile& file, Backend& backend, StateLayout& layout, const NetworkOptions& options, std::string_view architecture)
      : file_(file), backend_(backend), layout_(layout), options_(options), prefix_(std::string(architecture) + ".") {}

  const Status& status() const { return status_; }
  const NetworkOptions& options() const { return options_; }

  // Numbers of the architecture's own metadata; `key` without the prefix.
  int Int(std::string_view key, int least, int most);
  int Int(std::string_view key, int least, int most, int otherwise);
  // One for each of `layers`; a file that gives a single number means all of them.
  std::vector<int> IntPerLayer(std::string_view key, int layers, int least, int most);
  // Which blocks see a window of positions alone: an array says it block by block; a number, that of so many the last one sees everything.
  std::vector<bool> WindowedBlocks(int blocks, int every_otherwise);
  double Float(std::string_view key, double otherwise);
  bool Bool(std::string_view key, bool otherwise);
  std::string Text(std::string_view key, std::string_view otherwise);
  void Require(bool condition, std::string_view complaint);
  // False, with the error kept, when loading has already failed: for loops that trust the numbers read.
  bool ok() const { return status_.ok(); }

  // Weights, with their shape checked: `outputs` rows of `inputs` values, and `size` values.
  const Matrix* LoadMatrix(const std::string& name, int64_t inputs, int64_t outputs);
  // The same for rows that are looked up by token, and multiplied with nothing.
  const Matrix* LoadTable(const std::string& name, int64_t inputs, int64_t rows);
  // The matrix of some rows of a tensor that has `outputs`, in this order.
  const Matrix* LoadRows(const std::string& name, int64_t inputs, int64_t outputs, std::span<const int> rows);
  // Of consecutive rows.
  const Matrix* LoadRows(const std::string& name, int64_t inputs, int64_t outputs, int64_t first, int64_t count);
  // The matrices of `experts`, each of `outputs` rows, in one: the rows of one after those of another. A tensor that holds several such matrices an
  // expert, as `part.of` says, gives that one of them.
  struct Part {
    int index = 0, of = 1;
  };
  const Matrix* LoadExperts(const std::string& name, int64_t inputs, int64_t outputs, int64_t experts, Part part = {0, 1});
  Vector LoadVector(const std::string& name, int64_t size);
  Vector LoadVector(const std::string& name, int64_t inner, int64_t outer);  // [outer][inner]
  // [outer / piece][inner][piece] of what the file holds as [outer][inner]; `outer` is a multiple of `piece`.
  Vector LoadPieces(const std::string& name, int64_t inner, int64_t outer, int64_t piece);
  Vector LoadScaledVector(const std::string& name, int64_t size, float scale);
  Vector NewVector(std::span<const float> values);  // of no tensor
  // What is added to logits so that no token is chosen which the file says is never to be (tokenizer.ggml.suppress_tokens); without data: there is none.
  Vector Silence(int vocabulary);
  float LoadNumber(const std::string& name);  // a tensor of one value
  bool Has(const std::string& name) const { return file_.Find(name) != nullptr; }

  uint64_t parameters() const { return parameters_; }  // of the weights loaded so far

  // A static buffer with a row of `width` floats for each row of the largest step, or for `rows` of them.
  Rows NewRows(int width) { return NewRows(width, options_.max_rows); }
  Rows NewRows(int width, int rows);
  // The same for rows of which none is read any more when another is written, on the same memory: it is less, and a result goes where the
  // caches already are.
  struct Sharer {
    Rows* rows;
    int width;
  };
  void NewSharedRows(std::initializer_list<Sharer> sharers);
  // A buffer for what a recurrence takes from each row of a logged step; Log says which of it, or of other rows, the ReplayLog is to keep.
  Rows NewLogged(int width);
  void Log(const Rows& rows);
  const std::vector<LogPart>& log() const { return log_; }

  StateRef Recurrent(std::string name, std::vector<int64_t> shape);    // float32, device
  StateRef KeyValueRows(std::string name, int heads, int head_width);  // of options().kv_type, device

 private:
  void Fail(Status status) {
    if (status_.ok()) status_ = std::move(status);
  }
  // A tensor with dims[0] == `inner` and `outer` rows, or `count` times as many, as the backend takes it; an empty source, with the error kept,
  // otherwise.
  WeightSource Weight(const std::string& name, int64_t inner, int64_t outer, int64_t count = 1);
  std::vector<float> ReadValues(const std::string& name, int64_t inner, int64_t outer = 1);  // empty, with the error kept, where it fails
  const Matrix* LoadMatrix(const WeightSource& source) { return Loaded(source, &Backend::LoadMatrix); }
  const Matrix* Loaded(const WeightSource& source, Result<const Matrix*> (Backend::*load)(const WeightSource&));
  StateRef Reference(int index) const;

  const GgufFile& file_;
  Backend& backend_;
  StateLayout& layout_;
  const NetworkOptions& options_;
  std::string prefix_;
  Status status_;
  uint64_t parameters_ = 0;
  uint64_t loaded_bytes_ = 0;
  std::vector<LogPart> log_;
};

// A network that reads itself from `loader`, or the loader's first error.
template <class Architecture, class... More>
Result<std::unique_ptr<Network>> LoadAs(Loader& loader, NetworkInfo info, const More&... more) {
  auto network = std::make_unique<Architecture>(loader, std::move(info), more...);
  REPRISE_RETURN_IF_ERROR(loader.status());
  return std::unique_ptr<Network>(std::move(network));
}

}  // namespace reprise
