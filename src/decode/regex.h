// Regular expressions of ECMA-262, as JSON Schema's `pattern` has them: of code points, and of those expressions that describe a regular language
// without looking around.
#pragma once

#include <string_view>
#include <vector>

#include "decode/code_points.h"
#include "reprise/status.h"

namespace reprise {

// An expression as a tree, which describes whole texts. Made by the functions below, so that what is said of each kind holds.
struct Regex {
  enum class Kind {
    kEmpty,      // the empty text, and no other
    kCharacter,  // one of `set`, which is not empty
    kSequence,   // of `parts`, at least two, none of them kEmpty
    kChoice,     // between `parts`, at least two, not all of them kEmpty
    kRepeat,     // of parts[0], which is not kEmpty, `least` to `most` times; most < 0: no end
  };
  Kind kind = Kind::kEmpty;
  CodePoints set;
  std::vector<Regex> parts;
  int least = 1, most = 1;
  bool may_be_empty = true;
  int counters = 0;  // repeats that are counted, one within another

  static Regex Character(CodePoints set);
  static Regex Sequence(std::vector<Regex> parts);
  static Regex Choice(std::vector<Regex> parts);
  static Regex Repeat(Regex part, int least, int most);
};

// The texts in which `pattern` is found somewhere; where it says ^ at the beginning or $ at the end, only there. These may stand at the ends of the
// whole or of its alternatives. Groups of all kinds only group, and lazy repeats are repeats.
//
// kUnsupported names what is no regular language or looks around, repeats beyond GrammarBuilder::kMostTimes, and what nests too deep;
// kInvalidArgument what is malformed. Both say at which byte.
Result<Regex> ParsePattern(std::string_view pattern);

}  // namespace reprise
