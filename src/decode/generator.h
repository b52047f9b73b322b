// Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011): random numbers that are a function of a key and a
// counter. All of the generator's state is two numbers, every value of them is valid, and a device can draw the same stream.
#pragma once

#include <array>
#include <cstdint>

namespace reprise {

using PhiloxBlock = std::array<uint32_t, 4>;
PhiloxBlock Philox4x32(PhiloxBlock counter, std::array<uint32_t, 2> key);

// A POD, so that it can be a state.
struct Generator {
  uint64_t seed = 0;
  uint64_t drawn = 0;

  double Uniform();  // in [0, 1), a multiple of 2^-53
};

}  // namespace reprise
