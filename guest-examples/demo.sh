#!/usr/bin/env bash
# Builds wsnap and shows what it does: a program that computes pi is stopped in the middle, and another process finishes it.
# Needs Rust and a C compiler. Leaves nothing behind but the build.
set -euo pipefail
cd "$(dirname "$0")/.."

# The tests are built along with everything else, because they choose features of shared dependencies: built apart, each
# would compile the engine again.
cargo build --release --workspace --all-targets
wsnap=${CARGO_TARGET_DIR:-target}/release/wsnap
program=guest-examples/prebuilt/pi.wasm

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
export WSNAP_STORE=$folder/store WSNAP_CACHE=$folder/cache

say() { printf '\n== %s\n' "$*"; }
# The beginning and the end of a file that is too long to look at.
ends() { head -n 2 "$1" && echo '        …' && tail -n 2 "$1"; }

say "A program computes 45000 digits of pi. After a second it gets what Ctrl-C sends."
"$wsnap" run --name pi "$program" >"$folder/first" &
process=$!
sleep 1
kill -INT "$process"
status=0
wait "$process" || status=$?
ends "$folder/first"
if [ "$status" -ne 85 ]; then
    echo "It was to be suspended with exit code 85, but ended with $status." >&2
    exit 1
fi

say "Its process is gone. This is what is left of it:"
"$wsnap" inspect pi

say "Another process goes on."
"$wsnap" resume pi >"$folder/second"
ends "$folder/second"

say "The same without a stop, under plain wasmtime:"
"$wsnap" run --bare "$program" >"$folder/whole"
ends "$folder/whole"
cat "$folder/first" "$folder/second" | cmp - "$folder/whole"
echo
echo "Both printed the same: $(wc -l <"$folder/first") lines before the stop, $(wc -l <"$folder/second") after it."
