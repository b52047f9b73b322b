#!/bin/sh
# Cross-compiles the kernels and their tests for 64-bit ARM and runs them under qemu-user, as `make arm` does.
#
#   tools/arm_tests.sh BUILD_DIR [GoogleTest arguments]
#
# Only what the kernels need is compiled: everything else is portable C++ that the ordinary tests cover, and its libraries would have to be
# installed for ARM. Highway, fmt and GoogleTest are used as headers or sources, which serve every architecture.
set -eu

build=${1:?usage: tools/arm_tests.sh BUILD_DIR [GoogleTest arguments]}
shift
googletest=/usr/src/googletest/googletest
include=$build/include
mkdir -p "$include"
# Not all of /usr/include: the rest of it is for this machine.
ln -sfn /usr/include/hwy "$include/hwy"
ln -sfn /usr/include/fmt "$include/fmt"

# Highway's NEON target takes the cryptographic extension for granted.
flags="-std=c++20 -O2 -march=armv8-a+crypto -ffp-contract=off -w -DFMT_HEADER_ONLY -Isrc -Iinclude -I$include -I$googletest/include -I$googletest"
sources="src/base/status.cc src/formats/quantize.cc src/formats/tensor_type.cc src/exec/layout.cc
         $(ls src/backend/cpu/*.cc) $googletest/src/gtest-all.cc $googletest/src/gtest_main.cc"

object() { echo "$build/$(echo "$1" | tr / _).o"; }
for source in $sources; do
  object=$(object "$source")
  [ "$object" -nt "$source" ] && [ -z "$(find src include -name '*.h' -newer "$object" -print -quit)" ] || echo "$source $object"
done >"$build/stale"
xargs -P "$(nproc)" -L 1 sh -c "aarch64-linux-gnu-g++ $flags -c \$0 -o \$1" <"$build/stale"
objects=
for source in $sources; do objects="$objects $(object "$source")"; done
aarch64-linux-gnu-g++ -static $objects -o "$build/backend_test" -lpthread 2>"$build/link.log" || { cat "$build/link.log"; exit 1; }
exec qemu-aarch64-static "$build/backend_test" "$@"
