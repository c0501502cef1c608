//! Reads the listing of one directory to its end.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use super::dir_cache::{Inner, PAGE};
use super::listing::{Listing, PageFolder};
use super::pages::Pages;
use crate::stats::Stats;
use crate::store::{StoreError, StoreErrorKind};

/// Entries between two cuts that the listing before tells of: some more may be there now.
const PART: usize = PAGE * 19 / 20;

/// Ends a listing whose task ends without doing so, by a panic: nobody must wait for it for ever.
struct Fill {
    inner: Arc<Inner>,
    prefix: String,
    listing: Weak<Listing>,
}

impl Fill {
    fn fail(&self, error: StoreError) {
        if let Some(listing) = self.listing.upgrade() {
            self.inner.drop_growing(&self.prefix, &listing);
            listing.fail(error);
        }
    }
}

impl Drop for Fill {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.fail(failure(&self.prefix, "the listing could not be understood"));
        }
    }
}

fn failure(prefix: &str, message: &str) -> StoreError {
    StoreError {
        kind: StoreErrorKind::Protocol,
        operation: "ListObjectsV2",
        key: prefix.to_owned(),
        status: 0,
        code: String::new(),
        message: message.to_owned(),
    }
}

/// Where to cut a directory of which there is an older listing.
pub(super) fn cuts(older: Option<&Arc<Listing>>) -> VecDeque<String> {
    older.filter(|listing| listing.len() > PAGE).map(|listing| listing.cuts(PART)).unwrap_or_default()
}

/// Reads a listing to its end, or until nobody wants it any more.
pub(super) fn spawn(inner: &Arc<Inner>, prefix: &str, listing: &Arc<Listing>, cuts: VecDeque<String>) {
    let fill = Fill { inner: Arc::clone(inner), prefix: prefix.to_owned(), listing: Arc::downgrade(listing) };
    // Lookups come and go, and want it together.
    let held = listing.has_limit().then(|| Arc::clone(listing));
    tokio::spawn(run(fill, cuts, held));
}

async fn run(fill: Fill, cuts: VecDeque<String>, mut held: Option<Arc<Listing>>) {
    let mut folder = PageFolder::new(&fill.prefix);
    let mut pages = Pages::new(&fill.inner.store, &fill.prefix, true, None, cuts);
    let mut count = 0;
    loop {
        let page = match pages.next(usize::MAX).await {
            Ok(Some(page)) => page,
            Ok(None) => return fill.fail(failure(&fill.prefix, "the listing has no end")),
            Err(error) => return fill.fail(error),
        };
        let Some(listing) = fill.listing.upgrade() else { return };
        let is_last = page.page.next.is_none();
        folder.add(&listing, page.page);
        if is_last {
            report_unshowable(&fill.inner.stats, &folder.unshowable);
            fill.inner.keep(&fill.prefix, listing);
            return;
        }
        count += 1;
        if listing.gives_up(count) {
            fill.inner.note_len(&fill.prefix, listing.len(), count);
            return fill.fail(failure(&fill.prefix, "the directory is too large to be listed for lookups"));
        }
        held = held.filter(|listing| listing.has_limit());
    }
}

pub(super) fn report_unshowable(stats: &Stats, keys: &[String]) {
    let Some(first) = keys.first() else { return };
    if stats.unshowable_keys.get() == 0 {
        tracing::warn!(
            key = first,
            count = keys.len(),
            "keys that cannot be shown as a file name are left out; rename them with another client"
        );
    }
    stats.unshowable_keys.add(keys.len() as u64);
}
