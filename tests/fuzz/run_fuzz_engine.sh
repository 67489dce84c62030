#!/bin/bash
# Damaged models against the C engine under AddressSanitizer and UndefinedBehaviorSanitizer: run_fuzz_engine.sh [CASES [SEED]]
# Without a seed, seeds that no other day has. Exit code 0: no finding; 77: the compiler lacks a sanitizer.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
compiler=${CC:-gcc}
cases=${1:-${NIS_FUZZ_CASES:-20000}} seed=${2:-${NIS_FUZZ_SEED:-$(($(date +%s) / 86400 * 1000000))}}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
flags=(-fsanitize=address,undefined -fno-sanitize-recover=all)
if ! echo 'int main(void){return 0;}' | "$compiler" "${flags[@]}" -x c -o "$folder/probe" - 2>/dev/null; then
    echo "not run: $compiler can't build with ${flags[0]}"
    exit 77
fi
"$compiler" -std=gnu11 -O1 -g -pthread -fno-math-errno -ffp-contract=off -Wall -Wextra -Werror "${flags[@]}" \
    -o "$folder/fuzz" "$root/tests/fuzz/fuzz_engine.c" "$root"/nis_edge/native/*.c -lm
# What a model of absurd sizes asks for is refused, not granted.
export ASAN_OPTIONS=allocator_may_return_null=1:max_allocation_size_mb=1024
"$folder/fuzz" "$cases" "$seed" 2>"$folder/report" ||
    { tr '\r' '\n' <"$folder/report" | tail -n 60 >&2; echo "the number above the report is the case's seed" >&2; exit 1; }
