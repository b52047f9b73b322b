// A schema from anyone: it is a grammar, whose program is sound and runs, or an error in a sentence.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "decode/grammar.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace reprise;
  const auto grammar = Grammar::JsonSchema(std::string_view(reinterpret_cast<const char*>(data), size));
  if (!grammar.ok()) {
    if (grammar.status().message().empty()) std::abort();
    return 0;
  }
  const GrammarProgram program = GrammarProgram::Of(*grammar);
  if (program.Fault() != nullptr) std::abort();
  const GrammarMachine machine(program);
  GrammarThreads now, next;
  machine.Begin(now);
  // Always the first byte that may follow, as the input says where there are several.
  for (size_t i = 0; i < 200 && !now.empty(); ++i) {
    if (now.Fault(program) != nullptr) std::abort();
    const uint8_t from = size == 0 ? uint8_t{0} : data[i % size];
    for (int byte = 0; byte < 256; ++byte) {
      machine.Step(now, static_cast<uint8_t>(from + byte), next);
      if (!next.empty()) break;
    }
    // Not every schema has a text that ends, but every text goes on until it may end, or nests too deep.
    std::swap(now, next);
  }
  return 0;
}
