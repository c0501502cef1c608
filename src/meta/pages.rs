//! The pages of a listing, asked for many at a time and given out in order.
//!
//! The key space that is left is cut into stretches, which are listed side by side, each from a key of its own to the
//! beginning of the next. Where to cut is a guess ([`Spread`]) and may be any text: what a stretch's pages bring beyond
//! its end belongs to the next, so that every key is given out once wherever the cuts fall. The first page is asked for
//! alone, and tells whether there is more; then the number in flight grows with every page that was worth it.
//!
//! A cut never falls into a folded folder: it has no slash behind the prefix, and ends in a character below all that
//! keys are made of, so that the server, which loses keys behind a real one, loses none.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::task::JoinSet;
use tokio::time::Instant;

use super::spread::Spread;
use crate::store::{ListPage, ListRequest, ObjectStore, StoreError};

/// Requests in flight at most.
pub(super) const MAX_IN_FLIGHT: usize = 16;

/// Requests in flight behind the first page.
const FIRST_IN_FLIGHT: usize = 4;

/// Pages that wait for an earlier one, or are in flight, at most.
const MAX_AHEAD: usize = 2 * MAX_IN_FLIGHT;

/// A page with fewer entries than this was not worth asking for.
const WORTH: usize = 250;

/// Sorts before everything that a key can contain.
const FIRST: char = '\u{1}';

/// A page in order: complete from the one before up to `next`.
#[derive(Debug)]
pub(super) struct Page {
    pub page: ListPage,
    /// When it was asked for.
    pub asked: Instant,
}

/// Guesses where further stretches begin.
#[derive(Debug)]
enum Cuts {
    /// From the listing before: these are no guesses.
    Known(VecDeque<String>),
    Spread(Spread),
    None,
}

impl Cuts {
    fn next(&mut self) -> Option<String> {
        match self {
            Self::Known(points) => points.pop_front(),
            Self::Spread(spread) => spread.next(),
            Self::None => None,
        }
    }
}

#[derive(Debug)]
struct Stretch {
    id: u64,
    /// Where the next page begins; what is last in the stretch, or `None` where it is the last one.
    after: Option<String>,
    until: Option<String>,
    in_flight: bool,
    is_done: bool,
    arrived: VecDeque<Page>,
    cuts: Cuts,
}

type Answer = (u64, Instant, Result<ListPage, StoreError>);

/// See the module.
pub(super) struct Pages {
    store: Arc<dyn ObjectStore>,
    prefix: String,
    fold: bool,
    stretches: VecDeque<Stretch>,
    /// Requests in flight at most for now, and pages that were worth it since it grew.
    window: usize,
    worthy: usize,
    next_id: u64,
    /// A task for each request, so that several processors take the answers apart.
    requests: JoinSet<Answer>,
}

impl Pages {
    /// What lies below a prefix behind `after`. `fold`: as one directory. `known`: where to cut, if that is known.
    pub fn new(
        store: &Arc<dyn ObjectStore>,
        prefix: &str,
        fold: bool,
        after: Option<String>,
        known: VecDeque<String>,
    ) -> Self {
        let window = if known.is_empty() { 1 } else { MAX_IN_FLIGHT };
        let mut pages = Self {
            store: Arc::clone(store),
            prefix: prefix.to_owned(),
            fold,
            stretches: VecDeque::new(),
            window,
            worthy: 0,
            next_id: 0,
            requests: JoinSet::new(),
        };
        let first = pages.stretch(after, None, Cuts::Known(known));
        pages.stretches.push_back(first);
        pages
    }

    fn stretch(&mut self, after: Option<String>, until: Option<String>, cuts: Cuts) -> Stretch {
        self.next_id += 1;
        let arrived = VecDeque::new();
        Stretch { id: self.next_id, after, until, in_flight: false, is_done: false, arrived, cuts }
    }

    /// The next page in order; `None` at the end. At most `allowed` pages are asked for before they are wanted.
    ///
    /// # Errors
    /// Whatever any of the pages ends with. Nothing can be had after that.
    pub async fn next(&mut self, allowed: usize) -> Result<Option<Page>, StoreError> {
        loop {
            let Some(head) = self.stretches.front_mut() else { return Ok(None) };
            let is_last = head.is_done && head.arrived.len() <= 1;
            if let Some(mut page) = head.arrived.pop_front() {
                if is_last {
                    // What follows begins where this stretch ends.
                    page.page.next.clone_from(&head.until);
                    self.stretches.pop_front();
                }
                if self.stretches.is_empty() {
                    // Guesses beyond the end are answered soon, and their connections are of use.
                    self.requests.detach_all();
                }
                return Ok(Some(page));
            }
            if head.is_done {
                self.stretches.pop_front();
                continue;
            }
            self.ask(allowed);
            let answer = self.requests.join_next().await.expect("the first stretch is in flight");
            let (id, asked, answer) =
                answer.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
            // Of a stretch that another page has covered, also an error is of no interest.
            if let Some(at) = self.stretches.iter().position(|stretch| stretch.id == id) {
                self.arrived(at, asked, answer?);
            }
        }
    }

    /// Sends what may be sent, the earliest first.
    fn ask(&mut self, allowed: usize) {
        let in_flight = self.stretches.iter().filter(|stretch| stretch.in_flight).count();
        let waiting: usize = self.stretches.iter().map(|stretch| stretch.arrived.len()).sum();
        let window = self.window.min(allowed);
        let ahead = allowed.min(MAX_AHEAD).saturating_sub(in_flight + waiting);
        let mut free = window.saturating_sub(in_flight).min(ahead);
        let mut at = 0;
        while at < self.stretches.len() {
            let stretch = &self.stretches[at];
            // The first one always gets on.
            if !(stretch.is_done || stretch.in_flight) && (free > 0 || at == 0) {
                self.send(at);
                free = free.saturating_sub(1);
            }
            if free > 0 {
                self.cut(at);
            }
            at += 1;
        }
    }

    /// Cuts a stretch that is not done where its end may be worth a request of its own.
    fn cut(&mut self, at: usize) {
        let stretch = &mut self.stretches[at];
        if stretch.is_done {
            return;
        }
        let after = stretch.after.as_ref();
        // A guess that is of no use is passed over, but not for ever.
        let cut = (0..MAX_AHEAD).map_while(|_| stretch.cuts.next()).find_map(|text| {
            let cut = format!("{}{text}{FIRST}", self.prefix);
            let is_inside = self.fold && text.contains('/');
            let is_ahead = after.is_none_or(|after| cut > *after);
            (is_ahead && !is_inside && !text.is_empty()).then_some(cut)
        });
        let is_within = |cut: &String| stretch.until.as_ref().is_none_or(|until| cut < until);
        let Some(cut) = cut.filter(is_within) else {
            stretch.cuts = Cuts::None;
            return;
        };
        let until = stretch.until.replace(cut.clone());
        let cuts = std::mem::replace(&mut stretch.cuts, Cuts::None);
        let next = self.stretch(Some(cut), until, cuts);
        self.stretches.insert(at + 1, next);
    }

    fn send(&mut self, at: usize) {
        let stretch = &mut self.stretches[at];
        stretch.in_flight = true;
        let request = ListRequest {
            prefix: self.prefix.clone(),
            fold: self.fold,
            after: stretch.after.clone(),
            limit: 0,
        };
        let (id, store) = (stretch.id, Arc::clone(&self.store));
        self.requests.spawn(async move {
            let asked = Instant::now();
            let answer = store.list(&request).await;
            (id, asked, answer)
        });
    }

    fn arrived(&mut self, at: usize, asked: Instant, mut page: ListPage) {
        self.absorb(at, page.next.as_ref());
        let stretch = &mut self.stretches[at];
        stretch.in_flight = false;
        stretch.is_done = match (&stretch.until, &page.next) {
            (Some(until), Some(next)) => next >= until,
            (None, Some(_)) => false,
            (_, None) => true,
        };
        if stretch.is_done {
            stretch.cuts = Cuts::None;
        } else {
            stretch.cuts = cuts(&self.prefix, self.fold, &page);
        }
        if let Some(until) = &stretch.until {
            page.objects.retain(|object| object.key <= *until);
            page.prefixes.retain(|folder| folder <= until);
        }
        if let Some(after) = &stretch.after {
            page.objects.retain(|object| object.key > *after);
            page.prefixes.retain(|folder| folder > after);
        }
        stretch.after.clone_from(&page.next);
        let used = page.objects.len() + page.prefixes.len();
        let is_first = self.next_id == 1;
        stretch.arrived.push_back(Page { page, asked });
        if is_first {
            self.window = FIRST_IN_FLIGHT;
        } else if used < WORTH {
            self.window = (self.window - 1).max(2);
        } else {
            self.worthy += 1;
            // By half in a round trip: where the end comes, few are in flight in vain.
            self.window = (self.window + (self.worthy + 1) % 2).min(MAX_IN_FLIGHT);
        }
    }

    /// Takes over the stretches behind this one that its page, which reaches to `next`, covers as well.
    fn absorb(&mut self, at: usize, next: Option<&String>) {
        while let Some(following) = self.stretches.get(at + 1) {
            let is_covered = match (&following.until, next) {
                (_, None) => true,
                (Some(until), Some(next)) => next >= until,
                (None, Some(_)) => false,
            };
            if !is_covered {
                return;
            }
            let covered = self.stretches.remove(at + 1);
            self.stretches[at].until = covered.and_then(|covered| covered.until);
        }
    }
}

/// What a page tells of those behind it.
fn cuts(prefix: &str, fold: bool, page: &ListPage) -> Cuts {
    let text = |key: &str| key.strip_prefix(prefix).map(ToOwned::to_owned);
    let mut texts: Vec<String> = page.objects.iter().filter_map(|object| text(&object.key)).collect();
    if fold {
        texts.extend(page.prefixes.iter().filter_map(|folder| text(folder.strip_suffix('/')?)));
        texts.sort_unstable();
    }
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    Spread::of(&texts).map_or(Cuts::None, Cuts::Spread)
}

#[cfg(test)]
pub(super) mod tests;
