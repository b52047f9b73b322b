// What a measurement must say of the machine that it was made on.
#pragma once

#include <string>

namespace reprise {

struct MachineFacts {
  std::string cpu;  // the processor's name, or its architecture
  int cores = 0;    // that this process may use
  double memory_gib = 0;
  double load_average = 0;  // of the last minute: others at work make every number worse
  std::string kernel;
};

MachineFacts ReadMachineFacts();

}  // namespace reprise
