//! What the server has under one name, by one request where that can tell.
//!
//! A name may stand for an object, a folder or a symbolic link, whose keys all begin with the name. The first keys with
//! that beginning, in byte order, are the object, then those whose next character sorts before the slash (the link
//! among them), then those in the folder: a few keys tell of all three, unless many neighbours stand between.

use std::sync::Arc;

use tokio::time::Instant;

use super::listing::{Kind, Listing, PageFolder};
use crate::name;
use crate::store::{ListRequest, ListedObject, ObjectStore, StoreError};

/// Keys that one request brings.
const FEW: u16 = 16;

/// A folder with no more entries than this is known whole after the first lookup in it.
const GLANCE: u16 = 100;

/// What a probe found, and when it asked.
pub(super) type Probed = Result<(Option<Kind>, Instant), StoreError>;

/// What the server has under this key: a folder, else an object, else a symbolic link, else nothing.
///
/// It is listed, not asked for by HEAD: a listing's times are in milliseconds, HEAD's in seconds, and a file must not
/// change its time with the way it was found.
pub(super) async fn probe(store: Arc<dyn ObjectStore>, key: String) -> Probed {
    let asked = Instant::now();
    let folder_key = format!("{key}/");
    let link_key = format!("{key}{}", name::LINK_SUFFIX);
    let page = store.list(&first(FEW, &key)).await?;
    let mut has_folder = page.objects.iter().any(|object| object.key.starts_with(&folder_key));
    let is_all = page.next.is_none() || page.objects.last().is_some_and(|last| last.key >= folder_key);
    let mut file = None;
    let mut link = None;
    for object in page.objects {
        if object.key == key {
            file = Some(object);
        } else if object.key == link_key {
            link = Some(object);
        }
    }
    if !is_all {
        let (folder_first, link_first) = (first(1, &folder_key), first(1, &link_key));
        let (folder, links) = futures::try_join!(store.list(&folder_first), store.list(&link_first))?;
        has_folder = !folder.objects.is_empty();
        link = links.objects.into_iter().next().filter(|object| object.key == link_key);
    }
    Ok((kind(has_folder, file, link), asked))
}

fn kind(has_folder: bool, file: Option<ListedObject>, link: Option<ListedObject>) -> Option<Kind> {
    if has_folder {
        return Some(Kind::Directory);
    }
    file.map(|file| Kind::File(file.into())).or_else(|| link.map(|link| Kind::Link(link.into())))
}

fn first(limit: u16, prefix: &str) -> ListRequest {
    ListRequest { prefix: prefix.to_owned(), limit, ..ListRequest::default() }
}

/// The listing of a directory, if it is a small one: who looks at one name in it soon looks at the next, and a rename
/// looks at two. With it come the keys that cannot be shown. What goes wrong here goes wrong for who needs it.
pub(super) async fn glance(store: &dyn ObjectStore, prefix: &str) -> Option<(Listing, Vec<String>)> {
    let listing = Listing::new();
    let request = ListRequest { fold: true, ..first(GLANCE, prefix) };
    let page = store.list(&request).await.ok().filter(|page| page.next.is_none())?;
    let mut folder = PageFolder::new(prefix);
    folder.add(&listing, page);
    Some((listing, folder.unshowable))
}

#[cfg(test)]
mod tests;
