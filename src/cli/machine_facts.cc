#include "cli/machine_facts.h"

#include <sched.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>

namespace reprise {

MachineFacts ReadMachineFacts() {
  MachineFacts facts;
  utsname names{};
  if (::uname(&names) == 0) {
    facts.cpu = names.machine;
    facts.kernel = std::string(names.sysname) + " " + names.release;
  }
  // The name alone may stand for processors of several generations, whose speeds differ by half: on a virtual machine all of a maker's.
  std::ifstream info("/proc/cpuinfo");
  std::string name, family, model;
  for (std::string line; std::getline(info, line) && !line.empty();) {
    const size_t colon = line.find(": ");
    if (colon == std::string::npos) continue;
    const std::string value = line.substr(colon + 2);
    if (line.starts_with("model name")) {
      name = value;
    } else if (line.starts_with("cpu family")) {
      family = value;
    } else if (line.starts_with("model")) {
      model = value;
    }
  }
  if (!name.empty()) facts.cpu = name;
  if (!name.empty() && !family.empty() && !model.empty()) facts.cpu += " (family " + family + ", model " + model + ")";
  cpu_set_t set;
  CPU_ZERO(&set);
  if (::sched_getaffinity(0, sizeof(set), &set) == 0) facts.cores = CPU_COUNT(&set);
  const long pages = ::sysconf(_SC_PHYS_PAGES);
  const long page = ::sysconf(_SC_PAGESIZE);
  if (pages > 0 && page > 0) facts.memory_gib = static_cast<double>(pages) * static_cast<double>(page) / (1 << 30);
  double load = 0;
  if (::getloadavg(&load, 1) == 1) facts.load_average = load;
  return facts;
}

}  // namespace reprise
