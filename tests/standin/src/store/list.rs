//! Listing one bucket. Without delimiter it is exact. With one it repeats the real server's database
//! function faithfully, including the keys it loses: after a file row N the next query begins at `N/`, so
//! whatever sorts between N and `N/` is skipped at each page boundary and each 1000 rows.
//!
//! `Listing::exact` is the same listing without the loss, as of a server that has been fixed.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use super::object::Object;

/// The rows of a bucket, in byte order of their names.
pub type Objects = BTreeMap<Box<str>, Arc<Object>>;

/// One listing request.
pub struct Listing<'a> {
    pub prefix: &'a str,
    /// Empty for a flat listing.
    pub delimiter: &'a str,
    /// Name to continue after: from the token, or start-after. Empty for none.
    pub after: &'a str,
    /// Entries per page, 1 to 1000.
    pub limit: usize,
    /// List without losing keys.
    pub exact: bool,
}

/// A file or a folder of a page.
#[derive(Clone, Debug)]
pub enum Entry {
    Object(Box<str>, Arc<Object>),
    Prefix(String),
}

impl Entry {
    fn name(&self) -> &str {
        match self {
            Self::Object(name, _) => name,
            Self::Prefix(name) => name,
        }
    }
}

/// A page, and the name its continuation token carries.
#[derive(Debug, Default)]
pub struct Page {
    pub entries: Vec<Entry>,
    pub truncated: bool,
    pub last: String,
}

/// Lists the rows `visible` lets through.
pub fn list(rows: &Objects, query: &Listing<'_>, visible: &dyn Fn(&str, &Object) -> bool) -> Page {
    let view = View { rows, visible };
    // One more than a page holds tells whether there is another page.
    let found = match (query.delimiter.is_empty(), query.exact) {
        (true, _) => view.flat(query, query.limit + 1),
        (false, false) => fold(view.lossy(query, query.limit + 1), query),
        (false, true) => view.exact(query, query.limit + 1),
    };
    page(found, query)
}

fn page(mut entries: Vec<Entry>, query: &Listing<'_>) -> Page {
    let truncated = entries.len() > query.limit;
    entries.truncate(query.limit);
    let last = if truncated { entries.last().map(|e| e.name().to_owned()) } else { None };
    for entry in &mut entries {
        if let Entry::Prefix(name) = entry
            && !name.ends_with('/')
            && !query.exact
        {
            name.push('/');
        }
    }
    Page { entries, truncated, last: last.unwrap_or_default() }
}

struct View<'a> {
    rows: &'a Objects,
    visible: &'a dyn Fn(&str, &Object) -> bool,
}

impl<'a> View<'a> {
    /// Visible rows from `start`, below `end`.
    fn scan(
        &self,
        start: Bound<&str>,
        end: Option<&'a str>,
    ) -> impl Iterator<Item = (&'a str, &'a Arc<Object>)> {
        let visible = self.visible;
        self.rows
            .range::<str, _>((start, Bound::Unbounded))
            .map(|(name, object)| (&**name, object))
            .take_while(move |(name, _)| end.is_none_or(|end| *name < end))
            .filter(move |(name, object)| visible(name, object))
    }

    fn flat(&self, query: &Listing<'_>, max: usize) -> Vec<Entry> {
        let start = if query.after >= query.prefix && !query.after.is_empty() {
            Bound::Excluded(query.after)
        } else {
            Bound::Included(query.prefix)
        };
        self.scan(start, None)
            .take_while(|(name, _)| name.starts_with(query.prefix))
            .take(max)
            .map(|(name, object)| Entry::Object(name.into(), Arc::clone(object)))
            .collect()
    }

    /// A listing that loses nothing: files and folders after `after`, in order.
    fn exact(&self, query: &Listing<'_>, max: usize) -> Vec<Entry> {
        let mut entries = Vec::new();
        let mut seek = match common_prefix(query.after, query.prefix, query.delimiter) {
            // The token of a folder: go on behind all of it.
            Some(folder) if folder == query.after && folder.starts_with(query.prefix) => {
                Bound::Included(behind(&folder))
            }
            _ if query.after >= query.prefix && !query.after.is_empty() => {
                Bound::Excluded(query.after.to_owned())
            }
            _ => Bound::Included(query.prefix.to_owned()),
        };
        while entries.len() < max {
            let bound = match &seek {
                Bound::Included(name) => Bound::Included(name.as_str()),
                Bound::Excluded(name) => Bound::Excluded(name.as_str()),
                Bound::Unbounded => Bound::Unbounded,
            };
            let mut folder = None;
            for (name, object) in self.scan(bound, None) {
                if entries.len() == max || !name.starts_with(query.prefix) {
                    return entries;
                }
                folder = common_prefix(name, query.prefix, query.delimiter);
                if folder.is_some() {
                    break;
                }
                entries.push(Entry::Object(name.into(), Arc::clone(object)));
            }
            let Some(folder) = folder else { break };
            seek = Bound::Included(behind(&folder));
            entries.push(Entry::Prefix(folder));
        }
        entries
    }

    /// The rows of the real database function: files by full name, folders without trailing delimiters.
    fn lossy(&self, query: &Listing<'_>, max: usize) -> Vec<Entry> {
        let batch = (max * 2).clamp(100, 1000);
        let end = upper_bound(query.prefix);
        let mut rows = Vec::new();
        let mut seek = self.first_seek(query);
        while rows.len() < max {
            let Some((name, _)) = self.first(&seek, end.as_deref()) else { break };
            if let Some(folder) = common_prefix(name, query.prefix, query.delimiter) {
                let trimmed = folder.trim_end_matches(|c| query.delimiter.contains(c));
                rows.push(Entry::Prefix(trimmed.to_owned()));
                seek = behind(&folder);
                continue;
            }
            // A batch that ends at its size, at its last row or at the page's end goes on at `last/`:
            // here keys are lost.
            let mut next = String::new();
            for (name, object) in self.batch(&seek, end.as_deref(), batch) {
                if common_prefix(name, query.prefix, query.delimiter).is_some() {
                    name.clone_into(&mut next);
                    break;
                }
                rows.push(Entry::Object(name.into(), Arc::clone(object)));
                next = format!("{name}{}", query.delimiter);
                if rows.len() >= max {
                    break;
                }
            }
            seek = next;
        }
        rows
    }

    fn first(&self, seek: &str, end: Option<&str>) -> Option<(&'a str, &'a Arc<Object>)> {
        self.scan(Bound::Included(seek), None).next().filter(|(name, _)| end.is_none_or(|e| *name < e))
    }

    fn batch(
        &self,
        seek: &str,
        end: Option<&str>,
        size: usize,
    ) -> impl Iterator<Item = (&'a str, &'a Arc<Object>)> {
        let end = end.map(str::to_owned);
        self.scan(Bound::Included(seek), None)
            .take_while(move |(name, _)| end.as_deref().is_none_or(|e| *name < e))
            .take(size)
    }

    /// Where a page begins. The cursor is a bare name: whether it was a file or a folder is guessed by
    /// asking for rows below it, with a LIKE in which `_` and `%` of the cursor are wildcards.
    fn first_seek(&self, query: &Listing<'_>) -> String {
        if query.after.is_empty() {
            return query.prefix.to_owned();
        }
        if self.exists_like(&format!("{}{}", query.after, query.delimiter)) {
            behind(&format!("{}{}", query.after, query.delimiter))
        } else {
            format!("{}{}", query.after, query.delimiter)
        }
    }

    /// Whether a visible row matches `pattern || '%'` under LIKE.
    fn exists_like(&self, pattern: &str) -> bool {
        let fixed = pattern.find(['_', '%', '\\']).unwrap_or(pattern.len());
        if fixed == pattern.len() {
            let found = self.scan(Bound::Included(pattern), None).next();
            return found.is_some_and(|(name, _)| name.starts_with(pattern));
        }
        if pattern[fixed..].contains(['%', '\\']) || !pattern.is_ascii() {
            return self
                .scan(Bound::Included(&pattern[..fixed]), None)
                .take_while(|(name, _)| name.starts_with(&pattern[..fixed]))
                .any(|(name, _)| like(name.as_bytes(), pattern.as_bytes()));
        }
        self.exists_single_wildcards(pattern.as_bytes())
    }

    /// The common case, only `_`: seeks from candidate to candidate instead of reading every row.
    fn exists_single_wildcards(&self, pattern: &[u8]) -> bool {
        let mut seek: Vec<u8> = pattern.iter().take_while(|b| **b != b'_').copied().collect();
        while let Ok(from) = std::str::from_utf8(&seek) {
            let Some((name, _)) = self.scan(Bound::Included(from), None).next() else { return false };
            let name = name.as_bytes();
            let agree = pattern.iter().zip(name).take_while(|(p, n)| **p == b'_' || p == n).count();
            if agree == pattern.len() {
                return true;
            }
            if agree == name.len() || (agree < name.len() && name[agree] < pattern[agree]) {
                // Too small at the first difference: the least name that agrees further.
                seek = name[..agree].to_vec();
                seek.push(if pattern[agree] == b'_' { b' ' } else { pattern[agree] });
            } else {
                // Too large: the byte at the last wildcard before must grow.
                let Some(wild) = pattern[..agree].iter().rposition(|b| *b == b'_') else { return false };
                seek = name[..wild].to_vec();
                seek.push(name[wild] + 1);
            }
        }
        false
    }
}

/// `name` up to and including the first delimiter behind the prefix. Of a delimiter of several characters
/// only the first is included, as in the original.
fn common_prefix(name: &str, prefix: &str, delimiter: &str) -> Option<String> {
    let rest = name.get(prefix.len()..)?;
    let position = rest.find(delimiter)?;
    let first = delimiter.chars().next().map_or(0, char::len_utf8);
    Some(name[..prefix.len() + position + first].to_owned())
}

/// The least string behind everything that begins with `prefix`.
fn behind(prefix: &str) -> String {
    upper_bound(prefix).unwrap_or_else(|| format!("{prefix}\u{10FFFF}"))
}

fn upper_bound(prefix: &str) -> Option<String> {
    let last = prefix.chars().next_back()?;
    let next = char::from_u32(u32::from(last) + 1)?;
    Some(format!("{}{next}", &prefix[..prefix.len() - last.len_utf8()]))
}

/// The JavaScript behind the database function folds its rows once more: a no-op, except for rows that do
/// not lie below the prefix (a start-after below the prefix lets those through).
fn fold(rows: Vec<Entry>, query: &Listing<'_>) -> Vec<Entry> {
    let mut folded: Vec<Entry> = Vec::with_capacity(rows.len());
    let mut previous = String::new();
    for row in rows {
        let name = row.name();
        let rest = name.replacen(query.prefix, "", 1);
        let Some(position) = rest.find(query.delimiter) else {
            folded.push(row);
            continue;
        };
        let end = (query.prefix.len() + position + query.delimiter.len()).min(name.len());
        let prefix = name.get(..end).unwrap_or(name).to_owned();
        if prefix != previous {
            previous.clone_from(&prefix);
            folded.push(Entry::Prefix(prefix));
        }
    }
    folded
}

/// SQL LIKE with a `%` appended to the pattern.
fn like(text: &[u8], pattern: &[u8]) -> bool {
    match pattern {
        [] => true,
        [b'%', rest @ ..] => (0..=text.len()).any(|skip| like(&text[skip..], rest)),
        [b'_', rest @ ..] => !text.is_empty() && like(&text[1..], rest),
        [b'\\', literal, rest @ ..] | [literal, rest @ ..] => {
            text.first() == Some(literal) && like(&text[1..], rest)
        }
    }
}
