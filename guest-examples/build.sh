#!/bin/sh
# Rebuilds guest-examples/prebuilt from source and writes guest-examples/SHA256SUMS.
#
# C needs zig (`pip install ziglang`), Rust the target (`rustup target add wasm32-wasip1`). Other compiler versions
# give other bytes, so both are pinned: zig 0.17.1 and Rust 1.95.
set -eu
cd "$(dirname "$0")"

zig() {
  "${PYTHON:-python3}" -m ziglang "$@"
}

build_c() {
  name=$1
  shift
  zig cc -target wasm32-wasi -O2 -s -Wall -Wextra "$@" "c/$name.c" -o "prebuilt/$name.wasm"
}

mkdir -p prebuilt
build_c pi
build_c files
build_c phases
# setjmp and longjmp are made of WebAssembly exceptions.
build_c library -mexception-handling -mllvm -wasm-enable-sjlj -mllvm -wasm-use-legacy-eh=false c/longjmp_tag.s

target=${CARGO_TARGET_DIR:-rust/target}
cargo build --quiet --release --target wasm32-wasip1 --manifest-path rust/Cargo.toml --target-dir "$target"
for name in queue dialogue; do
  cp "$target/wasm32-wasip1/release/$name.wasm" "prebuilt/$name.wasm"
done

cargo build --quiet --release --target wasm32-wasip1 --manifest-path rust/wsnap-guest/Cargo.toml --example warm \
  --target-dir "$target"
cp "$target/wasm32-wasip1/release/examples/warm.wasm" prebuilt/warm.wasm

chmod 644 prebuilt/*.wasm
sha256sum prebuilt/*.wasm wat/*.wat >SHA256SUMS
