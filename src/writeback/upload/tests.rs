use async_trait::async_trait;

use super::*;
use crate::attrs::Attrs;
use crate::store::{Doubt, GetBody, ListPage, ListRequest, Section};
use crate::writeback::{Delay, Owner, SpoolOptions, nanos_now};

/// Takes whole objects.
#[derive(Debug)]
struct Puts;

#[async_trait]
impl ObjectStore for Puts {
    async fn put(&self, _: &str, _: &ObjectHeaders, _: &Section) -> Result<ETag, StoreError> {
        Ok(ETag::new("new"))
    }

    async fn list(&self, _: &ListRequest) -> Result<ListPage, StoreError> {
        unreachable!()
    }
    async fn head(&self, _: &str) -> Result<ObjectHead, StoreError> {
        unreachable!()
    }
    async fn get(&self, _: &str, _: Option<Range<u64>>, _: u64) -> Result<GetBody, StoreError> {
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

/// Keeps nothing in memory.
struct Nothing;

impl Contents for Nothing {
    fn stored(&self, _: &Base, _: &File) {}
    fn cached(&self, _: &Base, _: Range<u64>) -> Option<Vec<Bytes>> {
        None
    }
}

#[tokio::test]
async fn what_was_uploaded_is_published_before_the_draft_may_be_dropped() {
    let dir = tempfile::tempdir().expect("a directory");
    let options = SpoolOptions { capacity: 1 << 20, sync: false };
    let (spool, _) = Spool::open(dir.path(), options, Owner::default()).expect("a spool");
    let store: Arc<dyn ObjectStore> = Arc::new(Puts);
    let removals = Removals::new(Arc::clone(&store), Delay::Fixed(Duration::ZERO));
    let defaults = Arc::new(|_: &str| ObjectHeaders::default());
    let ends = Ends { store, spool: Arc::clone(&spool), contents: Arc::new(Nothing) };
    let uploader =
        Uploader::new(ends, Limits { part_size: 5 << 20, holes: 1 << 30 }, false, defaults, removals);
    let attrs = Attrs { mtime: Some(nanos_now()), ..Attrs::default() };
    let draft = Draft::new(&spool, State::on("a", None, attrs)).expect("a draft");
    draft.write(0, b"data").expect("written");
    let mut published = None;
    let publish = |uploaded: &Uploaded| {
        assert!(!draft.state().is_clean(), "it could be dropped, and nothing would know of the new version");
        assert!(
            draft.gate.try_read().is_err(),
            "nobody changes it, or moves it, on the grounds of the old one"
        );
        published = Some((uploaded.key.clone(), uploaded.etag.clone(), uploaded.size));
    };
    uploader.upload(&draft, publish).await.expect("uploaded");
    assert_eq!(published, Some(("a".to_owned(), ETag::new("new"), 4)));
    assert!(draft.state().is_clean());
    let again = uploader.upload(&draft, |_| panic!("nothing is uploaded")).await.expect("nothing to do");
    assert!(again.is_none());
}
