// AnswerMemory: the exact tokens of answers, for when clients send them back.
//
// A client returns an answer as a message, and a message encoded anew need not give the tokens that were generated: models spell words in more ways
// than one, arguments come back with other white space and in another order, thoughts may not come back at all. Where the tokens differ
// nothing that was computed for them can be reused. So answers are remembered by the prompt that they followed and by what they say: content
// without outer white space, ids, names and arguments of calls, whatever order these are in. A message that was changed is another message.
//
// Bounded: what was not asked for longest goes first; then messages are encoded anew. With a file it outlives the process, and other processes on the
// same file know it too. Safe from any thread.
#pragma once

#include <cstdint>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "reprise/status.h"
#include "store/record_file.h"
#include "text/chat.h"

namespace reprise::serve {

class AnswerMemory {
 public:
  // `most` in tokens, or what takes as much room.
  explicit AnswerMemory(size_t most = size_t{4} << 20) : most_tokens_(most) {}

  // `tokens` without what ends the turn; message.reasoning as it was given to the client.
  void Remember(std::string_view name_space, std::span<const int32_t> prompt, const ChatMessage& message, std::span<const int32_t> tokens);

  // For ChatOptions::recall, while one chat is encoded; `head` is what stands before it. Refers to this memory.
  RecallAnswer Recall(std::string_view name_space, std::span<const int32_t> head);

  size_t held() const;

  // Answers are kept in `file` from now on, by WriteOut, and those that it holds are remembered, but for such as hold tokens that are not below
  // `vocabulary`. Before any other call.
  Status KeepIn(std::unique_ptr<RecordFile> file, int vocabulary);
  // Remembers what other processes have written since the last time. As WriteOut, and on its thread.
  Status ReadIn();
  // Writes what was remembered since the last time to the file, if there is one: no answer waits for a disk. After an error those are in memory
  // alone. One thread at a time.
  Status WriteOut();

 private:
  using Key = Digest;
  struct Entry {
    Key key;
    std::vector<int32_t> tokens;
    std::string reasoning;
    size_t cost() const { return 64 + tokens.size() + reasoning.size() / sizeof(int32_t); }
  };
  class Path;

  void Insert(Entry entry);  // with the lock held

  const size_t most_tokens_;
  mutable std::mutex mutex_;
  std::list<Entry> entries_;  // the latest first
  std::map<Key, std::list<Entry>::iterator> by_key_;
  size_t held_ = 0;
  std::vector<Entry> unwritten_;
  std::unique_ptr<RecordFile> file_;  // WriteOut's and ReadIn's alone, once it is there
  int vocabulary_ = 0;
};

}  // namespace reprise::serve
