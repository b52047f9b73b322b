# The commands of the house. Each installs what it needs and is missing (tools/setup.sh), builds, and is quiet unless something fails.
#
#   make          the library and the program, in build/        make test      every test
#   make demo     the first five minutes                        make bench     bench/RESULTS.md anew (1.5 hours)
#   make install  into /usr/local, or PREFIX=...                make lint      format and static analysis, without changes
#   make asan     every test, memory and undefined behaviour    make format    formats the sources
#   make tsan     every test, data races                        make fuzz      a minute of fuzzing for each parser
#   make debug    every test, assertions on                     make arm       the kernels' tests on emulated 64-bit ARM
#   make clean    removes what was built

JOBS := $(shell nproc 2>/dev/null || echo 2)
PREFIX = /usr/local
# A terminal shows one moving line; a log shows nothing but trouble.
NINJA_QUIET := $(shell test -t 1 || echo -- --quiet)
BUILD = cmake --build --preset $(1) -j $(JOBS) $(2) $(NINJA_QUIET)
CONFIGURE = tools/quietly.sh cmake --preset $(1)

.PHONY: all demo test bench install lint format asan tsan debug fuzz arm clean
.DEFAULT_GOAL := all

all: build/build.ninja
	@$(call BUILD,program,--target product)

# Configured once; the build itself notices later changes. A tree that has the tests keeps them.
build/build.ninja:
	@tools/setup.sh build
	@$(call CONFIGURE,program)

demo: build/build.ninja
	@tools/setup.sh build
	@$(call BUILD,program,--target product)
	@build/reprise demo

test:
	@tools/setup.sh test
	@$(call CONFIGURE,release)
	@$(call BUILD,release)
	@ctest --preset release -j $(JOBS)

debug asan tsan:
	@tools/setup.sh test
	@$(call CONFIGURE,$@)
	@$(call BUILD,$@)
	@ctest --preset $@ -j $(JOBS)

bench:
	@tools/setup.sh test
	@$(call CONFIGURE,release)
	@$(call BUILD,release)
	@tools/install_peer.sh
	@tools/bench_results.py

fuzz:
	@tools/setup.sh fuzz
	@$(call CONFIGURE,fuzz)
	@$(call BUILD,fuzz)
	@tools/fuzz.sh build-fuzz 60

arm:
	@tools/setup.sh arm
	@tools/arm_tests.sh build-arm --gtest_brief=1

install: all
	@cmake --install build --prefix $(PREFIX) >build/install.log && echo "Installed into $(PREFIX); build/install_manifest.txt lists the files."

# The compile commands of every file, tests included, come from a configured tree.
lint:
	@tools/setup.sh lint
	@$(call CONFIGURE,release)
	@tools/lint.sh build

format:
	@tools/setup.sh lint
	@git ls-files '*.h' '*.cc' '*.c' | xargs clang-format -i

clean:
	@rm -rf build build-debug build-asan build-tsan build-fuzz build-arm
