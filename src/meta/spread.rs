//! Where the following pages of a listing probably begin, judged by one page: so that they can be asked for at once.
//!
//! The texts of a page are read as numbers: each place behind what they have in common has the characters that were
//! seen there, and their kin (all digits for a digit), as its digits. What one page spans is the stride to the next.
//! It is a guess, good for counters, dates and hashes; a bad one costs a request, never an entry.

/// Entries that a stretch is to have: a page, less what names spread at random vary by.
const STRETCH: u128 = 930;

/// Places that are looked at, and the largest number of distinct texts that they tell apart.
const PLACES: usize = 32;
const MAX_NUMBER: u128 = 1 << 100;

/// A place with this many distinct characters shows the alphabet of a counter or a hash.
const DENSE: u32 = 8;

/// Characters of one place, as bits by their code.
type Set = u128;

const DIGITS: Set = range(b'0', b'9');
const LOWER: Set = range(b'a', b'z');
const UPPER: Set = range(b'A', b'Z');

const fn range(first: u8, last: u8) -> Set {
    (1 << (last + 1)) - (1 << first)
}

/// The characters that may stand at a place. Bit 0: a text may end before it.
#[derive(Debug, Clone, Copy)]
struct Place(Set);

impl Place {
    fn radix(self) -> u128 {
        u128::from(self.0.count_ones())
    }

    /// The number of a character; a stranger gets that of its successor.
    fn digit(self, byte: Option<u8>) -> u128 {
        let code = byte.map_or(0, |byte| byte.min(127));
        let below = self.0 & ((1 << code) - 1);
        u128::from(below.count_ones()).min(self.radix() - 1)
    }

    fn character(self, digit: u128) -> Option<u8> {
        let code = (0..128).filter(|code| self.0 & 1 << code != 0).nth(usize::try_from(digit).ok()?)?;
        u8::try_from(code).ok().filter(|&code| code != 0)
    }
}

/// The beginnings of the following stretches, in order.
#[derive(Debug)]
pub(super) struct Spread {
    stem: String,
    places: Vec<Place>,
    at: u128,
    stride: u128,
}

impl Spread {
    /// What a page of texts in byte order tells; `None` where it tells nothing.
    pub fn of(texts: &[&str]) -> Option<Self> {
        let (first, middle, last) = (texts.first()?, texts.get(texts.len() / 2)?, texts.last()?);
        // Where the end of a page is more alike than the whole, it tells more of what follows.
        let is_local = common(middle, last) > common(first, last);
        let texts = if is_local { &texts[texts.len() / 2..] } else { texts };
        let differs = common(texts.first()?, last);
        let seen = Seen::of(texts, differs)?;
        let places = seen.places();
        let stem = last[..seen.stem].to_owned();
        let mut spread = Self { stem, places, at: 0, stride: 0 };
        spread.at = spread.number(last);
        let span = spread.at.checked_sub(spread.number(texts.first()?))?;
        let steps = u128::try_from(texts.len() - 1).ok().filter(|&steps| steps > 0)?;
        // Numbers have 100 bits at most.
        spread.stride = (span / steps).saturating_mul(STRETCH).saturating_add(span % steps * STRETCH / steps);
        (spread.stride > 0).then_some(spread)
    }

    fn number(&self, text: &str) -> u128 {
        let bytes = &text.as_bytes()[self.stem.len()..];
        let places = self.places.iter().enumerate();
        places.fold(0, |number, (at, place)| number * place.radix() + place.digit(bytes.get(at).copied()))
    }

    fn text(&self, mut number: u128) -> Option<String> {
        let mut digits = Vec::with_capacity(self.places.len());
        for place in self.places.iter().rev() {
            digits.push(number % place.radix());
            number /= place.radix();
        }
        if number > 0 {
            return None;
        }
        let characters = self.places.iter().zip(digits.into_iter().rev());
        let rest = characters.map_while(|(place, digit)| place.character(digit)).map(char::from);
        Some(self.stem.chars().chain(rest).collect())
    }
}

impl Iterator for Spread {
    type Item = String;

    fn next(&mut self) -> Option<String> {
        self.at = self.at.checked_add(self.stride)?;
        self.text(self.at)
    }
}

/// The length of what two texts begin with alike.
fn common(a: &str, b: &str) -> usize {
    let alike = a.bytes().zip(b.bytes()).take_while(|(a, b)| a == b).count();
    (0..=alike).rev().find(|&at| b.is_char_boundary(at)).unwrap_or(0)
}

/// The characters of a page, by place behind the stem.
struct Seen {
    stem: usize,
    /// The first place at which the texts differ.
    differs: usize,
    sets: Vec<Set>,
    /// What stands at the places of a counter or a hash.
    dense: Set,
}

impl Seen {
    fn of(texts: &[&str], differs: usize) -> Option<Self> {
        let last = texts.last()?.as_bytes();
        let varies = *last.get(differs).filter(|byte| byte.is_ascii())?;
        let mut seen = Self { stem: differs, differs: 0, sets: vec![], dense: 0 };
        seen.collect(texts);
        for set in seen.sets.iter().filter(|set| set.count_ones() >= DENSE) {
            seen.dense |= set & !1;
        }
        // A counter's leading digits are alike on the page, but may not be on the next.
        let kin = kin(1 << varies) | seen.dense;
        seen.stem -= last[..differs].iter().rev().take_while(|&&byte| is_in(byte, kin)).count();
        seen.differs = differs - seen.stem;
        seen.collect(texts);
        Some(seen)
    }

    fn collect(&mut self, texts: &[&str]) {
        self.sets = vec![0; PLACES];
        let mut places = PLACES;
        for text in texts {
            let bytes = &text.as_bytes()[self.stem..];
            for (at, set) in self.sets[..places].iter_mut().enumerate() {
                match bytes.get(at) {
                    Some(byte) if byte.is_ascii() && *byte > 0 => *set |= 1 << byte,
                    Some(_) => {
                        places = at;
                        break;
                    }
                    None => {
                        *set |= 1;
                        break;
                    }
                }
            }
        }
        self.sets.truncate(places);
    }

    fn places(&self) -> Vec<Place> {
        let mut room = MAX_NUMBER;
        let with_kin = self.sets.iter().enumerate().map(|(at, &set)| {
            let is_constant = at > self.differs && set.is_power_of_two();
            Place(match set {
                set if is_constant => set,
                set if set & self.dense != 0 => set | self.dense,
                set => set | kin(set),
            })
        });
        let fits = |place: &Place| {
            room /= place.radix().max(1);
            place.0 != 0 && room > 0
        };
        with_kin.take_while(fits).collect()
    }
}

fn is_in(byte: u8, set: Set) -> bool {
    byte.is_ascii() && set & 1 << byte != 0
}

/// Characters of the same kinds.
fn kin(set: Set) -> Set {
    [DIGITS, LOWER, UPPER].into_iter().filter(|kind| set & kind != 0).fold(0, |all, kind| all | kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of `names` lie in each of the stretches that their first page tells of, and behind them.
    fn stretches(mut names: Vec<String>) -> Vec<usize> {
        names.sort();
        let page: Vec<&str> = names[..999].iter().map(String::as_str).collect();
        let mut counts = vec![];
        let mut rest = &names[999..];
        for point in Spread::of(&page).expect("a spread").take(50) {
            let count = rest.partition_point(|name| *name <= point);
            counts.push(count);
            rest = &rest[count..];
            if rest.is_empty() {
                return counts;
            }
        }
        counts.push(rest.len());
        counts
    }

    #[test]
    fn counters_are_cut_into_pages() {
        for width in [4, 5, 6, 9] {
            let counts = stretches((0..9_500).map(|i| format!("file-{i:0width$}.txt")).collect());
            assert!(counts.iter().all(|&count| count <= 940) && counts.len() <= 10, "{counts:?}");
        }
    }

    #[test]
    fn hashes_are_cut_into_pages() {
        // SplitMix64.
        let mixed = |seed: u64| {
            let seed = (seed ^ seed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let seed = (seed ^ seed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
            seed ^ seed >> 31
        };
        let hash = |i: u64| mixed(i.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        for count in [10_000, 40_000] {
            let counts = stretches((1..=count).map(|i| format!("{:016x}-{i}.bin", hash(i))).collect());
            assert!(counts.iter().all(|&count| count < 1050), "{counts:?}");
        }
    }

    #[test]
    fn keys_of_a_tree_are_cut_into_pages() {
        let keys = (0..200).flat_map(|d| (0..50).map(move |f| format!("dir-{d:03}/f{f:02}.txt")));
        let counts = stretches(keys.collect());
        assert!(counts.iter().all(|&count| count < 1000) && counts.len() <= 11, "{counts:?}");
    }

    #[test]
    fn texts_that_tell_nothing_give_nothing() {
        for texts in [&[][..], &["a"], &["a", "a"], &["ä", "ö"], &["", ""]] {
            assert!(Spread::of(texts).is_none(), "{texts:?}");
        }
        // Points ascend, whatever the texts are.
        for texts in [&["", "a"][..], &["a", "a-", "a-1", "a/b", "aä"], &["!", "z"], &["x", "x1", "x2é"]] {
            let points: Vec<String> = Spread::of(texts).into_iter().flatten().take(20).collect();
            assert!(points.is_sorted(), "{points:?}");
        }
    }
}
