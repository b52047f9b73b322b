#!/bin/sh
# tests/python/run.sh BUILD CMAKE [pytest arguments]: the Python package, installed by pip as a user would, and its tests. The library that it links is
# the one of BUILD, installed there; all else that the package needs is made anew. The environment lives in the build folder, is made once, and needs a
# network then: where it cannot be made the tests are skipped, which is exit status 77.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
build=$1
cmake=$2
shift 2
environment=$build/python-venv
log=$build/python.log

if ! cmp -s "$here/requirements.txt" "$environment/installed.txt"; then
  if ! { python3 -m venv "$environment" && "$environment/bin/pip" install -q --disable-pip-version-check -r "$here/requirements.txt"; } >"$log" 2>&1; then
    echo "SKIPPED: the Python package's tests did NOT run. What builds it cannot be installed into $environment:"
    grep -iE '^error|no matching|not available' "$log" | tail -3
    exit 77
  fi
  cp "$here/requirements.txt" "$environment/installed.txt"
fi

"$cmake" --install "$build" --prefix "$build/python-prefix" >"$log" 2>&1 || { cat "$log"; exit 1; }
PATH=$(dirname "$cmake"):$PATH "$environment/bin/pip" install --disable-pip-version-check --no-build-isolation --no-deps --force-reinstall \
  -C build-dir="$build/python" -C cmake.define.REPRISE_INSTALLED=ON -C cmake.define.CMAKE_PREFIX_PATH="$build/python-prefix" \
  "$here/../.." >"$log" 2>&1 || { cat "$log"; exit 1; }
# From here, so that it is the installed package that is imported.
cd "$here"
exec "$environment/bin/python" -m pytest -q -p no:cacheprovider --program "$build/reprise" "$@" .
