// Several futures of one past: a prompt is read once, forked, and decoded as one batch; then the session goes back and takes another turn.
//
//   futures MODEL.gguf [PROMPT]
#include <array>
#include <cstdio>
#include <string>
#include <vector>

#include "reprise/model.h"
#include "reprise/session.h"

namespace {

constexpr int kFutures = 4;
constexpr int kTokens = 24;

reprise::Status Futures(const char* path, const std::string& prompt) {
  REPRISE_ASSIGN_OR_RETURN(const reprise::Model model, reprise::Model::Load(path, {.context = 1024, .lanes = kFutures + 1}));
  REPRISE_ASSIGN_OR_RETURN(reprise::Session session, model.NewSession());
  REPRISE_ASSIGN_OR_RETURN(const reprise::PrefillReport report, session.Prefill(prompt));
  std::printf("read %d tokens in %.1f ms\n", report.computed, report.seconds * 1e3);

  // Nothing is copied: the four lanes share the prompt's rows and go their own ways from there.
  const reprise::Capsule here = session.Snapshot();
  REPRISE_ASSIGN_OR_RETURN(std::vector<reprise::Session> futures, session.Fork(here, kFutures));
  std::array<reprise::Session*, kFutures> batch{};
  std::array<std::string, kFutures> texts;
  for (int i = 0; i < kFutures; ++i) {
    REPRISE_RETURN_IF_ERROR(futures[i].SetSampling({.temperature = 0.9F, .top_p = 0.95F, .seed = static_cast<uint64_t>(i)}));
    batch[i] = &futures[i];
  }
  for (int step = 0; step < kTokens; ++step) {
    std::array<reprise::Token, kFutures> tokens;
    REPRISE_RETURN_IF_ERROR(reprise::Session::NextBatch(batch, tokens));  // weights are read once for all of them
    for (int i = 0; i < kFutures; ++i) texts[i] += tokens[i].text;
  }
  for (int i = 0; i < kFutures; ++i) std::printf("\n%d. %s%s\n", i + 1, prompt.c_str(), texts[i].c_str());

  // The first future takes its last ten tokens back, exactly, and draws others.
  REPRISE_RETURN_IF_ERROR(futures[0].Rollback(10));
  REPRISE_RETURN_IF_ERROR(futures[0].SetSampling({.temperature = 0.9F, .top_p = 0.95F, .seed = 99}));
  REPRISE_ASSIGN_OR_RETURN(const std::string kept, model.Detokenize(futures[0].tokens()));
  std::printf("\nTaken back to:\n%s", kept.c_str());
  return futures[0]
      .Generate(10,
                [](const reprise::Token& token) {
                  std::printf("%.*s", static_cast<int>(token.text.size()), token.text.data());
                  return true;
                })
      .status();
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) {
    std::fprintf(stderr, "usage: %s MODEL.gguf [PROMPT]\n", argv[0]);
    return 2;
  }
  const reprise::Status status = Futures(argv[1], argc > 2 ? argv[2] : "It was a dark evening in October, and");
  std::printf("\n");
  if (!status.ok()) std::fprintf(stderr, "%s\n", status.message().c_str());
  return status.ok() ? 0 : 1;
}
