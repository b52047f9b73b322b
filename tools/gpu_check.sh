#!/bin/sh
# Everything that a GPU is wanted for, in minutes: build, test, measure. For a machine that has nvcc, cmake, ninja and g++, a GPU, and perhaps
# nothing else and no network.
#
#   tools/gpu_check.sh prepare           here, before: gathers in .gpu/ (about 20 MB, not in git) the libraries that the other machine may lack
#   tools/gpu_check.sh build             there: the program and the tests that concern a device
#   tools/gpu_check.sh test              the kernels, whole models, the promises; compute-sanitizer over the kernels where it works
#   tools/gpu_check.sh bench [SHAPE...]  all that bench/RESULTS.md says of a GPU (qwen3.5-0.8b qwen3.5-4b qwen3.5-9b, one after the other)
#   tools/gpu_check.sh all               build, test, bench
#
# Figures are left as JSON in build-gpu/out, or in the folder given by --out DIR before the command, with the section of the page that they make; in
# build-bench/device/ of a checkout, tools/bench_results.py --report writes them into the page.
set -eu
cd "$(dirname "$0")/.."
gpu=$PWD/.gpu
build=$PWD/build-gpu
out=$build/out
python=$(command -v python3 || echo python3)
if [ "${1:-}" = --out ]; then out=$2; shift 2; fi

# Headers, archives, shared libraries and package files, at their places below .gpu/root.
prepare() {
  packages='libfmt-dev libfmt9 libhwy-dev libhwy1 libsodium-dev libsodium23 libsqlite3-dev libsqlite3-0 libutf8proc-dev libutf8proc2
    libxxhash-dev libxxhash0 libcli11-dev nlohmann-json3-dev libgtest-dev librapidcheck-dev libpcre2-dev libpcre2-8-0
    pkgconf pkgconf-bin libpkgconf3'
  rm -rf "$gpu/root"
  mkdir -p "$gpu/root"
  dpkg -L $packages | grep -vE '/share/(doc|man|lintian|bug)|libpcre2-(16|32)' | sort -u | while read -r file; do
    if [ -f "$file" ] || [ -L "$file" ]; then printf '%s\n' "$file"; fi
  done | tar -cf - -T - 2>/dev/null | tar -xf - -C "$gpu/root"
  [ -e "$gpu/root/usr/bin/pkg-config" ] || ln -sf pkgconf "$gpu/root/usr/bin/pkg-config"
  du -sh "$gpu/root"
}

# Libraries of the machine itself come first where it has them all.
use_vendor() {
  [ -d "$gpu/root" ] || return 0
  libraries=$gpu/root/usr/lib/$(gcc -dumpmachine)
  export LD_LIBRARY_PATH="$libraries" CMAKE_PREFIX_PATH="$gpu/root/usr" LIBRARY_PATH="$libraries"
  command -v pkg-config >/dev/null 2>&1 || PATH=$PATH:$gpu/root/usr/bin
  export PATH PKG_CONFIG_SYSROOT_DIR="$gpu/root" PKG_CONFIG_LIBDIR="$libraries/pkgconfig:$gpu/root/usr/share/pkgconfig:$gpu/root/usr/lib/pkgconfig"
}

build() {
  command -v nvcc >/dev/null 2>&1 || PATH=/usr/local/cuda/bin:$PATH
  cmake -S . -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release >"$out/configure.log" 2>&1 || { tail -30 "$out/configure.log"; exit 1; }
  cmake --build "$build" --target reprise backend_test device_test device_ttft device_steps >"$out/build.log" 2>&1 || { tail -40 "$out/build.log"; exit 1; }
  echo "built in $build"
}

# A test that found no GPU is no test here.
check() {
  name=$1
  shift
  if "$@" >"$out/$name.log" 2>&1 && ! grep -q 'NOT TESTED ON A GPU' "$out/$name.log"; then
    echo "passed: $name ($(grep -c '\[       OK' "$out/$name.log" || true) tests)"
  else
    echo "FAILED: $name"
    grep -E 'NOT TESTED|Failure|differs|wanted|BROKEN|error|ERROR SUMMARY' "$out/$name.log" | head -30
    failed=1
  fi
}

test_device() {
  failed=0
  "$build/reprise" inspect --devices
  kernels='Weights*:Shapes*:Fuse*:MatMul*:RowOps*:SwiGlu*:GatedRmsNorm*:NormRope*:Attention*:CausalConv*:DeltaNet*:Ssm*:LastRow*:Device*:CudaDevice*:Forms*:MixExperts*:SigmoidGate*'
  check kernels timeout 240 "$build/backend_test" --gtest_filter="$kernels"
  check models timeout 240 "$build/device_test" --gtest_filter='*cuda*'
  check verify timeout 120 "$build/device_test" --gtest_filter='*Promises*cuda*'
  "$build/reprise" verify --device cuda --quick | tee "$out/verify.txt" || failed=1
  if command -v compute-sanitizer >/dev/null 2>&1; then
    check memcheck timeout 200 compute-sanitizer --error-exitcode 9 "$build/backend_test" --gtest_filter='DeltaNet.OddWidths:Fuse*:Shapes*Q4_K:Ssm.OddWidths:Attention.OddWidths:Attention.GroupedHeads*:CausalConv*:LastRow*:DeviceOps*:MixExpertsLayer*:MixExpertsLanes*'
    check racecheck timeout 200 compute-sanitizer --tool racecheck --error-exitcode 9 "$build/backend_test" --gtest_filter='DeltaNet.OddWidths:FusedDelta.OddWidths:Shapes*Q4_K:Ssm.OddWidths:Attention.OddWidths:MixExpertsLayer*'
  fi
  return $failed
}

# One step of a bench: what it prints is kept under the name given, whole or as far as it came.
figure() {
  kept=$out/$1.json
  limit=$2
  shift 2
  if timeout "$limit" "$@" >"$kept" 2>"$out/figure.log"; then echo "measured: ${kept##*/}"; else
    echo "NOT WHOLE: ${kept##*/}: $(tail -1 "$out/figure.log")"
  fi
}

# The time to the first token, the verbs, branches and what is left out at Q8_0, decoding alone at the smaller type, transformers beside it. What is
# wanted most comes first: time with a device is short.
bench() {
  [ $# -gt 0 ] || set -- qwen3.5-0.8b qwen3.5-4b qwen3.5-9b
  for shape in "$@"; do
    q8=$build/$shape-q8_0.gguf
    q4=$build/$shape-q4_k_m.gguf
    [ -e "$q8" ] || "$build/reprise" synth "$shape" "$q8" --type q8_0 >/dev/null
    figure "ttft-$shape-q8_0" 240 "$build/device_ttft" --seconds 25 "$q8" cuda 2048 2085 4096 8192 16384 65536
    figure "steps-$shape-q8_0" 60 "$build/device_steps" "$q8" cuda 1x1 8x1 1x64 1x1024
    figure "transformers-$shape" 120 "$python" tools/bench_transformers.py "$shape"
    [ "$shape" != qwen3.5-0.8b ] || figure "spill-$shape-q8_0" 60 "$build/device_ttft" --spill 4096 "$q8" cuda 2048
    [ -e "$q4" ] || "$build/reprise" synth "$shape" "$q4" --type q4_k_m >/dev/null
    figure "ttft-$shape-q4_k_m" 60 "$build/device_ttft" --runs 3 --suffixes 24 "$q4" cuda 2048
    timeout 120 "$build/reprise" bench --device cuda -m "$q8" --prompt 2048 --context 4096 --chunk 1024 --runs 5 --json "$out/bench-$shape-q8_0.json" \
      >/dev/null 2>"$out/figure.log" || echo "NOT WHOLE: bench-$shape-q8_0.json: $(tail -1 "$out/figure.log")"
  done
  "$python" tools/device_results.py "$out" >"$out/page.md" && echo "the page's section: $out/page.md"
}

mkdir -p "$out"
case ${1:-} in
  prepare) prepare ;;
  build) use_vendor; build ;;
  test) use_vendor; test_device ;;
  bench) shift; use_vendor; bench "$@" ;;
  all) use_vendor; build; test_device || true; bench ;;
  *) sed -n '2,13s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
