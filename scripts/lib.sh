# Shared by the scripts: what a bare Debian or Ubuntu machine lacks. Sourced, not run.

say() { printf '%s\n' "$*"; }
die() { printf '%s\n' "$*" >&2; exit 1; }

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"
  elif command -v sudo >/dev/null; then sudo "$@"
  else die "this needs root: $*"
  fi
}

# need COMMAND PACKAGE ...: installs the packages of the commands that are missing.
need() {
  local missing=()
  while [ $# -gt 0 ]; do
    command -v "$1" >/dev/null || missing+=("$2")
    shift 2
  done
  [ ${#missing[@]} -eq 0 ] && return
  command -v apt-get >/dev/null || die "please install: ${missing[*]}"
  say "installing ${missing[*]}"
  as_root apt-get update -qq >/dev/null || true
  DEBIAN_FRONTEND=noninteractive as_root apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

need_fuse() {
  need fusermount3 fuse3
  [ -e /dev/fuse ] || as_root modprobe fuse 2>/dev/null || true
  [ -e /dev/fuse ] || die "/dev/fuse is missing: load the fuse module, or start this container with --device /dev/fuse --cap-add SYS_ADMIN"
}

need_cargo() {
  command -v cargo >/dev/null || die "cargo is missing: install a Rust toolchain, see https://rustup.rs"
  need cc gcc
}

# Mounts of supafs below a directory, innermost first.
mounts_below() {
  awk -v dir="$1/" '$3 == "fuse.supafs" && index($2 "/", dir) == 1 { print $2 }' /proc/mounts | sort -r
}

# Detaches the mounts below a directory whose daemon is gone; live ones are left alone.
clear_dead_mounts_below() {
  local mountpoint
  mounts_below "$1" | while read -r mountpoint; do
    LC_ALL=C stat "$mountpoint" 2>&1 >/dev/null | grep -qE 'not connected|connection abort' || continue
    as_root umount -l "$mountpoint" 2>/dev/null || fusermount3 -uz "$mountpoint" || true
  done
}
