/* A capsule in C: read a prompt, snapshot, go on; restore, go on again, and see the same tokens. Then the same across bytes, as another
 * process or machine would.
 *
 *   capsule MODEL.gguf [PROMPT]
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "reprise/reprise.h"

#define TOKENS 24

static void check(reprise_status status, const char* what) {
  if (status == REPRISE_OK) return;
  fprintf(stderr, "%s: %s: %s\n", what, reprise_status_name(status), reprise_last_error());
  exit(1);
}

/* Prints TOKENS tokens as they are chosen, and keeps their ids. */
static void go_on(reprise_session* session, int32_t* ids) {
  int i;
  for (i = 0; i < TOKENS; ++i) {
    reprise_token token;
    check(reprise_next(session, &token), "choosing a token");
    ids[i] = token.id;
    fwrite(token.text, 1, token.text_bytes, stdout);
  }
  putchar('\n');
}

int main(int argc, char** argv) {
  const char* prompt = argc > 2 ? argv[2] : "It was a dark evening in October, and";
  reprise_model_options options;
  reprise_sampling sampling;
  reprise_prefill_report report;
  reprise_model* model = NULL;
  reprise_session* session = NULL;
  reprise_capsule* here = NULL;
  uint8_t* bytes = NULL;
  size_t size = 0;
  int32_t first[TOKENS], again[TOKENS], moved[TOKENS];
  int same;

  if (argc < 2) {
    fprintf(stderr, "usage: %s MODEL.gguf [PROMPT]\n", argv[0]);
    return 2;
  }

  check(reprise_model_options_init(&options, sizeof(options)), "options");
  options.context = 1024;
  check(reprise_model_load(argv[1], &options, &model), "loading the model");
  check(reprise_session_new(model, &session), "making a session");
  check(reprise_capsule_new(&here), "making a capsule");

  check(reprise_sampling_init(&sampling, sizeof(sampling)), "sampling");
  sampling.temperature = 0.8f;
  sampling.top_k = 40;
  sampling.seed = 7;
  check(reprise_set_sampling(session, &sampling), "setting how tokens are chosen");
  check(reprise_prefill_text(session, prompt, strlen(prompt), &report), "reading the prompt");

  /* Everything from here on can be had again: keys and values, recurrent memory, the sampler's generator. */
  check(reprise_snapshot(session, here), "taking a capsule");
  printf("A capsule at position %ld.\n\nGoing on:        %s", (long)reprise_capsule_position(here), prompt);
  go_on(session, first);

  check(reprise_restore(session, here), "restoring");
  printf("Restored:        %s", prompt);
  go_on(session, again);

  check(reprise_capsule_serialize(session, here, &bytes, &size), "writing the capsule");
  check(reprise_capsule_import(model, bytes, size, here), "reading the capsule");
  reprise_bytes_free(bytes);
  check(reprise_restore(session, here), "restoring");
  printf("Moved as bytes:  %s", prompt);
  go_on(session, moved);

  same = memcmp(first, again, sizeof(first)) == 0 && memcmp(first, moved, sizeof(first)) == 0;
  printf("\n%s (%lu bytes moved)\n", same ? "The same tokens, all three times." : "The tokens differ: please report this.",
         (unsigned long)size);

  reprise_capsule_free(here);
  reprise_session_free(session);
  reprise_model_free(model);
  return same ? 0 : 1;
}
