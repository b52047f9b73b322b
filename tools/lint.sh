#!/bin/sh
# tools/lint.sh BUILD_DIR: the format of every source file, and clang-tidy over src/ with .clang-tidy. Changes nothing; fails on any finding.
set -eu
status=0

if ! git ls-files '*.h' '*.cc' '*.c' | xargs clang-format --dry-run -Werror >"$1/format.log" 2>&1; then
  grep -oE '^[^ :]+:[0-9]+' "$1/format.log" | cut -d: -f1 | sort | uniq -c | sort -rn >&2
  echo 'lint: these files are not formatted (lines each); `make format` does it' >&2
  status=1
fi

# One file a process, as many processes as there are cores; only what has a compile command can be looked at. Tests are left out: what the
# analyser finds there lies within the macros of the test libraries, and it takes longer than all the rest.
git ls-files 'src/*.cc' | grep -v '_test\.cc$' | while read -r file; do
  if grep -q "/$file\"" "$1/compile_commands.json"; then echo "$file"; fi
done | xargs -P "$(nproc)" -n 1 clang-tidy --quiet -p "$1" >"$1/tidy.log" 2>"$1/tidy.err" || status=1
grep -E '(warning|error): ' "$1/tidy.log" | sort -u >&2 || true

[ $status = 0 ] || { echo 'lint: failed' >&2; exit 1; }
echo 'lint: clean'
