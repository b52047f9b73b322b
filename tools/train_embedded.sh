#!/bin/sh
# Makes models/reprise-austen.gguf and models/prompt.txt anew: corpus, vocabulary, training, export, checks, figures.
# Usage: tools/train_embedded.sh [WORK]     WORK (default .cache/train) keeps the corpus, the log and the checkpoints;
# a run that was stopped goes on from its last checkpoint. One free core, under an hour.
set -eu
cd "$(dirname "$0")/.."
work=${1:-.cache/train}
root=$PWD
mkdir -p "$work"
work=$(cd "$work" && pwd)

if ! Rscript -e 'library(janeaustenr)' >/dev/null 2>&1; then
  apt-get install --yes --no-install-recommends r-cran-janeaustenr python3-venv
fi
python=$work/venv/bin/python
if ! [ -x "$python" ]; then
  python3 -m venv "$work/venv"
  "$work/venv/bin/pip" install --requirement tools/train_embedded/requirements.txt
fi

# Training frees and takes the same large tensors at every step. Kept out of mmap they are not paged in anew each
# time, which is worth about a tenth of the run.
export MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=100000000000 MALLOC_TOP_PAD_=1000000000

step() {
  name=$1
  shift
  (cd "$root/tools" && "$python" -m "train_embedded.$name" "$@")
}
step delta_rule
step corpus --work "$work" --prompt "$root/models/prompt.txt"
step vocabulary --work "$work"
step train --work "$work"
step gguf_file --work "$work" --out "$root/models/reprise-austen.gguf"
step compare_hf --work "$work" --model "$root/models/reprise-austen.gguf"
step evaluate --work "$work" --model "$root/models/reprise-austen.gguf"
