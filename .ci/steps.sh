# Runs a table of steps in two lanes beside each other. Sourced by .ci/run, which has the table:
# `steps`, in each row a function, the functions of what it needs (joined by commas, - for nothing;
# they stand above it) and a title. Depends on bash and on $work, an empty folder.

state=$work/state # NAME.begun and NAME.passed
declare -A chosen=()
lanes=()

die() {
  printf 'ci: %s\n' "$*" >&2
  exit 1
}

# A lane is a group of processes.
kill_lanes() {
  local lane
  for lane in "${lanes[@]}"; do kill -- "-$lane" 2>/dev/null || true; done
  lanes=()
}

# choose_steps [NAME...]: these and what they need, or all of them.
choose_steps() {
  local name needs title i
  for name in "$@"; do chosen[$name]=asked; done
  for ((i = ${#steps[@]} - 1; i >= 0; --i)); do
    read -r name needs title <<<"${steps[i]}"
    declare -F "$name" >/dev/null || die "there is no function $name for \"$title\""
    if [ $# -gt 0 ] && [ -z "${chosen[$name]-}" ]; then continue; fi
    chosen[$name]=found
    for name in ${needs//[,-]/ }; do chosen[$name]=needed; done
  done
  for name in "${!chosen[@]}"; do
    [ "${chosen[$name]}" = found ] || die "no step has the name $name, or it stands below what needs it"
  done
}

have_passed() {
  local name
  for name in "$@"; do [ -e "$state/$name.passed" ] || return 1; done
}

# Its output is printed when it has ended, in one piece.
run_step() {
  local name=$1 title=$2 status=0
  printf -- '---- begins: %s\n' "$title"
  (
    TIMEFORMAT='%0R s; of a processor, %0U s in programs and %0S s in the kernel'
    time "$name"
  ) >"$state/$name.log" 2>&1 &
  wait $! || status=$?
  (
    flock 9
    printf '\n==== %s\n' "$title"
    cat "$state/$name.log"
    if [ "$status" -ne 0 ]; then printf 'ci: failed with status %d: %s\n' "$status" "$title"; fi
    printf '\n'
  ) 9>"$state/printing"
  if [ "$status" -eq 0 ]; then : >"$state/$name.passed"; fi
  return "$status"
}

# Takes the first step that no lane has begun and that has what it needs, until there is none.
lane() {
  local step name needs title waits
  while :; do
    waits=
    for step in "${steps[@]}"; do
      read -r name needs title <<<"$step"
      if [ -z "${chosen[$name]-}" ] || [ -e "$state/$name.begun" ]; then continue; fi
      # shellcheck disable=SC2086
      if ! have_passed ${needs//[,-]/ }; then waits=yes && continue; fi
      mkdir "$state/$name.begun" 2>/dev/null || continue # the other lane took it
      run_step "$name" "$title"
      continue 2
    done
    [ -n "$waits" ] || return 0
    sleep 1
  done
}

# Ends with the first lane that fails.
run_lanes() {
  local status=0
  mkdir "$state"
  for _ in 1 2; do
    set -m
    (
      set +m
      lane
    ) &
    lanes+=($!)
    set +m
  done
  for _ in 1 2; do
    wait -n || status=$?
    [ "$status" -eq 0 ] || die "a step failed: see above"
  done
  lanes=()
}

# All that there is has run, or what was left out is named.
report() {
  local step name needs title left=0
  for step in "${steps[@]}"; do
    read -r name needs title <<<"$step"
    if have_passed "$name"; then continue; fi
    [ -z "${chosen[$name]-}" ] || die "it did not run: $title"
    printf 'ci: left out, as was asked: %s\n' "$title"
    left=$((left + 1))
  done
  if [ "$left" -eq 0 ]; then
    printf '\nci: all %d steps passed in %d s\n' "${#steps[@]}" "$SECONDS"
  else
    printf '\nci: %d of %d steps passed in %d s\n' $((${#steps[@]} - left)) "${#steps[@]}" "$SECONDS"
  fi
}
