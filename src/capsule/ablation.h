// Ablation: capsules with some of their state left out, to see whether what follows diverges. If it does not, that state was not needed.
//
// The copies own all their memory (blocks and extents of their own), so the capsule they were made from may be dropped; they are ordinary
// capsules in every other way. These calls copy every byte: they are for `verify` and for demonstrations, not for the hot path.
#pragma once

#include <span>
#include <string>

#include "reprise/capsule.h"
#include "reprise/status.h"

namespace reprise {

// A copy in which each named recurrent state is as it was at position 0, and each row of a named append-only state is zero. kNotFound names a
// state that the capsule does not have; kExhausted when there is no room for a copy.
Result<Capsule> WithoutStates(const Capsule& capsule, std::span<const std::string> names);

// A copy as a cache of keys and values would keep it: every append-only state and all host state, but each recurrent state of the device as
// it was at position 0.
Result<Capsule> RowsOnly(const Capsule& capsule);

}  // namespace reprise
