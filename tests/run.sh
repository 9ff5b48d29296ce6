#!/bin/sh
# Installs what is missing on Debian, then runs every check of the project: format, lints, dependencies, tests.
# Mount tests need /dev/fuse; without it they fail, they are not skipped.
set -eu
cd "$(dirname "$0")/.."
. packaging/setup.sh

need_packages cc:gcc cc:libc6-dev pkg-config:pkg-config fusermount3:fuse3 tar:tar diff:diffutils
# SQLCipher, which encrypts the databases of encrypted archives, takes its ciphers from OpenSSL.
need_headers openssl/evp.h:libssl-dev
# Programs that tests/programs.rs runs on a mount.
need_packages git:git sqlite3:sqlite3 rsync:rsync unzip:unzip zip:zip rg:ripgrep make:make ex:vim-tiny setfacl:acl \
    setfattr:attr flock:util-linux python3:python3
# Another implementation of the ciphers, for tests/cipher_python.rs and tests/segment_python.rs.
need_python cryptography:python3-cryptography
# And that tests/compress_tools.rs and tests/segment.py compare with.
need_packages zstd:zstd lz4:lz4 gzip:gzip brotli:brotli
need_rust
cargo fmt --version >/dev/null 2>&1 && cargo clippy --version >/dev/null 2>&1 || rustup component add rustfmt clippy
command -v cargo-nextest >/dev/null 2>&1 || cargo install --locked cargo-nextest
command -v cargo-deny >/dev/null 2>&1 || cargo install --locked cargo-deny

step() {
    echo "== $*"
    "$@"
}

step cargo fmt --all --check
step cargo clippy --workspace --all-targets --locked --quiet -- -D warnings
step cargo deny --log-level error check bans licenses sources
# Known vulnerabilities need the advisory database, which a machine without network cannot fetch.
if timeout 120 cargo deny --log-level error fetch db >/dev/null 2>&1; then
    step cargo deny --log-level error check advisories
else
    echo "== the advisory database cannot be reached: not checked"
fi
step cargo nextest run --workspace --locked --profile ci
step cargo test --workspace --locked --doc --quiet
step sh tests/posix.sh short
echo "== all checks passed"
