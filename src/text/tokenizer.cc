#include "text/tokenizer.h"

#include <xxhash.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <utility>

#include "formats/printable.h"
#include "text/byte_level.h"
#include "text/nfc.h"

namespace reprise {
namespace {

// Far above what is in use (256,000 tokens of at most some 300 bytes), far below what would overflow a 32-bit offset unnoticed.
constexpr size_t kMaxTokens = size_t{1} << 24;
constexpr size_t kMaxTokenBytes = 4096;
constexpr size_t kMaxArenaBytes = size_t{1} << 31;

// A token matched in raw text is tried at every byte of it, so its length bounds the time that a byte can take.
constexpr size_t kMaxMatchedBytes = 256;

// Symbols of a piece are linked by 32-bit positions; this bounds their memory too (12 bytes a byte of text, and 8 a possible merge).
constexpr size_t kMaxPieceBytes = size_t{64} << 20;

// Pieces longer than this hardly ever repeat.
constexpr size_t kMaxRememberedBytes = 128;

// Names that mean structure in every family that uses them. A file that gives one of them another type would let the text of a message
// end that message.
constexpr std::string_view kStructure[] = {
    "<|im_start|>",      "<|im_end|>", "<|endoftext|>", "<|begin_of_text|>", "<|end_of_text|>", "<start_of_turn>", "<|start_header_id|>",
    "<|end_header_id|>", "<|eot_id|>", "<|eom_id|>",    "<end_of_turn>",     "<|turn>",         "<turn|>",         "<|think|>",
    "<|tool>",           "<tool|>",    "<|im_sep|>",    "<|system|>",        "<|user|>",        "<|assistant|>",
};

// What Gemma 4's answers are made of, and what quotes a string in them. Files have them user-defined, so that they are shown; but they are
// structure, and the result of a tool that spells one must not end itself.
constexpr std::string_view kAnswerMarkers[] = {
    "<|channel>",
    "<channel|>",
    "<|tool_call>",
    "<tool_call|>",
    "<|tool_response>",
    "<tool_response|>",
    "<|\"|>",
    // And LFM2's.
    "<|tool_call_start|>",
    "<|tool_call_end|>",
};

// What Mistral's chats are made of, the first of them its answers. Elsewhere such words may be text; where a file has them whole they are structure.
constexpr std::string_view kMistralMarkers[] = {
    "[THINK]",           "[/THINK]",           "[TOOL_CALLS]",   "[ARGS]",          "[CALL_ID]",      "[INST]",          "[/INST]",
    "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_RESULTS]", "[/TOOL_RESULTS]", "[TOOL_CONTENT]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]",
    "[MODEL_SETTINGS]",  "[/MODEL_SETTINGS]",
};
constexpr auto kMistralAnswerMarkers = std::span(kMistralMarkers).first(5);

// What Harmony's messages are made of, their ends included. An answer is several messages, and who reads one must see where each begins.
constexpr std::string_view kMessageMarkers[] = {"<|start|>", "<|channel|>", "<|message|>", "<|constrain|>", "<|end|>"};

// What ends an answer of several messages; a vocabulary that has the first is Harmony's.
constexpr std::string_view kAnswerEnds[] = {"<|return|>", "<|call|>"};

// Names of what answers are made of, thoughts and calls. As control tokens they would be hidden from whoever reads an answer.
constexpr std::string_view kShown[] = {
    "<think>", "</think>", "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>",
};

// Tokens after which nothing of the answer follows: what a tool returns (<|tool_response>) is not the model's to say, and the last three open
// another document, which no answer goes on with.
constexpr std::string_view kEnds[] = {
    "<|im_end|>", "<|endoftext|>", "<|end_of_text|>",  "<|eot_id|>",  "<|eom_id|>",    "<end_of_turn>",
    "<eos>",      "<turn|>",       "<|tool_response>", "<|fim_pad|>", "<|repo_name|>", "<|file_sep|>",
};

bool IsOneOf(std::string_view name, std::span<const std::string_view> names) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

// A name from the file, short and harmless in a message.
std::string Quoted(std::string_view name) {
  std::string quoted = "'";
  quoted += Printable(name, 48);
  quoted += '\'';
  return quoted;
}

std::string TokenLabel(size_t token) { return "token " + std::to_string(token); }

constexpr std::string_view kSpelledSpace = "\u2581";  // in vocabularies of pieces

// The byte that a piece called "<0x0A>" stands for, or -1.
int ByteOfName(std::string_view name) {
  const auto digit = [](char c) { return c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1; };
  if (name.size() != 6 || !name.starts_with("<0x") || name[5] != '>' || digit(name[3]) < 0 || digit(name[4]) < 0) return -1;
  return digit(name[3]) * 16 + digit(name[4]);
}

bool IsPlain(TokenType type) { return type == TokenType::kNormal || type == TokenType::kByte; }

}  // namespace

// What one Encode call remembers: where in this very text a piece was met before and which tokens it became. Direct-mapped and
// private to the call, so it needs no lock and cannot change a result.
struct Tokenizer::PieceMemory {
  struct Entry {
    uint32_t text = 0, length = 0;  // length 0: empty
    uint32_t out = 0, tokens = 0;
  };

  explicit PieceMemory(std::string_view text) : base(text.data()) {
    constexpr size_t kSmallest = 512;
    if (text.size() < kSmallest || text.size() > 0xffffffff) return;
    entries.resize(std::clamp(std::bit_ceil(text.size() / 16), size_t{64}, size_t{8192}));
  }

  const char* base;
  std::vector<Entry> entries;
  std::vector<int32_t> symbols;
  BpeScratch scratch;
  ScoreScratch scored;
  std::string prefixed;
};

Result<Tokenizer> Tokenizer::Create(const Vocabulary& vocabulary) {
  Tokenizer t;
  t.kind_ = vocabulary.kind;
  if (t.kind_ == VocabularyKind::kByteLevel) {
    REPRISE_ASSIGN_OR_RETURN(t.pre_, PreTokenizerByName(vocabulary.pre));
  } else if (t.kind_ == VocabularyKind::kRankedPieces) {
    t.pre_ = PreTokenizer::kLines;
  }
  REPRISE_RETURN_IF_ERROR(t.AddTokens(vocabulary));
  const auto count = static_cast<int64_t>(vocabulary.tokens.size());
  for (const auto& [name, id] : {std::pair("bos", vocabulary.bos), std::pair("eos", vocabulary.eos), std::pair("eot", vocabulary.eot)}) {
    if (id < -1 || id >= count) {
      return Corrupt(std::string(name) + " token " + std::to_string(id) + " is not one of the vocabulary's " + std::to_string(count));
    }
    if (id >= 0 && std::string_view(name) != "bos") t.end_of_generation_[id] = true;
  }
  t.messages_ = t.Find(kAnswerEnds[0]).has_value();
  // In other vocabularies (Phi-4-mini's) this ends an answer; in Harmony one of its messages, whatever the file says.
  if (const auto end = t.Find("<|end|>")) t.end_of_generation_[*end] = !t.messages_;
  t.bos_ = vocabulary.bos;
  t.eos_ = vocabulary.eos;
  t.eot_ = vocabulary.eot;
  t.add_bos_ = vocabulary.add_bos;
  t.add_space_prefix_ = t.kind_ == VocabularyKind::kSentencePiece && vocabulary.add_space_prefix;
  if (t.add_bos_ && t.bos_ < 0) return Corrupt("prompts are to start with a bos token, but the vocabulary names none");
  REPRISE_RETURN_IF_ERROR(t.CheckBytes());
  REPRISE_RETURN_IF_ERROR(t.kind_ == VocabularyKind::kSentencePiece ? t.AddScores(vocabulary.scores) : t.AddMerges(vocabulary.merges));
  return t;
}

Status Tokenizer::AddTokens(const Vocabulary& vocabulary) {
  const auto& tokens = vocabulary.tokens;
  if (tokens.empty()) return Corrupt("the vocabulary has no tokens");
  if (tokens.size() > kMaxTokens) {
    return Corrupt("the vocabulary has " + std::to_string(tokens.size()) + " tokens, more than " + std::to_string(kMaxTokens));
  }
  if (!vocabulary.types.empty() && vocabulary.types.size() != tokens.size()) {
    return Corrupt("the vocabulary has " + std::to_string(tokens.size()) + " tokens but " + std::to_string(vocabulary.types.size()) +
                   " token types");
  }
  size_t arena = 0;
  for (size_t i = 0; i < tokens.size(); i++) {
    if (tokens[i].empty()) return Corrupt(TokenLabel(i) + " is empty");
    if (tokens[i].size() > kMaxTokenBytes) {
      return Corrupt(TokenLabel(i) + " is " + std::to_string(tokens[i].size()) + " bytes long, more than " +
                     std::to_string(kMaxTokenBytes));
    }
    arena += tokens[i].size();
    if (vocabulary.types.empty()) continue;
    const int32_t type = vocabulary.types[i];
    if (type < static_cast<int32_t>(TokenType::kNormal) || type > static_cast<int32_t>(TokenType::kByte)) {
      return Corrupt(TokenLabel(i) + " (" + Quoted(tokens[i]) + ") has type " + std::to_string(type) + ", which does not exist");
    }
  }
  if (arena > kMaxArenaBytes) return Corrupt("the tokens hold " + std::to_string(arena) + " bytes, more than 2 GiB");

  arena_.reserve(arena);
  ends_.reserve(tokens.size());
  types_.reserve(tokens.size());
  end_of_generation_.assign(tokens.size(), false);
  byte_level_.resize(std::bit_ceil(tokens.size() * 2 + 1));
  trie_.emplace_back();
  byte_tokens_.fill(-1);
  const bool pieces = kind_ != VocabularyKind::kByteLevel;
  std::string bytes;
  for (size_t i = 0; i < tokens.size(); i++) {
    const std::string& name = tokens[i];
    const auto id = static_cast<int32_t>(i);
    TokenType type = vocabulary.types.empty() ? TokenType::kNormal : static_cast<TokenType>(vocabulary.types[i]);
    const bool structure = IsOneOf(name, kStructure) || IsOneOf(name, kAnswerMarkers) || IsOneOf(name, kMessageMarkers);
    if (structure || IsOneOf(name, kAnswerEnds)) type = TokenType::kControl;
    if (type == TokenType::kUserDefined && IsOneOf(name, kMistralMarkers)) type = TokenType::kControl;
    if (type == TokenType::kControl && IsOneOf(name, kShown)) type = TokenType::kUserDefined;
    if (IsOneOf(name, kEnds) || IsOneOf(name, kAnswerEnds)) end_of_generation_[i] = true;

    bytes.clear();
    const bool spelled = SpellOut(name, bytes);
    const bool of_byte = pieces && type == TokenType::kByte;
    if (of_byte) {
      const int byte = ByteOfName(name);
      if (byte < 0) return Corrupt(TokenLabel(i) + " (" + Quoted(name) + ") is to stand for a byte, and its name is that of none");
      if (byte_tokens_[byte] >= 0) {
        return Corrupt(TokenLabel(i) + " (" + Quoted(name) + ") is the same as token " + std::to_string(byte_tokens_[byte]));
      }
      byte_tokens_[byte] = id;
      bytes.assign(1, static_cast<char>(byte));
    }
    // A normal token with characters that stand for no byte can be decoded but not encoded: its text is taken as it is.
    if (!spelled && IsPlain(type)) type = TokenType::kUnused;
    types_.push_back(type);
    bool byte_level = IsPlain(type) && !of_byte;
    // User-defined pieces are cut out before anything is merged; user-defined bytes may be merged as well.
    if (!pieces) byte_level |= spelled && type == TokenType::kUserDefined && bytes == name;
    const std::string& raw = IsPlain(type) ? bytes : name;
    arena_ += raw;
    ends_.push_back(static_cast<uint32_t>(arena_.size()));
    if (byte_level) {
      const uint64_t hash = XXH3_64bits(bytes.data(), bytes.size());
      ByteLevelEntry& entry = byte_level_[ByteLevelPlace(bytes, hash)];
      if (entry.token >= 0 && pieces) continue;  // spelled with a space and with the sign for it: the first one is it
      if (entry.token >= 0) {
        return Corrupt(TokenLabel(i) + " (" + Quoted(name) + ") is the same as token " + std::to_string(entry.token));
      }
      entry = {id, static_cast<uint32_t>(hash >> 32)};
    }
    if (!byte_level || type == TokenType::kUserDefined) {
      const auto [other, added] = named_.emplace(name, id);
      if (!added) return Corrupt(TokenLabel(i) + " (" + Quoted(name) + ") is the same as token " + std::to_string(other->second));
    }
    if (type == TokenType::kControl || type == TokenType::kUnknown || type == TokenType::kUserDefined) {
      if (name.size() > kMaxMatchedBytes) {
        return Corrupt(TokenLabel(i) + " is " + std::to_string(name.size()) + " bytes long, more than the " +
                       std::to_string(kMaxMatchedBytes) + " that a control or user-defined token may have");
      }
      AddToTrie(id, type == TokenType::kUserDefined);
    }
  }
  for (const auto& [name, id] : named_) {
    bytes.clear();
    if (pieces || !SpellOut(name, bytes)) continue;
    const int32_t other = FindByteLevel(bytes);
    if (other >= 0 && other != id) {
      return Corrupt(TokenLabel(id) + " (" + Quoted(name) + ") is the same as token " + std::to_string(other));
    }
  }
  for (int byte = 0; byte < 256; byte++) {
    const char c = static_cast<char>(byte);
    if (const int32_t spelled = FindByteLevel({&c, 1}); spelled >= 0) byte_tokens_[byte] = spelled;
  }
  return Ok();
}

bool Tokenizer::SpellOut(std::string_view name, std::string& bytes) const {
  if (kind_ == VocabularyKind::kByteLevel) return AppendBytesOfSpelling(name, bytes);
  for (size_t at = 0; at < name.size();) {
    const bool space = name.substr(at).starts_with(kSpelledSpace);
    bytes += space ? ' ' : name[at];
    at += space ? kSpelledSpace.size() : 1;
  }
  return true;
}

Status Tokenizer::AddScores(const std::vector<double>& scores) {
  if (scores.size() != types_.size()) {
    return Corrupt("the vocabulary has " + std::to_string(types_.size()) + " tokens but " + std::to_string(scores.size()) + " scores");
  }
  order_.reserve(scores.size());
  for (size_t i = 0; i < scores.size(); ++i) {
    if (!std::isfinite(scores[i])) return Corrupt("the score of " + TokenLabel(i) + " is no number");
    // Ordered as the floats are that files have.
    const auto bits = std::bit_cast<uint32_t>(static_cast<float>(scores[i]) + 0.0f);
    order_.push_back(bits >> 31 ? ~bits : bits | 0x80000000u);
  }
  return Ok();
}

// Bytes outside UTF-8 and rare controls are missing from vocabularies in use, and text can do without them; not so without these.
Status Tokenizer::CheckBytes() const {
  for (int byte = 0; byte < 0x7f; byte++) {
    if ((byte >= 0x20 || byte == '\n') && byte_tokens_[byte] < 0) {
      const char c = static_cast<char>(byte);
      return Corrupt("the vocabulary has no token for the byte " + Quoted({&c, 1}) + " alone, which plain text needs");
    }
  }
  return Ok();
}

Status Tokenizer::AddMerges(const std::vector<std::string>& merges) {
  // Converters to ranked pieces write every way in which a token is two others, control tokens too. Plain text must not become those.
  const auto left_out = [&](const std::string& name) { return kind_ == VocabularyKind::kRankedPieces && named_.contains(name); };
  merges_ = Merges(merges.size());
  std::string bytes;
  int32_t merged = -1;
  for (size_t rank = 0; rank < merges.size(); rank++) {
    const std::string_view merge = merges[rank];
    const auto fault = [&](const std::string& what) {
      return Corrupt("merge " + std::to_string(rank) + " (" + Quoted(merge) + ") " + what);
    };
    const size_t space = merge.find(' ');
    if (space == 0 || space == std::string_view::npos || space + 1 == merge.size() ||
        merge.find(' ', space + 1) != std::string_view::npos) {
      return fault("is not two tokens with a space between them");
    }
    int32_t part[2];
    bytes.clear();
    for (int i = 0; i < 2; i++) {
      const std::string_view name = i == 0 ? merge.substr(0, space) : merge.substr(space + 1);
      const size_t before = bytes.size();
      part[i] = SpellOut(name, bytes) ? FindByteLevel(std::string_view(bytes).substr(before)) : -1;
      if (part[i] < 0 && !left_out(std::string(name))) {
        return fault("names " + Quoted(name) + ", which is not a token that plain text can become");
      }
    }
    // Most files list merges in the order of the tokens they make: then the token after the last one is at hand without a look-up.
    const int32_t next = merged + 1;
    merged = next < vocab_size() && IsPlain(types_[next]) && TokenBytes(next) == bytes ? next : FindByteLevel(bytes);
    if (merged < 0 && !left_out(std::string(merge).erase(space, 1))) return fault("makes what is not a token that plain text can become");
    if (part[0] < 0 || part[1] < 0 || merged < 0) continue;
    if (!merges_.Add(part[0], part[1], static_cast<uint32_t>(rank), merged)) return fault("is there twice");
  }
  return Ok();
}

void Tokenizer::AddToTrie(int32_t token, bool always) {
  const std::string_view text = TokenBytes(token);
  uint32_t node = 0;
  for (char c : text) {
    const uint64_t edge = uint64_t{node} << 8 | static_cast<uint8_t>(c);
    const auto [next, added] = trie_edges_.emplace(edge, static_cast<uint32_t>(trie_.size()));
    if (added) trie_.emplace_back();
    node = next->second;
  }
  trie_[node] = {token, always};
  (always ? starts_user_defined_ : starts_control_)[static_cast<uint8_t>(text[0])] = true;
}

// Where the token of these bytes is, or would go.
size_t Tokenizer::ByteLevelPlace(std::string_view bytes, uint64_t hash) const {
  const size_t mask = byte_level_.size() - 1;
  const auto tag = static_cast<uint32_t>(hash >> 32);
  size_t place = hash & mask;
  while (byte_level_[place].token >= 0 && (byte_level_[place].tag != tag || TokenBytes(byte_level_[place].token) != bytes)) {
    place = (place + 1) & mask;
  }
  return place;
}

int32_t Tokenizer::FindByteLevel(std::string_view bytes) const {
  return byte_level_[ByteLevelPlace(bytes, XXH3_64bits(bytes.data(), bytes.size()))].token;
}

std::string_view Tokenizer::TokenBytes(int32_t token) const {
  if (token < 0 || static_cast<size_t>(token) >= ends_.size()) return {};
  const uint32_t begin = token == 0 ? 0 : ends_[token - 1];
  return std::string_view(arena_).substr(begin, ends_[token] - begin);
}

bool Tokenizer::IsControl(int32_t token) const {
  if (token < 0 || token >= vocab_size()) return false;
  return types_[token] == TokenType::kControl || types_[token] == TokenType::kUnknown;
}

bool Tokenizer::IsHidden(int32_t token) const {
  if (!IsControl(token)) return false;
  const std::string_view name = TokenBytes(token);
  return !IsOneOf(name, kAnswerMarkers) && !IsOneOf(name, kMistralAnswerMarkers) && !(messages_ && IsOneOf(name, kMessageMarkers));
}

bool Tokenizer::IsEndOfGeneration(int32_t token) const { return token >= 0 && token < vocab_size() && end_of_generation_[token]; }

std::optional<int32_t> Tokenizer::Find(std::string_view token) const {
  if (const auto named = named_.find(std::string(token)); named != named_.end()) return named->second;
  std::string bytes;
  if (token.empty() || !SpellOut(token, bytes)) return std::nullopt;
  const int32_t found = FindByteLevel(bytes);
  if (found < 0) return std::nullopt;
  return found;
}

std::string Tokenizer::Decode(std::span<const int32_t> tokens, DecodeOptions options) const {
  std::string text;
  bool prefixed = add_space_prefix_ && !options.continues;
  for (int32_t token : tokens) {
    std::string_view bytes = TokenBytes(token);
    const bool plain = token >= 0 && token < vocab_size() && types_[token] != TokenType::kUserDefined && !IsControl(token);
    if (prefixed && plain && bytes.starts_with(' ')) bytes.remove_prefix(1);
    prefixed = add_space_prefix_ && !plain;
    if (options.with_control || !IsControl(token)) text += bytes;
  }
  return text;
}

Tokenizer::Match Tokenizer::FindSpecial(std::string_view text, size_t from, bool parse_special) const {
  for (size_t begin = from; begin < text.size(); begin++) {
    const auto first = static_cast<uint8_t>(text[begin]);
    if (!starts_user_defined_[first] && !(parse_special && starts_control_[first])) continue;
    Match match;
    uint32_t node = 0;
    for (size_t at = begin; at < text.size(); at++) {
      const auto edge = trie_edges_.find(uint64_t{node} << 8 | static_cast<uint8_t>(text[at]));
      if (edge == trie_edges_.end()) break;
      node = edge->second;
      if (trie_[node].token >= 0 && (trie_[node].always || parse_special)) match = {begin, at + 1 - begin, trie_[node].token};
    }
    if (match.token >= 0) return match;
  }
  return {};
}

void Tokenizer::EncodePiece(std::string_view piece, PieceMemory& memory, std::vector<int32_t>& out) const {
  // Gemma 4's line breaks are one token where they can be, whatever the merges.
  const bool line_breaks = pre_ == PreTokenizer::kLines && piece[0] == '\n';
  if ((TakesWholeTokens(pre_) || line_breaks) && piece.size() <= kMaxTokenBytes) {
    if (const int32_t whole = FindByteLevel(piece); whole >= 0) {
      out.push_back(whole);
      return;
    }
  }
  while (!piece.empty()) {
    const std::string_view part = piece.substr(0, kMaxPieceBytes);
    piece.remove_prefix(part.size());
    memory.symbols.clear();
    for (size_t at = 0; at < part.size();) {
      const size_t end = at + (kind_ == VocabularyKind::kByteLevel ? 1 : DecodeUtf8(part.substr(at)).length);
      const int32_t character = end - at > 1 ? FindByteLevel(part.substr(at, end - at)) : -1;
      if (character >= 0) memory.symbols.push_back(character);
      for (; character < 0 && at < end; at++) {
        if (const int32_t byte = byte_tokens_[static_cast<uint8_t>(part[at])]; byte >= 0) memory.symbols.push_back(byte);
      }
      at = end;
    }
    MergePiece(merges_, memory.symbols, memory.scratch, out);
  }
}

void Tokenizer::EncodeWhole(std::string_view text, bool begins, PieceMemory& memory, std::vector<int32_t>& out) const {
  if (add_space_prefix_ && begins && !text.empty()) {
    memory.prefixed.assign(1, ' ').append(text);
    text = memory.prefixed;
  }
  const auto find = [&](std::string_view piece) {
    const int32_t token = piece.size() > kMaxTokenBytes ? -1 : FindByteLevel(piece);
    return token < 0 ? ScoredPiece{} : ScoredPiece{token, order_[token]};
  };
  const auto take = [&](int32_t token, std::string_view piece) {
    if (token >= 0) return out.push_back(token);
    for (const char c : piece) {
      if (const int32_t byte = byte_tokens_[static_cast<uint8_t>(c)]; byte >= 0) out.push_back(byte);
    }
  };
  for (; !text.empty(); text.remove_prefix(std::min(text.size(), kMaxPieceBytes))) {
    MergeByScore(text.substr(0, kMaxPieceBytes), find, memory.scored, take);
  }
}

void Tokenizer::EncodePlain(std::string_view text, bool begins, PieceMemory& memory, std::vector<int32_t>& out) const {
  if (kind_ == VocabularyKind::kSentencePiece) return EncodeWhole(text, begins, memory, out);
  PieceScanner scanner(pre_, text);
  for (std::string_view piece = scanner.Next(); !piece.empty(); piece = scanner.Next()) {
    if (piece.size() == 1) {
      if (const int32_t token = byte_tokens_[static_cast<uint8_t>(piece[0])]; token >= 0) out.push_back(token);
      continue;
    }
    if (memory.entries.empty() || piece.size() > kMaxRememberedBytes || out.size() > 0xffffffff) {
      EncodePiece(piece, memory, out);
      continue;
    }
    auto& entry = memory.entries[XXH3_64bits(piece.data(), piece.size()) & (memory.entries.size() - 1)];
    if (entry.length == piece.size() && std::memcmp(memory.base + entry.text, piece.data(), piece.size()) == 0) {
      for (uint32_t i = 0; i < entry.tokens; i++) out.push_back(out[entry.out + i]);
      continue;
    }
    const size_t before = out.size();
    EncodePiece(piece, memory, out);
    entry = {static_cast<uint32_t>(piece.data() - memory.base), static_cast<uint32_t>(piece.size()), static_cast<uint32_t>(before),
             static_cast<uint32_t>(out.size() - before)};
  }
}

std::vector<int32_t> Tokenizer::Encode(std::string_view text, EncodeOptions options) const {
  std::vector<int32_t> out;
  out.reserve(text.size() / 4 + 2);
  if (options.add_bos && bos_ >= 0) out.push_back(bos_);
  PieceMemory memory(text);
  const auto encode = [&](std::string_view part, bool begins) {
    if (!Composes(pre_) || IsPlainlyNfc(part)) return EncodePlain(part, begins, memory, out);
    const std::string composed = ToNfc(part);
    PieceMemory of_part(composed);
    EncodePlain(composed, begins, of_part, out);
  };
  bool begins = !options.continues;
  size_t plain = 0;
  while (plain < text.size()) {
    const Match match = FindSpecial(text, plain, options.parse_special);
    const size_t end = match.token < 0 ? text.size() : match.begin;
    encode(text.substr(plain, end - plain), begins);
    if (match.token < 0) break;
    out.push_back(match.token);
    plain = match.begin + match.length;
    begins = true;
  }
  return out;
}

}  // namespace reprise
