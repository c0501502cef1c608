//! The Content-Type of a new object, by its name.

/// The Content-Type of an object that has none.
pub const UNTYPED: &str = "application/octet-stream";

/// The Content-Type that follows from a name.
#[must_use]
pub fn content_type(key: &str) -> Option<String> {
    let ending = key.rsplit(['/', '.']).next().unwrap_or_default().to_ascii_lowercase();
    let corrected = TYPES.iter().find(|(other, _)| *other == ending && key.len() > ending.len());
    let guessed = || mime_guess::from_path(key).first_raw();
    corrected.map(|(_, kind)| *kind).or_else(guessed).map(ToOwned::to_owned)
}

/// The Content-Type that a new object gets: also one whose name tells nothing has one, however it is uploaded.
#[must_use]
pub fn of_new(key: &str) -> String {
    content_type(key).unwrap_or_else(|| UNTYPED.to_owned())
}

/// Endings whose registered type the table of `mime_guess` does not have.
const TYPES: [(&str, &str); 21] = [
    ("cjs", "text/javascript"),
    ("jsonl", "application/jsonl"),
    ("m3u8", "application/vnd.apple.mpegurl"),
    ("m4a", "audio/mp4"),
    ("map", "application/json"),
    ("md", "text/markdown"),
    ("mjs", "text/javascript"),
    ("mts", "video/mp2t"),
    ("ndjson", "application/x-ndjson"),
    ("opus", "audio/ogg"),
    ("otf", "font/otf"),
    ("rar", "application/vnd.rar"),
    ("toml", "application/toml"),
    ("ts", "video/mp2t"),
    ("tsx", "text/plain"),
    ("vcf", "text/vcard"),
    ("wav", "audio/wav"),
    ("woff", "font/woff"),
    ("yaml", "application/yaml"),
    ("yml", "application/yaml"),
    ("zst", "application/zstd"),
];
