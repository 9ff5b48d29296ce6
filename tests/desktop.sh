#!/bin/sh
# A desktop's file manager on a mount: pcmanfm on a virtual screen, driven by keys and its own command line. It copies,
# renames and trashes files on the mount, and makes thumbnails of them; what came of it is looked at through the shell.
#
#     sh tests/desktop.sh [DIRECTORY FOR SCREENSHOTS]
#
# Needs root (or sudo) for the packages, some 200 MB, and /dev/fuse. BLOCKFRAME=PROGRAM is tested (default: the debug
# build). Heavy, and keys sent to windows depend on the machine's speed: no part of tests/run.sh.
set -eu
cd "$(dirname "$0")/.."
. packaging/setup.sh
need_packages Xvfb:xvfb xdotool:xdotool pcmanfm:pcmanfm dbus-run-session:dbus gio:libglib2.0-bin import:imagemagick \
    openbox:openbox gdk-pixbuf-thumbnailer:libgdk-pixbuf2.0-bin

program=${BLOCKFRAME:-${CARGO_TARGET_DIR:-target}/debug/blockframe}
[ -x "$program" ] || cargo build --locked --quiet --bin blockframe
program=$(readlink -f "$program")
shots=${1:-}
# Not below /dev: there GLib puts nothing into a trash, whatever the filesystem.
scratch=$(mktemp -d /tmp/blockframe-desktop.XXXXXX)
mnt=$scratch/mnt
screen=
end() {
    [ -z "$screen" ] || kill "$screen" 2>/dev/null || true
    if grep -q " $mnt " /proc/mounts; then "$program" umount "$mnt" || umount -l "$mnt" || true; fi
    rm -rf "$scratch"
}
trap end EXIT
trap 'exit 1' INT TERM HUP

mkdir "$mnt" "$scratch/home"
"$program" init "$scratch/archive" >/dev/null
"$program" mount "$mnt" -a "$scratch/archive"
mkdir "$mnt/from" "$mnt/to"
for n in 1 2 3; do convert -size 1200x900 "plasma:rgb($((n * 60)),90,120)" "$mnt/from/picture$n.png"; done

display=:$((90 + $$ % 100))
Xvfb "$display" -screen 0 1024x768x24 >/dev/null 2>&1 &
screen=$!
export DISPLAY="$display" HOME="$scratch/home" XDG_CACHE_HOME="$scratch/home/.cache" XDG_DATA_HOME="$scratch/home/.local/share"
export XDG_CONFIG_HOME="$scratch/home/.config" XDG_RUNTIME_DIR="$scratch/home" mnt scratch shots

cat >"$scratch/session" <<'E2'
set -eu
# until_true COMMAND: at most half a minute.
until_true() {
    for _ in $(seq 150); do
        if eval "$1"; then return 0; fi
        sleep 0.2
    done
    echo "does not come true: $1" >&2
    return 1
}
failed=
check() { # NAME COMMAND
    if until_true "$2"; then echo "ok   $1"; else echo "FAIL $1"; failed="$failed $1"; fi
}
shot() { [ -z "$shots" ] || import -window root "$shots/$1.png" || true; }
show() { # DIRECTORY: a new window on it. What another one copied is gone with it, so that stays open.
    pcmanfm "$1" >/dev/null 2>&1 &
    until_true "xdotool search --onlyvisible --name '^$(basename "$1")' >/dev/null 2>&1"
    window=$(xdotool search --onlyvisible --name "^$(basename "$1")" | head -n 1)
    xdotool windowactivate --sync "$window" 2>/dev/null || xdotool windowfocus "$window"
    sleep 2
}
until_true 'xdotool getdisplaygeometry >/dev/null 2>&1'
openbox >/dev/null 2>&1 &
manager=$!

show "$mnt/from"
check "thumbnails are made of what lies on the mount" \
    'test -n "$(find "$HOME" -path "*thumbnails*" -name "*.png")"'
shot thumbnails
xdotool key ctrl+a; sleep 1; xdotool key ctrl+c; sleep 1
show "$mnt/to"
xdotool key ctrl+v
check "files are copied" 'diff -r "$mnt/from" "$mnt/to" >/dev/null 2>&1'
shot copied
sleep 1; xdotool key Escape Home; sleep 1; xdotool key F2; sleep 2
xdotool key ctrl+a; xdotool type --delay 60 renamed.png; sleep 1; xdotool key Return
check "a file is renamed" 'test -e "$mnt/to/renamed.png"'
shot renamed
xdotool key ctrl+shift+n; sleep 2; xdotool key ctrl+a; xdotool type --delay 60 folder; xdotool key Return
check "a folder is made" 'test -d "$mnt/to/folder"'
gio trash "$mnt/from/picture1.png" || echo "gio trash failed"
check "a file is put into the trash of the mount" \
    '! test -e "$mnt/from/picture1.png" && test -e "$mnt/.Trash-$(id -u)/files/picture1.png"'
show "$mnt/from"
xdotool key ctrl+a; sleep 1; xdotool key Delete; sleep 2; xdotool key Return
check "Delete empties the folder" 'test -z "$(ls "$mnt/from")"'
shot trashed
ls -lAR "$mnt" >"$scratch/seen"
kill "$manager"
[ -z "$failed" ]
E2
status=0
timeout 300 dbus-run-session -- sh "$scratch/session" || status=$?
cat "$scratch/seen" 2>/dev/null || true
for pid in $(fuser -m "$mnt" 2>/dev/null); do ps -o pid=,args= -p "$pid" || true; done
"$program" sync -a "$scratch/archive" && "$program" umount "$mnt"
"$program" health -a "$scratch/archive"
exit $status
