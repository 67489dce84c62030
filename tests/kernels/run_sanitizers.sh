#!/bin/bash
# The engine under AddressSanitizer with UndefinedBehaviorSanitizer, then its threads under ThreadSanitizer.
# Exit code 0: no finding; 77: the compiler lacks a sanitizer, nothing was run.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
compiler=${CC:-gcc}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
for sanitizer in address,undefined thread; do
    if ! echo 'int main(void){return 0;}' | "$compiler" -fsanitize=$sanitizer -x c -o "$folder/probe" - 2>/dev/null; then
        echo "not run: $compiler can't build with -fsanitize=$sanitizer"
        exit 77
    fi
done

echo "== address, undefined"
"$here/build_check.sh" "$compiler" "$folder/check_address" -fsanitize=address,undefined -fno-sanitize-recover=all
"$folder/check_address" --quick
echo "== thread"
"$here/build_check.sh" "$compiler" "$folder/check_thread" -fsanitize=thread
TSAN_OPTIONS=halt_on_error=1 "$folder/check_thread" --quick --threads-only
echo "all right: no finding"
