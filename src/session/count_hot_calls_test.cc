// This test program counts its allocations and locks.
#include "base/count_hot_calls.h"
