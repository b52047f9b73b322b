#include "serve/answer_memory.h"

#include <sodium.h>

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/bytes.h"
#include "serve/json_fields.h"
#include "text/unicode.h"

namespace reprise::serve {
namespace {

// Lengths first, so that no two messages give the same bytes.
void Add(crypto_generichash_state& hash, std::string_view text) {
  const uint64_t size = text.size();
  crypto_generichash_update(&hash, reinterpret_cast<const unsigned char*>(&size), sizeof(size));
  crypto_generichash_update(&hash, reinterpret_cast<const unsigned char*>(text.data()), text.size());
}

void Add(crypto_generichash_state& hash, std::span<const int32_t> tokens) {
  crypto_generichash_update(&hash, reinterpret_cast<const unsigned char*>(tokens.data()), tokens.size_bytes());
}

// Whatever the order of its keys and its white space. Here objects sort their keys.
std::string Canonical(const std::string& arguments) {
  if (!BoundedJson(arguments)) return arguments;
  const nlohmann::json json = nlohmann::json::parse(arguments, nullptr, /*allow_exceptions=*/false);
  return json.is_discarded() ? arguments : Dump(json);
}

}  // namespace

// The digest of a path of tokens that only grows.
class AnswerMemory::Path {
 public:
  Path(std::string_view name_space, std::span<const int32_t> tokens) {
    crypto_generichash_init(&hash_, nullptr, 0, sizeof(Key));
    Add(hash_, name_space);
    Grow(tokens);
  }
  void Grow(std::span<const int32_t> tokens) {
    Add(hash_, tokens);
    size_ += tokens.size();
  }
  size_t size() const { return size_; }
  Key With(std::span<const int32_t> more, const ChatMessage& message) const {
    crypto_generichash_state hash = hash_;
    Add(hash, more);
    Add(hash, "answer");
    Add(hash, StripSpace(message.content));
    for (const ChatToolCall& call : message.tool_calls) {
      Add(hash, call.id);
      Add(hash, call.name);
      Add(hash, Canonical(call.arguments));
    }
    Key key;
    crypto_generichash_final(&hash, key.data(), key.size());
    return key;
  }

 private:
  crypto_generichash_state hash_;
  size_t size_ = 0;
};

void AnswerMemory::Remember(std::string_view name_space, std::span<const int32_t> prompt, const ChatMessage& message,
                            std::span<const int32_t> tokens) {
  Entry entry{{}, {tokens.begin(), tokens.end()}, std::string(StripSpace(message.reasoning))};
  if (tokens.empty() || entry.cost() > most_tokens_) return;
  entry.key = Path(name_space, prompt).With({}, message);
  const std::lock_guard lock(mutex_);
  if (file_ != nullptr) unwritten_.push_back(entry);
  Insert(std::move(entry));
}

Status AnswerMemory::WriteOut() {
  std::vector<Entry> entries;
  {
    const std::lock_guard lock(mutex_);
    entries.swap(unwritten_);
  }
  for (const Entry& entry : entries) {
    ByteWriter record;
    record.Put(static_cast<uint32_t>(entry.tokens.size()));
    record.Bytes(std::as_bytes(std::span(entry.tokens)));
    record.Text(entry.reasoning);
    REPRISE_RETURN_IF_ERROR(file_->Put(entry.key, record.bytes()));
  }
  return Ok();
}

Status AnswerMemory::KeepIn(std::unique_ptr<RecordFile> file, int vocabulary) {
  file_ = std::move(file);
  vocabulary_ = vocabulary;
  Status read = ReadIn();
  if (!read.ok()) file_ = nullptr;
  return read;
}

Status AnswerMemory::ReadIn() {
  if (file_ == nullptr) return Ok();
  return file_->ForEachNew([&](const Key& key, std::span<const std::byte> record) {
    ByteReader reader(record);
    const auto count = reader.Get<uint32_t>("the number of tokens");
    if (!count.ok()) return;
    const auto bytes = reader.Bytes(uint64_t{*count} * sizeof(int32_t), "the tokens");
    if (!bytes.ok() || bytes->empty()) return;
    Entry entry{key, std::vector<int32_t>(*count), {}};
    std::memcpy(entry.tokens.data(), bytes->data(), bytes->size());
    if (std::any_of(entry.tokens.begin(), entry.tokens.end(), [&](int32_t token) { return token < 0 || token >= vocabulary_; })) return;
    const auto reasoning = record.subspan(reader.offset());
    entry.reasoning.assign(reinterpret_cast<const char*>(reasoning.data()), reasoning.size());
    if (entry.cost() > most_tokens_) return;
    const std::lock_guard lock(mutex_);
    Insert(std::move(entry));
  });
}

void AnswerMemory::Insert(Entry entry) {
  const Key key = entry.key;
  if (const auto known = by_key_.find(key); known != by_key_.end()) {
    held_ -= known->second->cost();
    entries_.erase(known->second);
    by_key_.erase(known);
  }
  held_ += entry.cost();
  entries_.push_front(std::move(entry));
  by_key_[key] = entries_.begin();
  while (held_ > most_tokens_) {
    held_ -= entries_.back().cost();
    by_key_.erase(entries_.back().key);
    entries_.pop_back();
  }
}

RecallAnswer AnswerMemory::Recall(std::string_view name_space, std::span<const int32_t> head) {
  const auto path = std::make_shared<Path>(name_space, head);
  const size_t head_size = head.size();
  return [this, path, head_size](std::span<const int32_t> before, std::span<const int32_t> opening, const ChatMessage& message,
                                 bool thoughts_shown) -> std::optional<std::vector<int32_t>> {
    path->Grow(before.subspan(path->size() - head_size));
    const Key key = path->With(opening, message);
    const std::lock_guard lock(mutex_);
    const auto found = by_key_.find(key);
    if (found == by_key_.end()) return std::nullopt;
    const Entry& entry = *found->second;
    // Thoughts that the client left out are put back; others than those that there were are the client's own.
    if (!message.reasoning.empty() && StripSpace(message.reasoning) != entry.reasoning) return std::nullopt;
    if (!thoughts_shown && !entry.reasoning.empty()) return std::nullopt;
    entries_.splice(entries_.begin(), entries_, found->second);
    return entry.tokens;
  };
}

size_t AnswerMemory::held() const {
  const std::lock_guard lock(mutex_);
  return held_;
}

}  // namespace reprise::serve
