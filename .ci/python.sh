# The steps of .ci/run that are about Python. Sourced by it; depends on steps.sh, $work and $tools.
# Each runs in a shell of its own, which may change its folder and environment.

# ---- helpers ---------------------------------------------------------------------------------------

# A copy of the checkout without what is ignored or was built.
fresh_copy() {
  mkdir -p "$1"
  git ls-files -z --cached --others --exclude-standard |
    while IFS= read -r -d '' file; do if [ -e "$file" ]; then printf '%s\0' "$file"; fi; done |
    tar --null --files-from=- -cf - | tar -xf - -C "$1"
}

# The one line in the shell blocks of README.md that begins so.
readme_command() {
  local lines
  mapfile -t lines < <(awk -v begin="$1" '
    /^```/ { inside = ($0 == "```sh") && !inside; next }
    inside && index($0, begin) == 1' README.md)
  [ "${#lines[@]}" -eq 1 ] ||
    die "README.md must have one line in a \`\`\`sh block that begins with: $1 (found ${#lines[@]})"
  printf '%s\n' "${lines[0]}"
}

# install_with EXTRAS PYTHON [pip's arguments...]: the wheel of clang_build, with these extras.
install_with() {
  local extras=$1 python=$2 wheel
  shift 2
  wheel=$(echo "$work"/clang-wheel/*.whl)
  "$python" -m pip install -q "$@" "$wheel[$extras]"
}

# pip compiles every module that it installs, which takes a minute for torch and what comes with it.
# After this, Python compiles what is imported; what it says of the sources of others is no error then.
compile_when_imported() {
  unset PYTHONDONTWRITEBYTECODE # once, and not in each process
  export PIP_NO_COMPILE=0 # pip's variables of options that begin with "no" are read so
  export PYTEST_ADDOPTS="-W default::SyntaxWarning -W 'default:invalid escape sequence:DeprecationWarning'"
}

has_flags() {
  local flag
  for flag in "$@"; do grep -qw "$flag" /proc/cpuinfo || return 1; done
}

# ---- the README's commands ---------------------------------------------------------------------------

demo_command=$(readme_command "python3 -m venv .venv && .venv/bin/pip install . ")
test_command=$(readme_command "python3 -m venv .venv && .venv/bin/pip install '.[test]' ")
quick_command=$(readme_command ".venv/bin/pytest -m quick")

# What this machine can run has to have run: nothing is skipped quietly.
required=(--require-variant=core-scalar --require-variant=numba --require-variant=reference)
if has_flags avx2 fma f16c; then required+=(--require-variant=core-avx2); fi
if has_flags avx512f avx512bw avx512dq avx512vl; then required+=(--require-variant=core-avx512); fi

run_demo() {
  printf '%s\n' "$demo_command"
  (cd "$1" && bash -euo pipefail -c "$demo_command" >demo.log 2>&1) ||
    { cat "$1/demo.log"; die "the README's demo failed"; }
  tail -n 40 "$1/demo.log"
  [ "$(wc -l <"$1/demo.log")" -ge 20 ] || die "the demo printed next to nothing"
}

readme_demo() {
  fresh_copy "$work/demo"
  run_demo "$work/demo"
}

readme_tests() {
  fresh_copy "$work/tests"
  cd "$work/tests"
  printf '%s\n' "$test_command"
  FASTSAMPLE_NO_SKIP=1 PYTEST_ADDOPTS="${required[*]} --durations=15" \
    bash -euo pipefail -c "$test_command"
}

readme_quick() {
  cd "$work/tests"
  printf '%s\n' "$quick_command"
  bash -euo pipefail -c "$quick_command"
}

readme_demo_again() { run_demo "$work/tests"; }

# ---- style and types -----------------------------------------------------------------------------------

style() {
  "$tools/bin/ruff" check .
  "$tools/bin/ruff" format --check .
  "$tools/bin/mypy" --strict --python-executable "$work/tests/.venv/bin/python"
  "$tools/bin/clang-format" --version
  git ls-files -z --cached --others --exclude-standard csrc tests/c |
    grep -zE '\.(c|cpp|h|inl)$' | xargs -0 "$tools/bin/clang-format" --dry-run -Werror
}

# ---- other installations and instruction sets -----------------------------------------------------------

# The tests of what is drawn: not those of installing, the command line, timing and the C library.
drawing_only=(-q)
for name in build c_abi cli cli_options bench bench_report; do drawing_only+=("--ignore=tests/test_$name.py"); done

numba_only() {
  compile_when_imported
  fresh_copy "$work/numba"
  cd "$work/numba"
  python3 -m venv .venv
  CC=/nonexistent/cc CXX=/nonexistent/c++ .venv/bin/pip install -q '.[test]'
  if .venv/bin/python -c 'import fastsample._core' 2>/dev/null; then die "there is an extension"; fi
  FASTSAMPLE_EXPECT_BACKEND=numba HYPOTHESIS_PROFILE=ci-short \
    .venv/bin/pytest "${drawing_only[@]}" --require-variant=numba --require-variant=reference
}

# Every instruction set but the best one, which is the tests' default: what runs on the default. Tests
# that go through all variants have done so.
forced_isas() {
  local isa others
  cd "$work/tests"
  # From elsewhere: here Python would import the source folder.
  python_away() { (cd / && "$work/tests/.venv/bin/python" "$@"); }
  others=$(python_away -c 'from fastsample import _core; print(*_core.isas().split(",")[1:])')
  for isa in $others; do
    printf 'FASTSAMPLE_ISA=%s\n' "$isa"
    FASTSAMPLE_ISA=$isa python_away -c "
import fastsample, os
assert fastsample.build_info()['isa'] == os.environ['FASTSAMPLE_ISA']"
    FASTSAMPLE_ISA=$isa HYPOTHESIS_PROFILE=ci-short .venv/bin/pytest "${drawing_only[@]}" --default-only
  done
}

# ---- runtimes, with real weights -------------------------------------------------------------------

# It takes minutes, at low priority; where pip has it in its cache, it is there at once.
llama_build() {
  local requirement
  requirement=$(grep -oE 'llama-cpp-python==[0-9.]+' pyproject.toml)
  nice "$tools/bin/pip" wheel -q --no-deps -w "$work/wheels" "$requirement"
}

runtimes() {
  compile_when_imported
  local python=$work/runtimes/bin/python
  python3 -m venv "$work/runtimes"
  "$python" -m pip install -q --upgrade 'pip>=25.1'
  # The group `rivals` pins torch: of its builds, the one for the CPU alone is then preferred.
  install_with llama,transformers,onnxruntime-genai,plot,test "$python" \
    --find-links "$work/wheels" --group rivals --group integration-tests --group docs
  # A skip is a failure: everything is installed.
  HYPOTHESIS_PROFILE=ci-short "$python" -m pytest -q -p no:cacheprovider --no-skips --durations=10 \
    tests/integrations --ignore-glob='*/test_vllm*.py' --ignore-glob='*/test_rows*.py' \
    tests/test_explain.py tests/test_explain_plot.py tests/test_explain_stages.py tests/test_cli.py \
    tests/test_docs.py
  # These also test packages that are not installed here.
  HYPOTHESIS_PROFILE=ci-short "$python" -m pytest -q -p no:cacheprovider \
    tests/test_inputs.py tests/test_bench.py tests/test_bench_report.py
}

documentation() {
  "$work/runtimes/bin/sphinx-build" -q -W --keep-going -n -b html docs "$work/html"
  [ -s "$work/html/index.html" ] || die "no documentation was built"
}

# Every sampler in its smallest form, checked against the reference; nothing is timed.
smoke_bench() {
  cd "$work"
  runtimes/bin/fastsample bench --smoke --json smoke.json >smoke.txt ||
    { cat smoke.txt; die "the benchmark failed"; }
  grep -E 'checked|skipped|cannot|inexact' smoke.txt
  # ctranslate2 has no sampler to call, vLLM an environment of its own; the others are installed.
  if grep ': skipped' smoke.txt | grep -qvE '^(ctranslate2|vLLM):'; then die "a rival was skipped"; fi
}

# Stored rows, with the engines that take pieces of them: dask and Ray, two workers each.
stored_rows() {
  compile_when_imported
  local python=$work/rows/bin/python checkout=$PWD
  python3 -m venv "$work/rows"
  "$python" -m pip install -q --upgrade pip
  install_with rows,dask,ray,test "$python"
  "$python" -m pytest -q -p no:cacheprovider --no-skips --durations=5 \
    tests/integrations/test_rows*.py tests/test_cli_draw.py
  # Every result is compared with one call; nothing of what is timed is kept.
  cd "$work"
  "$python" "$checkout/bench/rows.py" --gib 0.01 --rounds 1
}

# vLLM, whose torch and transformers are other versions, as docs/vllm.md has a reader install it.
inside_vllm() {
  local bin=$work/vllm/bin file
  docs/examples/install_vllm.sh "$work/vllm" '[test]'
  # Each in a process of its own: vLLM cannot make an engine where numba has been imported.
  for file in tests/integrations/test_vllm*.py; do
    "$bin/python" -m pytest -q -p no:cacheprovider --no-skips --durations=5 "$file"
  done
  cd "$work"
  VLLM_LOGGING_LEVEL=ERROR "$bin/fastsample" bench --smoke --rivals vLLM --parts none >vllm.txt ||
    { cat vllm.txt; die "the benchmark failed"; }
  if grep -E '^vLLM: (skipped|inexact)' vllm.txt; then die "vLLM's sampler did not run"; fi
  "$bin/fastsample" bench --smoke --vllm 512
}

# ---- packaging ---------------------------------------------------------------------------------------

# Which `uv run` in a checkout begins with; nothing is written.
uv_lock() { "$tools/bin/uv" lock --dry-run --quiet; }

wheels() { .ci/wheels "$tools/bin/python"; }
