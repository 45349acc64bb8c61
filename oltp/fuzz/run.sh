#!/usr/bin/env bash
# Runs the fuzz targets, each for a while, and adds what was done to benches/results/fuzz.json. Stop it at any time: a target
# counts when it has ended, and its corpus stays, so that the next run goes on from there.
#
#   oltp/fuzz/run.sh [seconds each, 3600] [target…]
#
# An hour of a target is an hour of processor time, cpu_seconds; seconds are those of the clock.
# Needs a nightly compiler. The packages are oltp/fuzz and olap/fuzz; corpora are made from nothing under target/fuzz.
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
each=${1:-3600}
[ $# -gt 0 ] && shift
build=${CARGO_TARGET_DIR:-$root/target}/fuzz
results=$root/benches/results/fuzz.json
commit=$(git -C "$root" rev-parse HEAD)
changed=$(git -C "$root" status --porcelain -- oltp olap | wc -l)
export CARGO_TARGET_DIR="$build"
# What cargo-fuzz would pass. No sanitizer: the decoders are safe Rust, and without one there are ten times as many runs.
export RUSTFLAGS="--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
 -Cllvm-args=-sanitizer-coverage-trace-compares"
triple=$(rustc -vV | sed -n 's/^host: //p')
failed=0
for package in oltp olap; do
    targets=$(sed -n 's/^name = "\(.*\)"/\1/p' "$root/$package/fuzz/Cargo.toml" | grep -v '^strata-')
    cargo +nightly build --quiet --release --target "$triple" --manifest-path "$root/$package/fuzz/Cargo.toml" --bins
    for target in $targets; do
        [ $# -gt 0 ] && case " $* " in *" $target "*) ;; *) continue ;; esac
        corpus=$build/corpus/$target
        mkdir -p "$corpus" "$build/findings/$target"
        log=$build/$target.log
        begun=$SECONDS
        finding=null
        TIMEFORMAT=%U
        { time "$build/$triple/release/$target" "$corpus" -max_total_time="$each" -max_len=4096 -timeout=10 \
            -rss_limit_mb=2048 -print_final_stats=1 -artifact_prefix="$build/findings/$target/" >"$log" 2>&1; } 2>"$log.cpu" ||
            { finding="\"$(ls -t "$build/findings/$target" | head -1)\"" && failed=1; }
        seconds=$((SECONDS - begun))
        cpu=$(cut -d. -f1 "$log.cpu")
        runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
        inputs=$(ls "$corpus" | wc -l)
        row="{\"target\": \"$target\", \"commit\": \"$commit\", \"changed_files\": $changed, \"seconds\": $seconds, \"cpu_seconds\": $cpu"
        row="$row, \"executions\": ${runs:-0}, \"corpus_inputs\": $inputs, \"finding\": $finding}"
        echo "$row"
        # One line for each run of a target; the list is put together again with every line.
        lines=$(sed -n 's/^  \({.*}\),*$/\1/p' "$results" 2>/dev/null || true)
        printf '%s\n%s\n' "$lines" "$row" | sed '/^$/d; s/^/  /; $!s/$/,/' | { echo '['; cat; echo ']'; } >"$results.new"
        mv "$results.new" "$results"
    done
done
exit $failed
