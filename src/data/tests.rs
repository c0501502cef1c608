use std::time::{Duration, Instant};

use super::pace::{Flow, Pace};

const MIB: u64 = 1 << 20;

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

#[test]
fn a_server_that_hashes_is_recognised_by_its_first_byte() {
    let pace = Pace::default();
    pace.learn(256 * MIB, ms(800), ms(5));
    assert!(pace.prefers_one_stream(256 * MIB));
    assert!(pace.prefers_one_stream(64 * MIB));
    assert!(!pace.prefers_one_stream(8 * MIB), "hashing that little takes no time");
}

#[test]
fn a_distant_server_that_answers_ranges_at_once_is_not_taken_for_one_that_hashes() {
    let pace = Pace::default();
    // The object store behind the server takes longer than its database.
    pace.learn(256 * MIB, ms(120), ms(40));
    assert!(!pace.prefers_one_stream(256 * MIB));
    pace.learn(MIB, ms(110), ms(40));
    pace.learn(50 * MIB, ms(125), ms(40));
    assert!(!pace.prefers_one_stream(1024 * MIB));
    // 5 GiB in 200 ms is no hashing.
    pace.learn(5 * 1024 * MIB, ms(200), ms(40));
    assert!(!pace.prefers_one_stream(5 * 1024 * MIB));
}

#[test]
fn small_objects_are_the_measure_once_one_was_read() {
    let pace = Pace::default();
    pace.learn(1000, ms(10), ms(5));
    pace.learn(40 * MIB, ms(120), ms(5));
    assert!(!pace.prefers_one_stream(40 * MIB), "one slow answer is no sign");
    pace.learn(40 * MIB, ms(120), ms(5));
    assert!(pace.prefers_one_stream(40 * MIB));
    // The next large object came at once: the server is another, or was only slow.
    pace.learn(40 * MIB, ms(12), ms(5));
    assert!(!pace.prefers_one_stream(40 * MIB));
}

#[test]
fn a_slow_link_is_not_filled_with_what_is_not_needed_yet() {
    let flow = Flow::default();
    assert_eq!(flow.window(), u64::MAX, "nothing is known yet");
    let begun = Instant::now();
    // Eight bodies of half a MiB a second each.
    let mut bodies: Vec<_> = (0..8).map(|_| flow.begin()).collect();
    for i in 0..100 {
        for body in &mut bodies {
            body.arrived(MIB / 20, begun + ms(100 * i));
        }
    }
    assert!((7 * MIB..9 * MIB).contains(&flow.window()), "{}", flow.window());
    // A pause of the reader says nothing about the link.
    for body in &mut bodies {
        body.pause();
    }
    for i in 0..100 {
        bodies[0].arrived(MIB / 20, begun + ms(60_000 + 100 * i));
    }
    bodies.truncate(1);
    assert!((2 * MIB..9 * MIB).contains(&flow.window()), "{}", flow.window());
    // However slow, a little is read ahead.
    for i in 0..2000 {
        bodies[0].arrived(MIB / 20, begun + ms(90_000 + 10_000 * i));
    }
    assert_eq!(flow.window(), 2 * MIB);
}
