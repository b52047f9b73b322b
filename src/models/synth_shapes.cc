// The shapes that Synthesize knows.
#include <fmt/format.h>

#include <algorithm>
#include <string_view>
#include <vector>

#include "models/synth.h"

namespace reprise {
namespace {

// Published configurations (Qwen3.5, SmolLM2, Llama 3, Qwen2.5, Qwen3, Qwen3-Next, LFM2, Granite 4.0-H, Falcon-H1, Nemotron Nano 2 and 3, Gemma 3 and 4), and some of our own for tests.
// Of Jamba Reasoning 3B the model card tells layers, heads, vocabulary and context; the other numbers follow from its 3 billion parameters and from
// what is usual of Jamba: twice as many channels as the stream is wide, steps of a 16th of its rank, 16 dimensions of state.
// clang-format off
constexpr SynthShape kShapes[] = {
    //  name             arch   layers width    ffn heads kv  dim  nk  nv  state    vocab   tied       rope   context
    {"tiny",           "qwen35",  4,    64,    128,   4,  2,  32,  2,  4,   32,    512,   true,     1e4,    4096},
    {"qwen3.5-0.1b",   "qwen35", 12,   768,   2048,   6,  2, 128,  6,  6,  128,  32768,   true,     1e7,   32768},
    {"qwen3.5-0.8b",   "qwen35", 24,  1024,   3584,   8,  2, 256, 16, 16,  128, 248320,   true,     1e7,  262144},
    {"qwen3.5-2b",     "qwen35", 24,  2048,   6144,   8,  2, 256, 16, 16,  128, 248320,   true,     1e7,  262144},
    {"qwen3.5-4b",     "qwen35", 32,  2560,   9216,  16,  4, 256, 16, 32,  128, 248320,   true,     1e7,  262144},
    {"qwen3.5-9b",     "qwen35", 32,  4096,  12288,  16,  4, 256, 16, 32,  128, 248320,  false,     1e7,  262144},
    {"qwen3.5-27b",    "qwen35", 64,  5120,  17408,  24,  4, 256, 16, 48,  128, 248320,  false,     1e7,  262144},
    {"tiny-llama",     "llama",   3,    64,    128,   4,  2,  16,  0,  0,    0,    512,   true,     1e4,    4096},
    {"smollm2-135m",   "llama",  30,   576,   1536,   9,  3,  64,  0,  0,    0,  49152,   true,     1e5,    8192},
    {"smollm2-1.7b",   "llama",  24,  2048,   8192,  32, 32,  64,  0,  0,    0,  49152,   true,   1.3e5,    8192},
    {"llama-3.2-1b",   "llama",  16,  2048,   8192,  32,  8,  64,  0,  0,    0, 128256,   true,     5e5,  131072},
    {"llama-3.1-8b",   "llama",  32,  4096,  14336,  32,  8, 128,  0,  0,    0, 128256,  false,     5e5,  131072},
    {"tiny-qwen2",     "qwen2",   2,    64,    128,   4,  2,  16,  0,  0,    0,    512,   true,     1e4,    4096},
    {"qwen2.5-0.5b",   "qwen2",  24,   896,   4864,  14,  2,  64,  0,  0,    0, 151936,   true,     1e6,   32768},
    {"tiny-qwen3",     "qwen3",   2,    64,    128,   4,  2,  32,  0,  0,    0,    512,   true,     1e4,    4096},
    {"qwen3-0.6b",     "qwen3",  28,  1024,   3072,  16,  8, 128,  0,  0,    0, 151936,   true,     1e6,   40960},
    {"qwen3-4b",       "qwen3",  36,  2560,   9728,  32,  8, 128,  0,  0,    0, 151936,   true,     1e6,   40960},
    {"tiny-lfm2",       "lfm2",   4,    64,    128,   4,  2,  16,  0,  0,    0,    512,   true,     1e4,    4096},
    {"lfm2-350m",       "lfm2",  16,  1024,   4608,  16,  8,  64,  0,  0,    0,  65536,   true,     1e6,  128000},
    {"lfm2-1.2b",       "lfm2",  16,  2048,   8192,  32,  8,  64,  0,  0,    0,  65536,   true,     1e6,  128000},
    {"tiny-granite",    "granitehybrid", 6,    64,    128,   4,  2,  16,  2,  4,   32,    512,   true,     1e4,    4096},
    {"granite-4.0-h-350m", "granitehybrid", 32, 768, 2048,  12,  4,  64,  1, 48,  128, 100352,   true,     1e4,   32768},
    {"granite-4.0-h-1b", "granitehybrid", 40, 1536,  4096,  12,  4, 128,  1, 48,  128, 100352,   true,     1e4,  131072},
    {"tiny-jamba",      "jamba",  4,    64,    128,   4,  2,  16,  0,  0,   16,    512,   true,     1e4,    4096},
    {"jamba-reasoning-3b", "jamba", 28, 2560,   8192,  20,  1, 128,  0,  0,   16,  65536,   true,     1e4,  262144},
    // Mixtures of experts: their number, those of a row, the width of one and of the network beside them, blocks without.
    {"tiny-qwen35moe", "qwen35moe", 4,  64,      0,   4,  2,  32,  2,  4,   32,    512,   true,     1e4,    4096,   8, 3,   32,   64, 0},
    {"qwen3.5-35b-a3b", "qwen35moe", 40, 2048,   0,  16,  2, 256, 16, 32,  128, 248320,  false,     1e7,  262144, 256, 8,  512,  512, 0},
    {"tiny-qwen3next", "qwen3next",     4,    64,      0,   4,  2,  32,  2,  4,   32,    512,   true,     1e4,    4096,   8, 3,   32,   64, 0},
    {"qwen3-next-80b-a3b", "qwen3next", 48, 2048,      0,  16,  2, 256, 16, 32,  128, 151936,  false,     1e7,  262144, 512, 10, 512,  512, 0},
    {"tiny-qwen3moe", "qwen3moe", 2,    64,    128,   4,  2,  32,  0,  0,    0,    512,   true,     1e4,    4096,   8, 2,   64,    0, 0},
    {"qwen3-30b-a3b", "qwen3moe", 48, 2048,   6144,  32,  4, 128,  0,  0,    0, 151936,  false,     1e6,   40960, 128, 8,  768,    0, 0},
    {"tiny-lfm2moe", "lfm2moe",   4,    64,    128,   4,  2,  16,  0,  0,    0,    512,   true,     1e4,    4096,   8, 2,   32,    0, 1},
    {"lfm2-8b-a1b",  "lfm2moe",  24,  2048,   7168,  32,  8,  64,  0,  0,    0,  65536,   true,     1e6,  128000,  32, 4, 1792,    0, 2},
    {"tiny-granite-moe", "granitehybrid", 6,   64,     32,   4,  2,  16,  2,  4,   32,    512,   true,     1e4,    4096,   8, 3,   32,   64, 0},
    {"granite-4.0-h-tiny", "granitehybrid", 40, 1536, 512,  12,  4, 128,  1, 48,  128, 100352,   true,     1e4,  131072,  64, 6,  512, 1024, 0},
    // The width of a head of their SSMs, and what each block has.
    {"tiny-falcon-h1",   "falcon-h1", 3,    64,    128,   4,  2,  32,  2,  6,   32,    512,   true,     1e4,    4096,   0, 0,    0,    0, 0, 16, {}},
    {"falcon-h1-0.5b",   "falcon-h1", 36, 1024,   2048,   8,  2,  64,  1, 24,  128,  32784,  false,    1e11,   16384,   0, 0,    0,    0, 0, 64, {}},
    {"falcon-h1-1.5b",   "falcon-h1", 24, 2048,   4608,   8,  2, 128,  1, 48,  256,  65537,  false,    1e11,  131072,   0, 0,    0,    0, 0, 64, {}},
    {"tiny-nemotron", "nemotron_h",  5,    64,    128,   4,  2,  32,  2,  6,   32,    512,   true,     1e4,    4096,   0, 0,    0,    0, 0, 16,
     "M-M*-"},
    {"nemotron-nano-9b-v2", "nemotron_h", 56, 4480, 15680, 40, 8, 128, 8, 128, 128, 131072, false,     1e4,  131072,   0, 0,    0,    0, 0, 80,
     "M-M-M-MM-M-M-M*-M-M-M*-M-M-M-M*-M-M-M-M*-M-MM-M-M-M-M-M-"},
    {"tiny-nemotron-moe", "nemotron_h_moe", 4, 64, 0, 4,  2,  32,  2,  6,   32,    512,   true,     1e4,    4096,   8, 3,   32,   64, 0, 16,
     "MEM*"},
    {"nemotron-3-nano-30b-a3b", "nemotron_h_moe", 52, 2688, 0, 32, 2, 128, 8, 64, 128, 131072, false, 1e4, 262144, 128, 6, 1856, 3712, 0, 64,
     "MEMEM*EMEMEM*EMEMEM*EMEMEM*EMEMEM*EMEMEMEM*EMEMEMEME"},
    // The window of most of their blocks.
    {"tiny-gemma3",     "gemma3",   4,    64,    128,   4,  2,  16,  0,  0,    0,    512,   true,     1e6,    4096,   0, 0,    0,    0, 0, 0, {}, 80},
    {"gemma-3-1b",      "gemma3",  26,  1152,   6912,   4,  1, 256,  0,  0,    0, 262144,   true,     1e6,   32768,   0, 0,    0,    0, 0, 0, {}, 512},
    {"gemma-3-4b",      "gemma3",  34,  2560,  10240,   8,  4, 256,  0,  0,    0, 262208,   true,     1e6,  131072,   0, 0,    0,    0, 0, 0, {}, 1024},
    // How often a block sees everything, the width of its heads, blocks that share keys and values, whether they are wider, what blocks are told of a token.
    {"tiny-gemma4",    "gemma4",   5,    64,    128,   4,  2,  16,  0,  0,    0,    512,   true,     1e6,    4096,   0, 0,    0,    0, 0, 0, {}, 80,
     2, 32, 2, true, 32},
    {"gemma-4-e2b",    "gemma4",  35,  1536,   6144,   8,  1, 256,  0,  0,    0, 262144,   true,     1e6,  131072,   0, 0,    0,    0, 0, 0, {}, 512,
     5, 512, 20, true, 256},
    {"gemma-4-e4b",    "gemma4",  42,  2560,  10240,   8,  2, 256,  0,  0,    0, 262144,   true,     1e6,  131072,   0, 0,    0,    0, 0, 0, {}, 512,
     6, 512, 18, false, 256},
};
// clang-format on

}  // namespace

std::span<const SynthShape> SynthShapes() { return kShapes; }

Result<SynthShape> FindSynthShape(std::string_view name) {
  const auto* it = std::ranges::find(kShapes, name, &SynthShape::name);
  if (it != std::end(kShapes)) return *it;
  std::vector<std::string_view> names;
  for (const SynthShape& shape : kShapes) names.push_back(shape.name);
  return InvalidArgument(fmt::format("there is no shape '{}'; there are {}", name, fmt::join(names, ", ")));
}

}  // namespace reprise
