use std::collections::BTreeSet;
use std::ops::{Bound, Range};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use proptest::prelude::*;

use super::*;
use crate::etag::ETag;
use crate::store::{Doubt, GetBody, ListedObject, ObjectHead, ObjectHeaders, Part, Section, StoreErrorKind};

/// Lists keys as a server does that loses none, a few at a time, and answers after a time that varies.
#[derive(Debug)]
pub(in super::super) struct Lists {
    pub keys: BTreeSet<String>,
    pub page: usize,
    /// The number of the request that fails.
    pub fails: Option<usize>,
    pub asked: Mutex<Vec<ListRequest>>,
}

impl Lists {
    fn page(&self, request: &ListRequest) -> ListPage {
        let prefix = &request.prefix;
        let mut page = ListPage::default();
        let mut after = request.after.clone().unwrap_or_default();
        let mut left = if request.limit == 0 { self.page } else { self.page.min(request.limit.into()) };
        loop {
            let from = match after.as_str().max(prefix) {
                from if from == after => Bound::Excluded(from),
                from => Bound::Included(from),
            };
            let key = self.keys.range::<str, _>((from, Bound::Unbounded)).next();
            let Some(key) = key.filter(|key| key.starts_with(prefix)) else { return page };
            if left == 0 {
                page.next = Some(after);
                return page;
            }
            left -= 1;
            if let Some(slash) = key[prefix.len()..].find('/').filter(|_| request.fold) {
                let folder = &key[..=prefix.len() + slash];
                page.prefixes.push(folder.to_owned());
                after = format!("{folder}\u{10FFFF}");
            } else {
                let object = ListedObject { key: key.clone(), size: 1, etag: ETag::new("x"), modified_ms: 1 };
                page.objects.push(object);
                after = format!("{key}\u{1}");
            }
        }
    }
}

#[async_trait]
impl ObjectStore for Lists {
    async fn list(&self, request: &ListRequest) -> Result<ListPage, StoreError> {
        let number = {
            let mut asked = self.asked.lock();
            asked.push(request.clone());
            asked.len()
        };
        // Any order of answers.
        tokio::time::sleep(Duration::from_millis(1 + (number as u64).wrapping_mul(7919) % 97)).await;
        if self.fails == Some(number) {
            let (key, code, message) = (request.prefix.clone(), String::new(), "refused".to_owned());
            let kind = StoreErrorKind::Protocol;
            return Err(StoreError { kind, operation: "ListObjectsV2", key, status: 500, code, message });
        }
        Ok(self.page(request))
    }

    async fn head(&self, _: &str) -> Result<ObjectHead, StoreError> {
        unreachable!()
    }
    async fn get(&self, _: &str, _: Option<Range<u64>>, _: u64) -> Result<GetBody, StoreError> {
        unreachable!()
    }
    async fn put(&self, _: &str, _: &ObjectHeaders, _: &Section) -> Result<ETag, StoreError> {
        unreachable!()
    }
    async fn copy(&self, _: &str, _: &str, _: u64, _: Option<&ObjectHeaders>) -> Result<ETag, StoreError> {
        unreachable!()
    }
    async fn delete(&self, _: &str) -> Result<(), StoreError> {
        unreachable!()
    }
    async fn delete_many(&self, _: &[String]) -> Result<Vec<StoreError>, StoreError> {
        unreachable!()
    }
    async fn create_upload(&self, _: &str, _: &ObjectHeaders, _: &Doubt) -> Result<String, StoreError> {
        unreachable!()
    }
    async fn upload_part(&self, _: &str, _: &str, _: u16, _: &Section) -> Result<Part, StoreError> {
        unreachable!()
    }
    async fn copy_part(&self, _: &str, _: &str, _: u16, _: &str, _: Range<u64>) -> Result<Part, StoreError> {
        unreachable!()
    }
    async fn complete_upload(&self, _: &str, _: &str, _: &[Part]) -> Result<ETag, StoreError> {
        unreachable!()
    }
    async fn abort_upload(&self, _: &str, _: &str) -> Result<(), StoreError> {
        unreachable!()
    }
}

pub(in super::super) fn block_on<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime").block_on(work)
}

struct Read {
    items: Vec<String>,
    requests: usize,
    error: bool,
}

/// Reads a listing to its end, and checks that each page is what lies between the one before and its `next`.
fn read(lists: Lists, prefix: &str, fold: bool, after: Option<String>, known: &[&str]) -> Read {
    let lists = Arc::new(lists);
    let store: Arc<dyn ObjectStore> = lists.clone();
    let known = known.iter().map(ToString::to_string).collect();
    let (items, error) = block_on(async {
        let mut pages = Pages::new(&store, prefix, fold, after, known);
        let (mut items, mut from, mut is_over) = (vec![], String::new(), false);
        loop {
            match pages.next(usize::MAX).await {
                Err(_) => return (items, true),
                Ok(None) => {
                    assert!(is_over, "it ends with the page that has no next");
                    return (items, false);
                }
                Ok(Some(Page { page, .. })) => {
                    assert!(!is_over);
                    let keys = page.objects.into_iter().map(|object| object.key);
                    let mut here: Vec<String> = keys.chain(page.prefixes).collect();
                    here.sort();
                    assert!(here.iter().all(|item| *item > from), "{here:?} after {from:?}");
                    if let Some(next) = &page.next {
                        assert!(here.iter().all(|item| item <= next), "{here:?} before {next:?}");
                        from.clone_from(next);
                    }
                    is_over = page.next.is_none();
                    items.extend(here);
                }
            }
        }
    });
    let requests = lists.asked.lock().len();
    Read { items, requests, error }
}

fn lists(keys: impl IntoIterator<Item = String>, page: usize) -> Lists {
    Lists { keys: keys.into_iter().collect(), page, fails: None, asked: Mutex::default() }
}

fn wanted(lists: &Lists, prefix: &str, fold: bool, after: Option<&String>) -> Vec<String> {
    let below = lists.keys.iter().filter_map(|key| key.strip_prefix(prefix));
    let items = below.map(|rest| match rest.find('/').filter(|_| fold) {
        Some(slash) => format!("{prefix}{}", &rest[..=slash]),
        None => format!("{prefix}{rest}"),
    });
    let items: BTreeSet<String> = items.filter(|item| after.is_none_or(|after| item > after)).collect();
    items.into_iter().collect()
}

fn component() -> impl Strategy<Value = String> {
    prop_oneof![
        "[ab]{1,3}",
        "[0-9]{1,4}",
        "[0-9a-f]{6}",
        "[ab!. _-]{0,4}",
        "IMG_[0-9]{4}",
        "2024-0[1-9]-[0-3][0-9]",
        "[aé漢]{1,2}",
        Just("a-long-beginning-that-all-of-them-share-0".to_owned()),
    ]
}

fn keys() -> impl Strategy<Value = BTreeSet<String>> {
    let key = proptest::collection::vec(component(), 1..4).prop_map(|parts| parts.join("/"));
    let key = key.prop_filter("no key is empty", |key| !key.is_empty());
    proptest::collection::btree_set(key, 0..300)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn every_item_is_given_out_once_and_in_order(
        keys in keys(),
        page in 1..40_usize,
        fold: bool,
        root in prop_oneof![Just(String::new()), component().prop_map(|name| name + "/")],
        known in proptest::collection::btree_set(component(), 0..6),
        begins in proptest::option::of(component()),
    ) {
        // Twice: below a folder that has them all as well.
        let below = keys.iter().map(|key| format!("{root}{key}"));
        let lists = lists(keys.iter().cloned().chain(below), page);
        let after = begins.map(|begins| format!("{root}{begins}.\u{10FFFF}"));
        let known: Vec<&str> = known.iter().map(String::as_str).collect();
        let wanted = wanted(&lists, &root, fold, after.as_ref());
        let read = read(lists, &root, fold, after, &known);
        prop_assert!(!read.error);
        prop_assert_eq!(read.items, wanted);
    }
}

fn counted(count: usize) -> impl Iterator<Item = String> {
    (0..count).map(|i| format!("d/file-{i:06}.jpg"))
}

#[test]
fn what_fits_a_page_costs_one_request_and_what_does_not_at_most_twice_its_pages() {
    for (count, most) in [(0, 1), (1, 1), (999, 1), (1000, 6), (2500, 8), (10_000, 21), (100_000, 130)] {
        let read = read(lists(counted(count), 999), "d/", true, None, &[]);
        assert_eq!(read.items.len(), count);
        assert!(read.requests <= most, "{count} entries: {} requests", read.requests);
    }
}

#[test]
fn what_was_listed_before_is_cut_as_it_was() {
    let cuts: Vec<String> = (1..11).map(|i| format!("file-{:06}.jpg", i * 949)).collect();
    let cuts: Vec<&str> = cuts.iter().map(String::as_str).collect();
    let read = read(lists(counted(10_000), 999), "d/", true, None, &cuts);
    assert_eq!((read.items.len(), read.requests), (10_000, 11));
}

#[test]
fn an_error_of_one_page_is_an_error_of_the_listing() {
    for fails in 1..=11 {
        let lists = Lists { fails: Some(fails), ..lists(counted(10_000), 999) };
        let read = read(lists, "d/", true, None, &[]);
        assert!(read.error || read.items.len() == 10_000, "request {fails}");
        assert!(read.error || fails > 10, "request {fails} was needed");
    }
}

#[test]
fn no_more_are_asked_for_than_allowed() {
    let lists = Arc::new(lists(counted(20_000), 999));
    let store: Arc<dyn ObjectStore> = lists.clone();
    block_on(async {
        let mut pages = Pages::new(&store, "d/", false, None, VecDeque::new());
        for given in 1..=10 {
            assert!(pages.next(2).await.expect("a page").is_some());
            assert!(lists.asked.lock().len() <= given + 1);
        }
    });
}
