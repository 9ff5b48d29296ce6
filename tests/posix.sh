#!/bin/sh
# Conformance of a read-write mount: pjdfstest (POSIX, as root) and fsx (contents against a model), both from crates.io.
#
#     sh tests/posix.sh [short|long] [pjdfstest] [fsx]
#
# short: 2,000 operations for each series of fsx, half a minute; long: 1,000,000. Without a name both suites run.
# BLOCKFRAME=PROGRAM is tested (default: the debug build), in a fresh archive under TMPDIR (default: /dev/shm where there
# is one); SEED=N gives fsx other series, which a failure prints. After each suite the archive has to be healthy.
# Nothing may fail. On ext4 pjdfstest skips 13 of its 398 cases.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/.."
. packaging/setup.sh

mode=${1:-short}
[ $# = 0 ] || shift
case $mode in
short) operations=2000 ;;
long) operations=1000000 ;;
*) echo "usage: sh tests/posix.sh [short|long] [pjdfstest] [fsx]" >&2; exit 2 ;;
esac
suites=${*:-pjdfstest fsx}
seed=${SEED:-1}

need_packages cc:gcc cc:libc6-dev fusermount3:fuse3
need_rust
[ -e /dev/fuse ] || { echo "There is no /dev/fuse here." >&2; exit 2; }

# need_crate NAME VERSION: of the program that says its name and version.
need_crate() {
    case $(cargo install --list) in
    *"$1 v$2:"*) ;;
    *) cargo install --quiet --locked --version "$2" "$1" ;;
    esac
}

program=${BLOCKFRAME:-}
if [ -z "$program" ]; then
    cargo build --locked --quiet --bin blockframe
    program=${CARGO_TARGET_DIR:-target}/debug/blockframe
fi
program=$(readlink -f "$program")

base=${TMPDIR:-}
[ -n "$base" ] || { [ -d /dev/shm ] && base=/dev/shm || base=/tmp; }
scratch=$(mktemp -d "$base/blockframe-posix.XXXXXX")
mnt=$scratch/mnt
end() {
    if grep -q " $mnt " /proc/mounts; then "$program" umount "$mnt" || umount -l "$mnt" || true; fi
    rm -rf "$scratch"
}
trap end EXIT
trap 'exit 1' INT TERM HUP

# From nothing to a mount that programs can do everything on.
up() {
    rm -rf "$scratch/archive"
    mkdir -p "$mnt"
    chmod 755 "$scratch" "$mnt"
    "$program" init "$scratch/archive" >/dev/null
    "$program" mount "$mnt" -a "$scratch/archive" -o allow_other,dev,suid
}

down() {
    "$program" umount "$mnt"
    # `health` ends with a status of its own when anything is damaged.
    "$program" health -q -a "$scratch/archive" >/dev/null || { echo "the archive is damaged after $1" >&2; return 1; }
}

run_pjdfstest() {
    [ "$(id -u)" = 0 ] || { echo "== pjdfstest: skipped, it needs root"; return 0; }
    need_crate pjdfstest 0.2.2
    made=
    if ! id tests >/dev/null 2>&1; then
        useradd -M -s /usr/sbin/nologin tests
        made=tests
    fi
    up
    mkdir -m 755 "$mnt/suite" "$scratch/second"
    cat >"$scratch/pjdfstest.toml" <<'T'
[features]
posix_fallocate = {}
rename_ctime = {}
utime_now = {}
utimensat = {}
[settings]
naptime = 0.02
allow_remount = false
[dummy_auth]
entries = [["nobody", "nogroup"], ["tests", "tests"]]
T
    timeout 1800 pjdfstest -c "$scratch/pjdfstest.toml" -p "$mnt/suite" -s "$scratch/second" >"$scratch/out" 2>&1 || true
    [ -z "$made" ] || userdel "$made"
    rm -rf "$mnt/suite" "$scratch/second"
    down pjdfstest
    sed -n 's/^Summary:/== pjdfstest:/p' "$scratch/out"
    grep -q '^Summary: 0 failed' "$scratch/out" || { cat "$scratch/out" >&2; return 1; }
}

# series NAME SEED [LINES]: one run of fsx, with more weights.
series() {
    {
        cat <<'T'
flen = 1048576
[opsize]
max = 131072
[weights]
close_open = 1
read = 10
write = 10
mapread = 5
mapwrite = 5
truncate = 5
invalidate = 1
fsync = 1
fdatasync = 1
sendfile = 2
posix_fadvise = 1
T
        printf '%b' "${3:-}"
    } >"$scratch/$1.toml"
    if timeout 7200 fsx -N "$operations" -S "$2" -f "$scratch/$1.toml" -P "$scratch" "$mnt/$1" >"$scratch/out" 2>&1; then
        echo "== fsx: $1 passed ($operations operations, seed $2)"
        rm -f "$mnt/$1"
    else
        echo "fsx: $1 failed (seed $2):" >&2
        tail -n 40 "$scratch/out" >&2
        failed="$failed $1"
    fi
}

run_fsx() {
    need_crate fsx 0.3.2
    up
    failed=
    for n in 0 1 2 3; do
        series "plain$n" $((seed + n))
    done
    series fallocate $((seed + 10)) 'posix_fallocate = 4\n'
    series punch $((seed + 11)) 'punch_hole = 4\n'
    series copy $((seed + 12)) 'copy_file_range = 4\n'
    series all $((seed + 13)) 'posix_fallocate = 1\npunch_hole = 1\ncopy_file_range = 2\n'
    down fsx
    [ -z "$failed" ] || { echo "fsx: these series failed:$failed" >&2; return 1; }
}

for suite in $suites; do
    case $suite in
    pjdfstest) run_pjdfstest ;;
    fsx) run_fsx ;;
    *) echo "there is no suite $suite" >&2; exit 2 ;;
    esac
done
