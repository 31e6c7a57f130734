# The steps of .ci/run for the C library: compilers, sanitizers, other processors and systems.
# Sourced by it; depends on steps.sh, $work and $tools. Each runs in a shell of its own.

# build_library NAME [CMake arguments...]
build_library() {
  local name=$1
  shift
  cmake -G Ninja -S . -B "$work/$name" "$@" >"$work/$name.log" || { cat "$work/$name.log"; return 1; }
  cmake --build "$work/$name"
  cmake --install "$work/$name" --prefix "$work/$name-prefix" >>"$work/$name.log"
}

# run_programs NAME TESTS [CMake arguments...]: builds tests/c against that library, and runs those
# whose name matches TESTS.
run_programs() {
  local name=$1 tests=$2
  shift 2
  cmake -G Ninja -S tests/c -B "$work/$name-programs" -DCMAKE_PREFIX_PATH="$work/$name-prefix" "$@" \
    >"$work/$name.log" || { cat "$work/$name.log"; return 1; }
  cmake --build "$work/$name-programs"
  ctest --test-dir "$work/$name-programs" -R "$tests" -V --no-tests=error |
    tr -d '\r' >"$work/$name.log" || { cat "$work/$name.log"; return 1; }
  grep -E 'instruction sets|fingerprint|statuses|passed, |Passed' "$work/$name.log"
  sed -n 's/.*fingerprint: //p' "$work/$name.log" >"$work/$name.fingerprints"
}

gcc_build() {
  export CC=gcc CXX=g++
  build_library gcc -DFASTSAMPLE_WERROR=ON -DBUILD_SHARED_LIBS=ON
  run_programs gcc . -DFUZZ_RUNS=30000
}

clang_build() {
  export CC=clang CXX=clang++
  build_library clang -DFASTSAMPLE_WERROR=ON
  run_programs clang . -DFUZZ_RUNS=20000
  python3 -m venv "$work/clang-venv"
  # Other steps install it too.
  "$work/clang-venv/bin/pip" wheel -q --no-deps -w "$work/clang-wheel" . \
    --config-settings=cmake.define.FASTSAMPLE_REQUIRE_COMPILER=ON \
    --config-settings=cmake.define.FASTSAMPLE_WERROR=ON
}

# Where nothing is timed: half of the time of compiling, and the assertions of libstdc++.
lightly=("-DCMAKE_CXX_FLAGS_RELEASE=-O1 -D_GLIBCXX_ASSERTIONS")

# sanitized NAME SANITIZERS TESTS [CMake arguments for the programs...]
sanitized() {
  local name=$1 sanitizers=$2 tests=$3
  shift 3
  local flags="-fsanitize=$sanitizers -fno-sanitize-recover=all"
  build_library "$name" -DFASTSAMPLE_SANITIZE="$sanitizers" "${lightly[@]}"
  run_programs "$name" "$tests" -DCMAKE_C_FLAGS="$flags" -DCMAKE_CXX_FLAGS="$flags" "$@"
}

asan() { sanitized asan address,undefined . -DFUZZ_RUNS=20000; }

tsan() { sanitized tsan thread '^(threads|late|sampler|step)$'; }

# Guesses decide how long a search takes, and nothing else.
random_guesses() {
  build_library guesses -DFASTSAMPLE_GUESS=tests/c/random_guess.cpp "${lightly[@]}"
  run_programs guesses '^(client|fuzz)$' -DFUZZ_RUNS=20000
}

fuzzing() {
  export CC=clang CXX=clang++
  build_library libfuzzer -DFASTSAMPLE_SANITIZE=fuzzer-no-link,address,undefined "${lightly[@]}"
  local flags="-fsanitize=address,undefined -fno-sanitize-recover=all"
  run_programs libfuzzer '^fuzz' -DFUZZ_COVERAGE=ON -DCMAKE_C_FLAGS="$flags" \
    -DCMAKE_CXX_FLAGS="$flags" -DFUZZ_RUNS='-max_total_time=45;-max_len=600;-timeout=20;-seed=1' \
    -DFUZZ_SAMPLER_RUNS='-max_total_time=30;-max_len=600;-timeout=20;-seed=1' \
    -DFUZZ_SERVING_RUNS='-max_total_time=30;-max_len=600;-timeout=20;-seed=1'
}

# AArch64 under an emulator: NEON against scalar.
neon() {
  local cross=(
    -DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=aarch64
    -DCMAKE_C_COMPILER=aarch64-linux-gnu-gcc -DCMAKE_CXX_COMPILER=aarch64-linux-gnu-g++
    "-DCMAKE_CROSSCOMPILING_EMULATOR=qemu-aarch64;-L;/usr/aarch64-linux-gnu"
  )
  build_library neon "${cross[@]}" -DFASTSAMPLE_WERROR=ON -DBUILD_SHARED_LIBS=ON
  run_programs neon '^(client|serving|sampler|step|threads|fuzz.*)$' "${cross[@]}" \
    -DFUZZ_RUNS=3000 -DFUZZ_SAMPLER_RUNS=300 -DFUZZ_SERVING_RUNS=600
  grep -q 'instruction sets: neon,scalar' "$work/neon.log" || die "NEON did not run"
}

windows() {
  export WINEPREFIX=$work/wine WINEDEBUG=-all
  local cross=(-DCMAKE_TOOLCHAIN_FILE="$PWD/tests/c/mingw.cmake")
  build_library windows "${cross[@]}" -DFASTSAMPLE_WERROR=ON
  run_programs windows . "${cross[@]}" -DFUZZ_RUNS=10000
}

macos() { tests/c/compile_for_macos.sh "$tools/bin/python"; }

# Compilers, sanitizers, architectures and systems drew the same tokens with the same probabilities.
# Arguments: the names of the libraries whose programs ran.
same_fingerprints() {
  local name
  for name in "$@"; do [ -s "$work/$name.fingerprints" ] || die "$name has no fingerprint"; done
  (cd "$work" && grep . -- *.fingerprints)
  [ "$(sort -u "$work"/*.fingerprints | wc -l)" -eq 1 ] || die "fingerprints differ"
}
