#include "decode/json_pattern.h"

#include <algorithm>
#include <optional>

namespace reprise {
namespace {

using Kind = Regex::Kind;

// The text of a sequence of single characters; nothing for what is none.
std::optional<std::string> WordOf(const Regex& regex) {
  if (regex.kind == Kind::kCharacter && regex.set.is_one()) return JsonCharacters::Form(regex.set.ranges()[0].first);
  if (regex.kind != Kind::kSequence) return std::nullopt;
  std::string word;
  for (const Regex& part : regex.parts) {
    if (part.kind != Kind::kCharacter || !part.set.is_one()) return std::nullopt;
    word += JsonCharacters::Form(part.set.ranges()[0].first);
  }
  return word;
}

bool IsRun(const Regex& regex) { return regex.kind == Kind::kRepeat && regex.most < 0 && regex.parts[0].kind == Kind::kCharacter; }

// What may be empty is written as a choice between nothing and those of its texts that are not: so there is one way only to pass over it, however
// deep it nests, and no repeat comes back to its beginning without a byte.
class Writer {
 public:
  Writer(GrammarBuilder& builder, JsonCharacters& characters) : builder_(builder), characters_(characters) {}

  void Write(const Regex& regex) {
    if (builder_.full()) return;
    if (IsRun(regex) && regex.least == 0) {
      characters_.WriteRun(regex.parts[0].set);
    } else if (!regex.may_be_empty) {
      WriteFull(regex);
    } else if (regex.kind != Kind::kEmpty) {
      builder_.Optional([&] { WriteFull(regex); });
    }
  }

 private:
  // All its texts but the empty one. There are others.
  void WriteFull(const Regex& regex) {
    if (builder_.full()) return;
    switch (regex.kind) {
      case Kind::kEmpty: break;
      case Kind::kCharacter: characters_.Write(regex.set); break;
      case Kind::kSequence: WriteSequence(regex.parts, regex.may_be_empty); break;
      case Kind::kChoice: WriteChoice(regex.parts); break;
      case Kind::kRepeat: WriteRepeat(regex); break;
    }
  }

  // Where each part may be empty there are two ways through: one before anything was written, one after.
  void WriteSequence(const std::vector<Regex>& parts, bool each_may_be_empty) {
    if (!each_may_be_empty) {
      for (const Regex& part : parts) Write(part);
      return;
    }
    std::vector<GrammarBuilder::Label> after;
    for (size_t i = 0; i <= parts.size(); ++i) after.push_back(builder_.NewLabel());
    for (size_t i = 0; i < parts.size(); ++i) {
      const GrammarBuilder::Label skip = builder_.NewLabel();
      if (i + 1 < parts.size()) builder_.Split(skip);
      WriteFull(parts[i]);
      builder_.Jump(after[i + 1]).Place(skip);
    }
    for (size_t i = 1; i < parts.size(); ++i) {
      builder_.Place(after[i]);
      Write(parts[i]);
    }
    builder_.Place(after[parts.size()]);
  }

  // Words among the parts are written together, so that few alternatives are open at a time.
  void WriteChoice(const std::vector<Regex>& parts) {
    std::vector<std::string> words;
    std::vector<const Regex*> others;
    for (const Regex& part : parts) {
      if (part.kind == Kind::kEmpty) continue;
      if (auto word = WordOf(part)) {
        words.push_back(*std::move(word));
      } else {
        others.push_back(&part);
      }
    }
    builder_.OneOf(others.size() + (words.empty() ? 0 : 1), [&](size_t i) {
      if (i < others.size()) {
        WriteFull(*others[i]);
      } else {
        builder_.OneOfTexts(words);
      }
    });
  }

  void WriteRepeat(const Regex& regex) {
    const Regex& part = regex.parts[0];
    const int least = std::max(regex.least, 1);
    const auto one = [&] { WriteFull(part); };
    if (regex.most == 1) {
      one();
    } else if (regex.most > 1) {
      builder_.Repeat(least, regex.most, one);
    } else if (IsRun(regex)) {
      if (least == 1) {
        one();
      } else {
        builder_.Repeat(least, least, one);
      }
      characters_.WriteRun(part.set);
    } else if (least == 1) {  // without an end there is nothing to count
      const GrammarBuilder::Label again = builder_.NewLabel();
      builder_.Place(again);
      one();
      builder_.Split(again);
    } else {
      builder_.Repeat(least, -1, one);
    }
  }

  GrammarBuilder& builder_;
  JsonCharacters& characters_;
};

}  // namespace

void WriteRegex(const Regex& regex, GrammarBuilder& builder, JsonCharacters& characters) { Writer(builder, characters).Write(regex); }

}  // namespace reprise
