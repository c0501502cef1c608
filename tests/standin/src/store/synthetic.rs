//! Bytes that need no memory: a pure function of (seed, offset), so that a reader can check any range of
//! an object of any size.

use bytes::{Bytes, BytesMut};

/// The eight bytes at word index `word`.
fn mix(seed: u64, word: u64) -> u64 {
    let mut x = (word ^ seed.rotate_left(17)).wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(seed);
    x ^= x >> 32;
    x.wrapping_mul(0xD6E8_FEB8_6659_FD93)
}

/// Fills `buffer` with the bytes of `seed` that begin at `offset`.
pub fn fill_synthetic(seed: u64, offset: u64, buffer: &mut [u8]) {
    let mut word = offset / 8;
    // Cannot truncate: a remainder of eight.
    let skip = usize::try_from(offset % 8).unwrap_or(0);
    let mut rest = buffer;
    if skip > 0 {
        let bytes = mix(seed, word).to_le_bytes();
        let take = rest.len().min(8 - skip);
        rest[..take].copy_from_slice(&bytes[skip..skip + take]);
        rest = &mut rest[take..];
        word += 1;
    }
    let mut chunks = rest.chunks_exact_mut(8);
    for chunk in &mut chunks {
        chunk.copy_from_slice(&mix(seed, word).to_le_bytes());
        word += 1;
    }
    let tail = chunks.into_remainder();
    let bytes = mix(seed, word).to_le_bytes();
    tail.copy_from_slice(&bytes[..tail.len()]);
}

/// The `len` bytes of `seed` that begin at `offset`.
#[must_use]
pub fn synthetic_bytes(seed: u64, offset: u64, len: usize) -> Bytes {
    let mut buffer = BytesMut::zeroed(len);
    fill_synthetic(seed, offset, &mut buffer);
    buffer.freeze()
}

/// A stable stand-in for the MD5 nobody wants to compute over terabytes.
pub fn synthetic_etag(seed: u64, size: u64) -> [u8; 16] {
    let mut etag = [0; 16];
    etag[..8].copy_from_slice(&mix(seed, size).to_be_bytes());
    etag[8..].copy_from_slice(&mix(!seed, size ^ 0x5AFE).to_be_bytes());
    etag
}
