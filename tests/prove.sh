#!/usr/bin/env bash
# Looks for as long as one likes for a program that stopping changes. HOURS is for the generated programs, SEED where they
# begin, STOPS how often each real program is stopped. With WSNAP_EVERY_SAFEPOINT=1 the few programs of the specification that have
# hundreds of thousands of safepoints are stopped at all of them, which takes hours.
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=$(awk "BEGIN { print int(${HOURS:-1} * 3600) }")
seed=${SEED:-$(od -An -N4 -tu4 /dev/urandom | tr -d ' ')}

step() { printf '\n=== %s (after %d min) ===\n' "$*" $((SECONDS / 60)); }

step "the specification's programs, stopped at every safepoint"
cargo test --release --workspace --test specification

step "generated programs from seed $seed"
cargo run --release --bin equivalence -- --seconds "$seconds" --seed "$seed"

step "real programs under stops and kills"
WSNAP_TEST_STOPS=${STOPS:-300} cargo test --release --workspace --test chaos -- --nocapture

step "faults planted in the rewriter"
cargo test --release --package wsnap-checker --test mutants -- --ignored --nocapture

step "no difference"
