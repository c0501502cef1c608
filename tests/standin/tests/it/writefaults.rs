//! Faults on what changes something: before and after the change, in the request's body, and what the log
//! tells of it all.

use std::io::{Read as _, Write as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

use supafs_standin::{Action, Fault, Standin};

use crate::common::{Client, standin};
use crate::parts::Upload;

fn wait(what: &str, until: impl Fn() -> bool) {
    let begun = Instant::now();
    while !until() {
        assert!(begun.elapsed() < Duration::from_secs(10), "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn every_write_can_be_refused_and_can_lose_its_reply() {
    let standin = standin();
    let client = Client::admin(&standin);
    let source = [("x-amz-copy-source", "b/src")];
    let delete = b"<Delete><Object><Key>k</Key></Object></Delete>";
    let xml = [("content-type", "application/xml")];
    standin.put("b", "src", "source");
    for (operation, lost) in [
        "PutObject",
        "CopyObject",
        "DeleteObject",
        "DeleteObjects",
        "CreateMultipartUpload",
        "UploadPart",
        "UploadPartCopy",
        "CompleteMultipartUpload",
        "AbortMultipartUpload",
    ]
    .iter()
    .flat_map(|operation| [(*operation, false), (*operation, true)])
    {
        standin.put("b", "k", "old");
        let upload = Upload::create(&client, "/b/k");
        let part = upload.put(1, b"part");
        let before = (standin.keys("b"), standin.get("b", "k"), standin.uploads("b"));
        let id = standin.fault(
            if lost { Fault::reply_lost() } else { Fault::status(500, "InternalError") }
                .on(operation)
                .times(1),
        );
        let query = format!("uploadId={}", upload.id);
        let answer = match operation {
            "PutObject" => client.try_send("PUT", "/b/k", &[], b"new"),
            "CopyObject" => client.try_send("PUT", "/b/k", &source, b""),
            "DeleteObject" => client.try_send("DELETE", "/b/k", &[], b""),
            "DeleteObjects" => client.try_send("POST", "/b?delete", &xml, delete),
            "CreateMultipartUpload" => client.try_send("POST", "/b/k?uploads", &[], b""),
            "UploadPart" => client.try_send("PUT", &upload.part_target(2), &[], b"two"),
            "UploadPartCopy" => client.try_send("PUT", &upload.part_target(2), &source, b""),
            "CompleteMultipartUpload" => {
                let document = crate::parts::document(std::slice::from_ref(&part));
                client.try_send("POST", &format!("/b/k?{query}"), &xml, document.as_bytes())
            }
            _ => client.try_send("DELETE", &format!("/b/k?{query}"), &[], b""),
        };
        assert_eq!(standin.fault_hits(id), 1, "{operation}");
        standin.clear_faults();
        let changed = (standin.keys("b"), standin.get("b", "k"), standin.uploads("b")) != before;
        assert_eq!(changed, lost, "{operation}");
        assert_eq!(answer.map(|a| a.status).ok(), (!lost).then_some(500), "{operation}");
        upload.abort();
    }
}

#[test]
fn late_errors_follow_the_change() {
    let standin = standin();
    let client = Client::admin(&standin);
    standin.fault(Fault::late_status(504, "GatewayTimeout").on("PutObject").times(1));
    let answer = client.put("/b/k", b"new");
    assert_eq!((answer.status, answer.header("connection")), (504, Some("close")));
    assert_eq!(standin.get("b", "k").unwrap(), "new");
    let standin = Arc::new(standin);
    let hang = standin.fault(Fault::new(Action::LateHang).on("DeleteObject"));
    let waiting = std::thread::spawn(move || client.delete("/b/k").status);
    wait("deleted", || standin.keys("b").is_empty());
    assert!(!waiting.is_finished());
    standin.clear_fault(hang);
    assert_eq!(waiting.join().unwrap(), 204);
}

#[test]
fn bodies_are_cut_off_and_the_old_version_stays() {
    let standin = standin();
    let client = Client::admin(&standin);
    standin.put("b", "k", "old");
    let body = vec![1; 3_000_000];
    standin.fault(Fault::new(Action::ResetBody(1_000_000)).on("PutObject").times(1));
    assert!(client.try_send("PUT", "/b/k", &[], &body).is_err());
    wait("ended", || standin.in_flight() == 0);
    let entry = standin.log().pop().unwrap();
    assert!((1_000_000..3_000_000).contains(&entry.bytes_in), "{}", entry.bytes_in);
    assert_eq!((entry.status, entry.faults), (0, 1));
    assert_eq!(standin.get("b", "k").unwrap(), "old");
    standin.clear_faults();
    standin.fault(Fault::new(Action::ResetBody(1_000_000)).on("UploadPart").part(2).times(1));
    let upload = Upload::create(&client, "/b/k");
    assert_eq!(upload.part(1, &body).status, 200, "another part");
    assert!(client.try_send("PUT", &upload.part_target(2), &[], &body).is_err());
    wait("taken back", || standin.uploads("b")[0].progress == 3_000_000);
    assert_eq!(upload.part(2, &body).status, 200, "only once");
}

#[test]
fn a_client_that_stops_midway_changes_nothing() {
    let standin = standin();
    standin.put("b", "k", "old");
    let client = Client::admin(&standin);
    let mut stream = std::net::TcpStream::connect(&client.host).unwrap();
    stream.write_all(client.head_for("PUT", "/b/k", &[("content-length", "100")]).as_bytes()).unwrap();
    stream.write_all(b"half").unwrap();
    wait("arrived", || standin.log().first().is_some_and(|entry| entry.bytes_in == 4));
    drop(stream);
    wait("ended", || standin.in_flight() == 0);
    assert_eq!(standin.get("b", "k").unwrap(), "old");
}

#[test]
fn a_server_that_stops_reading_holds_its_client() {
    let standin = Arc::new(standin());
    let client = Client::admin(&standin);
    let id = standin.fault(Fault::new(Action::StopReading(100_000)).on("PutObject"));
    let waiting = std::thread::spawn(move || client.put("/b/k", &vec![1; 30_000_000]).status);
    wait("stopped", || standin.fault_hits(id) == 1 && standin.log()[0].bytes_in >= 100_000);
    std::thread::sleep(Duration::from_millis(100));
    assert!(!waiting.is_finished() && standin.log()[0].bytes_in < 30_000_000);
    standin.clear_fault(id);
    assert_eq!(waiting.join().unwrap(), 200);
    let client = Client::admin(&standin);
    standin.fault(Fault::new(Action::SlowBody(1_000_000)).on("PutObject").times(1));
    let begun = Instant::now();
    assert_eq!(client.put("/b/k", &vec![1; 300_000]).status, 200);
    assert!(begun.elapsed() >= Duration::from_millis(250));
}

#[test]
fn faults_strike_where_and_when_they_should() {
    let standin = standin();
    let client = Client::admin(&standin);
    standin.fault(Fault::status(503, "SlowDown").on_writes().key_glob("dir/*.tmp").every(3));
    let statuses: Vec<u16> = (0..7).map(|_| client.put("/b/dir/x/a.tmp", b"1").status).collect();
    assert_eq!(statuses, [200, 200, 503, 200, 200, 503, 200]);
    assert_eq!(client.put("/b/dir/a.txt", b"1").status, 200);
    standin.clear_faults();
    let fault: Fault = "late-status:504,op=PutObject,op=CopyObject,key=suffix:.x,every=2".parse().unwrap();
    assert_eq!(
        fault,
        Fault::late_status(504, "InternalError").on("PutObject").on("CopyObject").key_suffix(".x").every(2)
    );
    let fault: Fault = "reset-body:5,op=writes,part=3,key=glob:a*".parse().unwrap();
    assert_eq!(fault, Fault::new(Action::ResetBody(5)).on_writes().part(3).key_glob("a*"));
}

fn storm(seed: u64) -> (Standin, Vec<Option<u16>>) {
    let standin = standin();
    let client = Client::admin(&standin);
    for fault in Fault::storm(0.3, seed) {
        standin.fault(fault.on_writes());
    }
    let body = vec![7; 5000];
    let put = |i: usize| client.try_send("PUT", &format!("/b/{i}"), &[], &body).ok().map(|a| a.status);
    let statuses = (0..100).map(put).collect();
    (standin, statuses)
}

#[test]
fn storms_are_mixed_and_the_same_for_a_seed() {
    let (standin, statuses) = storm(7);
    let count = |status| statuses.iter().filter(|s| **s == status).count();
    assert!((55..=95).contains(&count(Some(200))), "{statuses:?}");
    assert!([Some(500), Some(503), Some(504), None].into_iter().all(|s| count(s) > 0), "{statuses:?}");
    assert!(standin.keys("b").len() > count(Some(200)), "some were applied and said not to be");
    assert_eq!(storm(7).1, statuses);
    assert_ne!(storm(8).1, statuses);
}

#[test]
fn the_log_tells_of_copies_parts_and_peaks() {
    let standin = Arc::new(standin());
    let client = Client::admin(&standin);
    standin.put("b", "src", "0123456789");
    client.send("PUT", "/b/copy", &[("x-amz-copy-source", "b/src")], b"");
    let upload = Upload::create(&client, "/b/k");
    let parts = [upload.put(1, b"abc"), upload.put_copy(2, "b/src", Some("bytes=0-4"))];
    upload.complete(&parts);
    let log = standin.log();
    let of = |operation: &str| log.iter().find(|entry| entry.operation == operation).unwrap().clone();
    assert_eq!(of("CopyObject").copy_source.as_deref(), Some("b/src"));
    assert_eq!((of("UploadPart").part_number, of("UploadPart").bytes_in), (Some(1), 3));
    let copied = of("UploadPartCopy");
    assert_eq!((copied.part_number, copied.range.as_deref()), (Some(2), Some("bytes=0-4")));
    assert_eq!(copied.upload_id.as_ref(), Some(&upload.id));
    assert!(of("CompleteMultipartUpload").bytes_in > 0);
    assert!(of("CompleteMultipartUpload").bytes_out > 0);
    let id = standin.fault(Fault::new(Action::Hang).on("PutObject"));
    let threads: Vec<_> = (0..5)
        .map(|i| {
            let client = client.clone();
            std::thread::spawn(move || client.put(&format!("/b/{i}"), b"").status)
        })
        .collect();
    wait("all there", || standin.fault_hits(id) == 5);
    client.get("/b/src");
    standin.clear_fault(id);
    assert!(threads.into_iter().all(|t| t.join().unwrap() == 200));
    assert_eq!(
        (standin.peak_of("PutObject"), standin.peak_of("GetObject"), standin.peak_of("none")),
        (5, 1, 0)
    );
}

#[test]
fn early_refusals_answer_while_the_body_still_comes() {
    let standin = standin();
    let client = Client::admin(&standin);
    standin.fault(Fault::status(503, "SlowDown").on("PutObject"));
    let head = client.head_for("PUT", "/b/k", &[("content-length", "1000000")]);
    let mut stream = std::net::TcpStream::connect(&client.host).unwrap();
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(&[0; 1000]).unwrap();
    let mut start = [0; 12];
    stream.read_exact(&mut start).unwrap();
    assert_eq!(&start, b"HTTP/1.1 503");
}

#[test]
fn a_request_given_up_while_it_hung_may_still_be_carried_out() {
    let standin = standin();
    let client = Client::admin(&standin);
    let id = standin.fault(Fault::new(Action::Hang).on("PutObject"));
    let mut stream = std::net::TcpStream::connect(&client.host).unwrap();
    stream.write_all(client.head_for("PUT", "/b/k", &[("content-length", "4")]).as_bytes()).unwrap();
    stream.write_all(b"late").unwrap();
    wait("hangs", || standin.fault_hits(id) == 1);
    drop(stream);
    std::thread::sleep(Duration::from_millis(100));
    standin.clear_fault(id);
    wait("ended", || standin.in_flight() == 0);
    assert!(standin.get("b", "k").is_none_or(|bytes| bytes == "late"), "as a whole or not at all");
}
