#!/bin/sh
# Fuzzing with libFuzzer on stable Rust:
#
#   sh fuzz/run.sh [TARGET|all] [SECONDS] [LIBFUZZER OPTION...]
#
# Without arguments every target runs for 60 seconds; `sh fuzz/run.sh list` names them. What is found goes to
# fuzz/artifacts/TARGET; `sh fuzz/run.sh TARGET 0 FILE` repeats one input. The corpus grows in fuzz/corpus/TARGET.
set -eu
cd "$(dirname "$0")/.."
target=${1:-all}
seconds=${2:-60}
shift $(($# < 2 ? $# : 2))

targets=$(sed -n 's/^name = "\(.*\)"$/\1/p' fuzz/Cargo.toml | grep -v '^blockframe-fuzz$')
case $target in
list)
    echo "$targets"
    exit 0
    ;;
all) ;;
*)
    echo "$targets" | grep -qx -- "$target" || { echo "no target $target; there are:" "$targets" >&2; exit 2; }
    targets=$target
    ;;
esac
. packaging/setup.sh
# libFuzzer is C++.
need_packages cc:gcc c++:g++ cc:libc6-dev pkg-config:pkg-config
need_headers openssl/evp.h:libssl-dev
need_rust

# What cargo-fuzz passes, without the sanitizers: those need a nightly compiler, and code without `unsafe` little of
# them. With `--target` the flags are not used for build scripts and macros, which could not be linked with them.
host=$(rustc -vV | sed -n 's/^host: //p')
coverage="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-pc-table
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-trace-compares --cfg fuzzing"
build=${CARGO_TARGET_DIR:-fuzz/target}
# The program's versions of everything; what only the targets need is added to them.
cp Cargo.lock fuzz/Cargo.lock
bins=$(for name in $targets; do printf -- ' --bin %s' "$name"; done)
# shellcheck disable=SC2086
RUSTFLAGS="$(echo "$coverage" | tr '\n' ' ')" \
    cargo build --quiet --manifest-path fuzz/Cargo.toml --target-dir "$build" --release --target "$host" $bins

# Databases of the target `catalog` are no business of a disk.
[ -n "${TMPDIR:-}" ] || [ ! -w /dev/shm ] || export TMPDIR=/dev/shm
failed=
for name in $targets; do
    program=$build/$host/release/$name
    corpus=fuzz/corpus/$name
    mkdir -p "$corpus" "fuzz/artifacts/$name"
    BLOCKFRAME_FUZZ_SEEDS=$corpus "$program" 2>/dev/null
    if [ "$seconds" = 0 ]; then
        "$program" "$@" || failed="$failed $name"
    else
        log=fuzz/artifacts/$name/log
        if "$program" -max_total_time="$seconds" -timeout=20 -rss_limit_mb=4096 -print_final_stats=1 \
            -artifact_prefix="fuzz/artifacts/$name/" "$corpus" "$@" >"$log" 2>&1; then
            echo "$name: $(sed -n 's/^stat::number_of_executed_units: *//p' "$log") inputs in $seconds s," \
                "$(grep -o 'cov: [0-9]*' "$log" | tail -n 1)"
        else
            failed="$failed $name"
            grep -v -e '^#[0-9]' -e NEW_FUNC "$log" | tail -n 30
        fi
    fi
done
[ -z "$failed" ] || { echo "broken:$failed; the inputs are in fuzz/artifacts" >&2; exit 1; }
