#include "reprise/store.h"

namespace reprise {

std::string_view TierName(Tier tier) {
  switch (tier) {
    case Tier::kNone: return "none";
    case Tier::kLive: return "live";
    case Tier::kMemory: return "memory";
    case Tier::kDisk: return "disk";
  }
  return "unknown";
}

std::string_view KeepName(Keep keep) {
  switch (keep) {
    case Keep::kRequested: return "requested";
    case Keep::kSystem: return "system";
    case Keep::kTurn: return "turn";
    case Keep::kPrompt: return "prompt";
    case Keep::kReply: return "reply";
    case Keep::kStop: return "stop";
    case Keep::kDivergence: return "divergence";
    case Keep::kStride: return "stride";
  }
  return "unknown";
}

}  // namespace reprise
