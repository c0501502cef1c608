//! Sample data: bucket `demo` (open to every signed-in user) with files of real kinds, and bucket `team`,
//! in which each user has a folder and reads `shared/`. The same bytes every time, so that checksums can
//! be written down.

mod png;

use sha2::{Digest as _, Sha256};
use std::fmt::Write as _;

use crate::config::{ALICE, BOB};
use crate::key::PLACEHOLDER;
use crate::rls::Policy;
use crate::standin::{PutOptions, Standin};

/// Size of `videos/big.bin`.
pub const BIG: u64 = 200 * 1024 * 1024;
const BIG_SEED: u64 = 0x5afa;
/// Its SHA-256, written down because hashing it takes an unoptimised build ten seconds.
const BIG_SHA256: &str = "23d758df8f60ee2d095c2e5be26946425f18bd8d0227773916bce8c3ca33bd61";

const WORDS: [&str; 16] = [
    "harbour", "ledger", "violet", "engine", "paper", "autumn", "signal", "copper", "garden", "window",
    "stone", "letter", "market", "river", "cloud", "lantern",
];

/// Makes the demo buckets that are not there yet.
pub fn seed(standin: &Standin) {
    if !standin.has_bucket("demo") {
        standin.create_bucket("demo");
        standin.set_policies("demo", Policy::authenticated_all());
        standin.set_bucket_visible_to("demo", &["authenticated"]);
        demo(standin);
    }
    if !standin.has_bucket("team") {
        standin.create_bucket("team");
        standin.set_policies("team", Policy::user_folders());
        team(standin);
    }
}

fn put(standin: &Standin, bucket: &str, key: &str, kind: &str, bytes: impl Into<bytes::Bytes>) {
    let options = PutOptions { content_type: Some(kind.to_owned()), ..PutOptions::default() };
    standin.put_with(bucket, key, bytes, options);
}

fn demo(standin: &Standin) {
    let put = |key: &str, kind: &str, bytes: Vec<u8>| put(standin, "demo", key, kind, bytes);
    put("README.md", "text/markdown", markdown("Demo bucket", 3).into_bytes());
    put("notes.txt", "text/plain", prose(1, 40).into_bytes());
    put("empty.txt", "text/plain", Vec::new());
    for i in 0..60_u32 {
        let (year, month) = (2023 + i / 24, i % 12 + 1);
        put(
            &format!("docs/{year}/{month:02}/report-{i:03}.md"),
            "text/markdown",
            markdown("Report", i).into_bytes(),
        );
        put(&format!("docs/{year}/{month:02}/notes {i:03}.txt"), "text/plain", prose(i, 20).into_bytes());
    }
    for i in 0..40 {
        put(&format!("data/table-{i:02}.csv"), "text/csv", csv(i).into_bytes());
        put(&format!("data/json/record-{i:02}.json"), "application/json", json(i).into_bytes());
    }
    for i in 0..30_u8 {
        let side = 16 + u16::from(i) * 8;
        put(
            &format!("photos/2025/trip {}/IMG_{i:04}.png", i % 3),
            "image/png",
            png::gradient(side, side, i * 8),
        );
    }
    put("archive/a/b/c/deep.txt", "text/plain", prose(7, 5).into_bytes());
    // An empty folder as Studio makes it, and a file that is also a folder.
    put(&format!("empty folder/{PLACEHOLDER}"), "application/octet-stream", Vec::new());
    put("both", "text/plain", b"a file named like the folder beside it\n".to_vec());
    put("both/inside.txt", "text/plain", b"inside the folder\n".to_vec());
    let options =
        PutOptions { content_type: Some("application/octet-stream".to_owned()), ..PutOptions::default() };
    standin.put_synthetic_with("demo", "videos/big.bin", BIG, BIG_SEED, options);
}

fn team(standin: &Standin) {
    for (sub, name) in [(ALICE, "Alice"), (BOB, "Bob")] {
        let put = |key: &str, kind: &str, text: String| {
            let options = PutOptions {
                content_type: Some(kind.to_owned()),
                owner: Some(sub.to_owned()),
                ..PutOptions::default()
            };
            standin.put_with("team", &format!("{sub}/{key}"), text.into_bytes(), options);
        };
        put("hello.txt", "text/plain", format!("This folder belongs to {name}.\n"));
        put("drafts/plan.md", "text/markdown", markdown(&format!("{name}'s plan"), 2));
        put("drafts/2025/budget.csv", "text/csv", csv(3));
    }
    put(standin, "team", "shared/welcome.md", "text/markdown", markdown("Welcome", 4));
    put(standin, "team", "shared/handbook/rules.txt", "text/plain", prose(11, 30));
    put(standin, "team", "shared/handbook/logo.png", "image/png", png::gradient(64, 64, 120));
}

/// `count` lines of words that depend on `seed`.
fn prose(seed: u32, count: u32) -> String {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(1);
    let mut text = String::new();
    for _ in 0..count {
        let mut line = Vec::new();
        for _ in 0..10 {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            line.push(WORDS[(state >> 28) as usize]);
        }
        text.push_str(&line.join(" "));
        text.push('\n');
    }
    text
}

fn markdown(title: &str, seed: u32) -> String {
    format!("# {title}\n\n{}\n## Details\n\n* one\n* two\n\n{}", prose(seed, 6), prose(seed + 1, 4))
}

fn csv(seed: u32) -> String {
    let mut text = "id,name,amount\n".to_owned();
    for i in 0..50 {
        let word = WORDS[((seed + i) % 16) as usize];
        let _ = writeln!(text, "{i},{word},{}.{:02}", (seed * 37 + i * 11) % 1000, i % 100);
    }
    text
}

fn json(seed: u32) -> String {
    let words = prose(seed, 1);
    format!(
        "{{\n  \"id\": {seed},\n  \"tags\": {:?},\n  \"active\": {}\n}}\n",
        words.split_whitespace().collect::<Vec<_>>(),
        seed.is_multiple_of(2)
    )
}

/// Lines `sha256  bucket/key` of every object in the demo buckets, as `sha256sum` writes them.
#[must_use]
pub fn manifest(standin: &Standin) -> String {
    let mut lines = String::new();
    for bucket in ["demo", "team"] {
        for key in standin.keys(bucket) {
            let digest = if (bucket, key.as_str()) == ("demo", "videos/big.bin") {
                BIG_SHA256.to_owned()
            } else {
                hex::encode(Sha256::digest(standin.get(bucket, &key).unwrap_or_default()))
            };
            let _ = writeln!(lines, "{digest}  {bucket}/{key}");
        }
    }
    lines
}

#[cfg(test)]
mod tests;
