#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# tools/test counts a test that fails in whatever way, and ctest's own end. usage: test_counts_test.sh TOOLS_DIR
set -euo pipefail
tools=$1
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
filter=. jobs=1
say() { :; }
. "$tools/test_counts.sh"

# made PRESET LINE...: a build directory with these lines for ctest.
made() {
  mkdir -p "build/$1"
  printf '%s\n' "${@:2}" >"build/$1/CTestTestfile.cmake"
}
# expect PASSED FAILED SKIPPED
expect() {
  [[ "$passed $failed $skipped" == "$*" ]] || { echo "passed, failed, skipped: $passed $failed $skipped, expected $*"; exit 1; }
}

made ends 'add_test(passes true)' 'add_test(skips sh -c "echo no root")' \
  'set_tests_properties(skips PROPERTIES SKIP_REGULAR_EXPRESSION "no root")' 'add_test(fails false)' \
  'add_test(absent /nowhere/to/be/found)' 'add_test(late sleep 5)' 'set_tests_properties(late PROPERTIES TIMEOUT 1)' \
  'add_test(off false)' 'set_tests_properties(off PROPERTIES DISABLED TRUE)'
for signal in KILL ILL FPE SEGV ABRT TERM INT BUS; do
  printf 'add_test(sig%s sh -c "kill -%s $$")\n' "$signal" "$signal" >>build/ends/CTestTestfile.cmake
done
run ends >/dev/null
expect 1 11 1

passed=0 failed=0 skipped=0
made second 'add_test(flaky sh -c "test -e seen || { touch seen; kill -KILL $$; }")'
run second >/dev/null
expect 1 0 0
[[ ${flaky[*]} == "second: flaky" ]] || { echo "flaky: ${flaky[*]}"; exit 1; }

# ctest itself ends half way: its parent is killed by a test.
passed=0 failed=0 skipped=0
made ended 'add_test(ender sh -c "kill -KILL $PPID")' 'add_test(never true)'
run ended >/dev/null
expect 0 1 0
