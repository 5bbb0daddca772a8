#!/bin/sh
# Builds the programs of `c/` and `rust/` into a folder, by default `bench-guests` in cargo's target directory.
#
# C needs zig (`python3 -m pip install ziglang==0.17.1`), Rust the target (`rustup target add wasm32-wasip1`). What is
# newer than its source is left as it is.
set -eu
cd "$(dirname "$0")"

root=$(cd ../.. && pwd)
target=${CARGO_TARGET_DIR:-$root/target}
out=${1:-$target/bench-guests}
python=${PYTHON:-python3}
manifest=rust/Cargo.toml

need() {
  echo "Building the benchmark's programs needs $1: please run \`$2\`." >&2
  exit 1
}
"$python" -m ziglang version >/dev/null 2>&1 || need zig "$python -m pip install ziglang==0.17.1"
rustup target list --installed | grep -qx wasm32-wasip1 || need "a target of Rust" "rustup target add wasm32-wasip1"

mkdir -p "$out"

# Builds out/NAME.wasm from c/NAME.c and whatever else is named.
build_c() {
  name=$1
  shift
  made=$out/$name.wasm
  if [ -z "$(find "c/$name.c" c/guest.h build.sh rust/Cargo.lock -newer "$made" 2>&1)" ]; then
    return
  fi
  echo "building $name"
  "$python" -m ziglang cc -target wasm32-wasi -O2 -s -Wall -Wextra "c/$name.c" -o "$made" "$@"
}

# The folder of a package that the lock file pins, among those that cargo has fetched.
package() {
  cargo metadata --locked --format-version 1 --manifest-path "$manifest" | "$python" -c '
import json, os, sys
packages = json.load(sys.stdin)["packages"]
print(*(os.path.dirname(p["manifest_path"]) for p in packages if p["name"] == sys.argv[1]))' "$1"
}

for source in c/*.c; do
  name=$(basename "$source" .c)
  case $name in
    simd) build_c "$name" -msimd128 ;;
    sqlite)
      sqlite=$(package libsqlite3-sys)/sqlite3
      build_c "$name" -w -I"$sqlite" "$sqlite/sqlite3.c" -DSQLITE_THREADSAFE=0 -DSQLITE_OMIT_LOAD_EXTENSION \
        -DSQLITE_TEMP_STORE=3 -D_WASI_EMULATED_MMAN -D_WASI_EMULATED_GETPID -D_WASI_EMULATED_SIGNAL \
        -lwasi-emulated-mman -lwasi-emulated-getpid -lwasi-emulated-signal
      ;;
    lua)
      # setjmp and longjmp, by which Lua's errors travel, are made of WebAssembly exceptions.
      lua=$(dirname "$(find "$(package lua-src)" -name lvm.c -path '*5.4*')")
      files=$(find "$lua" -name '*.c' ! -name lua.c ! -name luac.c ! -name onelua.c ! -name ltests.c)
      # shellcheck disable=SC2086 # one word per file
      build_c "$name" -w -I"$lua" $files ../../guest-examples/c/longjmp_tag.s -mexception-handling -mllvm -wasm-enable-sjlj \
        -mllvm -wasm-use-legacy-eh=false -D_WASI_EMULATED_SIGNAL -D_WASI_EMULATED_PROCESS_CLOCKS \
        -lwasi-emulated-signal -lwasi-emulated-process-clocks
      ;;
    *) build_c "$name" ;;
  esac
done

cargo build --locked --quiet --release --target wasm32-wasip1 --manifest-path "$manifest" --target-dir "$target/bench-guests-build"
for source in rust/src/bin/*.rs; do
  name=$(basename "$source" .rs)
  cp "$target/bench-guests-build/wasm32-wasip1/release/$name.wasm" "$out/$name.wasm"
done

# What a report on these programs has to name.
{
  echo "zig $("$python" -m ziglang version)"
  rustc --version
} >"$out/tools.txt"
