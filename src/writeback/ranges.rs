//! Sets of byte ranges: disjoint, never adjacent, in order.

use std::collections::BTreeMap;
use std::ops::Range;

/// See the module.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ranges(BTreeMap<u64, u64>);

impl Ranges {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a range; returns how many of its bytes are new.
    pub fn insert(&mut self, range: Range<u64>) -> u64 {
        if range.is_empty() {
            return 0;
        }
        let new = self.missing(range.clone());
        let Range { mut start, mut end } = range;
        // What touches the range becomes part of it.
        let touching: Vec<u64> = self
            .0
            .range(..=end)
            .rev()
            .take_while(|&(_, &other_end)| other_end >= start)
            .map(|(&other, _)| other)
            .collect();
        for other in touching {
            let other_end = self.0.remove(&other).unwrap_or(other);
            start = start.min(other);
            end = end.max(other_end);
        }
        self.0.insert(start, end);
        new
    }

    /// Cuts off everything from `size` on; returns how many bytes that were.
    pub fn truncate(&mut self, size: u64) -> u64 {
        let behind = self.0.split_off(&size);
        let mut cut: u64 = behind.iter().map(|(start, end)| end - start).sum();
        if let Some((_, end)) = self.0.last_key_value()
            && *end > size
        {
            cut += end - size;
            if let Some(mut last) = self.0.last_entry() {
                *last.get_mut() = size;
            }
        }
        cut
    }

    /// Takes a range out.
    pub fn remove(&mut self, range: Range<u64>) {
        for part in self.overlapping(range) {
            let Some((&start, &end)) = self.0.range(..=part.start).next_back() else { continue };
            self.0.remove(&start);
            for rest in [start..part.start, part.end..end] {
                if !rest.is_empty() {
                    self.0.insert(rest.start, rest.end);
                }
            }
        }
    }

    /// The parts of `range` that are not in the set, in order.
    #[must_use]
    pub fn gaps(&self, range: Range<u64>) -> Vec<Range<u64>> {
        let mut gaps = Vec::new();
        let mut at = range.start;
        for covered in self.overlapping(range.clone()) {
            if covered.start > at {
                gaps.push(at..covered.start);
            }
            at = at.max(covered.end);
        }
        if at < range.end {
            gaps.push(at..range.end);
        }
        gaps
    }

    /// The parts of `range` that are in the set, in order.
    #[must_use]
    pub fn overlapping(&self, range: Range<u64>) -> Vec<Range<u64>> {
        let before = self.0.range(..=range.start).next_back();
        let first = before.map_or(range.start, |(&start, _)| start);
        self.0
            .range(first..range.end.max(first))
            .map(|(&start, &end)| start.max(range.start)..end.min(range.end))
            .filter(|part| part.start < part.end)
            .collect()
    }

    /// How many bytes of `range` are not in the set.
    #[must_use]
    pub fn missing(&self, range: Range<u64>) -> u64 {
        self.gaps(range).iter().map(|gap| gap.end - gap.start).sum()
    }

    #[must_use]
    pub fn contains(&self, range: Range<u64>) -> bool {
        range.is_empty() || self.gaps(range).is_empty()
    }

    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.iter().map(|(start, end)| end - start).sum()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn clear(&mut self) {
        self.0.clear();
    }

    pub fn iter(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        self.0.iter().map(|(&start, &end)| start..end)
    }
}

impl FromIterator<Range<u64>> for Ranges {
    fn from_iter<T: IntoIterator<Item = Range<u64>>>(ranges: T) -> Self {
        let mut all = Self::new();
        for range in ranges {
            all.insert(range);
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_set_of_ranges_is_a_set_of_bytes(
            steps in prop::collection::vec((0u64..64, 0u64..24, 0u8..10), 1..40),
            asked in (0u64..64, 0u64..64),
        ) {
            let mut ranges = Ranges::new();
            let mut model = [false; 128];
            for (at, len, step) in steps {
                let span = usize::try_from(at).unwrap()..usize::try_from(at + len).unwrap();
                if step < 2 {
                    let cut = model[usize::try_from(at).unwrap()..].iter().filter(|&&on| on).count();
                    prop_assert_eq!(ranges.truncate(at), cut as u64);
                    model[usize::try_from(at).unwrap()..].fill(false);
                } else if step < 4 {
                    ranges.remove(at..at + len);
                    model[span].fill(false);
                } else {
                    let new = model[span.clone()].iter().filter(|&&on| !on).count();
                    prop_assert_eq!(ranges.insert(at..at + len), new as u64);
                    model[span].fill(true);
                }
            }
            prop_assert_eq!(ranges.total(), model.iter().filter(|&&on| on).count() as u64);
            let mut last = None;
            for range in ranges.iter() {
                prop_assert!(last.is_none_or(|end| range.start > end) && range.start < range.end);
                last = Some(range.end);
            }
            let asked = asked.0..asked.0.max(asked.1);
            let expected: Vec<u64> = asked.clone().filter(|&at| !model[usize::try_from(at).unwrap()]).collect();
            let got: Vec<u64> = ranges.gaps(asked.clone()).into_iter().flatten().collect();
            prop_assert_eq!(got, expected);
            let expected: Vec<u64> = asked.clone().filter(|&at| model[usize::try_from(at).unwrap()]).collect();
            let got: Vec<u64> = ranges.overlapping(asked).into_iter().flatten().collect();
            prop_assert_eq!(got, expected);
        }
    }
}
