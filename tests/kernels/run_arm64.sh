#!/bin/bash
# The engine on aarch64 under qemu-user: the kernels against scalar, and forward passes whose bits must be those that
# x86-64 computes (tests/golden/forward_hashes.txt). Exit code 0: all right; 77: a tool is missing, nothing was run.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
compiler=${CC_ARM64:-aarch64-linux-gnu-gcc}
emulator=${QEMU_ARM64:-qemu-aarch64}
for tool in "$compiler" "$emulator"; do
    if ! command -v "$tool" >/dev/null; then
        echo "not run: $tool is missing (Debian: apt install gcc-aarch64-linux-gnu qemu-user)"
        exit 77
    fi
done

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"$here/build_check.sh" "$compiler" "$folder/check_engine" -static

run() { # CPU FLAG...
    local cpu=$1
    shift
    echo "== $cpu"
    "$emulator" -cpu "$cpu" "$folder/check_engine" --quick "$@" | tee "$folder/output"
    if ! diff <(grep -E '^(forward|rolling|choosing|screen) ' "$folder/output") "$here/../golden/forward_hashes.txt"; then
        echo "FAILED: $cpu computes other bits than tests/golden/forward_hashes.txt"
        exit 1
    fi
}

# The Cortex-A72 of a Raspberry Pi 4 has no SDOT, and must never meet one.
run cortex-a72 --absent neondot --absent avx2 --absent avxvnni --absent avx512vnni
run cortex-a76 --absent avx2 --absent avxvnni --absent avx512vnni
if [ "${1:-}" != --two ]; then run max --absent avx2 --absent avxvnni --absent avx512vnni; fi
echo "all right: the same bits as x86-64"
