# Shared by the scripts that run other projects' test suites: a stand-in, mounts of its bucket, and an end that leaves
# neither behind. Sourced after lib.sh, not run. The bucket has the name that `suite_machinery` is given.

# suite_machinery NAME [disk]: builds what is needed, makes the directory $work, starts a stand-in with the bucket NAME.
# It keeps objects in memory, or with `disk` below $work.
# SUPAFS_SUITE_BUILT says that supafs and the stand-in are built; SUPAFS_SUITE_KEEP keeps $work after a failure.
suite_machinery() {
  bucket=$1
  need_fuse
  need pgrep procps
  target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
  if [ -z "${SUPAFS_SUITE_BUILT:-}" ]; then
    need_cargo
    say "building (the first time takes a few minutes)"
    cargo build --release --quiet --workspace
  fi
  supafs=$target/release/supafs
  # Other users have to get through to the mount points.
  work=$(mktemp -d "${TMPDIR:-/tmp}/supafs-$bucket-XXXXXX")
  chmod 755 "$work"
  server=
  trap end_of_suite EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM
  start_standin "${2:-memory}"
}

end_of_suite() {
  local status=$? mountpoint child
  trap - EXIT INT TERM
  # What a suite has started and not ended would keep its mount busy.
  for child in $(pgrep -P $$); do
    [ "$child" = "$server" ] || end_tree "$child"
  done
  mounts_below "$work" | while read -r mountpoint; do
    env -i PATH="$PATH" HOME="$work/home" "$supafs" unmount "$mountpoint" ||
      "$supafs" unmount --lazy "$mountpoint" || true
  done
  [ -z "$server" ] || { kill "$server" 2>/dev/null && wait "$server" 2>/dev/null; } || true
  [ $status = 0 ] || [ -z "${SUPAFS_SUITE_KEEP:-}" ] || { say "kept: $work"; exit $status; }
  rm -rf --one-file-system "$work"
  exit $status
}

# end_tree PID: kills a process with all that it has started. It is stopped first, so that it starts nothing more, and
# whoever waits for it goes on when all are gone.
end_tree() {
  local child
  kill -STOP "$1" 2>/dev/null || true
  for child in $(pgrep -P "$1"); do end_tree "$child"; done
  kill -KILL "$1" 2>/dev/null || true
}

start_standin() {
  local where=()
  [ "$1" = memory ] || where=(--data "$work/data")
  "$target/release/supafs-standin" --bucket "$bucket" "${where[@]}" --env-file "$work/env" >"$work/standin.log" 2>&1 &
  server=$!
  for _ in $(seq 300); do
    [ -s "$work/env" ] && break
    kill -0 "$server" 2>/dev/null || { cat "$work/standin.log"; die "the stand-in did not start"; }
    sleep 0.1
  done
  [ -s "$work/env" ] || die "the stand-in did not become ready"
  # shellcheck disable=SC1091 # written just now
  . "$work/env"
}

# supafs_here ARGUMENT ...: supafs with the credential of the stand-in and nothing else of the environment.
supafs_here() {
  env -i PATH="$PATH" HOME="$work/home" SUPABASE_S3_ENDPOINT="$SUPABASE_S3_ENDPOINT" \
    SUPABASE_S3_ACCESS_KEY_ID="$SUPABASE_S3_ACCESS_KEY_ID" \
    SUPABASE_S3_SECRET_ACCESS_KEY="$SUPABASE_S3_SECRET_ACCESS_KEY" "$supafs" "$@"
}

# mount_at NAME OPTION ...: a mount of a folder of its own, at $work/NAME.
mount_at() {
  local name=$1
  shift
  mkdir -p "$work/$name"
  supafs_here mount "$bucket/$name" "$work/$name" --log-file "$work/$name.log" "$@" 2>"$work/$name.err" ||
    { cat "$work/$name.err" >&2; return 1; }
}

# unmount_at NAME: the daemon may not have broken down behind a suite that went well.
unmount_at() {
  # Where the daemon announced itself, so that this waits for its end.
  env -i PATH="$PATH" HOME="$work/home" "$supafs" unmount "$work/$1"
  no_panic "$1"
}

no_panic() {
  ! grep -F panicked "$work/$1.log" || die "the daemon of $1 panicked"
}
