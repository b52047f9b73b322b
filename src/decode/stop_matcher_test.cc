#include "decode/stop_matcher.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <cstring>
#include <optional>
#include <vector>

namespace reprise {
namespace {

struct Outcome {
  std::string shown;
  std::string held;
  bool stopped = false;
  bool operator==(const Outcome&) const = default;
};

void showValue(const Outcome& o, std::ostream& os) { os << '"' << o.shown << "\" held \"" << o.held << "\" stopped " << o.stopped; }

StopStrings Stops(const std::vector<std::string>& stops) {
  StopStrings set;
  set.Set(stops);
  return set;
}

Outcome Match(const std::vector<std::string>& stops, std::string_view text) {
  const StopStrings set = Stops(stops);
  const StopMatcher matcher(set);
  HeldText held;
  Outcome outcome;
  for (const char byte : text) {
    outcome.stopped = matcher.Push(byte, held, outcome.shown);
    if (outcome.stopped) break;
  }
  outcome.held = held.view();
  return outcome;
}

// The definition, with the whole text in hand.
Outcome Naive(const std::vector<std::string>& stops, std::string_view text) {
  for (size_t end = 1; end <= text.size(); ++end) {
    const std::string_view so_far = text.substr(0, end);
    size_t longest = 0;
    for (const std::string& stop : stops) {
      if (so_far.ends_with(stop)) longest = std::max(longest, stop.size());
    }
    if (longest > 0) return {std::string(so_far.substr(0, end - longest)), "", true};
  }
  for (size_t begin = 0; begin <= text.size(); ++begin) {
    const std::string_view tail = text.substr(begin);
    for (const std::string& stop : stops) {
      if (tail.empty() || (stop.size() > tail.size() && stop.starts_with(tail)))
        return {std::string(text.substr(0, begin)), std::string(tail), false};
    }
  }
  return {std::string(text), "", false};
}

TEST(StopMatcher, ShowsEverythingWithoutStops) { EXPECT_EQ(Match({}, "anything"), (Outcome{"anything", "", false})); }

TEST(StopMatcher, HoldsBackABeginningAndNoMore) {
  EXPECT_EQ(Match({"<end>"}, "a <e"), (Outcome{"a ", "<e", false}));
  EXPECT_EQ(Match({"<end>"}, "a <ex"), (Outcome{"a <ex", "", false}));
  EXPECT_EQ(Match({"<end>"}, "a <e<end"), (Outcome{"a <e", "<end", false}));
  EXPECT_EQ(Match({"<end>"}, "a <e<end> b"), (Outcome{"a <e", "", true}));
}

TEST(StopMatcher, FindsAStopWithinAnotherOnesFailedBeginning) {
  EXPECT_EQ(Match({"aab"}, "aaab"), (Outcome{"a", "", true}));
  EXPECT_EQ(Match({"ababc"}, "abababc"), (Outcome{"ab", "", true}));
  EXPECT_EQ(Match({"abcd", "bcx"}, "abcx"), (Outcome{"a", "", true}));
  EXPECT_EQ(Match({"abcd", "c"}, "abcd"), (Outcome{"ab", "", true}));   // the first to be complete
  EXPECT_EQ(Match({"cd", "abcd"}, "xabcd"), (Outcome{"x", "", true}));  // of two at the same byte, the longest
  EXPECT_EQ(Match({"aaaa", "ab"}, "aaab"), (Outcome{"aa", "", true}));
}

TEST(StopMatcher, LongestPossibleStop) {
  const std::string stop(SamplingOptions::kMaxStopBytes, 'a');
  EXPECT_EQ(Match({stop}, stop.substr(1)), (Outcome{"", stop.substr(1), false}));
  EXPECT_EQ(Match({stop}, "b" + stop), (Outcome{"b", "", true}));
  const std::string almost = stop.substr(1) + "b";
  EXPECT_EQ(Match({almost}, stop + stop), (Outcome{stop + "a", stop.substr(1), false}));
}

TEST(StopMatcher, EqualStatesHaveEqualBytes) {
  const StopStrings set = Stops({"hello", "help"});
  const StopMatcher matcher(set);
  HeldText one;
  HeldText other;
  std::string shown;
  for (const char byte : std::string("hello worlhell")) matcher.Push(byte, one, shown);
  for (const char byte : std::string("help, then anotherhell")) matcher.Push(byte, one, shown);
  for (const char byte : std::string("hell")) matcher.Push(byte, other, shown);
  EXPECT_EQ(one.view(), "hell");
  EXPECT_EQ(std::memcmp(&one, &other, sizeof(one)), 0);
}

RC_GTEST_PROP(StopMatcher, DoesWhatTheDefinitionSays, ()) {
  // Two letters, so that beginnings overlap as often as they can.
  const auto word = rc::gen::nonEmpty(rc::gen::container<std::string>(rc::gen::element('a', 'b')));
  const auto stops = *rc::gen::resize(6, rc::gen::container<std::vector<std::string>>(word));
  RC_PRE(stops.size() <= SamplingOptions::kMaxStops);
  const auto text = *rc::gen::container<std::string>(rc::gen::element('a', 'b', 'c'));
  RC_ASSERT(Match(stops, text) == Naive(stops, text));
}

RC_GTEST_PROP(StopMatcher, HostileStatesStayWithinTheirBuffers, ()) {
  StopStrings set;
  set.count = *rc::gen::element<uint32_t>(0, 1, 2, 16, 17, 1u << 31, ~0u);
  for (uint16_t& length : set.lengths) length = *rc::gen::element<uint16_t>(0, 1, 2, 3, 1023, 1024, 1025, 65535);
  for (char& byte : set.bytes) byte = 'a';
  HeldText held;
  held.size = *rc::gen::element<uint32_t>(0, 1, 1022, 1023, 1024, 1025, ~0u);
  for (char& byte : held.bytes) byte = *rc::gen::element('a', 'a', 'b');
  const StopMatcher matcher(set);
  RC_ASSERT(matcher.stops().size() <= SamplingOptions::kMaxStops);
  std::string shown;
  for (const char byte : *rc::gen::container<std::string>(rc::gen::element('a', 'b'))) {
    matcher.Push(byte, held, shown);
    RC_ASSERT(held.size <= sizeof(held.bytes));
    RC_ASSERT(held.view().empty() || matcher.Begins(held.view()));
  }
}

}  // namespace
}  // namespace reprise
