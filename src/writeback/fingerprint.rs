//! Whether an object is what a file holds: by its `ETag`, where that is an MD5 of the content or of its parts.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use md5::{Digest, Md5};

use super::plan::{Plan, Shape, plan, stream_part};
use super::ranges::Ranges;
use crate::etag::ETag;

/// The parts into which the server itself cuts a large PUT.
const SERVERS_PART: u64 = 16 << 20;

/// The ways in which a file of this size may have been cut into parts.
pub(super) fn layouts(size: u64, part_size: u64) -> Vec<Vec<Range<u64>>> {
    let cut = |part: &dyn Fn(u16) -> Range<u64>| -> Vec<Range<u64>> {
        let parts = (1..=u16::MAX).map(part).take_while(|range| range.start < size);
        parts.map(|range| range.start..range.end.min(size)).collect()
    };
    let mut whole = Ranges::new();
    whole.insert(0..size);
    let holes = Ranges::new();
    let shape = Shape { size, local: &whole, holes: &holes, dirty: &whole, base_limit: 0, base_size: 0 };
    let planned = match plan(shape, part_size) {
        Plan::Parts(parts) => parts.iter().map(|part| part.range().clone()).collect(),
        _ => vec![],
    };
    let servers = |number: u16| {
        let start = u64::from(number - 1) * SERVERS_PART;
        start..start + SERVERS_PART
    };
    vec![cut(&|number| stream_part(number, part_size)), planned, cut(&servers)]
}

/// Whether a tag is that of the file, whole or in one of these layouts.
pub(super) fn is_of(file: &File, etag: &ETag, layouts: &[Vec<Range<u64>>]) -> bool {
    let tag = etag.to_string();
    let size = layouts.first().and_then(|parts| parts.last()).map_or(0, |part| part.end);
    let Some((_, count)) = tag.split_once('-') else {
        return md5(file, 0..size).is_ok_and(|md5| ETag::new(&hex(&md5)) == *etag);
    };
    let fits = |parts: &&Vec<Range<u64>>| parts.len().to_string() == count;
    layouts.iter().filter(fits).any(|parts| {
        let digests = parts.iter().map(|part| md5(file, part.clone())).collect::<io::Result<Vec<_>>>();
        digests.is_ok_and(|digests| format!("{}-{count}", hex(&Md5::digest(digests.concat()))) == tag)
    })
}

fn md5(file: &File, range: Range<u64>) -> io::Result<Vec<u8>> {
    let mut digest = Md5::new();
    let mut piece = vec![0; 256 << 10];
    let mut at = range.start;
    while at < range.end {
        let len = usize::try_from(range.end - at).unwrap_or(usize::MAX).min(piece.len());
        file.read_exact_at(&mut piece[..len], at)?;
        digest.update(&piece[..len]);
        at += len as u64;
    }
    Ok(digest.finalize().to_vec())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_known_by_the_tag_of_its_whole_and_of_its_parts() {
        const PART: u64 = 5 << 20;
        let file = tempfile::tempfile().expect("a file");
        let size = 3 * PART + 1;
        let bytes: Vec<u8> = (0..size).map(|at| u8::try_from(at % 251).unwrap_or(0)).collect();
        file.write_all_at(&bytes, 0).expect("written");
        let layouts = layouts(size, PART);
        let whole = hex(&Md5::digest(&bytes));
        assert!(is_of(&file, &ETag::new(&whole), &layouts));
        let parts: Vec<u8> = bytes.chunks(5 << 20).flat_map(|part| Md5::digest(part).to_vec()).collect();
        assert!(is_of(&file, &ETag::new(&format!("{}-4", hex(&Md5::digest(&parts)))), &layouts));
        assert!(!is_of(&file, &ETag::new(&format!("{}-3", hex(&Md5::digest(&parts)))), &layouts));
        file.write_all_at(b"x", 7).expect("changed");
        assert!(!is_of(&file, &ETag::new(&whole), &layouts));
    }
}
