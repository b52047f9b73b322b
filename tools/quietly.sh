#!/bin/sh
# tools/quietly.sh COMMAND...: runs it and shows its output only if it fails.
log=$(mktemp) || exit 1
trap 'rm -f "$log"' EXIT
"$@" >"$log" 2>&1
status=$?
[ $status = 0 ] || cat "$log" >&2
exit $status
