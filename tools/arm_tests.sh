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

# The tests of kernels are run on devices too where there are any (src/backend/cuda/device_rig_test.cc).
[ -e "$build/no_devices.cc" ] || cat >"$build/no_devices.cc" <<EOF
#include "backend/cpu/cpu_rig.h"
std::vector<reprise::Outcome> reprise::RunOnDevices(const Job&, const Floats1d&, uint32_t, int) { return {}; }
EOF

# Highway's NEON target takes the cryptographic extension for granted.
flags="-std=c++20 -O2 -march=armv8-a+crypto -ffp-contract=off -w -DFMT_HEADER_ONLY -Isrc -Iinclude -I$include -I$googletest/include -I$googletest"
sources="src/base/status.cc src/formats/quantize.cc src/formats/tensor_type.cc src/exec/layout.cc
         $(ls src/backend/*.cc src/backend/cpu/*.cc | grep -v /devices.cc) $build/no_devices.cc $googletest/src/gtest-all.cc $googletest/src/gtest_main.cc"

object() { echo "$build/$(echo "$1" | tr / _).o"; }
for source in $sources; do
  object=$(object "$source")
  [ "$object" -nt "$source" ] && [ -z "$(find src include -name '*.h' -newer "$object" -print -quit)" ] || echo "$source $object"
done >"$build/stale"
xargs -r -P "$(nproc)" -L 1 sh -c "aarch64-linux-gnu-g++ $flags -c \$0 -o \$1" <"$build/stale"
objects=
for source in $sources; do objects="$objects $(object "$source")"; done
aarch64-linux-gnu-g++ -static $objects -o "$build/backend_test" -lpthread 2>"$build/link.log" || { cat "$build/link.log"; exit 1; }
test=$build/backend_test
complain() { echo "tools/arm_tests.sh: $*" >&2; exit 1; }

# What each processor is given, as the names of tests tell: the first has every instruction, the others lack some, which then are illegal.
while read -r processor sets; do
  listed=$(qemu-aarch64-static -cpu "$processor" "$test" --gtest_list_tests --gtest_filter='*Numerics*')
  given=$(echo "$listed" | sed -n 's/.*GetParam() = "\(.*\)"/\1/p' | xargs)
  [ "$given" = "$sets" ] || complain "$processor is given the instruction sets $given, not $sets"
done <<EOF
max neon-i8mm neon-dotprod neon
cortex-a76 neon-dotprod neon
cortex-a53 neon
EOF
for processor in cortex-a76 cortex-a53; do
  tools/quietly.sh qemu-aarch64-static -cpu $processor "$test" --gtest_brief=1 --gtest_filter='*Numerics*:*ManyShapes*'
done

# Each instruction set is computed with its own products, as the encodings of what was executed tell.
products() { grep -q ': *4f[89ab].e... ' "$1" && echo sdot; grep -q ': *4f[89ab].f... ' "$1" && echo usdot; true; }
while read -r set wanted; do
  tools/quietly.sh qemu-aarch64-static -cpu max -d in_asm -D "$build/executed" "$test" --gtest_brief=1 --gtest_filter="*Numerics*/$set"
  [ "$(products "$build/executed")" = "$wanted" ] || complain "$set multiplies with '$(products "$build/executed")', not '$wanted'"
done <<EOF
neon_i8mm usdot
neon_dotprod sdot
neon
EOF

exec qemu-aarch64-static -cpu max "$test" "$@"
