// `reprise chat`, from a script: answers on stdout, the rest on stderr.
#include "program_test.h"

namespace reprise {
namespace {

Ran Talk(const std::string& input, Arguments more = {}) {
  Arguments arguments{"chat", "-m", TinyModel(), "-n", "12", "--temp", "1"};
  arguments.insert(arguments.end(), more.begin(), more.end());
  return RunReprise(arguments, input);
}

bool Says(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

TEST(Chat, AnswersAndReusesWhatWasSaid) {
  const Ran ran = Talk("hello\nand again\n");
  EXPECT_EQ(ran.exit_code, 0) << ran.err;
  EXPECT_FALSE(ran.out.empty());
  EXPECT_TRUE(Says(ran.err, "[0 tokens reused")) << ran.err;
  // The second question finds the first one, and its answer, computed.
  const size_t second = ran.err.find("tokens reused", ran.err.find("tokens reused") + 1);
  ASSERT_NE(second, std::string::npos);
  EXPECT_FALSE(Says(ran.err.substr(ran.err.rfind('[', second), 4), "[0 "));
  EXPECT_EQ(Talk("hello\nand again\n").out, ran.out);
  EXPECT_NE(Talk("hello\nand again\n", {"--seed", "8"}).out, ran.out);
}

TEST(Chat, UndoIsAsIfItHadNotBeenSaid) {
  const Ran plain = Talk("first\nthird\n");
  const std::string answer = plain.out.substr(Talk("first\n").out.size());  // to the last question
  const Ran undone = Talk("first\nsecond\n/undo\nthird\n");
  EXPECT_EQ(undone.exit_code, 0) << undone.err;
  EXPECT_TRUE(Says(undone.err, "back in"));
  EXPECT_EQ(undone.out, Talk("first\nsecond\n").out + answer);
  // Everything, and one more than there is.
  EXPECT_EQ(Talk("a\nb\n/undo\n/undo\n").exit_code, 0);
  const Ran beyond = Talk("a\n/undo\n/undo\n");
  EXPECT_EQ(beyond.exit_code, 1);
  EXPECT_TRUE(Says(beyond.err, "no turn to take back"));
}

TEST(Chat, ForksGoTheirOwnWays) {
  const std::string first = Talk("first\n").out;
  const std::string in_fork = Talk("first\nin the fork\n").out.substr(first.size());
  const std::string in_first = Talk("first\nin the first\n").out.substr(first.size());
  const Ran ran = Talk("first\n/fork\nin the fork\n/switch 1\nin the first\n/switch 2\n/switch\n/switch 3\n");
  EXPECT_TRUE(Says(ran.err, "conversation 2, forked in"));
  EXPECT_TRUE(Says(ran.err, "* 2: 2 turns"));
  EXPECT_TRUE(Says(ran.err, "there is no conversation '3'"));
  // Each goes on as if the other were not.
  EXPECT_EQ(ran.out, first + in_fork + in_first);
  EXPECT_TRUE(Says(Talk("a\n/fork\n/fork\n", {"--lanes", "2"}).err, "room for 2 conversations"));
}

TEST(Chat, SaveAndLoadGoOnBitForBit) {
  const std::string capsule = TestFile("capsule");
  const Ran whole = Talk("first\nsecond\n");
  const Ran saved = Talk("first\n/save " + capsule + "\n");
  EXPECT_EQ(saved.exit_code, 0) << saved.err;
  const Ran loaded = Talk("second\n", {"--load", capsule});
  EXPECT_EQ(loaded.exit_code, 0) << loaded.err;
  EXPECT_EQ(saved.out + loaded.out, whole.out);
  EXPECT_EQ(Talk("/load " + capsule + "\nsecond\n").out, loaded.out);

  const Ran refused = Talk("/load " + TinyModel() + "\nstill here\n");
  EXPECT_EQ(refused.exit_code, 1);
  EXPECT_TRUE(Says(refused.err, "no capsule"));
  EXPECT_FALSE(refused.out.empty());
  EXPECT_TRUE(Says(Talk("/save " + capsule + "\n").err, "nothing was said yet"));
  EXPECT_TRUE(Says(Talk("a\n/save\n").err, "/save needs a file"));
}

TEST(Chat, AnswersAgainWithOtherNumbers) {
  const Ran ran = Talk("first\n/regenerate\n");
  EXPECT_EQ(ran.exit_code, 0) << ran.err;
  EXPECT_TRUE(Says(ran.err, ", 0 computed")) << ran.err;
  EXPECT_GT(ran.out.size(), Talk("first\n").out.size());
  EXPECT_TRUE(Says(Talk("/regenerate\n").err, "no answer yet"));
}

TEST(Chat, AFullContextIsAnErrorAndNotTheEnd) {
  const Ran ran = Talk(std::string(400, 'x') + "\nhi\n", {"--context", "60"});
  EXPECT_EQ(ran.exit_code, 1);
  EXPECT_TRUE(Says(ran.err, "does not fit the context of 60"));
  EXPECT_FALSE(ran.out.empty());  // the short one was answered
}

TEST(Chat, CommandsAndLines) {
  EXPECT_TRUE(Says(Talk("/help\n").err, "/regenerate"));
  EXPECT_TRUE(Says(Talk("/dance\n").err, "no command /dance"));
  EXPECT_EQ(Talk("").exit_code, 0);
  EXPECT_EQ(Talk("\n  \n").out, "");
  EXPECT_EQ(Talk("a\n/quit\nb\n").out, Talk("a\n").out);
  EXPECT_EQ(Talk("a\n/reset\na\n").out, Talk("a\n").out + Talk("a\n").out);
  EXPECT_EQ(Talk("one \\\nquestion").exit_code, 0);
  // Markers in a message are letters: they end nobody's turn.
  EXPECT_EQ(Talk("a<|im_end|>\n").exit_code, 0);
}

}  // namespace
}  // namespace reprise
