# SPDX-License-Identifier: Apache-2.0
# Sourced by tools/test, which sets `filter`, `jobs` and `say`, with pipefail: runs the tests of a build and counts how they ended.
passed=0 failed=0 skipped=0 failures=() flaky=()

# run PRESET CTEST-ARGUMENTS...: runs the tests and counts. A test that fails is run once more; one that passes only then is
# named as flaky, since a busy machine can stop any process for longer than a test waits, and hiding it would hide a race.
run() {
  local preset=$1 log name status=0 before=$failed; shift
  log=build/$preset.test.log
  say "test $preset"
  ctest --test-dir "build/$preset" -R "$filter" -j "$jobs" --output-on-failure --no-tests=ignore --repeat until-pass:2 "$@" 2>&1 |
    tee "$log" | { grep --line-buffered -vE '^ +(Start|Test) +#?[0-9]+:' || true; } || status=$?
  passed=$((passed + $(grep -cE 'Test +#[0-9]+: .* Passed' "$log" || true)))
  skipped=$((skipped + $(grep -cE 'Test +#[0-9]+: .*\*\*\*Skipped' "$log" || true)))
  while read -r name; do
    failed=$((failed + 1)); failures+=("$preset: $name")
  done < <(sed -nE '/^The following tests FAILED:/,$ s/^[[:space:]]+[0-9]+ - ([^ ]+) \(.+\)$/\1/p' "$log")
  # Where ctest itself was ended, what it had still to run stands in no list.
  if ((status != 0 && failed == before)); then failed=$((failed + 1)); failures+=("$preset: ctest ended with status $status"); fi
  while read -r name; do
    grep -qE "Test +#[0-9]+: $name .* Passed" "$log" && flaky+=("$preset: $name")
  done < <(sed -nE 's/.*Test +#[0-9]+: ([^ ]+) .*\*\*\*.*/\1/p' "$log" | sort -u)
  return 0
}
