# What scripts/demo --check compares. Sourced by it: $dir, $work and the demo's variables are set.

failed=0
wrong() { say "FAILED: $*"; failed=1; }

# The manifest names objects; placeholders are not shown, and an object beside a folder of its name is shown with !00.
expected() {
  grep "  $1" "$work/manifest" | grep -v '/\.emptyFolderPlaceholder$' | LC_ALL=C sort -k2
}
shown() { (cd "$1" && find . -type f -printf '%P\0' | xargs -0 -r sha256sum -- | sed "s#^\([0-9a-f]*  \)#\1$2#" | LC_ALL=C sort -k2); }

shown "$dir/keys" "" | sed 's/!00$//' | LC_ALL=C sort -k2 >"$work/keys"
expected "" >"$work/keys.expected"
cmp -s "$work/keys" "$work/keys.expected" ||
  wrong "the mount with access keys differs from what was stored: $(diff "$work/keys.expected" "$work/keys" | head -5)"
[ -d "$dir/keys/demo/empty folder" ] || wrong "the empty folder is missing"

as_user() {
  local name=$1 id=$2
  { expected "team/$id/"; expected team/shared/; } | LC_ALL=C sort -k2 >"$work/$name.expected"
  shown "$dir/$name" team/ >"$work/$name"
  [ -s "$work/$name.expected" ] || wrong "the sample data has nothing for $name"
  cmp -s "$work/$name" "$work/$name.expected" ||
    wrong "$name does not see what the policy says: $(diff "$work/$name.expected" "$work/$name" | head -5)"
}
as_user alice "$ALICE_ID"
as_user bob "$BOB_ID"

# Writing: what alice saves is in the bucket when cp returns, a folder is moved with what is in it, and what a policy
# forbids is refused to her face.
mine=$dir/alice/$ALICE_ID theirs=$dir/keys/team/$ALICE_ID
mkdir "$mine/new" && cp scripts/demo "$mine/new/café [1].sh" && mv "$mine/new" "$mine/moved" ||
  wrong "alice cannot write in her own folder"
sleep 6 # the other mount believes its listing for five seconds
cmp scripts/demo "$theirs/moved/café [1].sh" || wrong "what alice wrote did not arrive"
if cp scripts/demo "$dir/alice/$BOB_ID-stolen" 2>"$work/refused"; then wrong "alice wrote where no policy lets her"; fi
grep -q 'Permission denied' "$work/refused" || wrong "alice was refused with: $(cat "$work/refused")"
# What the demo tells people to try: a shell ignores what close says, so that open must tell.
if bash -c "echo hello > '$dir/alice/hello.txt'" 2>"$work/refused"; then wrong "a shell believes that alice wrote where no policy lets her"; fi
grep -q 'Permission denied' "$work/refused" || wrong "a shell was told: $(cat "$work/refused")"
[ ! -e "$dir/alice/hello.txt" ] || wrong "what a shell was refused is still shown"
bash -c "echo hello > '$mine/hello.txt'" && [ "$(cat "$mine/hello.txt")" = hello ] && rm "$mine/hello.txt" ||
  wrong "a shell cannot write in alice's own folder"
[ ! -e "$dir/alice/$BOB_ID-stolen" ] || wrong "what was refused is still shown"
rm -r "$mine/moved" && [ ! -e "$mine/moved" ] || wrong "alice cannot remove her own folder"

[ "$failed" = 0 ] || exit 1
say "demo check passed: $(wc -l <"$work/keys") files with access keys, $(wc -l <"$work/alice") as alice, $(wc -l <"$work/bob") as bob, checksums equal; alice wrote, moved and removed, and was refused elsewhere"
