#!/bin/sh
# Installs the peer of `reprise bench --peer llama.cpp` into the project's virtual environment, .venv/.
set -eu
cd "$(dirname "$0")/.."
[ -x .venv/bin/python ] || python3 -m venv .venv || {
  echo "install_peer: no virtual environment could be made; on Debian the package python3-venv must be installed" >&2
  exit 1
}
# Built from source where there is no wheel: some minutes, and a compiler is needed.
.venv/bin/python -m pip install --quiet --disable-pip-version-check "llama-cpp-python==0.3.36" numpy
.venv/bin/python -c "import llama_cpp; print('llama-cpp-python', llama_cpp.__version__, 'is installed')"
