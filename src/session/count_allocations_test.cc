// This test program counts its allocations.
#include "base/count_allocations.h"
