# Sourced by quickstart.sh and tests/run.sh: installs what is missing on Debian and Ubuntu, and nothing else.
# Works as root or through sudo.

root_command() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null 2>&1; then
        sudo "$@"
    else
        echo "This needs root, and there is no sudo here: $*" >&2
        return 1
    fi
}

# need_packages COMMAND:PACKAGE ... installs the packages whose commands are missing.
need_packages() {
    missing=
    for pair in "$@"; do
        command -v "${pair%%:*}" >/dev/null 2>&1 || missing="$missing ${pair#*:}"
    done
    # shellcheck disable=SC2086  # a list of package names
    [ -z "$missing" ] || install_packages $missing
}

# need_headers HEADER:PACKAGE ... does the same for headers that the C compiler does not find; after need_packages cc:gcc.
need_headers() {
    missing=
    for pair in "$@"; do
        echo "#include <${pair%%:*}>" | cc -E - >/dev/null 2>&1 || missing="$missing ${pair#*:}"
    done
    # shellcheck disable=SC2086  # a list of package names
    [ -z "$missing" ] || install_packages $missing
}

# need_python MODULE:PACKAGE ... does the same for modules of python3.
need_python() {
    missing=
    for pair in "$@"; do
        python3 -c "import ${pair%%:*}" >/dev/null 2>&1 || missing="$missing ${pair#*:}"
    done
    # shellcheck disable=SC2086  # a list of package names
    [ -z "$missing" ] || install_packages $missing
}

install_packages() {
    if ! command -v apt-get >/dev/null 2>&1; then
        echo "Please install these first (this machine has no apt-get): $*" >&2
        return 1
    fi
    echo "Installing: $*" >&2
    root_command apt-get update -qq
    root_command env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

# rust_is_enough: is cargo there, and not older than Cargo.toml's rust-version?
rust_is_enough() {
    command -v cargo >/dev/null 2>&1 && command -v rustc >/dev/null 2>&1 || return 1
    wanted=$(sed -n 's/^rust-version = "\([0-9.]*\)"/\1/p' Cargo.toml)
    found=$(rustc --version | cut -d ' ' -f 2 | cut -d - -f 1)
    [ "$(printf '%s\n%s\n' "$wanted" "$found" | sort -V | head -n 1)" = "$wanted" ]
}

# need_rust: a compiler that is new enough, through rustup when there is none.
need_rust() {
    PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$PATH"
    export PATH
    rust_is_enough && return 0
    need_packages curl:curl curl:ca-certificates
    if command -v rustup >/dev/null 2>&1; then
        rustup toolchain install stable --profile minimal -c rustfmt -c clippy
        rustup default stable
    else
        curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y --profile minimal -c rustfmt -c clippy
    fi
    rust_is_enough || { echo "Rust is still older than Cargo.toml wants" >&2; return 1; }
}
