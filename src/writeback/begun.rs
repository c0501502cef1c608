//! Multipart uploads on record: each one from before it begins until it is completed or aborted.
//!
//! The record is written before `CreateMultipartUpload` is sent, and gets the upload's id with its answer. Where the
//! answer is lost, nobody knows the id, also where a second attempt was answered with another one: that upload gets a
//! record of its own. The server is asked then which uploads of the key hold no part. One of ours whose id is not
//! known never got one.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::spool::{Note, Spool};
use super::state::nanos_now;
use super::uploaded::is_final;
use crate::store::{Doubt, ObjectHeaders, ObjectStore, StoreError};

/// A request that was sent is carried out by then, or never; and another client's upload has a part by then.
const SETTLED: Duration = Duration::from_secs(10);

/// When to look again for an upload that is not old enough.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// How far an upload's beginning, by the server's clock, may lie before and behind its record, by ours.
const EARLIEST: Duration = Duration::from_secs(30);
const LATEST: Duration = Duration::from_secs(90);

/// Pauses between attempts to end an upload.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
const MAX_PAUSE: Duration = Duration::from_mins(5);

/// Begins a multipart upload, on record.
///
/// # Errors
/// The server's. Whether an upload was begun in spite of it is found out behind.
pub async fn begin(
    store: &Arc<dyn ObjectStore>,
    spool: &Arc<Spool>,
    key: &str,
    headers: &ObjectHeaders,
) -> Result<(String, Option<Note>), StoreError> {
    let mut note = spool.note_upload(key);
    let doubt = Doubt::default();
    match store.create_upload(key, headers, &doubt).await {
        Ok(id) => {
            if let Some(note) = &mut note {
                if doubt.is_there()
                    && let Some(another) = note.of_another()
                {
                    end_another(store, another);
                }
                note.began(&id);
            }
            Ok((id, note))
        }
        Err(error) => {
            match note {
                Some(note) if doubt.is_there() => drop(tokio::spawn(end(Arc::clone(store), note))),
                Some(note) => note.remove(),
                None => {}
            }
            Err(error)
        }
    }
}

/// Ends, behind whoever uploads, what an attempt without an answer may have begun beside the upload that is used.
fn end_another(store: &Arc<dyn ObjectStore>, note: Note) {
    note.give_up();
    let store = Arc::clone(store);
    drop(tokio::spawn(async move {
        // The attempt may have been sent just now, long after the first one, which the record tells the time of.
        tokio::time::sleep(SETTLED).await;
        end(store, note).await;
    }));
}

/// Ends an upload that is not wanted. What the server does not let go of at once is tried again behind.
pub async fn abort(store: &Arc<dyn ObjectStore>, key: &str, id: &str, note: Option<Note>) {
    match (store.abort_upload(key, id).await, note) {
        (Ok(()), note) => note.iter().for_each(Note::remove),
        (Err(error), note) => {
            stays_behind(&error);
            if let Some(note) = note.filter(|_| !is_final(error.kind)) {
                let store = Arc::clone(store);
                drop(tokio::spawn(async move {
                    tokio::time::sleep(FIRST_PAUSE).await;
                    end(store, note).await;
                }));
            }
        }
    }
}

/// Ends an upload that is not wanted, behind whoever waits for the reason.
pub(super) fn abort_behind(store: &Arc<dyn ObjectStore>, key: &str, id: &str, note: Option<Note>) {
    let (store, key, id) = (Arc::clone(store), key.to_owned(), id.to_owned());
    drop(tokio::spawn(async move { abort(&store, &key, &id, note).await }));
}

/// Ends an upload that is on record, and tries again while that helps. Where it does not, the next mount does.
pub async fn end(store: Arc<dyn ObjectStore>, note: Note) {
    note.give_up();
    let mut pause = FIRST_PAUSE;
    loop {
        let ended = match &note.record.upload {
            Some(id) => store.abort_upload(&note.record.key, id).await.map(|()| true),
            None => end_unknown(&*store, &note).await,
        };
        match ended {
            Ok(true) => return note.remove(),
            Ok(false) => tokio::time::sleep(LOOK_AGAIN).await,
            Err(error) => {
                stays_behind(&error);
                if is_final(error.kind) {
                    return;
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(MAX_PAUSE);
            }
        }
    }
}

fn stays_behind(error: &StoreError) {
    tracing::warn!(%error, "an unfinished upload stays behind on the server for now; this mount or the next one ends it");
}

/// Ends the uploads that may have been begun without an answer. `false`: it is not known yet.
async fn end_unknown(store: &dyn ObjectStore, note: &Note) -> Result<bool, StoreError> {
    let since = Duration::from_millis(u64::try_from(note.record.changed_ms).unwrap_or(0));
    let begun = SystemTime::UNIX_EPOCH + since;
    if begun.elapsed().unwrap_or_default() < SETTLED {
        return Ok(false);
    }
    // An upload of the same key that has just begun here holds no part either.
    if note.is_followed() {
        return Ok(false);
    }
    let key = &note.record.key;
    let partless = match store.partless_uploads(key).await {
        Err(error) if error.kind.is_by_policy() => {
            tracing::debug!(%error, key, "uploads are not shown to this credential; one whose beginning was not answered may stay");
            return Ok(true);
        }
        answer => answer?,
    };
    if partless.is_empty() {
        tracing::debug!(key, "no upload is shown whose beginning was not answered; to a user none ever is");
    }
    let mut is_known = true;
    for upload in partless {
        let is_ours = upload.initiated >= begun - EARLIEST && upload.initiated <= begun + LATEST;
        if !is_ours {
            continue;
        }
        if upload.initiated.elapsed().unwrap_or_default() < SETTLED {
            is_known = false;
            continue;
        }
        tracing::info!(
            key = note.record.key,
            id = upload.id,
            "aborting an upload whose beginning was not answered"
        );
        store.abort_upload(&note.record.key, &upload.id).await?;
    }
    Ok(is_known)
}

/// Milliseconds since the Unix epoch.
pub(super) fn millis_now() -> i64 {
    nanos_now() / 1_000_000
}
