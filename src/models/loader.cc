#include "models/loader.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <span>
#include <utility>

namespace reprise {

int Loader::Int(std::string_view key, int least, int most) {
  const std::string full = prefix_ + std::string(key);
  const auto value = file_.GetUint(full, {static_cast<uint64_t>(least), static_cast<uint64_t>(most)});
  if (!value.ok()) Fail(value.status());
  return value.ok() ? static_cast<int>(*value) : least;
}

int Loader::Int(std::string_view key, int least, int most, int otherwise) {
  return file_.Has(prefix_ + std::string(key)) ? Int(key, least, most) : otherwise;
}

std::vector<int> Loader::IntPerLayer(std::string_view key, int layers, int least, int most) {
  const auto values = file_.GetUintPerLayer(prefix_ + std::string(key), static_cast<uint64_t>(layers),
                                            {static_cast<uint64_t>(least), static_cast<uint64_t>(most)});
  if (!values.ok()) {
    Fail(values.status());
    return std::vector<int>(static_cast<size_t>(layers), least);
  }
  return {values->begin(), values->end()};
}

std::vector<bool> Loader::WindowedBlocks(int blocks, int every_otherwise) {
  constexpr std::string_view kKey = "attention.sliding_window_pattern";
  const GgufEntry* const entry = file_.FindEntry(prefix_ + std::string(kKey));
  std::vector<bool> windowed(static_cast<size_t>(blocks));
  if (entry == nullptr || entry->type != GgufType::kArray) {
    const int every = Int(kKey, 1, INT32_MAX, every_otherwise);
    for (int i = 0; i < blocks; ++i) windowed[static_cast<size_t>(i)] = (i + 1) % every != 0;
    return windowed;
  }
  const auto told = file_.GetBools(entry->key);
  if (!told.ok()) Fail(told.status());
  if (!told.ok()) return windowed;
  Require(told->size() == windowed.size(), std::string(kKey) + " does not say it of each block");
  for (size_t i = 0; i < std::min(told->size(), windowed.size()); ++i) windowed[i] = (*told)[i] != 0;
  return windowed;
}

double Loader::Float(std::string_view key, double otherwise) {
  const auto value = file_.GetFloatOr(prefix_ + std::string(key), otherwise);
  if (!value.ok()) Fail(value.status());
  return value.ok() ? *value : otherwise;
}

bool Loader::Bool(std::string_view key, bool otherwise) {
  const auto value = file_.GetBoolOr(prefix_ + std::string(key), otherwise);
  if (!value.ok()) Fail(value.status());
  return value.ok() ? *value : otherwise;
}

std::string Loader::Text(std::string_view key, std::string_view otherwise) {
  const auto value = file_.GetStringOr(prefix_ + std::string(key), otherwise);
  if (!value.ok()) Fail(value.status());
  return std::string(value.ok() ? *value : otherwise);
}

void Loader::Require(bool condition, std::string_view complaint) {
  if (!condition) Fail(Unsupported("this model cannot run here: " + std::string(complaint)));
}

WeightSource Loader::Weight(const std::string& name, int64_t inner, int64_t outer, int64_t count) {
  if (!status_.ok()) return {};
  const auto a = static_cast<uint64_t>(inner), b = static_cast<uint64_t>(outer);
  const auto tensor = count == 1 ? file_.Require(name, {a, b}) : file_.Require(name, {a, b, static_cast<uint64_t>(count)});
  if (!tensor.ok()) {
    Fail(tensor.status());
    return {};
  }
  parameters_ += (*tensor)->elements();
  return {(*tensor)->name, (*tensor)->type, inner, outer * count, (*tensor)->data};
}

const Matrix* Loader::LoadMatrix(const std::string& name, int64_t inputs, int64_t outputs) {
  return LoadMatrix(Weight(name, inputs, outputs));
}

const Matrix* Loader::LoadTable(const std::string& name, int64_t inputs, int64_t rows) {
  return Loaded(Weight(name, inputs, rows), &Backend::LoadTable);
}

const Matrix* Loader::LoadRows(const std::string& name, int64_t inputs, int64_t outputs, std::span<const int> rows) {
  WeightSource source = Weight(name, inputs, outputs);
  if (!status_.ok()) return nullptr;
  const auto count = static_cast<int64_t>(rows.size());
  parameters_ -= static_cast<uint64_t>(inputs * (outputs - count));  // the others are counted where they are loaded
  const size_t bytes = source.data.size() / static_cast<size_t>(outputs);
  std::vector<std::byte> own;
  own.reserve(bytes * rows.size());
  for (const int row : rows) {
    const auto from = source.data.subspan(static_cast<size_t>(row) * bytes, bytes);
    own.insert(own.end(), from.begin(), from.end());
  }
  source.outputs = count;
  source.data = own;
  return LoadMatrix(source);
}

const Matrix* Loader::LoadRows(const std::string& name, int64_t inputs, int64_t outputs, int64_t first, int64_t count) {
  WeightSource source = Weight(name, inputs, outputs);
  if (!status_.ok()) return nullptr;
  parameters_ -= static_cast<uint64_t>(inputs * (outputs - count));  // the others are counted where they are loaded
  const size_t bytes = source.data.size() / static_cast<size_t>(outputs);
  source.data = source.data.subspan(static_cast<size_t>(first) * bytes, static_cast<size_t>(count) * bytes);
  source.outputs = count;
  return LoadMatrix(source);
}

const Matrix* Loader::LoadExperts(const std::string& name, int64_t inputs, int64_t outputs, int64_t experts, Part part) {
  WeightSource source = Weight(name, inputs, outputs * part.of, experts);
  if (!status_.ok() || part.of == 1) return LoadMatrix(source);
  if (part.index > 0) parameters_ -= static_cast<uint64_t>(inputs * source.outputs);  // counted with the first
  std::vector<std::byte> own;
  const size_t bytes = source.data.size() / static_cast<size_t>(experts * part.of);
  own.reserve(bytes * static_cast<size_t>(experts));
  for (int64_t e = 0; e < experts; ++e) {
    const auto rows = source.data.subspan(static_cast<size_t>(e * part.of + part.index) * bytes, bytes);
    own.insert(own.end(), rows.begin(), rows.end());
  }
  source.outputs = outputs * experts;
  source.data = own;
  return LoadMatrix(source);
}

const Matrix* Loader::Loaded(const WeightSource& source, Result<const Matrix*> (Backend::*load)(const WeightSource&)) {
  if (!status_.ok()) return nullptr;
  auto matrix = (backend_.*load)(source);
  if (!matrix.ok()) Fail(matrix.status());
  loaded_bytes_ += source.data.size();
  if (options_.progress) options_.progress(loaded_bytes_);
  return matrix.ok() ? *matrix : nullptr;
}

Vector Loader::LoadVector(const std::string& name, int64_t size) { return LoadVector(name, size, 1); }

Vector Loader::LoadVector(const std::string& name, int64_t inner, int64_t outer) {
  const WeightSource source = Weight(name, inner, outer);
  if (!status_.ok()) return {};
  auto vector = backend_.LoadVector(source);
  if (!vector.ok()) Fail(vector.status());
  return vector.ok() ? *vector : Vector{};
}

std::vector<float> Loader::ReadValues(const std::string& name, int64_t inner, int64_t outer) {
  const WeightSource source = Weight(name, inner, outer);
  if (!status_.ok()) return {};
  auto values = ReadVector(source);
  if (!values.ok()) Fail(values.status());
  return values.ok() ? std::move(*values) : std::vector<float>();
}

Vector Loader::LoadPieces(const std::string& name, int64_t inner, int64_t outer, int64_t piece) {
  const std::vector<float> from = ReadValues(name, inner, outer);
  std::vector<float> to(from.size());
  for (size_t i = 0; i < from.size(); ++i) {
    const auto at = static_cast<int64_t>(i), row = at / inner, column = at % inner;
    to[static_cast<size_t>((row / piece * inner + column) * piece + row % piece)] = from[i];
  }
  return NewVector(to);
}

Vector Loader::LoadScaledVector(const std::string& name, int64_t size, float scale) {
  std::vector<float> values = ReadValues(name, size);
  for (float& value : values) value *= scale;
  return NewVector(values);
}

float Loader::LoadNumber(const std::string& name) {
  const std::vector<float> values = ReadValues(name, 1);
  return values.empty() ? 0.0f : values[0];
}

Vector Loader::NewVector(std::span<const float> values) {
  if (!status_.ok()) return {};
  auto vector = backend_.LoadVector({"a vector", TensorType::kF32, static_cast<int64_t>(values.size()), 1, std::as_bytes(values)});
  if (!vector.ok()) Fail(vector.status());
  return vector.ok() ? *vector : Vector{};
}

Vector Loader::Silence(int vocabulary) {
  constexpr std::string_view kKey = "tokenizer.ggml.suppress_tokens";
  if (!file_.Has(kKey)) return {};
  const auto tokens = file_.GetInts(kKey);
  if (!tokens.ok()) Fail(tokens.status());
  if (!tokens.ok() || tokens->empty()) return {};
  std::vector<float> silence(static_cast<size_t>(vocabulary));
  for (const int64_t token : *tokens) {
    const bool known = token >= 0 && token < vocabulary;
    Require(known, fmt::format("{} names token {} of {}", kKey, token, vocabulary));
    if (known) silence[static_cast<size_t>(token)] = -std::numeric_limits<float>::infinity();
  }
  Require(std::find(silence.begin(), silence.end(), 0.0f) != silence.end(), fmt::format("{} leaves no token", kKey));
  return NewVector(silence);
}

Rows Loader::NewRows(int width, int rows) {
  if (!status_.ok()) return {};
  const auto memory = backend_.Allocate(static_cast<size_t>(rows) * static_cast<size_t>(width) * sizeof(float), "activations");
  if (!memory.ok()) {
    Fail(memory.status());
    return {};
  }
  return {reinterpret_cast<float*>(*memory), width, width, Domain::kRows};
}

void Loader::NewSharedRows(std::initializer_list<Sharer> sharers) {
  const Rows all = NewRows(std::max(sharers, [](const Sharer& a, const Sharer& b) { return a.width < b.width; }).width);
  for (const Sharer& sharer : sharers) *sharer.rows = {all.data, sharer.width, sharer.width, Domain::kRows};
}

Rows Loader::NewLogged(int width) { return NewRows(width, std::max(Network::kReplayRows, options_.max_lanes)); }

void Loader::Log(const Rows& rows) { log_.push_back({rows, log_.empty() ? 0 : log_.back().column + log_.back().rows.width}); }

StateRef Loader::Reference(int index) const {
  const StateDecl& state = layout_[index];
  return {state.offset, state.bytes, state.type};
}

StateRef Loader::Recurrent(std::string name, std::vector<int64_t> shape) {
  return Reference(layout_.Recurrent(std::move(name), ElementType::kF32, std::move(shape)));
}

StateRef Loader::KeyValueRows(std::string name, int heads, int head_width) {
  int elements = head_width;
  if (options_.kv_type == ElementType::kQ8_0) {
    if (head_width % kQ8Values != 0) {
      Fail(Unsupported("keys and values cannot be kept as q8_0: its blocks are " + std::to_string(kQ8Values) +
                       " numbers, and a head of this model is " + std::to_string(head_width) + " wide"));
      return {};
    }
    elements /= kQ8Values;
  }
  return Reference(layout_.Append(std::move(name), options_.kv_type, {heads, elements}));
}

}  // namespace reprise
