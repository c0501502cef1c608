//! The keys that one identity sees, as a stream in byte order: a page at a time, the next one on its way.
//!
//! Asked for without folding, which the server pages without losing keys, and in the order of its bytes whatever the
//! database's collation. The order is checked, because merging two streams depends on it.

use std::cmp::Ordering;
use std::sync::Arc;

use tokio::task::JoinHandle;

use super::{Trouble, is_about_the_identity};
use crate::store::{ListPage, ListRequest, ListedObject, ObjectStore, StoreError, StoreErrorKind};

/// A stream of keys.
#[derive(Debug)]
pub struct Keys {
    store: Arc<dyn ObjectStore>,
    name: String,
    prefix: String,
    page: std::vec::IntoIter<ListedObject>,
    /// The page after this one.
    coming: Option<JoinHandle<Result<ListPage, StoreError>>>,
    begun: bool,
    last: String,
}

impl Keys {
    pub(super) fn new(store: Arc<dyn ObjectStore>, name: String, prefix: &str) -> Self {
        Self {
            store,
            name,
            prefix: prefix.to_owned(),
            page: Vec::new().into_iter(),
            coming: None,
            begun: false,
            last: String::new(),
        }
    }

    /// The next key, or `None` at the end.
    ///
    /// # Errors
    /// What the server refuses, and an order in which two streams cannot be compared.
    pub async fn next(&mut self) -> Result<Option<String>, Trouble> {
        loop {
            if let Some(object) = self.page.next() {
                if object.key <= self.last && !self.last.is_empty() {
                    return Err(self.trouble(out_of_order(&self.last, &object.key)));
                }
                self.last.clone_from(&object.key);
                return Ok(Some(object.key));
            }
            if !self.begun {
                self.begun = true;
                self.ask(None);
            }
            let Some(coming) = self.coming.take() else { return Ok(None) };
            let page = match coming.await {
                Ok(page) => page.map_err(|error| self.trouble(error))?,
                Err(_) => return Err(Trouble::Interrupted),
            };
            if let Some(next) = page.next {
                self.ask(Some(next));
            }
            self.page = page.objects.into_iter();
        }
    }

    fn ask(&mut self, after: Option<String>) {
        let store = Arc::clone(&self.store);
        let request = ListRequest { prefix: self.prefix.clone(), after, ..ListRequest::default() };
        self.coming = Some(tokio::spawn(async move { store.list(&request).await }));
    }

    fn trouble(&self, error: StoreError) -> Trouble {
        let name = self.name.clone();
        if is_about_the_identity(error.kind) {
            Trouble::Identity { name, error }
        } else {
            Trouble::Listing { name, error }
        }
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        if let Some(coming) = &self.coming {
            coming.abort();
        }
    }
}

fn out_of_order(last: &str, key: &str) -> StoreError {
    StoreError {
        kind: StoreErrorKind::Protocol,
        operation: "ListObjectsV2",
        key: key.to_owned(),
        status: 0,
        code: String::new(),
        message: format!("the listing is not in the order of its bytes: {key:?} came after {last:?}"),
    }
}

/// Where a key of two ordered streams is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Side {
    Left,
    Right,
}

/// Goes through two streams and tells of each key that only one has. Holds two pages of each at most.
///
/// # Errors
/// Of either stream, or of `tell`.
pub async fn differences<E: From<Trouble>>(
    mut left: Keys,
    mut right: Keys,
    mut tell: impl FnMut(Side, &str) -> Result<(), E>,
) -> Result<(), E> {
    let (mut a, mut b) = futures::future::try_join(left.next(), right.next()).await?;
    loop {
        let order = match (&a, &b) {
            (None, None) => return Ok(()),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(a), Some(b)) => a.cmp(b),
        };
        match (order, &a, &b) {
            (Ordering::Less, Some(key), _) => tell(Side::Left, key)?,
            (Ordering::Greater, _, Some(key)) => tell(Side::Right, key)?,
            _ => {}
        }
        if order.is_le() {
            a = left.next().await?;
        }
        if order.is_ge() {
            b = right.next().await?;
        }
    }
}
