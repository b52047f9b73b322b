#include "text/tokenizer.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "base/utf8.h"
#include "text/byte_level.h"
#include "text/nfc.h"

namespace reprise {
namespace {

constexpr int32_t kNormal = static_cast<int32_t>(TokenType::kNormal);
constexpr int32_t kControl = static_cast<int32_t>(TokenType::kControl);
constexpr int32_t kUserDefined = static_cast<int32_t>(TokenType::kUserDefined);

std::string Spelling(std::string_view bytes) {
  std::string spelling;
  AppendSpellingOfBytes(bytes, spelling);
  return spelling;
}

void Add(Vocabulary& v, const std::string& token, int32_t type) {
  v.tokens.push_back(token);
  v.types.push_back(type);
}

// Id of each byte is the byte; 256 and up are what `merges` (pairs of raw bytes) make, then the control and user-defined tokens.
Vocabulary Small(const std::vector<std::pair<std::string, std::string>>& merges = {
                     {"h", "e"}, {"l", "l"}, {"he", "ll"}, {"hell", "o"}, {" ", "hello"}}) {
  Vocabulary v;
  v.pre = "gpt-2";
  for (int b = 0; b < 256; b++) {
    const char c = static_cast<char>(b);
    Add(v, Spelling({&c, 1}), kNormal);
  }
  for (const auto& [left, right] : merges) {
    v.merges.push_back(Spelling(left) + " " + Spelling(right));
    const std::string token = Spelling(left + right);
    if (std::find(v.tokens.begin(), v.tokens.end(), token) == v.tokens.end()) Add(v, token, kNormal);
  }
  for (const char* name : {"<|endoftext|>", "<|im_start|>", "<|im_end|>", "<ctl>"}) Add(v, name, kControl);
  for (const char* name : {"<u>", "<u><u>", "  ", "<ctl"}) Add(v, name, kUserDefined);
  return v;
}

Tokenizer Make(const Vocabulary& v) {
  auto t = Tokenizer::Create(v);
  EXPECT_TRUE(t.ok()) << t.status().message();
  return *std::move(t);
}

std::vector<int32_t> Ids(const Tokenizer& t, const std::vector<std::string>& tokens) {
  std::vector<int32_t> ids;
  for (const std::string& token : tokens) {
    const auto id = t.Find(token);
    EXPECT_TRUE(id.has_value()) << token;
    ids.push_back(id.value_or(-1));
  }
  return ids;
}

TEST(Tokenizer, MergesByRank) {
  const Tokenizer t = Make(Small());
  EXPECT_EQ(t.Encode("hello hello"), Ids(t, {"hello", "\u0120hello"}));
  EXPECT_EQ(t.Encode("ohell"), Ids(t, {"o", "hell"}));
  EXPECT_TRUE(t.Encode("").empty());
}

TEST(Tokenizer, SpecialTokensAreMatchedLeftmostAndLongest) {
  const Tokenizer t = Make(Small());
  EXPECT_EQ(t.Encode("<u><u><u>x  "), Ids(t, {"<u><u>", "<u>", "x", "  "}));
  EXPECT_EQ(t.Encode("<ctl>"), Ids(t, {"<ctl", ">"}));
  EXPECT_EQ(t.Encode("<ctl>", {.parse_special = true}), Ids(t, {"<ctl>"}));
  EXPECT_EQ(t.Encode("a<|im_end|>b", {.parse_special = true}), Ids(t, {"a", "<|im_end|>", "b"}));
  EXPECT_EQ(t.Encode("<|im_end|", {.parse_special = true}), t.Encode("<|im_end|"));
}

TEST(Tokenizer, BosIsAddedOnRequestIfThereIsOne) {
  Vocabulary v = Small();
  EXPECT_EQ(Make(v).Encode("a", {.add_bos = true}), (std::vector<int32_t>{'a'}));
  v.bos = 256;
  EXPECT_EQ(Make(v).Encode("a", {.add_bos = true}), (std::vector<int32_t>{256, 'a'}));
}

TEST(Tokenizer, AWholePieceThatIsATokenIsTakenByLlamaBpeAndTekkenOnly) {
  Vocabulary v = Small({{"a", "b"}});
  Add(v, "abc", kNormal);  // no merge makes it
  EXPECT_EQ(Make(v).Encode("abc").size(), 2u);
  v.pre = "llama-bpe";
  EXPECT_EQ(Make(v).Encode("abc").size(), 1u);
  v.pre = "tekken";
  EXPECT_EQ(Make(v).Encode("abc").size(), 1u);
  v.pre = "gpt-4o";
  EXPECT_EQ(Make(v).Encode("abc").size(), 2u);
  v.pre = "dbrx";  // cuts texts as llama-bpe does
  EXPECT_EQ(Make(v).Encode("abc").size(), 2u);
}

TEST(Tokenizer, ReadsBackWhatATokenIs) {
  Vocabulary v = Small();
  v.eos = static_cast<int32_t>(v.tokens.size() - 1);
  const Tokenizer t = Make(v);
  EXPECT_EQ(t.TokenBytes(*t.Find("\u0120hello")), " hello");
  EXPECT_EQ(t.TokenBytes(0xff), "\xff");
  EXPECT_EQ(t.TokenBytes(*t.Find("<ctl>")), "<ctl>");
  EXPECT_TRUE(t.IsControl(*t.Find("<ctl>")));
  EXPECT_FALSE(t.IsControl(*t.Find("<u>")));
  EXPECT_TRUE(t.IsEndOfGeneration(t.eos()));
  EXPECT_TRUE(t.IsEndOfGeneration(*t.Find("<|im_end|>")));
  EXPECT_FALSE(t.IsEndOfGeneration('a'));
  EXPECT_EQ(t.Find(" hello"), std::nullopt);
  EXPECT_EQ(t.Find(""), std::nullopt);
  const std::vector<int32_t> ids = {'a', *t.Find("<ctl>"), 'b'};
  EXPECT_EQ(t.Decode(ids), "a<ctl>b");
  EXPECT_EQ(t.Decode(ids, {.with_control = false}), "ab");
  for (const int32_t none : {-1, t.vocab_size(), INT32_MAX, INT32_MIN}) {
    EXPECT_EQ(t.TokenBytes(none), "");
    EXPECT_FALSE(t.IsControl(none));
    EXPECT_FALSE(t.IsEndOfGeneration(none));
    EXPECT_EQ(t.Decode({{none}}), "");
  }
}

TEST(Tokenizer, StructureIsControlWhateverTheFileSays) {
  Vocabulary v = Small();
  for (size_t i = 0; i < v.tokens.size(); i++) {
    if (v.tokens[i] == "<|im_end|>") v.types[i] = kUserDefined;
    if (v.tokens[i] == "<|im_start|>") v.types[i] = kNormal;
  }
  const Tokenizer t = Make(v);
  for (const char* name : {"<|im_end|>", "<|im_start|>"}) {
    EXPECT_TRUE(t.IsControl(*t.Find(name)));
    EXPECT_GT(t.Encode(name).size(), 1u);
  }
  v.types.clear();
  EXPECT_TRUE(Make(v).IsControl(*t.Find("<|im_end|>")));
}

// Harmony's markers stay out of reach of plain text, and are shown in answers, which are several messages.
TEST(Tokenizer, MarkersOfHarmonysMessagesAreShownAndEndNothing) {
  Vocabulary v = Small();
  for (const char* name : {"<|start|>", "<|message|>", "<|end|>"}) Add(v, name, kUserDefined);
  v.eot = static_cast<int32_t>(v.tokens.size() - 1);
  const Tokenizer other = Make(v);
  EXPECT_TRUE(other.IsEndOfGeneration(*other.Find("<|end|>")));
  EXPECT_TRUE(other.IsHidden(*other.Find("<|end|>")));
  for (const char* name : {"<|channel|>", "<|return|>", "<|call|>"}) Add(v, name, kNormal);
  const Tokenizer t = Make(v);
  for (const char* name : {"<|start|>", "<|message|>", "<|end|>", "<|channel|>"}) {
    EXPECT_TRUE(t.IsControl(*t.Find(name))) << name;
    EXPECT_FALSE(t.IsHidden(*t.Find(name))) << name;
    EXPECT_FALSE(t.IsEndOfGeneration(*t.Find(name))) << name;
    EXPECT_GT(t.Encode(name).size(), 1u) << name;
  }
  for (const char* name : {"<|return|>", "<|call|>"}) {
    EXPECT_TRUE(t.IsEndOfGeneration(*t.Find(name))) << name;
    EXPECT_TRUE(t.IsHidden(*t.Find(name))) << name;
  }
  EXPECT_TRUE(t.IsHidden(*t.Find("<ctl>")));
  EXPECT_FALSE(t.IsHidden('a'));
  EXPECT_FALSE(t.IsHidden(-1));
}

// A file that has them user-defined would let a message end itself; as normal tokens they are text.
TEST(Tokenizer, MarkersOfMistralsChatsAreNeverPlainText) {
  Vocabulary v = Small();
  for (const char* name : {"[INST]", "[THINK]", "[TOOL_CALLS]"}) Add(v, name, kUserDefined);
  Add(v, "[ARGS]", kNormal);
  const Tokenizer t = Make(v);
  for (const char* name : {"[INST]", "[THINK]", "[TOOL_CALLS]"}) {
    EXPECT_TRUE(t.IsControl(*t.Find(name))) << name;
    EXPECT_EQ(t.IsHidden(*t.Find(name)), name == std::string("[INST]")) << "answers show what they are made of";
    EXPECT_GT(t.Encode(name).size(), 1u) << name;
  }
  EXPECT_FALSE(t.IsControl(*t.Find("[ARGS]")));
}

TEST(Tokenizer, BytesWithoutATokenAreDropped) {
  Vocabulary v = Small();
  const auto drop = [&](uint8_t byte) {
    const char c = static_cast<char>(byte);
    const auto at = std::find(v.tokens.begin(), v.tokens.end(), Spelling({&c, 1})) - v.tokens.begin();
    v.tokens.erase(v.tokens.begin() + at);
    v.types.erase(v.types.begin() + at);
  };
  drop(0xff);
  drop(0x04);
  const Tokenizer t = Make(v);
  EXPECT_FALSE(t.EncodesByte(0xff));
  EXPECT_TRUE(t.EncodesByte(0xfe));
  EXPECT_EQ(t.Decode(t.Encode("a\xff\xfe\x04z")), "a\xfez");
  EXPECT_TRUE(t.Encode("\x04").empty());
}

// Every way a vocabulary can contradict itself, and the words by which the error names it.
TEST(Tokenizer, RefusesAVocabularyThatContradictsItself) {
  const struct {
    const char* said;
    std::function<void(Vocabulary&)> break_it;
  } kFaults[] = {
      {"pre-tokenizer 'nonsense\\x0a' is not known; known are gpt-2", [](Vocabulary& v) { v.pre = "nonsense\n"; }},
      {"the vocabulary has no tokens", [](Vocabulary& v) { v.tokens.clear(), v.types.clear(); }},
      {"tokens but 3 token types", [](Vocabulary& v) { v.types.resize(3); }},
      {"token 300 is empty", [](Vocabulary& v) { v.tokens.resize(300, "<u>"), v.types.resize(300, 4), Add(v, "", 1); }},
      {"token 97 is empty", [](Vocabulary& v) { v.tokens[97].clear(); }},
      {"token 97 is 5000 bytes long", [](Vocabulary& v) { v.tokens[97] = std::string(5000, 'x'); }},
      {"is 300 bytes long, more than the 256", [](Vocabulary& v) { Add(v, std::string(300, 'x'), kUserDefined); }},
      {"token 98 ('a') is the same as token 97", [](Vocabulary& v) { v.tokens[98] = "a"; }},
      {"('<ctl>') is the same as token", [](Vocabulary& v) { Add(v, "<ctl>", kControl); }},
      {"('<ctl>') is the same as token", [](Vocabulary& v) { Add(v, "<ctl>", kUserDefined); }},
      {"('<ctl>') is the same as token", [](Vocabulary& v) { Add(v, "<ctl>", kNormal); }},
      {"('hello') is the same as token", [](Vocabulary& v) { Add(v, "hello", kUserDefined); }},
      {"('hello') is the same as token", [](Vocabulary& v) { Add(v, "hello", 5); }},
      {"token 97 ('a') has type 0", [](Vocabulary& v) { v.types[97] = 0; }},
      {"token 97 ('a') has type 7", [](Vocabulary& v) { v.types[97] = 7; }},
      {"token 97 ('a') has type -2147483648", [](Vocabulary& v) { v.types[97] = INT32_MIN; }},
      {"no token for the byte 'a'", [](Vocabulary& v) { v.tokens[97] = "aaaa"; }},
      {"no token for the byte 'a'", [](Vocabulary& v) { v.types[97] = kControl; }},
      {"no token for the byte '\\x0a'", [](Vocabulary& v) { v.tokens['\n'] = "\n"; }},
      {"no token for the byte", [](Vocabulary& v) { v.tokens = {"<0x-1>"}, v.types = {6}, v.merges.clear(); }},
      {"bos token 100000 is not one of", [](Vocabulary& v) { v.bos = 100000; }},
      {"eos token -2 is not one of", [](Vocabulary& v) { v.eos = -2; }},
      {"eot token 2147483647 is not one of", [](Vocabulary& v) { v.eot = INT32_MAX; }},
      {"start with a bos token", [](Vocabulary& v) { v.add_bos = true; }},
      {"merge 5 ('') is not two tokens", [](Vocabulary& v) { v.merges.push_back(""); }},
      {"merge 5 (' ') is not two tokens", [](Vocabulary& v) { v.merges.push_back(" "); }},
      {"merge 5 ('ab') is not two tokens", [](Vocabulary& v) { v.merges.push_back("ab"); }},
      {"merge 5 ('a ') is not two tokens", [](Vocabulary& v) { v.merges.push_back("a "); }},
      {"merge 5 (' a') is not two tokens", [](Vocabulary& v) { v.merges.push_back(" a"); }},
      {"merge 5 ('a b c') is not two tokens", [](Vocabulary& v) { v.merges.push_back("a b c"); }},
      {"merge 5 ('zz y') names 'zz'", [](Vocabulary& v) { v.merges.push_back("zz y"); }},
      {"merge 5 ('y \\xff') names '\\xff'", [](Vocabulary& v) { v.merges.push_back("y \xff"); }},
      {"merge 5 ('y z') makes what is not a token", [](Vocabulary& v) { v.merges.push_back("y z"); }},
      {"merge 5 ('<ctl >') names '<ctl'", [](Vocabulary& v) { v.tokens.pop_back(), v.types.pop_back(), v.merges.push_back("<ctl >"); }},
      {"merge 5 ('<ctl >') makes what is not a token that plain text can become", [](Vocabulary& v) { v.merges.push_back("<ctl >"); }},
      {"merge 5 ('h e') is there twice", [](Vocabulary& v) { v.merges.push_back("h e"); }},
  };
  for (const auto& [said, break_it] : kFaults) {
    Vocabulary v = Small();
    break_it(v);
    const auto t = Tokenizer::Create(v);
    ASSERT_FALSE(t.ok()) << said;
    EXPECT_NE(t.status().message().find(said), std::string::npos) << "said: " << t.status().message() << "\nexpected: " << said;
  }
}

constexpr int32_t kByte = static_cast<int32_t>(TokenType::kByte);
constexpr char kSpace[] = "\u2581";

// <unk>, bos, a token for each byte from 2 on, the letters, and `pieces` with their scores, in which a space is spelled U+2581.
Vocabulary Pieces(const std::vector<std::pair<std::string, double>>& pieces = {
                      {"he", -1}, {"ll", -2}, {"hell", -3}, {"hello", -4}, {std::string(kSpace) + "hello", -5}, {"\u4f60\u597d", -6}}) {
  Vocabulary v;
  v.kind = VocabularyKind::kSentencePiece;
  const auto add = [&](const std::string& token, int32_t type, double score) {
    Add(v, token, type);
    v.scores.push_back(score);
  };
  add("<unk>", static_cast<int32_t>(TokenType::kUnknown), 0);
  add("<s>", kControl, 0);
  for (int b = 0; b < 256; b++) {
    constexpr char kDigits[] = "0123456789ABCDEF";
    add(std::string("<0x") + kDigits[b / 16] + kDigits[b % 16] + ">", kByte, 0);
  }
  for (const char* character : {kSpace, "h", "e", "l", "o", "x", "a", "b", "c", "\u4f60", "\u597d"}) add(character, kNormal, -100);
  for (const auto& [piece, score] : pieces) add(piece, kNormal, score);
  for (const char* name : {"<start_of_turn>", "<end_of_turn>"}) add(name, kControl, 0);
  for (const char* name : {"<u>", "\n", "\n\n", "  "}) add(name, kUserDefined, 0);
  return v;
}

TEST(TokenizerOfPieces, MergesByScore) {
  const Tokenizer t = Make(Pieces());
  const std::string space = kSpace;
  EXPECT_EQ(t.Encode("hello hello"), Ids(t, {"hello", space + "hello"}));
  EXPECT_EQ(t.Encode("ohell"), Ids(t, {"o", "hell"}));
  EXPECT_EQ(t.Encode("a\n\n\nb  c"), Ids(t, {"a", "\n\n", "\n", "b", "  ", "c"}));
  EXPECT_EQ(t.Encode("x\u4f60\u597d\u4f60"), Ids(t, {"x", "\u4f60\u597d", "\u4f60"}));
  EXPECT_EQ(t.Encode("z\u00e9"), Ids(t, {"<0x7A>", "<0xC3>", "<0xA9>"})) << "no pieces";
  EXPECT_EQ(t.Encode(space), Ids(t, {"<0xE2>", "<0x96>", "<0x81>"})) << "the sign for a space is none itself";
  EXPECT_EQ(t.TokenBytes(*t.Find(space + "hello")), " hello");
  EXPECT_EQ(t.TokenBytes(*t.Find("<0x0A>")), "\n");
  EXPECT_EQ(t.Find(" hello"), t.Find(space + "hello"));
  EXPECT_TRUE(t.IsEndOfGeneration(*t.Find("<end_of_turn>")));
  EXPECT_EQ(t.Encode("<s>").size(), 3u) << "is plain text";
  EXPECT_EQ(t.Encode("<s>", {.parse_special = true}), Ids(t, {"<s>"}));
}

TEST(TokenizerOfPieces, OfEqualScoresTheLeftmostComesFirst) {
  const Tokenizer t = Make(Pieces({{"ab", -1}, {"bc", -1}, {"ca", 0}}));
  EXPECT_EQ(t.Encode("abc"), Ids(t, {"ab", "c"}));
  EXPECT_EQ(t.Encode("abca"), Ids(t, {"ab", "ca"}));
  EXPECT_EQ(t.Encode("bcab"), Ids(t, {"b", "ca", "b"}));
}

TEST(TokenizerOfPieces, ASpaceMayStandBeforeEveryText) {
  Vocabulary v = Pieces();
  v.add_space_prefix = true;
  const Tokenizer t = Make(v);
  const std::string space = kSpace;
  EXPECT_EQ(t.Encode("hello"), Ids(t, {space + "hello"}));
  EXPECT_EQ(t.Encode("a<u>hello"), Ids(t, {space, "a", "<u>", space + "hello"}));
  EXPECT_TRUE(t.Encode("").empty());
  EXPECT_EQ(t.Decode(t.Encode("hello")), "hello");
  EXPECT_EQ(t.Decode(t.Encode(" hello<u> a")), " hello<u> a");
  // None before text that goes on from other text, and what an answer says after its prompt keeps its own.
  EXPECT_EQ(t.Encode("hello", {.continues = true}), Ids(t, {"hello"}));
  EXPECT_EQ(t.Encode("a<u>hello", {.continues = true}), Ids(t, {"a", "<u>", space + "hello"}));
  EXPECT_EQ(t.Decode(Ids(t, {space + "hello", "a"})), "helloa");
  EXPECT_EQ(t.Decode(Ids(t, {space + "hello", "a"}), {.continues = true}), " helloa");
  for (const std::string text : {"hello", " hello", "<u>hello", "a<u> a"}) {
    EXPECT_EQ(t.Decode(t.Encode(text, {.continues = true}), {.continues = true}), text);
  }
}

TEST(TokenizerOfPieces, RefusesAVocabularyThatContradictsItself) {
  const struct {
    const char* said;
    std::function<void(Vocabulary&)> break_it;
  } kFaults[] = {
      {"but 3 scores", [](Vocabulary& v) { v.scores.resize(3); }},
      {"but 0 scores", [](Vocabulary& v) { v.scores.clear(); }},
      {"the score of token 7 is no number", [](Vocabulary& v) { v.scores[7] = std::nan(""); }},
      {"the score of token 7 is no number", [](Vocabulary& v) { v.scores[7] = INFINITY; }},
      {"token 12 ('<0x-1>') is to stand for a byte", [](Vocabulary& v) { v.tokens[12] = "<0x-1>"; }},
      {"token 12 ('<0x0a>') is to stand for a byte", [](Vocabulary& v) { v.tokens[12] = "<0x0a>"; }},
      {"token 12 ('<0x0A') is to stand for a byte", [](Vocabulary& v) { v.tokens[12] = "<0x0A"; }},
      {"token 12 ('a') is to stand for a byte", [](Vocabulary& v) { v.tokens[12] = "a"; }},
      {"token 12 ('<0x00>') is the same as token 2", [](Vocabulary& v) { v.tokens[12] = "<0x00>"; }},
      {"no token for the byte 'z'", [](Vocabulary& v) { v.types[2 + 'z'] = kControl; }},
      {"('<s>') is the same as token 1", [](Vocabulary& v) { Add(v, "<s>", kControl), v.scores.push_back(0); }},
  };
  for (const auto& [said, break_it] : kFaults) {
    Vocabulary v = Pieces();
    break_it(v);
    const auto t = Tokenizer::Create(v);
    ASSERT_FALSE(t.ok()) << said;
    EXPECT_NE(t.status().message().find(said), std::string::npos) << "said: " << t.status().message() << "\nexpected: " << said;
  }
}

// <unk>, a token for each byte, letters, what `merges` make, and the markers of Gemma 4's turns and answers, the latter user-defined as in files.
Vocabulary Ranked(const std::vector<std::string>& merges = {"h e", "l l", "he ll", "hell o", std::string(kSpace) + " hello", "\n \n",
                                                            "\n\n \n\n", "\u4f60 \u597d"}) {
  Vocabulary v = Pieces({});
  v.kind = VocabularyKind::kRankedPieces;
  v.scores.clear();
  v.merges = merges;
  for (size_t i = v.tokens.size(); i-- > 0;) {
    if (v.types[i] == kUserDefined && v.tokens[i] != "<u>") v.types[i] = kNormal;
  }
  v.tokens[std::find(v.tokens.begin(), v.tokens.end(), "  ") - v.tokens.begin()] = "d";
  for (const std::string& merge : merges) {
    std::string token = merge;
    token.erase(token.find(' '), 1);
    if (std::find(v.tokens.begin(), v.tokens.end(), token) == v.tokens.end()) Add(v, token, kNormal);
  }
  for (const char* name : {"<|turn>", "<turn|>"}) Add(v, name, kControl);
  for (const char* name : {"<|tool_call>", "<tool_call|>", "<|tool_response>"}) Add(v, name, kUserDefined);
  return v;
}

TEST(TokenizerOfRankedPieces, MergesCharactersByRankAndLineByLine) {
  const Tokenizer t = Make(Ranked());
  const std::string space = kSpace;
  EXPECT_EQ(t.Encode("hello hello"), Ids(t, {"hello", space + "hello"}));
  EXPECT_EQ(t.Encode("x\u4f60\u597d\u4f60"), Ids(t, {"x", "\u4f60\u597d", "\u4f60"}));
  EXPECT_EQ(t.Encode("a\u00e9"), Ids(t, {"a", "<0xC3>", "<0xA9>"})) << "no piece";
  EXPECT_EQ(t.Encode("h\xe4\xbd"), Ids(t, {"h", "<0xE4>", "<0xBD>"})) << "half a character";
  EXPECT_EQ(t.Encode(space), Ids(t, {"<0xE2>", "<0x96>", "<0x81>"})) << "the sign for a space is none itself";
  EXPECT_EQ(t.Encode("a\n\n\n"), Ids(t, {"a", "\n\n", "\n"}));
  EXPECT_EQ(t.Encode("\na"), Ids(t, {"\n", "a"})) << "a byte's token is for what has no other";
  // Of merges that join lines there is none to try.
  EXPECT_EQ(Make(Ranked({"a \n"})).Encode("a\n"), Ids(t, {"a", "\n"}));
  // And line breaks need no merges.
  Vocabulary v = Ranked();
  Add(v, "\n\n\n", kNormal);
  EXPECT_EQ(Make(v).Encode("\n\n\na"), Ids(Make(v), {"\n\n\n", "a"}));
}

TEST(TokenizerOfRankedPieces, MarkersOfAnswersAreShownAndNeverPlainText) {
  const Tokenizer t = Make(Ranked());
  for (const char* name : {"<|tool_call>", "<tool_call|>", "<|tool_response>"}) {
    EXPECT_TRUE(t.IsControl(*t.Find(name)));
    EXPECT_FALSE(t.IsHidden(*t.Find(name)));
    EXPECT_GT(t.Encode(name).size(), 1u);
    EXPECT_EQ(t.Encode(name, {.parse_special = true}), Ids(t, {name}));
  }
  EXPECT_TRUE(t.IsHidden(*t.Find("<turn|>")));
  EXPECT_TRUE(t.IsEndOfGeneration(*t.Find("<turn|>")));
  EXPECT_TRUE(t.IsEndOfGeneration(*t.Find("<|tool_response>")));
  EXPECT_FALSE(t.IsEndOfGeneration(*t.Find("<|tool_call>")));
}

TEST(TokenizerOfRankedPieces, MergesOfControlTokensAreLeftOut) {
  Vocabulary v = Ranked({"x a", "xa b", "a b", "ab <u>"});
  v.types[std::find(v.tokens.begin(), v.tokens.end(), "xab") - v.tokens.begin()] = kControl;
  const Tokenizer t = Make(v);
  EXPECT_EQ(t.Encode("xabab"), Ids(t, {"xa", "b", "ab"}));
  EXPECT_EQ(t.Encode("ab<u>"), Ids(t, {"ab", "<u>"}));
}

TEST(TokenizerOfRankedPieces, RefusesAVocabularyThatContradictsItself) {
  const struct {
    const char* said;
    std::function<void(Vocabulary&)> break_it;
  } kFaults[] = {
      {"merge 8 ('ab') is not two tokens", [](Vocabulary& v) { v.merges.push_back("ab"); }},
      {"merge 8 ('q a') names 'q', which is not a token", [](Vocabulary& v) { v.merges.push_back("q a"); }},
      {"merge 8 ('a c') makes what is not a token", [](Vocabulary& v) { v.merges.push_back("a c"); }},
      {"merge 8 ('h e') is there twice", [](Vocabulary& v) { v.merges.push_back("h e"); }},
      {"token 12 ('a') is to stand for a byte", [](Vocabulary& v) { v.tokens[12] = "a"; }},
  };
  for (const auto& [said, break_it] : kFaults) {
    Vocabulary v = Ranked();
    break_it(v);
    const auto t = Tokenizer::Create(v);
    ASSERT_FALSE(t.ok()) << said;
    EXPECT_NE(t.status().message().find(said), std::string::npos) << "said: " << t.status().message() << "\nexpected: " << said;
  }
}

// The definition, word for word.
std::vector<std::string> NaivePieces(const std::vector<std::pair<std::string, double>>& pieces, std::string_view text) {
  std::vector<std::string> parts;
  for (char c : text) parts.emplace_back(1, c);
  while (true) {
    size_t best = parts.size();
    double best_score = 0;
    for (size_t i = 0; i + 1 < parts.size(); i++) {
      for (const auto& [piece, score] : pieces) {
        if (piece != parts[i] + parts[i + 1] || (best < parts.size() && score <= best_score)) continue;
        best = i;
        best_score = score;
      }
    }
    if (best == parts.size()) return parts;
    parts[best] += parts[best + 1];
    parts.erase(parts.begin() + best + 1);
  }
}

TEST(TokenizerProperty, PiecesEqualTheDefinitionOnRandomVocabularies) {
  EXPECT_TRUE(rc::check([] {
    std::vector<std::string> parts = {"a", "b", "c"};
    std::vector<std::pair<std::string, double>> pieces;
    for (int i = *rc::gen::inRange(0, 30); i > 0; i--) {
      const std::string piece = *rc::gen::elementOf(parts) + *rc::gen::elementOf(parts);
      if (piece.size() > 40 || std::find(parts.begin(), parts.end(), piece) != parts.end()) continue;
      pieces.emplace_back(piece, *rc::gen::inRange(-4, 4) / 2.0);  // of which some are equal
      parts.push_back(piece);
    }
    const auto t = Tokenizer::Create(Pieces(pieces));
    RC_ASSERT(t.ok());
    const auto text = *rc::gen::container<std::string>(*rc::gen::inRange<size_t>(0, 150), rc::gen::elementOf(std::string("abc")));
    std::vector<std::string> got;
    for (const int32_t id : t->Encode(text)) got.emplace_back(t->TokenBytes(id));
    RC_ASSERT(got == NaivePieces(pieces, text));
  }));
}

// The definition of BPE, word for word, on spelled-out pieces.
std::vector<std::string> NaiveBpe(const std::vector<std::pair<std::string, std::string>>& merges, std::string_view piece) {
  std::vector<std::string> parts;
  for (char c : piece) parts.emplace_back(1, c);
  while (true) {
    size_t best_rank = merges.size(), best = 0;
    for (size_t i = 0; i + 1 < parts.size(); i++) {
      const size_t rank = std::find(merges.begin(), merges.end(), std::pair(parts[i], parts[i + 1])) - merges.begin();
      if (rank < best_rank) best_rank = rank, best = i;
    }
    if (best_rank == merges.size()) return parts;
    parts[best] += parts[best + 1];
    parts.erase(parts.begin() + best + 1);
  }
}

TEST(TokenizerProperty, EqualsTheDefinitionOnRandomVocabularies) {
  EXPECT_TRUE(rc::check([] {
    // Merges over three letters, each of parts made by earlier ones, so that they overlap and compete.
    std::vector<std::string> parts = {"a", "b", "c"};
    std::vector<std::pair<std::string, std::string>> merges;
    for (int i = *rc::gen::inRange(0, 30); i > 0; i--) {
      const std::pair<std::string, std::string> merge(*rc::gen::elementOf(parts), *rc::gen::elementOf(parts));
      if (merge.first.size() + merge.second.size() > 40 || std::find(merges.begin(), merges.end(), merge) != merges.end()) continue;
      merges.push_back(merge);
      parts.push_back(merge.first + merge.second);
    }
    std::vector<std::pair<std::string, std::string>> shuffled = merges;  // ranks need not follow the order in which parts come to be
    for (size_t i = shuffled.size(); i > 1; i--) std::swap(shuffled[i - 1], shuffled[*rc::gen::inRange<size_t>(0, i)]);
    const auto t = Tokenizer::Create(Small(shuffled));
    RC_ASSERT(t.ok());
    // Short pieces and long ones take different ways through bpe.cc.
    const size_t size = *rc::gen::inRange<size_t>(0, 150);
    const auto text = *rc::gen::container<std::string>(size, rc::gen::elementOf(std::string("abc")));
    std::vector<std::string> got;
    for (const int32_t id : t->Encode(text)) got.emplace_back(t->TokenBytes(id));
    RC_ASSERT(got == NaiveBpe(shuffled, text));
  }));
}

// Up to composition, where a vocabulary's text is composed.
bool Same(const Tokenizer& t, const std::string& decoded, const std::string& text) {
  return Composes(t.pre_tokenizer()) ? ToNfc(decoded) == ToNfc(text) : decoded == text;
}

TEST(TokenizerProperty, AnyBytesComeBackAndPlainTextNeverGivesControlTokens) {
  std::vector<Tokenizer> tokenizers;
  for (const char* pre : {"gpt-2", "llama-bpe", "dbrx", "smollm", "qwen2", "qwen35", "gpt-4o", "tekken"}) {
    Vocabulary v = Small();
    v.pre = pre;
    tokenizers.push_back(Make(v));
  }
  for (const bool prefix : {false, true}) {
    Vocabulary v = Pieces();
    v.add_space_prefix = prefix;
    tokenizers.push_back(Make(v));
  }
  tokenizers.push_back(Make(Ranked()));
  const std::vector<std::string> kParts = {"<s>",
                                           "<|turn>",
                                           "<|tool_response>",
                                           "\n\n",
                                           kSpace,
                                           "<end_of_turn>",
                                           "<0x0A>",
                                           "<|im_end|>",
                                           "<|im_",
                                           "end|>",
                                           "<u>",
                                           "<ctl>",
                                           "<ctl",
                                           "hello",
                                           " hello",
                                           " ",
                                           "\n",
                                           "12",
                                           "\xe4\xbd\xa0",
                                           "\xff"};
  EXPECT_TRUE(rc::check([&] {
    std::string text = *rc::gen::arbitrary<std::string>();
    for (const auto& part : *rc::gen::container<std::vector<std::string>>(rc::gen::elementOf(kParts))) text += part;
    text += *rc::gen::container<std::string>(rc::gen::map(rc::gen::inRange(0, 256), [](int b) { return static_cast<char>(b); }));
    for (const Tokenizer& t : tokenizers) {
      const std::vector<int32_t> ids = t.Encode(text);
      RC_ASSERT(Same(t, t.Decode(ids), text));
      RC_ASSERT(std::none_of(ids.begin(), ids.end(), [&](int32_t id) { return t.IsControl(id); }));
      RC_ASSERT(Same(t, t.Decode(t.Encode(text, {.parse_special = true})), text));
    }
  }));
}

// Qwen's; and what stands beside a token is not joined with it.
TEST(Tokenizer, LettersAndMarksAreComposedWhereTheModelsAreUsedToIt) {
  Vocabulary v = Small();
  for (const char* pre : {"qwen2", "qwen35", "gpt-2"}) {
    v.pre = pre;
    const Tokenizer t = Make(v);
    const bool composes = pre != std::string("gpt-2");
    EXPECT_EQ(t.Decode(t.Encode("cafe\u0301 e\u0301")), composes ? "caf\u00e9 \u00e9" : "cafe\u0301 e\u0301");
    const std::vector<int32_t> ids = t.Encode("e\u0301<ctl>\u0338e\u0301 hello hello", {.parse_special = true});
    EXPECT_EQ(std::count(ids.begin(), ids.end(), *t.Find("<ctl>")), 1);
    EXPECT_EQ(t.Decode(ids), composes ? "\u00e9<ctl>\u0338\u00e9 hello hello" : "e\u0301<ctl>\u0338e\u0301 hello hello");
  }
}

// What a text's pieces became earlier in the same text must not change what they become later.
TEST(TokenizerProperty, ALongTextIsTheSumOfItsLines) {
  const Tokenizer t = Make(Small());
  EXPECT_TRUE(rc::check([&] {
    std::string text;
    std::vector<int32_t> expected;
    const auto lines = *rc::gen::container<std::vector<std::string>>(
        100, rc::gen::container<std::string>(rc::gen::elementOf(std::string("hello  he'llx1!"))));
    for (const std::string& line : lines) {
      // A control token cuts the text for both.
      text += "<ctl>" + line;
      expected.push_back(*t.Find("<ctl>"));
      const std::vector<int32_t> ids = t.Encode(line);
      expected.insert(expected.end(), ids.begin(), ids.end());
    }
    RC_ASSERT(t.Encode(text, {.parse_special = true}) == expected);
  }));
}

TEST(TokenizerProperty, ShownTextIsTheSameHoweverTheBytesAreCut) {
  EXPECT_TRUE(rc::check([](const std::string& text, uint64_t cuts) {
    std::string whole;
    PartialCharacter partial;
    Utf8Append(partial, text, whole);
    whole += Utf8Finish(partial).view();
    std::string pieces;
    size_t from = 0;
    for (size_t i = 1; i <= text.size(); i++) {
      if (i != text.size() && (cuts >> (i % 64) & 1) == 0) continue;
      Utf8Append(partial, std::string_view(text).substr(from, i - from), pieces);
      RC_ASSERT(IsUtf8(pieces));
      from = i;
    }
    pieces += Utf8Finish(partial).view();
    RC_ASSERT(pieces == whole);
  }));
}

TEST(Tokenizer, ManyThreadsEncodeAtOnce) {
  const Tokenizer t = Make(Small());
  std::string text;
  for (int i = 0; i < 2000; i++) text += "hello <u>  " + std::to_string(i * i) + "\n";
  const std::vector<int32_t> expected = t.Encode(text);
  std::vector<std::thread> threads;
  std::vector<std::vector<int32_t>> got(4);
  for (auto& ids : got) threads.emplace_back([&] { ids = t.Encode(text); });
  for (std::thread& thread : threads) thread.join();
  for (const auto& ids : got) EXPECT_EQ(ids, expected);
}

}  // namespace
}  // namespace reprise
