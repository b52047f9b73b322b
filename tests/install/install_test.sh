#!/bin/sh
# install_test.sh SOURCE_DIR BUILD_DIR CMAKE C_COMPILER CXX_COMPILER
set -eu
source=$1 build=$2 cmake=$3 cc=$4 cxx=$5
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"$cmake" --install "$build" --prefix "$work/first" >"$work/log" 2>&1 || { cat "$work/log"; exit 1; }
# A package is built in one place and used in another: nothing in it may remember where it was.
mv "$work/first" "$work/prefix"
if grep -rl "$source\|$build\|$work/first" "$work/prefix/lib" "$work/prefix/include" --include='*.cmake' --include='*.pc' --include='*.h'; then
  echo 'these installed files name the folder that they were built in' >&2
  exit 1
fi

echo '-- consumer with CMake'
"$cmake" -G Ninja -S "$source/tests/install/consumer" -B "$work/consumer" -DCMAKE_PREFIX_PATH="$work/prefix" -DCMAKE_CXX_COMPILER="$cxx" \
  -DCMAKE_C_COMPILER="$cc" -DCMAKE_BUILD_TYPE=Debug >"$work/log" 2>&1 || { cat "$work/log"; exit 1; }
"$cmake" --build "$work/consumer" >"$work/log" 2>&1 || { cat "$work/log"; exit 1; }
"$work/consumer/consumer"

echo '-- consumer with the tree within its own, configured'
"$cmake" -G Ninja -S "$source/tests/install/consumer" -B "$work/within" -DREPRISE_TREE="$source" -DREPRISE_WITH_CUDA=OFF -DCMAKE_CXX_COMPILER="$cxx" \
  -DCMAKE_C_COMPILER="$cc" >"$work/log" 2>&1 || { cat "$work/log"; exit 1; }

model=$(find "$source/models" -maxdepth 1 -name '*.gguf' | sort | head -n 1)
if [ -e "$source/include/reprise/reprise.h" ]; then
  echo '-- C example with pkg-config'
  pc=$(find "$work/prefix" -name reprise.pc)
  flags=$(PKG_CONFIG_PATH=$(dirname "$pc") pkg-config --cflags --libs reprise)
  "$cc" -std=c11 -Wall -Wextra -Werror "$source/examples/capsule.c" $flags -o "$work/capsule"
  [ -z "$model" ] || "$work/capsule" "$model"
fi

if [ -e "$build/reprise" ]; then
  echo '-- the installed program'
  # From elsewhere, so that nothing of the source tree can help it; it finds its own copy of the embedded model.
  cd "$work"
  prefix/bin/reprise --help >/dev/null
  [ -z "$model" ] || prefix/bin/reprise run -p 'It was' -n 4 >/dev/null
fi
