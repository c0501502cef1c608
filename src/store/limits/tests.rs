use super::*;

fn refused() -> StoreError {
    StoreError {
        kind: StoreErrorKind::TooLarge,
        operation: "PutObject",
        key: "file".to_owned(),
        status: 413,
        code: "EntityTooLarge".to_owned(),
        message: "The object exceeded the maximum allowed size".to_owned(),
    }
}

/// A file of this size was refused as a whole, and in one part.
fn refuse(limits: &Limits, key: &str, size: u64) {
    limits.put::<()>("bucket", key, size, &Err(refused()));
    limits.counts("id", size);
    limits.part_refused("bucket", key, "id", size);
    limits.does_not_count("id", size);
    limits.ended("id");
}

fn bound(limits: &Limits) -> Option<u64> {
    limits.known("bucket").refusal()
}

#[tokio::test(start_paused = true)]
async fn a_refused_size_is_remembered_for_two_minutes() {
    let limits = Limits::default();
    refuse(&limits, "file", 100);
    tokio::time::advance(Duration::from_secs(119)).await;
    assert_eq!(bound(&limits), Some(100));
    // A larger one says nothing about this one, and does not make it last longer.
    refuse(&limits, "file", 200);
    tokio::time::advance(Duration::from_secs(2)).await;
    assert_eq!(bound(&limits), None);
}

#[tokio::test(start_paused = true)]
async fn an_object_that_was_taken_disproves_what_was_refused() {
    let limits = Limits::default();
    refuse(&limits, "file", 100);
    limits.accepted("bucket", 99);
    limits.accepted("another", 500);
    assert_eq!(bound(&limits), Some(100));
    limits.accepted("bucket", 100);
    assert_eq!(bound(&limits), None);
}

#[tokio::test(start_paused = true)]
async fn a_put_alone_tells_nothing_of_larger_files_which_go_in_parts() {
    let limits = Limits::default();
    limits.put::<()>("bucket", "file", 100, &Err(refused()));
    assert_eq!(bound(&limits), None);
}

#[tokio::test(start_paused = true)]
async fn a_part_that_was_sent_twice_may_have_been_counted_twice() {
    let limits = Limits::default();
    for size in [50, 50, 50] {
        limits.counts("id", size);
    }
    // This one did not arrive.
    limits.does_not_count("id", 50);
    limits.counts("id", 20);
    limits.part_refused("bucket", "file", "id", 20);
    assert_eq!(bound(&limits), Some(120));
}

#[tokio::test(start_paused = true)]
async fn a_name_that_ends_like_a_placeholders_tells_nothing_of_sizes() {
    let limits = Limits::default();
    refuse(&limits, "a.emptyFolderPlaceholder", 1);
    assert_eq!(bound(&limits), None);
}

#[tokio::test(start_paused = true)]
async fn a_limit_is_looked_up_again_before_it_forbids_something() {
    let limits = Limits::default();
    let in_doubt = |size| limits.known("bucket").is_in_doubt(size);
    assert!(in_doubt(1), "nothing is known");
    limits.change("bucket", |known| known.was_read(Row::Limit(100)));
    assert!(!in_doubt(100) && !in_doubt(101), "it is fresh");
    tokio::time::advance(FRESH).await;
    assert!(!in_doubt(100) && in_doubt(101), "it may have been raised");
    tokio::time::advance(REMEMBERED).await;
    assert!(in_doubt(100));
    limits.change("bucket", |known| known.was_read(Row::NoAnswer));
    assert!(!in_doubt(101), "a server that does not answer is left alone");
    tokio::time::advance(SILENCE).await;
    assert!(in_doubt(101));
}

#[tokio::test(start_paused = true)]
async fn a_limit_that_has_changed_ends_what_was_learned_under_the_old_one() {
    let limits = Limits::default();
    let read = |row| limits.change("bucket", |known| known.was_read(row));
    read(Row::Limit(1000));
    // The project's own limit is lower than the bucket's.
    refuse(&limits, "file", 500);
    assert!(limits.known("bucket").is_in_doubt(1), "the row is read again");
    for row in [Row::Limit(1000), Row::NoAnswer] {
        read(row);
        assert_eq!(bound(&limits), Some(500), "{row:?}");
    }
    read(Row::Limit(1000));
    read(Row::Limit(2000));
    assert_eq!(bound(&limits), None);
}
