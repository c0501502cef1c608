//! Faults, switches and the request log.

use std::io::{Read as _, Write as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::common::{Client, standin};
use supafs_standin::{Action, Fault, fill_synthetic, synthetic_bytes};

const MILLIS_200: Duration = Duration::from_millis(200);

#[test]
fn status_faults_hit_what_they_name_and_as_often() {
    let standin = standin();
    let client = Client::admin(&standin);
    standin.put("b", "dir/k", "v");
    let id = standin.fault(Fault::status(503, "SlowDown").on("GetObject").key_prefix("dir/").times(2));
    assert_eq!(client.head_of("/b/dir/k").status, 200);
    assert_eq!(client.get("/b/other").status, 404);
    assert_eq!(client.get("/b/dir/k").refusal(), (503, "SlowDown".into(), "injected SlowDown".into()));
    assert_eq!(client.get("/b/dir/k").status, 503);
    assert_eq!(client.get("/b/dir/k").status, 200);
    assert_eq!(standin.fault_hits(id), 2);
    standin.clear_faults();
    let fault: Fault = "status:544:DatabaseTimeout,op=PutObject,key=contains:x,after=1".parse().unwrap();
    standin.fault(fault);
    assert_eq!(client.put("/b/ax", b"1").status, 200);
    assert_eq!(client.put("/b/ax", b"2").status, 544);
    assert_eq!(standin.get("b", "ax").unwrap(), "1");
    standin.clear_faults();
    standin.fault(Fault::status(500, "InternalError").chance(0.5, 7));
    let failed = (0..100).filter(|_| client.head_of("/b/ax").status == 500).count();
    assert!((25..75).contains(&failed), "{failed}");
}

#[test]
fn connections_are_reset_before_and_after_the_deed() {
    let standin = standin();
    let client = Client::admin(&standin);
    standin.fault(Fault::new(Action::Reset).times(1));
    let error = client.try_send("PUT", "/b/k", &[], b"1").unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}");
    assert!(standin.get("b", "k").is_none());
    standin.fault(Fault::new(Action::ReplyLost).times(1));
    assert!(client.try_send("PUT", "/b/k", &[], b"2").is_err());
    assert_eq!(standin.get("b", "k").unwrap(), "2", "applied, reply lost");
    assert_eq!(client.get("/b/k").status, 200);
}

#[test]
fn bodies_are_cut_slowed_and_stalled() {
    let standin = standin();
    let client = Client::admin(&standin);
    standin.put("b", "k", vec![7_u8; 300_000]);
    standin.fault(Fault::new(Action::Truncate(100_000)).on("GetObject").times(1));
    assert!(client.try_send("GET", "/b/k", &[], b"").is_err(), "full length announced, less sent");
    assert_eq!(standin.log().last().map(|e| (e.status, e.bytes_out)), Some((200, 100_000)));
    assert_eq!(client.get("/b/k").body.len(), 300_000);
    for action in [Action::Slow(1_000_000), Action::Stall { after: 1000, pause: MILLIS_200 }] {
        standin.fault(Fault::new(action.clone()).times(1));
        let begun = Instant::now();
        assert_eq!(client.get("/b/k").body, vec![7_u8; 300_000]);
        assert!(begun.elapsed() >= MILLIS_200, "{action:?}");
        standin.clear_faults();
    }
    standin.fault(Fault::new(Action::OtherEtag).on("GetObject").times(1));
    let other = client.get("/b/k");
    assert_ne!(other.header("etag"), client.get("/b/k").header("etag"));
    assert_eq!(other.header("etag").map(str::len), Some(34));
}

#[test]
fn hanging_requests_go_on_when_the_fault_is_cleared() {
    let standin = Arc::new(standin());
    standin.put("b", "k", "v");
    let id = standin.fault(Fault::new(Action::Hang).on("GetObject"));
    let client = Client::admin(&standin);
    let waiting = std::thread::spawn(move || client.get("/b/k").text());
    let begun = Instant::now();
    while standin.in_flight() == 0 && begun.elapsed() < Duration::from_secs(5) {
        std::thread::sleep(Duration::from_millis(5));
    }
    std::thread::sleep(Duration::from_millis(50));
    assert!(!waiting.is_finished());
    assert_eq!(Client::admin(&standin).head_of("/b/k").status, 200, "others are served");
    standin.clear_fault(id);
    assert_eq!(waiting.join().unwrap(), "v");
}

#[test]
fn a_client_that_goes_ends_a_hanging_request() {
    let standin = standin();
    standin.fault(Fault::new(Action::Hang));
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", standin.port())).unwrap();
    stream.write_all(b"GET /b/k HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    while standin.in_flight() == 0 {
        std::thread::sleep(Duration::from_millis(5));
    }
    drop(stream);
    let begun = Instant::now();
    while standin.in_flight() > 0 {
        assert!(begun.elapsed() < Duration::from_secs(5), "still in flight");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn latency_is_served_to_many_at_once() {
    let standin = Arc::new(standin());
    standin.put("b", "k", "v");
    standin.set_latency(MILLIS_200);
    let begun = Instant::now();
    let threads: Vec<_> = (0..50)
        .map(|_| {
            let client = Client::admin(&standin);
            std::thread::spawn(move || client.get("/b/k").status)
        })
        .collect();
    assert!(threads.into_iter().all(|t| t.join().unwrap() == 200));
    assert!(begun.elapsed() >= MILLIS_200 && begun.elapsed() < Duration::from_secs(5));
    assert!(standin.peak_in_flight() >= 25, "{}", standin.peak_in_flight());
    standin.set_latency(Duration::ZERO);
}

#[test]
fn hashing_delays_every_get_by_the_objects_size() {
    let standin = standin();
    let client = Client::admin(&standin);
    standin.put_synthetic("b", "big", 50_000_000, 3);
    standin.set_hash_rate(Some(250_000_000));
    let begun = Instant::now();
    let answer = client.send("GET", "/b/big", &[("range", "bytes=0-9")], b"");
    assert_eq!((answer.status, answer.body.len()), (206, 10));
    assert!(begun.elapsed() >= MILLIS_200);
    let begun = Instant::now();
    client.head_of("/b/big");
    assert!(begun.elapsed() < MILLIS_200, "HEAD asks the database alone");
    standin.set_hash_rate(None);
}

#[test]
fn the_log_tells_what_was_asked() {
    let standin = standin();
    let client = Client::admin(&standin);
    client.put("/b/dir/k", b"12345");
    client.send("GET", "/b/dir/k", &[("range", "bytes=1-2")], b"");
    client.list("b", &[("prefix", "dir/")]);
    let log = standin.log();
    let operations: Vec<_> = log.iter().map(|e| (e.operation, e.key.as_str(), e.status)).collect();
    assert_eq!(
        operations,
        [("PutObject", "dir/k", 200), ("GetObject", "dir/k", 206), ("ListObjectsV2", "dir/", 200)]
    );
    assert_eq!((log[0].bytes_in, log[1].bytes_out), (5, 2));
    assert_eq!(log[1].range.as_deref(), Some("bytes=1-2"));
    assert_eq!(log[2].query, "list-type=2&prefix=dir%2F");
    assert_eq!(log[0].identity, standin.credentials().access_key_id);
    assert!(log.iter().all(|e| e.bucket == "b" && e.finished));
    assert_eq!((standin.count("GetObject"), standin.count("HeadObject")), (1, 0));
    standin.clear_log();
    assert!(standin.log().is_empty() && standin.counts().is_empty());
}

#[test]
fn synthetic_bytes_are_a_function_of_seed_and_offset() {
    let whole = synthetic_bytes(5, 0, 1000);
    for (offset, len) in [(0, 1000), (1, 10), (7, 9), (8, 8), (999, 1), (500, 0), (13, 900)] {
        let start = usize::try_from(offset).unwrap();
        assert_eq!(synthetic_bytes(5, offset, len), whole[start..start + len], "{offset} {len}");
    }
    assert_ne!(synthetic_bytes(6, 0, 1000), whole);
    let mut far = [0; 16];
    fill_synthetic(5, 5 << 40, &mut far);
    assert_ne!(far, [0; 16]);
    let standin = standin();
    standin.put_synthetic("b", "huge", 6 << 40, 5);
    let client = Client::admin(&standin);
    assert_eq!(client.head_of("/b/huge").header("content-length"), Some("6597069766656"));
    let range = format!("bytes={}-{}", 5_u64 << 40, (5_u64 << 40) + 15);
    let answer = client.send("GET", "/b/huge", &[("range", &range)], b"");
    assert_eq!(answer.body, far);
    let mut rest = Vec::new();
    far.as_slice().read_to_end(&mut rest).unwrap();
    assert_eq!(rest, answer.body);
}
