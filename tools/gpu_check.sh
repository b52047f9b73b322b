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
# build-bench/device/ of a checkout, tools/bench_results.py --report writes them into the page. With --pack FILE.tar.gz before the command that folder
# is packed there after every step, so that what was done is there whole, in one file, whenever the time is up.
set -eu
cd "$(dirname "$0")/.."
gpu=$PWD/.gpu
build=$PWD/build-gpu
out=$build/out
python=$(command -v python3 || echo python3)
[ ! -d /usr/local/cuda/bin ] || PATH=$PATH:/usr/local/cuda/bin   # nvcc, and compute-sanitizer
pack=
started=$(date +%s)
while :; do
  case ${1:-} in
    --out) out=$2; shift 2 ;;
    --pack) pack=$2; shift 2 ;;
    *) break ;;
  esac
done

# "passed: ..." with the seconds since the start, and what there is so far, packed.
say() {
  line="$(($(date +%s) - started)) s: $*"
  echo "$line"
  echo "$line" >>"$out/said.txt"
  [ -z "$pack" ] || { tar -czf "$pack.part" -C "$out" . 2>/dev/null; mv "$pack.part" "$pack"; } || true
}

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

# What finds the driver's libraries there may be LD_LIBRARY_PATH alone, so it is added to.
use_vendor() {
  [ -d "$gpu/root" ] || return 0
  libraries=$gpu/root/usr/lib/$(gcc -dumpmachine)
  export LD_LIBRARY_PATH="${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$libraries" CMAKE_PREFIX_PATH="$gpu/root/usr"
  export LIBRARY_PATH="${LIBRARY_PATH:+$LIBRARY_PATH:}$libraries"
  command -v pkg-config >/dev/null 2>&1 || PATH=$PATH:$gpu/root/usr/bin
  export PATH PKG_CONFIG_SYSROOT_DIR="$gpu/root" PKG_CONFIG_LIBDIR="$libraries/pkgconfig:$gpu/root/usr/share/pkgconfig:$gpu/root/usr/lib/pkgconfig"
}

build() {
  cmake -S . -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release >"$out/configure.log" 2>&1 || { tail -30 "$out/configure.log"; exit 1; }
  # A build of no use: the rest of the time would go into tests that find no GPU.
  grep -q 'cuda_device\.cu' "$build/build.ninja" || { say "FAILED: configured without CUDA"; tail -30 "$out/configure.log"; exit 1; }
  # The rest is built where one part fails.
  cmake --build "$build" --target reprise backend_test device_test device_ttft device_steps -- -k 0 >"$out/build.log" 2>&1 || {
    grep -E -A8 'FAILED|error' "$out/build.log" | head -60
    say "FAILED: build"
    exit 1
  }
  say "built in $build"
}

# check NAME SECONDS PROCESSES PROGRAM...: a test program, its tests dealt out among so many processes: most of their time the emulator takes, on one
# core. A test that found no GPU is no test here.
check() {
  name=$1 limit=$2 count=$3 wrong=0 pids=
  shift 3
  for i in $(seq 0 $((count - 1))); do
    GTEST_TOTAL_SHARDS=$count GTEST_SHARD_INDEX=$i timeout -k 5 "$limit" "$@" >"$out/$name.$i.part" 2>&1 &
    pids="$pids $!"
  done
  for pid in $pids; do wait "$pid" || wrong=$?; done
  cat "$out/$name".*.part >"$out/$name.log"
  rm -f "$out/$name".*.part
  passed=$(grep -c '\[       OK' "$out/$name.log" || true)
  if [ $wrong = 0 ] && [ "$passed" != 0 ] && ! grep -q 'NOT TESTED ON A GPU' "$out/$name.log"; then
    say "passed: $name ($passed tests)"
  else
    failed=1
    grep -E 'NOT TESTED|Failure|differs|wanted|BROKEN|emulated kernel|terminate|rror|ERROR SUMMARY|FAILED  \]' "$out/$name.log" | sort | uniq -c | sort -rn | head -30
    say "FAILED: $name (exit code $wrong, $passed tests passed; 124 or 137: more than $limit s)"
  fi
}

test_device() {
  failed=0
  timeout 60 "$build/reprise" inspect --devices || true
  kernels='Weights*:Shapes*:Fuse*:MatMul*:RowOps*:SwiGlu*:GatedRmsNorm*:NormRope*:Attention*:CausalConv*:DeltaNet*:Ssm*:SelectiveScan*:LastRow*:Device*:CudaDevice*:Forms*:MixExperts*:SigmoidGate*'
  check kernels 240 12 "$build/backend_test" --gtest_filter="$kernels"
  check models 200 4 "$build/device_test" --gtest_filter='*/cuda'
  if timeout 120 "$build/reprise" verify --device cuda --quick >"$out/verify.txt" 2>&1; then kept=passed; else kept=FAILED failed=1; fi
  cat "$out/verify.txt"
  say "$kept: reprise verify"
  if ! command -v compute-sanitizer >/dev/null 2>&1; then say "NOT TESTED: there is no compute-sanitizer"; else
    few='DeltaNet.OddWidths:FusedDelta.OddWidths:Shapes*Q4_K*:Ssm.OddWidths:SelectiveScan.FewDimensions:Attention.OddWidths:MixExpertsLayer*'
    check memcheck 170 6 compute-sanitizer --error-exitcode 9 "$build/backend_test" --gtest_filter="$few:Fuse*:Attention.GroupedHeads*:CausalConv*:LastRow*:DeviceOps*:MixExpertsLanes*"
    check racecheck 170 4 compute-sanitizer --tool racecheck --error-exitcode 9 "$build/backend_test" --gtest_filter="$few"
    check synccheck 100 4 compute-sanitizer --tool synccheck --error-exitcode 9 "$build/backend_test" --gtest_filter="$few"
  fi
  return $failed
}

# Of a shape that could not be made the other figures are left out, and the next shape goes on.
make_model() {
  [ -e "$2" ] && return 0
  "$build/reprise" synth "$1" "$2.part" --type "$3" >/dev/null 2>"$out/figure.log" && mv "$2.part" "$2" && return 0
  say "NOT MADE: $2: $(tail -1 "$out/figure.log")"
  return 1
}
page() { "$python" tools/device_results.py "$out" >"$out/page.md" 2>"$out/page.log" || say "NO PAGE: $(tail -1 "$out/page.log")"; }

# One step of a bench: what it prints is kept under the name given, whole or as far as it came.
figure() {
  kept=$out/$1.json
  limit=$2
  shift 2
  if timeout -k 5 "$limit" "$@" >"$kept" 2>"$out/figure.log"; then say "measured: ${kept##*/}"; else
    say "NOT WHOLE: ${kept##*/}: exit code $?: $(tail -1 "$out/figure.log")"
  fi
  page
}

# program NAME ARGUMENT...: what `reprise bench` measures, into $out/NAME.json.
program() {
  name=$1
  shift
  timeout -k 5 120 "$build/reprise" bench --device cuda "$@" --prompt 2048 --context 4096 --chunk 1024 --runs 5 --json "$out/$name.json" \
    >/dev/null 2>"$out/figure.log" || say "NOT WHOLE: $name.json: $(tail -1 "$out/figure.log")"
}

# The time to the first token, the verbs, branches and what is left out at Q8_0, decoding alone at the smaller type, transformers beside it. What is
# wanted most comes first: time with a device is short.
bench() {
  [ $# -gt 0 ] || set -- qwen3.5-0.8b qwen3.5-4b qwen3.5-9b
  for shape in "$@"; do
    q8=$build/$shape-q8_0.gguf
    q4=$build/$shape-q4_k_m.gguf
    make_model "$shape" "$q8" q8_0 || continue
    figure "ttft-$shape-q8_0" 240 "$build/device_ttft" --seconds 25 "$q8" cuda 2048 2085 4096 8192 16384 65536
    figure "steps-$shape-q8_0" 60 "$build/device_steps" "$q8" cuda 1x1 8x1 1x64 1x1024
    # What launches that overlap are worth, and what one share of shared memory for all of them is.
    figure "steps-$shape-serial-q8_0" 30 "$build/device_steps" --serial "$q8" cuda 1x1
    figure "steps-$shape-shared-q8_0" 30 "$build/device_steps" --shared 100 "$q8" cuda 1x1 1x1024
    figure "transformers-$shape" 120 "$python" tools/bench_transformers.py "$shape"
    [ "$shape" != qwen3.5-0.8b ] || figure "spill-$shape-q8_0" 60 "$build/device_ttft" --spill 4096 "$q8" cuda 2048
    make_model "$shape" "$q4" q4_k_m && figure "ttft-$shape-q4_k_m" 60 "$build/device_ttft" --runs 3 --suffixes 24 "$q4" cuda 2048
    program "bench-$shape-q8_0" -m "$q8"
    [ "$shape" != qwen3.5-0.8b ] || program "bench-$shape-q8_0-kv-q8_0" -m "$q8" --kv q8_0
  done
  page
  say "the page's section: $out/page.md"
}

mkdir -p "$out"
case ${1:-} in
  prepare) prepare ;;
  build) use_vendor; build ;;
  test) use_vendor; test_device ;;
  bench) shift; use_vendor; bench "$@" ;;
  all) use_vendor; build; test_device || true; bench ;;
  *) sed -n '2,15s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
