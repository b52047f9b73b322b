#!/bin/sh
# tests/serve/run.sh PROGRAM BUILD [pytest arguments]: the server's tests, with the official Python clients. They live in a virtual environment
# in the build folder, which is made once and needs a network then. Where it cannot be made the tests are skipped, which is exit status 77.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
program=$1
environment=$2/serve-venv
shift 2

if ! cmp -s "$here/requirements.txt" "$environment/installed.txt"; then
  if ! { python3 -m venv "$environment" && "$environment/bin/pip" install -q --disable-pip-version-check -r "$here/requirements.txt"; } >"$environment.log" 2>&1; then
    echo "SKIPPED: the server's tests did NOT run. The Python clients cannot be installed into $environment:"
    grep -iE '^error|no matching|not available' "$environment.log" | tail -3
    exit 77
  fi
  cp "$here/requirements.txt" "$environment/installed.txt"
fi
exec "$environment/bin/python" -m pytest -q -p no:cacheprovider --program "$program" "$@" "$here"
