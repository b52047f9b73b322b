// Rotary positions as files tell them: plain, scaled alike ("linear"), or by YaRN (arXiv 2309.00071), whose slow pairs are scaled, whose fast ones are
// not, and between which there is a ramp.
#pragma once

#include "models/loader.h"

namespace reprise {

struct RopeReading {
  double base = 10000.0;      // where the file has none
  bool whole_numbers = true;  // the ramp of YaRN begins and ends at whole pairs, as is usual
};

// Of the first `dims` values of a head: the numbers under `rope.freq_base` and `rope.scaling`, checked.
RopeSpec ReadRope(Loader& loader, int dims, const RopeReading& reading = {});
// Of heads that see a window alone, which have a base of their own and are never scaled.
RopeSpec ReadWindowRope(Loader& loader, int dims);
// The divisors of the frequencies that a file gives pair by pair, where it does: Llama 3's, and Gemma 4's, of which those of slow pairs are as good as
// infinite.
void TakeDivisors(Loader& loader, RopeSpec& rope);

}  // namespace reprise
