#!/bin/sh
# tools/fuzz.sh BUILD_DIR SECONDS: runs each fuzz target of a clang build for that long. Inputs that broke something stay in BUILD_DIR/found.
set -eu
found=$1/found
failed=
for fuzzer in "$1"/*_fuzz; do
  [ -x "$fuzzer" ] || { echo "fuzz: there are no fuzz targets in $1" >&2; exit 1; }
  name=$(basename "$fuzzer")
  corpus=$1/corpus/$name
  mkdir -p "$corpus" "$found"
  seeds=tests/data/fuzz/$name
  [ -d "$seeds" ] || seeds=
  echo "$name: $2 seconds"
  if ! "$fuzzer" -max_total_time="$2" -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 -artifact_prefix="$found/$name." "$corpus" $seeds \
      >"$1/$name.log" 2>&1; then
    tail -40 "$1/$name.log" >&2
    failed="$failed $name"
  fi
done
[ -z "$failed" ] || { echo "fuzz: broken:$failed (inputs in $found)" >&2; exit 1; }
