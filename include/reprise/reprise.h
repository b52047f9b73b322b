/* Reprise for C: load a model, run it, and snapshot, restore, fork, roll back and move everything that it remembers.
 *
 * The rules
 *
 * Handles. reprise_model, reprise_session and reprise_capsule are opaque. Whoever gets one through an out-parameter owns it and gives it to
 * its _free function once; NULL may be given to any of them. They may be freed in any order: a session and a capsule keep what they need of
 * their model alive.
 *
 * Memory. Arrays and texts that are passed in are read during the call and not kept. What a call lends (a token's text, logits, an error's
 * message) it names, and says how long it stays. What is to be freed has a function of its own; free() is never right.
 *
 * Errors. A fallible call returns REPRISE_OK or another reprise_status, and then reprise_last_error() is one sentence that says what was
 * wrong. After an error out-parameters are as they were (unless said otherwise), and the live state stands at the last boundary that it
 * reached. NULL where something is needed, counts and sizes that cannot be: an error, not a crash. A handle that was freed, or never was
 * one, is undefined behaviour. No call throws, exits, prints or raises a signal.
 *
 * Threads. A model and all its sessions are used by one thread at a time. Beside a running session these are safe: reprise_tokenize,
 * reprise_detokenize, reprise_is_end_of_generation, reprise_model_info_get, and freeing capsules. The message of reprise_last_error()
 * belongs to the calling thread.
 *
 * Hot path. These never allocate, lock, or touch the file system, unless they fail: reprise_next, reprise_next_batch, reprise_flush,
 * reprise_snapshot, reprise_restore, reprise_logits, reprise_position, reprise_pending_token. Everything else may. To fork without
 * allocation, make sessions ahead and reprise_restore() the same capsule into each.
 *
 * Versions. Structs that may grow begin with `size`: their _init function sets it with all defaults, and the library reads only what lies
 * within it. So a program compiled against an older header runs with a newer library. Values of enums never change.
 *
 * C99 or later; C++ programs find an interface of their own in reprise/session.h.
 */
#ifndef REPRISE_REPRISE_H_
#define REPRISE_REPRISE_H_

#include <stddef.h>
#include <stdint.h>

/* NOLINTBEGIN(readability-identifier-naming): names as C has them */

#if defined(__GNUC__)
#define REPRISE_API __attribute__((visibility("default")))
#else
#define REPRISE_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

typedef struct reprise_model reprise_model;
typedef struct reprise_session reprise_session;
typedef struct reprise_capsule reprise_capsule;

typedef enum reprise_status {
  REPRISE_OK = 0,
  REPRISE_INVALID_ARGUMENT = 1, /* asked for something that can never work */
  REPRISE_NOT_FOUND = 2,        /* a file, name or capsule is not there */
  REPRISE_CORRUPT = 3,          /* bytes are damaged, truncated or lie about themselves */
  REPRISE_MISMATCH = 4,         /* sound bytes of another model, layout or version */
  REPRISE_EXHAUSTED = 5,        /* a pool, budget, buffer or context is full */
  REPRISE_UNSUPPORTED = 6,      /* a known thing that this build cannot do */
  REPRISE_IO = 7,               /* the operating system refused */
  REPRISE_CANCELLED = 8,        /* stopped on request; what was committed stays committed */
  REPRISE_INTERNAL = 9          /* a defect of Reprise itself */
} reprise_status;

/* "corrupt", "mismatch" ...; static. */
REPRISE_API const char* reprise_status_name(reprise_status status);
/* What the last call of this thread that failed said; "" before any did. Valid until the next one fails. */
REPRISE_API const char* reprise_last_error(void);
/* "0.1.0"; static. */
REPRISE_API const char* reprise_version(void);

/* ---- Models ---- */

typedef enum reprise_kv {
  REPRISE_KV_AUTO = 0, /* float32 for a model whose weights are float32, float16 for others */
  REPRISE_KV_F16 = 1,
  REPRISE_KV_F32 = 2,
  REPRISE_KV_Q8_0 = 3 /* blocks of 32 int8 under a half-precision scale, for heads whose width is a multiple of 32 */
} reprise_kv;

typedef struct reprise_model_options {
  size_t size;
  int32_t threads;                               /* 0: one for each processor that this process may use */
  int32_t context;                               /* most positions of a session; 0: what the model was made for, at most 32,768 */
  int32_t lanes;                                 /* sessions that can be live at once */
  int32_t capsules;                              /* recurrent blocks kept for capsules, beside the sessions' own */
  int32_t chunk;                                 /* most tokens of one step; results do not depend on it */
  int32_t pin_threads;                           /* not 0: tie each thread to a processor of its own */
  int32_t kv;                                    /* how keys and values are kept: a reprise_kv; part of the fingerprint */
  uint64_t state_budget;                         /* bytes of state in all; 0: half of this machine's memory */
  const char* instruction_set;                   /* NULL: the best this processor has */
  const char* device;                            /* what computes: NULL or "cpu", "cuda", "cuda:1" */
  const char* store;                             /* directory where capsules outlive the process; NULL: none. Ends with the model */
  uint64_t store_disk;                           /* most bytes of that directory; 0: 8 GiB */
  void (*progress)(double fraction, void* user); /* NULL, or called from the loading thread */
  void* user;                                    /* handed to progress */
  uint64_t spill_budget; /* bytes of pinned host memory for state that a device has no room for; 0: none. Refused for the CPU */
} reprise_model_options;

/* `size` is sizeof(reprise_model_options), so that an older program's shorter struct is filled only as far as it goes. */
REPRISE_API reprise_status reprise_model_options_init(reprise_model_options* options, size_t size);

/* A GGUF file. `options` may be NULL for the defaults. */
REPRISE_API reprise_status reprise_model_load(const char* path, const reprise_model_options* options, reprise_model** model);
REPRISE_API void reprise_model_free(reprise_model* model);

typedef struct reprise_model_info {
  size_t size;
  int32_t vocabulary;
  int32_t context; /* most positions of a session here */
  int32_t lanes;
  int32_t layers;
  uint64_t parameters;
  uint8_t fingerprint[32]; /* capsules are exchanged between models of the same one */
  const char* name;        /* these three live as long as the model; the first is as the file has it, in whatever bytes */
  const char* architecture;
  const char* backend;
} reprise_model_info;

/* The caller sets info->size to sizeof(reprise_model_info); what lies within it is filled. */
REPRISE_API reprise_status reprise_model_info_get(const reprise_model* model, reprise_model_info* info);

/* ---- Text and tokens ----
 * Both write at most `capacity` elements and always set *count to how many there are in all. REPRISE_EXHAUSTED when they do not fit: then
 * nothing was written, and a second call with room for *count will do. `capacity` 0 with a NULL buffer asks for the count alone, and is
 * REPRISE_EXHAUSTED unless the count is 0.
 */

/* The text's bytes; a NUL among them is a character like others. Control tokens written in it become those tokens only if parse_special is
 * not 0: never for text from people you do not trust. */
REPRISE_API reprise_status reprise_tokenize(const reprise_model* model, const char* text, size_t text_bytes, int parse_special,
                                            int32_t* tokens, size_t capacity, size_t* count);
/* The tokens' bytes, perhaps ending in part of a character. No NUL is added. */
REPRISE_API reprise_status reprise_detokenize(const reprise_model* model, const int32_t* tokens, size_t token_count, char* text,
                                              size_t capacity, size_t* count);
/* 1 when a model that says this token has finished, else 0 (also for NULL). */
REPRISE_API int reprise_is_end_of_generation(const reprise_model* model, int32_t token);

/* ---- Sessions ----
 * A session is one line of thought. Between any two calls it stands at a committed boundary.
 */

/* REPRISE_EXHAUSTED when as many sessions are live as the model has lanes. */
REPRISE_API reprise_status reprise_session_new(const reprise_model* model, reprise_session** session);
REPRISE_API void reprise_session_free(reprise_session* session);

/* Tokens in the context, all of them committed; -1 for NULL. */
REPRISE_API int32_t reprise_position(const reprise_session* session);
/* The token that was chosen and not yet fed to the model, or -1. */
REPRISE_API int32_t reprise_pending_token(const reprise_session* session);
/* The context's tokens; capacity and count as for reprise_tokenize. */
REPRISE_API reprise_status reprise_context(const reprise_session* session, int32_t* tokens, size_t capacity, size_t* count);

typedef struct reprise_prefill_report {
  int32_t reused; /* tokens of the prompt that were already computed, here or in the store */
  int32_t computed;
  double seconds;
} reprise_prefill_report;

/* Makes the context exactly this prompt, computing only what the session does not already hold. `report` may be NULL. To be able to stop a
 * long prompt on the way, give its first piece here and the others to reprise_append: results do not depend on the cuts. */
REPRISE_API reprise_status reprise_prefill(reprise_session* session, const int32_t* tokens, size_t count, reprise_prefill_report* report);
REPRISE_API reprise_status reprise_prefill_text(reprise_session* session, const char* text, size_t text_bytes,
                                                reprise_prefill_report* report);

typedef struct reprise_message {
  const char* role;    /* "system", "user" or "assistant" */
  const char* content; /* UTF-8; both end with a NUL */
} reprise_message;

/* Whether an answer begins with thoughts, where the model knows such. */
typedef enum reprise_think { REPRISE_THINK_AUTO = 0 /* as its format has it */, REPRISE_THINK_OFF = 1, REPRISE_THINK_ON = 2 } reprise_think;

/* Messages as the model was trained to read them, up to the opening of the assistant's answer; `think` is a reprise_think. The format is recognised
 * by the model's chat template. Only its own markers become control tokens: no content ends its turn or begins another. The first writes the
 * tokens, with capacity and count as for reprise_tokenize; the second prefills them, and with a store keeps capsules where later prompts of the
 * chat are likely to part from this one. REPRISE_UNSUPPORTED where the format is none that is known. */
REPRISE_API reprise_status reprise_chat_tokens(const reprise_model* model, const reprise_message* messages, size_t message_count,
                                               int32_t think, int32_t* tokens, size_t capacity, size_t* count);
REPRISE_API reprise_status reprise_prefill_chat(reprise_session* session, const reprise_message* messages, size_t message_count,
                                                int32_t think, reprise_prefill_report* report);

/* With a store, prefilling finds what any session of any process has left there: the ends of prompts, points on the way through long ones, and
 * the ends of replies, where this was called. Writing happens behind; reprise_store_flush waits until all that is worth a place there is on the
 * disk. Without a store the first does nothing, and the second is REPRISE_UNSUPPORTED. */
REPRISE_API reprise_status reprise_end_reply(reprise_session* session);
REPRISE_API reprise_status reprise_store_flush(const reprise_model* model);
/* Adds to the context. A token chosen but not yet fed is fed first. */
REPRISE_API reprise_status reprise_append(reprise_session* session, const int32_t* tokens, size_t count);

typedef struct reprise_sampling {
  size_t size;
  float temperature;        /* 0: greedy */
  int32_t top_k;            /* 0 keeps all */
  float top_p;              /* 1 keeps all */
  float min_p;              /* 0 keeps all */
  float repetition_penalty; /* 1 is off */
  float presence_penalty;   /* 0 is off */
  float frequency_penalty;  /* 0 is off */
  int32_t penalty_window;   /* the last tokens that penalties look at; -1: all */
  uint64_t seed;
  const char* const* stop; /* NUL-terminated UTF-8, none of them empty; NULL when stop_count is 0 */
  size_t stop_count;       /* at most 16 */
  const char* json_schema; /* what the text must be, from here on; NULL: any text. reprise/grammar.h says what is understood */
} reprise_sampling;

/* `size` is sizeof(reprise_sampling). The defaults are greedy, without penalties or stop strings. */
REPRISE_API reprise_status reprise_sampling_init(reprise_sampling* sampling, size_t size);
/* How tokens are chosen from here on. Seeds the generator. It is part of what a capsule holds. */
REPRISE_API reprise_status reprise_set_sampling(reprise_session* session, const reprise_sampling* sampling);

typedef enum reprise_finish {
  REPRISE_FINISH_NONE = 0,
  REPRISE_FINISH_END_OF_TEXT = 1,
  REPRISE_FINISH_STOP_STRING = 2,
  REPRISE_FINISH_LENGTH = 3,
  REPRISE_FINISH_CANCELLED = 4,
  REPRISE_FINISH_COMPLETE = 5 /* the text is all that the JSON schema asks for */
} reprise_finish;

typedef struct reprise_token {
  int32_t id;
  int32_t finish;   /* a reprise_finish: NONE, END_OF_TEXT or STOP_STRING */
  const char* text; /* what may be shown now: whole UTF-8 characters, not NUL-terminated; valid until the session's next call */
  size_t text_bytes;
} reprise_token;

/* Chooses the next token. The first call after a prompt chooses from logits that are already there; each later one feeds the token before.
 */
REPRISE_API reprise_status reprise_next(reprise_session* session, reprise_token* token);
/* The same for `count` different sessions of one model, decoded as one batch; tokens[i] is of sessions[i]. All of them choose or none. */
REPRISE_API reprise_status reprise_next_batch(reprise_session* const* sessions, size_t count, reprise_token* tokens);
/* One token after another, up to `max_tokens` of them, each handed to `emit` (whose token is valid until it returns) until the answer ends or
 * `emit` returns 0. *finish (which may be NULL) tells why it ended: CANCELLED when `emit` said so. The session stands at a committed boundary
 * then, and what follows is what would have followed. */
REPRISE_API reprise_status reprise_generate(reprise_session* session, int32_t max_tokens,
                                            int (*emit)(const reprise_token* token, void* user), void* user, reprise_finish* finish);
/* Text still held back (it might have begun a stop string, or half a character), once nothing more will follow. Valid until the session's
 * next call. */
REPRISE_API reprise_status reprise_flush(reprise_session* session, const char** text, size_t* text_bytes);
/* The boundary's logits, one for each token of the vocabulary; valid until the next call on any session of the model. */
REPRISE_API reprise_status reprise_logits(reprise_session* session, const float** logits, size_t* count);

/* ---- Capsules ----
 * A capsule handle is a place for a snapshot: make it once, fill it as often as you like. Filling it lets go of what it held. What it holds
 * never changes otherwise, whatever its session does next.
 */

/* An empty capsule. */
REPRISE_API reprise_status reprise_capsule_new(reprise_capsule** capsule);
REPRISE_API void reprise_capsule_free(reprise_capsule* capsule);
/* The position it was taken at; -1 for NULL or an empty capsule. */
REPRISE_API int64_t reprise_capsule_position(const reprise_capsule* capsule);

/* Everything that the session remembers, by reference: microseconds, at any length of history. */
REPRISE_API reprise_status reprise_snapshot(reprise_session* session, reprise_capsule* capsule);
/* The same, bit for bit: the tokens that follow are those that would have followed. REPRISE_MISMATCH for a capsule of another model. */
REPRISE_API reprise_status reprise_restore(reprise_session* session, const reprise_capsule* capsule);
/* `count` new sessions at the capsule, written to sessions[0 .. count - 1]; all of them or none. */
REPRISE_API reprise_status reprise_fork(const reprise_session* session, const reprise_capsule* capsule, size_t count,
                                        reprise_session** sessions);
/* As if the last `count` tokens had not been, exactly. REPRISE_INVALID_ARGUMENT when that boundary is no longer in reach. */
REPRISE_API reprise_status reprise_rollback(reprise_session* session, int32_t count);

/* The capsule as bytes (docs/capsule_format.md), to be kept or sent. `session` is any session of its model. The bytes go back to
 * reprise_bytes_free. */
REPRISE_API reprise_status reprise_capsule_serialize(const reprise_session* session, const reprise_capsule* capsule, uint8_t** bytes,
                                                     size_t* size);
REPRISE_API void reprise_bytes_free(uint8_t* bytes);
/* Fills `capsule` from bytes that reprise_capsule_serialize wrote, here or anywhere. They are refused, and `capsule` keeps what it held,
 * unless whole and taken on a model of the same fingerprint. */
REPRISE_API reprise_status reprise_capsule_import(const reprise_model* model, const uint8_t* bytes, size_t size, reprise_capsule* capsule);

#ifdef __cplusplus
} /* extern "C" */
#endif

/* NOLINTEND(readability-identifier-naming) */

#endif /* REPRISE_REPRISE_H_ */
