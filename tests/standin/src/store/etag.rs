//! `ETag`s: the MD5 of the bytes, or a tag that costs nothing where nobody wants to compute one.

use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use md5::{Digest as _, Md5};

use super::content::Content;
use super::synthetic::synthetic_etag;

/// What an `ETag` is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Etag {
    pub hash: [u8; 16],
    /// The number behind the dash of a multipart `ETag`; 0 for none.
    pub parts: u32,
}

impl Etag {
    pub fn plain(hash: [u8; 16]) -> Self {
        Self { hash, parts: 0 }
    }

    /// Without quotes.
    pub fn text(&self) -> String {
        let hash = hex::encode(self.hash);
        if self.parts == 0 { hash } else { format!("{hash}-{}", self.parts) }
    }

    pub fn quoted(&self) -> String {
        format!("\"{}\"", self.text())
    }

    /// The reverse of `text`.
    pub fn parse(text: &str) -> Option<Self> {
        let (hash, parts) = text.split_once('-').map_or((text, "0"), |(hash, parts)| (hash, parts));
        let mut bytes = [0; 16];
        hex::decode_to_slice(hash, &mut bytes).ok()?;
        Some(Self { hash: bytes, parts: parts.parse().ok()? })
    }
}

/// 128 bits that no other call gives.
pub fn unique() -> [u8; 16] {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    static RANDOM: OnceLock<RandomState> = OnceLock::new();
    let random = RANDOM.get_or_init(RandomState::new);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let mut tag = [0; 16];
    tag[..8].copy_from_slice(&random.hash_one(count).to_be_bytes());
    tag[8..].copy_from_slice(&random.hash_one((count, "other half")).to_be_bytes());
    tag
}

/// A version 4 UUID.
pub fn uuid() -> String {
    let mut bytes = unique();
    bytes[6] = bytes[6] & 0x0F | 0x40;
    bytes[8] = bytes[8] & 0x3F | 0x80;
    let hex = hex::encode(bytes);
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

/// The tag of a whole content. MD5 of the bytes, except that computed bytes, of which there may be
/// terabytes, count by what they are computed from. Blocking: takes 1.7 s per GiB of real bytes.
pub fn of_content(content: &Content, md5: bool) -> io::Result<[u8; 16]> {
    let pieces = content.pieces();
    let computed = pieces.iter().any(|piece| matches!(piece, Content::Synthetic { .. }));
    match (&pieces[..], computed, md5) {
        ([Content::Synthetic { seed, offset, size }], ..) => {
            Ok(synthetic_etag(*seed ^ offset.rotate_left(32), *size))
        }
        (_, _, false) => Ok(unique()),
        (_, false, true) => {
            let mut hash = Md5::new();
            content.each_chunk(|chunk| {
                hash.update(chunk);
                Ok(())
            })?;
            Ok(hash.finalize().into())
        }
        (_, true, true) => {
            let mut hash = Md5::new();
            for piece in &pieces {
                hash.update(piece.size().to_be_bytes());
                hash.update(of_content(piece, true)?);
            }
            Ok(hash.finalize().into())
        }
    }
}

/// The tag of a multipart object on S3: the MD5 of its parts' MD5s, and their number.
pub fn of_parts(hashes: &[[u8; 16]]) -> Etag {
    let mut hash = Md5::new();
    for part in hashes {
        hash.update(part);
    }
    Etag { hash: hash.finalize().into(), parts: u32::try_from(hashes.len()).unwrap_or(u32::MAX) }
}
