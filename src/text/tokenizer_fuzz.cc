// libFuzzer: vocabularies that lie, and texts for those that pass.
//
// The input chooses a way to break (or not) a sound vocabulary of all bytes, adds tokens and merges of its own, and gives a text. A
// vocabulary that Create accepts must bring any text back byte for byte, never give a control token for plain text, and render chats that
// content cannot forge. Run: -DREPRISE_FUZZERS=ON with clang, better with -DREPRISE_SANITIZE=address,undefined; then tokenizer_fuzz
// CORPUS_FOLDER.
#include <cstdint>
#include <cstdlib>
#include <iterator>
#include <string>
#include <string_view>

#include "base/utf8.h"
#include "text/byte_level.h"
#include "text/chat.h"
#include "text/nfc.h"
#include "text/tokenizer.h"

namespace reprise {
namespace {

void Require(bool condition) {
  if (!condition) std::abort();
}

class Input {
 public:
  Input(const uint8_t* data, size_t size) : bytes_(reinterpret_cast<const char*>(data), size) {}

  uint8_t Byte() {
    if (bytes_.empty()) return 0;
    const auto byte = static_cast<uint8_t>(bytes_[0]);
    bytes_.remove_prefix(1);
    return byte;
  }
  int32_t Int() {
    uint32_t value = 0;
    for (int i = 0; i < 4; i++) value = value << 8 | Byte();
    return static_cast<int32_t>(value);
  }
  std::string_view Bytes(size_t n) {
    const std::string_view taken = bytes_.substr(0, n);
    bytes_.remove_prefix(taken.size());
    return taken;
  }
  std::string_view Rest() const { return bytes_; }

 private:
  std::string_view bytes_;
};

// Of SentencePiece's kind or Gemma 4's: bytes, a few letters, and what the input adds.
Vocabulary ReadPieces(Input& in, uint8_t shape) {
  Vocabulary v;
  const bool ranked = (shape & 0x1f) == 0x1b;
  v.kind = ranked ? VocabularyKind::kRankedPieces : VocabularyKind::kSentencePiece;
  v.add_space_prefix = (shape & 2) != 0;
  const bool sound = (shape & 0x80) == 0;
  const auto add = [&](std::string token, int32_t type, double score) {
    v.tokens.push_back(std::move(token));
    v.types.push_back(type);
    v.scores.push_back(score);
  };
  for (int b = 0; b < 256; b++) {
    constexpr char kDigits[] = "0123456789ABCDEF";
    add(std::string("<0x") + kDigits[b / 16] + kDigits[b % 16] + ">", 6, 0);
  }
  for (const char* name : {"<start_of_turn>", "<end_of_turn>", "[INST]", "[/INST]", "</s>"}) add(name, 3, 0);
  for (const char* name : {"<|turn>", "<turn|>", "<|tool_response>"}) add(name, 4, 0);
  for (const char* letter : {"a", "b", "c", "\n", "\u2581"}) add(letter, 1, -1);
  for (int n = in.Byte() % 32; n > 0; n--) {
    const uint8_t kind = in.Byte();
    std::string piece;
    for (char c : in.Bytes(1 + kind % 6)) {
      constexpr std::string_view kLetters[] = {"a", "b", "c", "\u2581", "\n"};
      piece += sound ? kLetters[static_cast<uint8_t>(c) % std::size(kLetters)] : std::string_view(&c, 1);
    }
    // Two of what is there, as a merge and what it makes.
    if (ranked && (sound || kind % 2 == 0)) {
      const size_t letters = 264, left = letters + kind % (v.tokens.size() - letters),
                   right = letters + in.Byte() % (v.tokens.size() - letters);
      v.merges.push_back(v.tokens[left] + " " + v.tokens[right]);
      piece = v.tokens[left] + v.tokens[right];
    }
    add(piece, sound ? (kind < 0xc0 ? 1 : 4) : in.Byte() % 8, in.Byte() % 8 - 4.0);
  }
  if (!sound && (shape & 0x20) != 0) v.scores.resize(in.Byte());
  return v;
}

Vocabulary ReadVocabulary(Input& in) {
  constexpr std::string_view kNames[] = {"gpt-2", "llama-bpe", "smollm", "qwen2", "qwen35", "none", "dbrx", "gpt-4o", "tekken"};
  const uint8_t shape = in.Byte();
  if ((shape & 0x1f) == 0x1f || (shape & 0x1f) == 0x1d || (shape & 0x1f) == 0x1b) return ReadPieces(in, shape);
  Vocabulary v;
  v.pre = kNames[shape % std::size(kNames)];
  const bool sound = (shape & 0x80) == 0;
  if (sound || (shape & 0x40) != 0) {
    for (int b = 0; b < 256; b++) {
      const char c = static_cast<char>(b);
      v.tokens.emplace_back();
      AppendSpellingOfBytes({&c, 1}, v.tokens.back());
    }
    v.types.assign(256, 1);
  }
  for (const char* name : {"<|im_start|>", "<|im_end|>", "<think>"}) {
    v.tokens.emplace_back(name);
    v.types.push_back(3);
  }
  for (int n = in.Byte() % 32; n > 0; n--) {
    const uint8_t kind = in.Byte();
    std::string left, right;
    // Tokens of few letters, so that merges meet; or anything at all.
    const auto part = [&] {
      const std::string_view raw = in.Bytes(1 + kind % 4);
      std::string text;
      if (sound) {
        for (char c : raw) AppendSpellingOfBytes(std::string(1, "abc "[c & 3]), text);
      } else {
        text = raw;
      }
      return text;
    };
    left = part();
    right = part();
    if (kind < 0xc0) {
      v.merges.push_back(left);
      v.merges.back().append(" ").append(right);
    }
    v.tokens.push_back(left + right);
    v.types.push_back(sound ? (kind < 0xc0 ? 1 : 4) : in.Byte() % 8);
  }
  if (!sound) {
    v.bos = in.Int();
    v.eos = in.Int() % 300;
    v.add_bos = (shape & 0x20) != 0;
    if ((shape & 0x10) != 0) v.types.clear();
  }
  return v;
}

void Run(Input in) {
  auto created = Tokenizer::Create(ReadVocabulary(in));
  if (!created.ok()) {
    Require(!created.status().message().empty());
    return;
  }
  const Tokenizer& t = *created;
  const std::string_view text = in.Rest();
  const std::vector<int32_t> ids = t.Encode(text);
  bool all = true;
  for (char c : text) all = all && t.EncodesByte(static_cast<uint8_t>(c));
  // Up to composition, where a vocabulary's text is composed.
  const auto same = [&](const std::string& decoded) {
    return Composes(t.pre_tokenizer()) ? ToNfc(decoded) == ToNfc(text) : decoded == text;
  };
  if (all) Require(same(t.Decode(ids)));
  if (all) Require(same(t.Decode(t.Encode(text, {.add_bos = false, .parse_special = true}))));
  PartialCharacter partial;
  std::string shown;
  for (const int32_t id : ids) {
    Require(id >= 0 && id < t.vocab_size() && !t.IsControl(id));
    Utf8Append(partial, t.TokenBytes(id), shown);
  }
  shown += Utf8Finish(partial).view();
  Require(IsUtf8(shown));
  // Text that goes on from other text comes back as itself, its own spaces included.
  const std::vector<int32_t> more = t.Encode(text, {.continues = true});
  if (all) Require(same(t.Decode(more, {.continues = true})));

  const size_t half = text.size() / 2;
  const std::vector<ChatMessage> messages = {{"user", std::string(text.substr(0, half))}, {"assistant", std::string(text.substr(half))}};
  for (const ChatStyle style : {ChatStyle::kChatMl, ChatStyle::kQwen3, ChatStyle::kQwen35, ChatStyle::kGemma, ChatStyle::kGemma4}) {
    const auto start = t.Find(style == ChatStyle::kGemma ? "<start_of_turn>" : style == ChatStyle::kGemma4 ? "<|turn>" : "<|im_start|>");
    ChatFormat format;
    format.style = style;
    const auto chat = EncodeChat(t, format, messages);
    Require(chat.ok());
    int turns = 0;
    for (const int32_t id : *chat) turns += start && id == *start;
    Require(!start || turns == 3);
  }
  if (const auto format = NamedChatFormat(t, "mistral-v3"); format.ok()) {
    const auto chat = EncodeChatTurns(t, *format, messages);
    Require(chat.ok() && chat->turns.size() == 2 && TurnsOf(t, *format, chat->tokens).size() == 2);
  }
  (void)RecogniseChatFormat(t, text);
}

}  // namespace
}  // namespace reprise

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  reprise::Run(reprise::Input(data, size));
  return 0;
}
