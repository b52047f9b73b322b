#!/bin/sh
# setup_test.sh SOURCE_DIR: what tools/setup.sh does on machines that lack things, played with stand-ins for apt-get, sudo, id and pkg-config.
set -eu
setup=$1/tools/setup.sh
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/bin"
PATH=$work/bin:$PATH

stand_in() {   # NAME BODY
  printf '#!/bin/sh\n%s\n' "$2" >"$work/bin/$1"
  chmod +x "$work/bin/$1"
}
fail() {
  echo "setup_test: $1" >&2
  cat "$work/out" >&2
  exit 1
}
run() {   # sets $status, writes $work/out
  status=0
  rm -f "$work/apt"
  "$setup" "$@" >"$work/out" 2>&1 || status=$?
}

# libhwy is there once the file `installed` is; everything else is.
stand_in pkg-config "[ \"\$2\" != libhwy ] || [ -e '$work/installed' ]"
for command in g++ cmake ninja; do stand_in $command true; done
stand_in sudo false

stand_in id 'echo 0'
stand_in apt-get "echo \"\$@\" >>'$work/apt'; case \"\$*\" in *' install '*) touch '$work/installed';; esac"
run build
[ $status = 0 ] || fail 'root with apt did not get the package'
grep -q -- '--no-install-recommends libhwy-dev$' "$work/apt" || fail 'apt was asked for something else'

run build
[ $status = 0 ] && [ ! -e "$work/apt" ] && [ ! -s "$work/out" ] || fail 'with nothing missing it must be silent and leave apt alone'

rm "$work/installed"
stand_in apt-get "echo \"\$@\" >>'$work/apt'; case \"\$*\" in *' update'*) touch '$work/lists';; *) [ -e '$work/lists' ] && touch '$work/installed';; esac"
run build
[ $status = 0 ] || fail 'without package lists it must fetch them and try again'

rm "$work/installed"
stand_in apt-get 'echo "E: no network" >&2; exit 100'
run build
[ $status = 1 ] || fail 'a failing apt must fail the set-up'
[ "$(grep -vc '^Installing ' "$work/out")" = 1 ] || fail 'a failure is told in one line'
grep -q 'libhwy-dev.*no network' "$work/out" || fail 'the line must name the package and the reason'

stand_in id 'echo 1000'
stand_in apt-get "touch '$work/apt'"
run build
[ $status = 1 ] && [ ! -e "$work/apt" ] || fail 'without root or sudo apt must not be tried'
[ "$(wc -l <"$work/out")" = 1 ] && grep -q 'libhwy-dev' "$work/out" || fail 'one line must name the package'

stand_in sudo '[ "$1" = -n ] && shift && exec "$@"'
stand_in apt-get "touch '$work/apt' '$work/installed'"
run build
[ $status = 0 ] && [ -e "$work/apt" ] || fail 'passwordless sudo was not used'

run nonsense
[ $status = 2 ] || fail 'an unknown purpose must be refused'
