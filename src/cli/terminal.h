// The terminal: progress for anything over a second, Ctrl-C at a boundary, and text that cannot take the terminal over.
//
// All of it is for one thread, except that the interrupt flag may be read anywhere.
#pragma once

#include <atomic>
#include <chrono>
#include <functional>
#include <string>
#include <string_view>

namespace reprise {

bool StdinIsTerminal();
bool StdoutIsTerminal();
bool StderrIsTerminal();

// From here on SIGINT sets the flag and the command stops at its next boundary. A second one, unanswered, ends the process as usual.
const std::atomic<bool>& CatchInterrupt();
// Forgets an interrupt that has been answered, and catches the next one.
void RearmInterrupt();

// One line on stderr that says how far a piece of work is, redrawn in place. Silent unless stderr is a terminal, and for the first second.
// The line is wiped by Done() or the destructor.
class Progress {
 public:
  // `label` goes before the bar: "loading". Never shows anything when `quiet`.
  Progress(std::string label, bool quiet);
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;
  ~Progress() { Done(); }

  void Update(double fraction, std::string_view note = {});
  void Done();

  // Something to call with fractions, for callbacks; the Progress must outlive it.
  std::function<void(double)> Callback() {
    return [this](double fraction) { Update(fraction); };
  }

 private:
  using Clock = std::chrono::steady_clock;
  std::string label_;
  bool enabled_;
  bool drawn_ = false;
  Clock::time_point started_ = Clock::now();
  Clock::time_point redrawn_ = started_;
};

// `text` without what a terminal would obey: control characters but newline and tab become U+FFFD, as do bytes that are not UTF-8.
std::string SafeForTerminal(std::string_view text);

// Prints generated text at once: made safe when stdout is a terminal, as it is otherwise.
void ShowText(std::string_view text);

}  // namespace reprise
