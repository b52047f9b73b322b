// CallReader: one call of a tool at a time, in the form that the model was trained to write it in, from text that is still coming.
//
// A call is good when it is complete: one object, or one list of parameters or arguments, that names a declared tool. Work is linear in the text.
#pragma once

#include <string>
#include <string_view>

#include "serve/tools.h"

namespace reprise::serve {

struct ToolUse {
  std::string name, id;     // the id where the model gave it one (HasCallIds)
  Json arguments = Json();  // an object
};

class CallReader {
 public:
  enum class Scan { kMore, kDone, kBad };

  // `declared` outlives the reader; null with kNone.
  CallReader(ToolForm form, const Tools* declared) : form_(form), declared_(declared) {}

  // A call whose body begins at `body` of the text, behind what opens it; `name` where that has said it.
  void Begin(size_t body, std::string_view name = {});
  // Looks for its end, and for that of what closes it. `text` is what it was, or longer; `last`: it stays as it is. kBad: it is none.
  Scan Read(std::string_view text, bool last);
  // After kDone: the call, if it is a good one.
  bool Take(std::string_view text, ToolUse& use);
  // After a good one: where in the text what follows begins, behind what closes it or parts it from the next of a list.
  size_t Leave(std::string_view text);
  // Whether there is such a next one, at the beginning of the text that is left.
  bool BeginNext();

  size_t body() const { return body_; }
  size_t scanned() const { return scanned_; }

  static constexpr size_t kMostHeaderBytes = 512;  // names have at most half of that

 private:
  Scan ScanName(std::string_view text);
  Scan ScanPythonName(std::string_view text);
  Scan ScanJson(std::string_view text);
  Scan ScanQuoted(std::string_view text);
  Scan ScanPython(std::string_view text, bool last);
  Scan ScanParameters(std::string_view text);
  Scan ScanEnd(std::string_view text, bool last) const;

  ToolForm form_;
  const Tools* declared_;
  // Where they stand before the arguments: Mistral's, Harmony's, LFM2's and Gemma's; the id too in one of Mistral's forms.
  std::string name_, id_;
  bool in_list_ = false;  // of calls: Mistral's, Nemotron's and LFM2's
  // Offsets in the text.
  size_t body_ = 0, scanned_ = 0;
  bool is_json_ = false;
  int depth_ = 0;
  bool in_string_ = false, escaped_ = false;
  std::string quote_;  // Python's: what ends the string
};

}  // namespace reprise::serve
