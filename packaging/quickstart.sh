#!/bin/sh
# quickstart.sh SOURCE_DIR [WORKDIR]: from a fresh Debian to a mounted archive.
# Installs what is missing, builds, makes an archive from SOURCE_DIR in WORKDIR/archive (default: ./quickstart)
# and mounts it at WORKDIR/mnt. Run it again: what is there already is kept. PROFILE=compact for another profile.
set -eu
source_dir=$(readlink -f "${1:?usage: $0 SOURCE_DIR [WORKDIR]}")
[ -d "$source_dir" ] || { echo "$source_dir is no directory" >&2; exit 2; }
work=${2:-quickstart}
mkdir -p "$work"
work=$(readlink -f "$work")
cd "$(dirname "$0")/.."
. packaging/setup.sh

need_packages cc:gcc cc:libc6-dev pkg-config:pkg-config fusermount3:fuse3
# SQLCipher, which encrypts the databases of encrypted archives, takes its ciphers from OpenSSL.
need_headers openssl/evp.h:libssl-dev
need_rust
cargo build --release --locked
blockframe=${CARGO_TARGET_DIR:-target}/release/blockframe

archive=$work/archive
[ -e "$archive/blockframe-store.json" ] || "$blockframe" init "$archive" --profile "${PROFILE:-balanced}"
"$blockframe" -a "$archive" commit "$source_dir"
mkdir -p "$work/mnt"
mountpoint -q "$work/mnt" || "$blockframe" -a "$archive" mount "$work/mnt"

tree=$work/mnt/$(basename "$source_dir")
echo
"$blockframe" -a "$archive" status
echo
echo "Mounted: $tree"
ls "$tree" | head -n 5
echo "Compare:  diff -r --no-dereference '$source_dir' '$tree'"
echo "Unmount:  $blockframe umount '$work/mnt'"
