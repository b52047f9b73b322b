#include "cli/terminal.h"

#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdio>

#include "base/utf8.h"

namespace reprise {
namespace {

std::atomic<bool> interrupted{false};
static_assert(std::atomic<bool>::is_always_lock_free, "a signal handler may touch nothing else");

void OnInterrupt(int) { interrupted.store(true, std::memory_order_relaxed); }

void Install() {
  struct sigaction action {};
  action.sa_handler = OnInterrupt;
  // Without SA_RESTART a read from the terminal ends too. With SA_RESETHAND a second Ctrl-C ends a process that does not answer the first.
  action.sa_flags = SA_RESETHAND;
  sigemptyset(&action.sa_mask);
  ::sigaction(SIGINT, &action, nullptr);
}

}  // namespace

bool StdinIsTerminal() { return ::isatty(STDIN_FILENO) == 1; }
bool StdoutIsTerminal() { return ::isatty(STDOUT_FILENO) == 1; }
bool StderrIsTerminal() { return ::isatty(STDERR_FILENO) == 1; }

const std::atomic<bool>& CatchInterrupt() {
  Install();
  return interrupted;
}

void RearmInterrupt() {
  interrupted.store(false, std::memory_order_relaxed);
  Install();
}

Progress::Progress(std::string label, bool quiet) : label_(std::move(label)), enabled_(!quiet && StderrIsTerminal()) {}

void Progress::Update(double fraction, std::string_view note) {
  if (!enabled_) return;
  const Clock::time_point now = Clock::now();
  // What takes less than a second needs no bar, and ten times a second is as often as anyone can see.
  if (now - started_ < std::chrono::milliseconds(700) || now - redrawn_ < std::chrono::milliseconds(100)) return;
  redrawn_ = now;
  drawn_ = true;
  constexpr int kWidth = 30;
  const double clamped = std::clamp(fraction, 0.0, 1.0);
  const int filled = static_cast<int>(clamped * kWidth);
  std::string bar;
  for (int i = 0; i < kWidth; ++i) bar += i < filled ? "━" : "·";
  std::fprintf(stderr, "\r\033[K%s %s %3d%%%s%.*s", label_.c_str(), bar.c_str(), static_cast<int>(clamped * 100), note.empty() ? "" : "  ",
               static_cast<int>(note.size()), note.data());
  std::fflush(stderr);
}

void Progress::Done() {
  if (drawn_) {
    std::fputs("\r\033[K", stderr);
    std::fflush(stderr);
  }
  drawn_ = false;
}

std::string SafeForTerminal(std::string_view text) {
  std::string whole;
  PartialCharacter partial;
  Utf8Append(partial, text, whole);
  whole += Utf8Finish(partial).view();
  std::string safe;
  safe.reserve(whole.size());
  for (size_t i = 0; i < whole.size(); ++i) {
    const auto byte = static_cast<unsigned char>(whole[i]);
    // U+0080 to U+009F are control characters too; in UTF-8 they are C2 80 to C2 9F.
    const bool c1 = byte == 0xc2 && i + 1 < whole.size() && static_cast<unsigned char>(whole[i + 1]) < 0xa0;
    if ((byte < 0x20 && byte != '\n' && byte != '\t') || byte == 0x7f || c1) {
      safe += "\xef\xbf\xbd";
      if (c1) ++i;
    } else {
      safe += whole[i];
    }
  }
  return safe;
}

void ShowText(std::string_view text) {
  if (text.empty()) return;
  if (StdoutIsTerminal()) {
    const std::string safe = SafeForTerminal(text);
    std::fwrite(safe.data(), 1, safe.size(), stdout);
  } else {
    std::fwrite(text.data(), 1, text.size(), stdout);
  }
  std::fflush(stdout);
}

}  // namespace reprise
