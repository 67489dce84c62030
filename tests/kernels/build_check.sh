#!/bin/bash
# Builds check_engine from the engine's own sources: build_check.sh COMPILER OUTPUT [FLAG]...
set -euo pipefail
compiler=$1 output=$2
shift 2
root=$(cd "$(dirname "$0")/../.." && pwd)
"$compiler" -std=gnu11 -O2 -g -pthread -fno-math-errno -ffp-contract=off -Wall -Wextra -Werror "$@" \
    -o "$output" "$root/tests/kernels/check_engine.c" "$root"/nis_edge/native/*.c -lm
