//! How a changed file gets into the bucket with the fewest bytes moved.
//!
//! One PUT, a copy on the server, or a multipart upload whose untouched stretches are copied from the object that
//! the file was opened on. Pure arithmetic: nothing here talks to anyone.

use std::ops::Range;

use super::ranges::Ranges;
use crate::store::MAX_COPY;

/// The server's smallest part, but for the last.
pub const MIN_PART: u64 = 5 << 20;

/// Parts of one upload. The server takes 10,000, but reads no longer list of them than this.
const MAX_PARTS: u64 = 7000;

/// A saving below this is not worth the requests that a multipart upload takes.
const WORTHWHILE: u64 = 1 << 20;

/// What a file consists of.
#[derive(Debug, Clone, Copy)]
pub struct Shape<'a> {
    pub size: u64,
    /// Bytes that are here.
    pub local: &'a Ranges,
    /// Those of them that are known to be zeros, in the base as well.
    pub holes: &'a Ranges,
    /// Bytes below `base_limit` that differ from the base.
    pub dirty: &'a Ranges,
    /// Bytes below this that are not dirty are those of the base object.
    pub base_limit: u64,
    /// The whole size of the base object; 0 where there is none.
    pub base_size: u64,
}

/// Where a part comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PartSource {
    /// From here; what is missing of it is fetched first.
    Here(Range<u64>),
    /// From the base object, on the server.
    Base(Range<u64>),
    /// A hole: from zeros that the base object has at another place, on the server.
    Zeros { range: Range<u64>, from: u64 },
}

impl PartSource {
    #[must_use]
    pub fn range(&self) -> &Range<u64> {
        match self {
            Self::Here(range) | Self::Base(range) | Self::Zeros { range, .. } => range,
        }
    }

    /// What of the base object the server copies.
    #[must_use]
    pub fn copied(&self) -> Option<Range<u64>> {
        match self {
            Self::Here(_) => None,
            Self::Base(range) => Some(range.clone()),
            Self::Zeros { range, from } => Some(*from..from + (range.end - range.start)),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plan {
    /// One PUT of everything.
    Put,
    /// The base object as it is, under this file's key or headers.
    Copy,
    Parts(Vec<PartSource>),
}

/// The cheapest way.
#[must_use]
pub fn plan(shape: Shape<'_>, part_size: u64) -> Plan {
    let Shape { size, base_limit, base_size, .. } = shape;
    let changed = changed(shape);
    if base_limit > 0 && changed.is_empty() && size == base_size {
        return if size <= MAX_COPY {
            Plan::Copy
        } else {
            let mut parts = Vec::new();
            copied(0..size, &mut parts);
            Plan::Parts(parts)
        };
    }
    let whole = if size <= 2 * part_size {
        Plan::Put
    } else {
        let mut parts = Vec::new();
        sent(0..size, part_size, &mut parts);
        Plan::Parts(parts)
    };
    if base_limit <= MIN_PART && size <= 2 * part_size {
        return whole;
    }
    let mut mixed = mixed(&changed, size, part_size);
    copy_zeros(shape, &mut mixed);
    let to_fetch =
        |range: Range<u64>| shape.local.missing(range.start..range.end.min(base_limit).max(range.start));
    let cost_whole = size + to_fetch(0..size);
    let cost_mixed: u64 = mixed
        .iter()
        .map(|part| match part {
            PartSource::Here(range) => range.end - range.start + to_fetch(range.clone()),
            PartSource::Base(_) | PartSource::Zeros { .. } => 0,
        })
        .sum();
    let copies = mixed.iter().any(|part| part.copied().is_some());
    if copies && cost_mixed + WORTHWHILE < cost_whole { Plan::Parts(mixed) } else { whole }
}

/// The ranges that differ from the base.
fn changed(shape: Shape<'_>) -> Ranges {
    let mut changed: Ranges = shape.dirty.overlapping(0..shape.base_limit).into_iter().collect();
    changed.insert(shape.base_limit..shape.size);
    changed
}

/// Changed stretches from here, each grown to the size that a part must have; the rest by copies.
fn mixed(changed: &Ranges, size: u64, part_size: u64) -> Vec<PartSource> {
    let mut stretches: Vec<Range<u64>> = Vec::new();
    for range in changed.iter() {
        let range = range.start..range.end.max((range.start + MIN_PART).min(size));
        match stretches.last_mut() {
            // What lies between is too short to be a part of its own.
            Some(last) if range.start < last.end + MIN_PART => last.end = last.end.max(range.end),
            None if range.start < MIN_PART => stretches.push(0..range.end),
            _ => stretches.push(range),
        }
    }
    let mut parts = Vec::new();
    let mut at = 0;
    for stretch in stretches {
        copied(at..stretch.start, &mut parts);
        at = stretch.end;
        sent(stretch, part_size, &mut parts);
    }
    copied(at..size, &mut parts);
    parts
}

/// Parts that lie in a hole are copied from zeros of the base object, if it is known to have as many in a row.
fn copy_zeros(shape: Shape<'_>, parts: &mut [PartSource]) {
    let clean = shape.holes.overlapping(0..shape.base_limit).into_iter();
    let clean = clean.filter(|hole| shape.dirty.overlapping(hole.clone()).is_empty());
    let Some(zeros) = clean.max_by_key(|hole| hole.end - hole.start) else { return };
    let most = (zeros.end - zeros.start).min(MAX_COPY);
    for part in parts {
        if let PartSource::Here(range) = part
            && range.start >= shape.base_limit
            && range.end - range.start <= most
            && shape.local.overlapping(range.clone()).is_empty()
        {
            *part = PartSource::Zeros { range: range.clone(), from: zeros.start };
        }
    }
}

/// Parts of a range from here, of about equal size.
fn sent(range: Range<u64>, part_size: u64, parts: &mut Vec<PartSource>) {
    let len = range.end - range.start;
    let part_size = part_size.max(len.div_ceil(MAX_PARTS));
    let count = (len / part_size).max(1);
    let each = len.div_ceil(count);
    let mut at = range.start;
    while at < range.end {
        let end = (at + each).min(range.end);
        parts.push(PartSource::Here(at..end));
        at = end;
    }
}

/// Parts copied on the server. Several, so that it copies them side by side.
fn copied(range: Range<u64>, parts: &mut Vec<PartSource>) {
    const EACH: u64 = 1 << 30;
    let len = range.end - range.start;
    if len == 0 {
        return;
    }
    let count = len.div_ceil(EACH).min(1000);
    let each = len.div_ceil(count);
    let mut at = range.start;
    while at < range.end {
        let mut end = (at + each).min(range.end);
        if range.end - end < MIN_PART {
            end = range.end;
        }
        parts.push(PartSource::Base(at..end));
        at = end;
    }
}

/// The bounds of part `number` (from 1 on) of an upload whose final size is not known yet: parts double every
/// thousand, so that seven thousand of them hold a terabyte.
#[must_use]
pub fn stream_part(number: u16, part_size: u64) -> Range<u64> {
    let index = u64::from(number.saturating_sub(1));
    let (rounds, rest) = (index / 1000, index % 1000);
    let start =
        (0..rounds).map(|round| (part_size << round) * 1000).sum::<u64>() + rest * (part_size << rounds);
    start..start + (part_size << rounds)
}

#[cfg(test)]
mod tests;
