#!/bin/sh
# What tools/gpu_check.sh measures on a GPU, on the emulator with the smallest model; and that every figure of it reaches the page.
#
#   figures_test.sh DEVICE_TTFT DEVICE_STEPS SOURCE_DIR
set -eu
program=$1
steps=$2
cd "$3"
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
model=tests/data/goldens/qwen35_equal.gguf
"$program" --chunk 32 --runs 1 --steps 4 --suffixes 3,5 "$model" emulated 20 >"$out/ttft-tiny-q8_0.json"
"$program" --chunk 32 --steps 40 --spill 64 "$model" emulated 20 >"$out/spill-tiny-q8_0.json"
"$steps" --replays 1 --turns 1 --position 20 "$model" emulated 1x1 1x3 >"$out/steps-tiny-q8_0.json"
echo '{"shape": "tiny", "skipped": "there is no torch"}' >"$out/transformers-tiny.json"
tools/device_results.py "$out" >"$out/page.md"
missing=0
for wanted in '## On a GPU' 'CUDA kernels, emulated' '| 20 | 3 | ' '| 20 | 5 | ' '| snapshot |' '| fork |' '| 8 |' 'keys and values alone' \
  'moved out of' '| FusedDeltaKernel | 3 |' '| **1 x 3** |' 'there is no torch'; do
  grep -qF -- "$wanted" "$out/page.md" || { echo "not on the page: $wanted"; missing=1; }
done
# What was cut off is there as far as it came.
whole=$(wc -c <"$out/ttft-tiny-q8_0.json")
while [ "$whole" -gt 0 ]; do
  head -c "$whole" "$out/ttft-tiny-q8_0.json" >"$out/ttft-cut$whole.json"
  whole=$((whole - 97))
done
head -c $(($(wc -c <"$out/steps-tiny-q8_0.json") - 200)) "$out/steps-tiny-q8_0.json" >"$out/steps-cut.json"
tools/device_results.py "$out" >"$out/page.md"
for wanted in 'Not whole: the program was ended' '### cut: where' 'is not whole'; do
  grep -qF -- "$wanted" "$out/page.md" || { echo "not on the page of what was cut off: $wanted"; missing=1; }
done
[ "$(grep -cF '| 20 | 3 | ' "$out/page.md")" -gt 3 ] || { echo "rows that were whole are gone"; missing=1; }
rm "$out"/*.json
tools/device_results.py "$out" | grep -q 'Not measured' || { echo "figures out of nothing"; missing=1; }
[ $missing = 0 ] || { cat "$out/page.md"; exit 1; }
