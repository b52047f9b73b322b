// Uses the installed library from outside: enough of it that a missing layer or dependency fails to link.
#include <cstdio>

#include "reprise/fingerprint.h"
#include "reprise/layout.h"
#include "reprise/sampling.h"

int main() {
  reprise::StateLayout layout;
  layout.Recurrent("policy.lstm", reprise::ElementType::kF32, {2, 256});
  layout.Append("actions", reprise::ElementType::kF32, {16, 7});
  if (!layout.Check().ok() || layout.Find("actions") != 1) return 1;

  const reprise::SamplingOptions sampling{.temperature = 0.7f, .top_k = 20, .stop = {"</s>"}};
  if (!sampling.Check().ok()) return 1;

  reprise::FingerprintBuilder builder;
  const reprise::Fingerprint fingerprint = builder.Add("weights", "none").Finish();
  std::printf("%zu states, fingerprint %s\n", layout.states().size(), fingerprint.ShortHex().c_str());
  return 0;
}
