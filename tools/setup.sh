#!/bin/sh
# Installs what building Reprise needs and is missing, with apt, where that is possible. When nothing is missing it touches nothing and needs
# no network. When something is missing and cannot be installed it says so in one line and fails.
#
#   tools/setup.sh build|test|fuzz|lint|arm|pull|python ...     each purpose includes what it builds on
set -eu

# purpose  Debian 12 package  how to see that it is there                  what it is for
needs='
build      g++                command:g++                                  # C++20
build      cmake              command:cmake
build      ninja-build        command:ninja
build      pkg-config         command:pkg-config
build      libhwy-dev         module:libhwy                                # portable SIMD
build      libfmt-dev         module:fmt                                   # text formatting
build      libcli11-dev       module:CLI11                                 # the command line
build      nlohmann-json3-dev module:nlohmann_json                         # JSON
build      libsodium-dev      module:libsodium                             # fingerprints and signatures
build      libsqlite3-dev     module:sqlite3                                # the index of the store
build      libxxhash-dev      module:libxxhash                             # checksums
build      libutf8proc-dev    module:libutf8proc                           # Unicode classes and normal forms
test       libgtest-dev       module:gtest                                 # unit tests
test       libpcre2-dev       module:libpcre2-8                            # the expressions that pre-tokenisers are checked against
test       librapidcheck-dev  header:rapidcheck.h                          # property tests
test       libbenchmark-dev   module:benchmark                             # benchmarks
test       python3-venv       python:ensurepip                             # the clients that the server is tested with
test       python3-dev        python-header                                # the Python package
fuzz       clang              command:clang++
fuzz       libclang-rt-14-dev clang-runtime                                # libFuzzer and its sanitizers
arm        g++-aarch64-linux-gnu command:aarch64-linux-gnu-g++
arm        qemu-user-static   command:qemu-aarch64-static
arm        googletest         source:/usr/src/googletest                   # as sources, to be compiled for ARM
lint       clang-format       command:clang-format
lint       clang-tidy         command:clang-tidy
pull       python3-venv       python:ensurepip                             # reprise pull
python     python3-venv       python:ensurepip                             # pip install .
python     python3-dev        python-header
'

present() {
  case $1 in
    command:*) command -v "${1#*:}" >/dev/null 2>&1 ;;
    module:*) pkg-config --exists "${1#*:}" 2>/dev/null ;;
    header:*) [ -e "/usr/include/${1#*:}" ] || [ -e "/usr/local/include/${1#*:}" ] ;;
    source:*) [ -d "${1#*:}" ] ;;
    python-header) python3 -c 'import os.path, sysconfig; open(os.path.join(sysconfig.get_path("include"), "Python.h"))' >/dev/null 2>&1 ;;
    python:*) python3 -c "import venv, ${1#*:}" >/dev/null 2>&1 ;;
    clang-runtime) [ -e "$(clang++ -print-file-name=libclang_rt.fuzzer-x86_64.a 2>/dev/null)" ] ||
                   [ -e "$(clang++ -print-file-name=libclang_rt.fuzzer-aarch64.a 2>/dev/null)" ] ;;
  esac
}

wanted=" "
for purpose in "$@"; do
  case $purpose in
    build|pull) wanted="$wanted$purpose " ;;
    test|python) wanted="${wanted}build $purpose " ;;
    fuzz|lint|arm) wanted="${wanted}build test $purpose " ;;
    *) echo "usage: tools/setup.sh build|test|fuzz|lint|arm|pull|python ..." >&2; exit 2 ;;
  esac
done

list_missing() {
  echo "$needs" | while read -r purpose package probe _; do
    case "$wanted" in *" $purpose "*) present "$probe" || printf '%s ' "$package" ;; esac
  done
}

missing=$(list_missing)
[ -n "$missing" ] || exit 0

log=$(mktemp)
trap 'rm -f "$log"' EXIT
as_root=none
if command -v apt-get >/dev/null 2>&1; then
  if [ "$(id -u)" = 0 ]; then as_root=
  elif sudo -n true >/dev/null 2>&1; then as_root='sudo -n'
  fi
fi
if [ "$as_root" != none ]; then
  echo "Installing $missing"
  # The package lists may be absent, as in a container, or too old to name files that still exist.
  install="$as_root env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=120"
  { $install install -y --no-install-recommends $missing || { $install update && $install install -y --no-install-recommends $missing; }; } >"$log" 2>&1 || true
  missing=$(list_missing)
  [ -n "$missing" ] || exit 0
fi
why='run it with root or passwordless sudo on Debian 12, or install them yourself'
if [ "$as_root" != none ]; then why=$(grep -m1 '^E: ' "$log" || echo 'apt-get could not'); fi
echo "setup: these packages are missing and cannot be installed: $missing($why)" >&2
exit 1
