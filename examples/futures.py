"""Several futures of one past: a prompt is read once, forked, and decoded as one batch; then one future goes back and takes another turn.

    python examples/futures.py [MODEL.gguf]
"""

import sys

import reprise

FUTURES = 4
PROMPT = "It was a dark evening in October, and"

model = reprise.Model(sys.argv[1] if len(sys.argv) > 1 else None, context=1024, lanes=FUTURES + 1)
session = model.session()
report = session.prefill(PROMPT)
print(f"read {report.computed} tokens in {report.seconds * 1e3:.1f} ms")

here = session.snapshot()
futures = session.fork(here, FUTURES)  # nothing is copied: they share the prompt's rows and go their own ways from there
for seed, future in enumerate(futures):
    future.set_sampling(reprise.Sampling(temperature=0.9, top_p=0.95, seed=seed))
texts = [PROMPT] * FUTURES
for _ in range(24):
    for i, token in enumerate(reprise.next_batch(futures)):  # weights are read once for all of them
        texts[i] += token.text
for i, text in enumerate(texts):
    print(f"\n{i + 1}. {text}")

# The first future takes its last ten tokens back, exactly, and draws others.
futures[0].rollback(10)
futures[0].set_sampling(reprise.Sampling(temperature=0.9, top_p=0.95, seed=99))
print("\nTaken back to:\n" + model.detokenize(futures[0].tokens), end="")
for token in futures[0].generate(10):
    print(token.text, end="")
print()
