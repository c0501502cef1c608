//! How fast it is: `cargo test --release -p supafs-standin -- --ignored --nocapture speed`.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Instant;

use supafs_standin::Config;

use crate::common::{Client, standin_with};
use crate::parts::Upload;

/// Reads one answer without a body of its own; says its status line.
fn answer(reader: &mut BufReader<TcpStream>) -> String {
    let mut status = String::new();
    let mut line = String::new();
    let mut length = 0;
    reader.read_line(&mut status).unwrap();
    loop {
        line.clear();
        reader.read_line(&mut line).unwrap();
        if let Some(value) = line.strip_prefix("content-length: ") {
            length = value.trim().parse().unwrap();
        }
        if line == "\r\n" {
            break;
        }
    }
    reader.read_exact(&mut vec![0; length]).unwrap();
    status
}

#[test]
#[ignore = "a benchmark"]
fn small_puts_per_second() {
    const COUNT: u32 = 20_000;
    let standin = standin_with(Config { threads: 1, ..Config::default() });
    let client = Client::admin(&standin);
    let request =
        client.head_for("PUT", "/b/key", &[("content-length", "4096")]).replace("connection: close\r\n", "");
    let request = [request.as_bytes(), &[7; 4096]].concat();
    let begun = Instant::now();
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let (host, request) = (client.host.clone(), request.clone());
            std::thread::spawn(move || {
                let mut stream = TcpStream::connect(host).unwrap();
                stream.set_nodelay(true).unwrap();
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                for _ in 0..COUNT / 4 {
                    stream.write_all(&request).unwrap();
                    assert!(answer(&mut reader).starts_with("HTTP/1.1 200"));
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    println!("{:.0} PUTs of 4 KiB per second", f64::from(COUNT) / begun.elapsed().as_secs_f64());
}

#[test]
#[ignore = "a benchmark"]
fn a_gibibyte_in_and_out() {
    const MIB: usize = 1024 * 1024;
    for md5 in [true, false] {
        let standin = standin_with(Config { md5, ..Config::default() });
        let client = Client::admin(&standin);
        let head = client.head_for("PUT", "/b/big", &[("content-length", "1073741824")]);
        let block = vec![7; MIB];
        let begun = Instant::now();
        let mut stream = TcpStream::connect(&client.host).unwrap();
        stream.write_all(head.as_bytes()).unwrap();
        for _ in 0..1024 {
            stream.write_all(&block).unwrap();
        }
        assert!(answer(&mut BufReader::new(stream)).starts_with("HTTP/1.1 200"));
        let put = begun.elapsed();
        let begun = Instant::now();
        let mut stream = TcpStream::connect(&client.host).unwrap();
        stream.write_all(client.head_for("GET", "/b/big", &[]).as_bytes()).unwrap();
        let mut buffer = vec![0; MIB];
        let mut left = 1024 * MIB;
        while left > 0 {
            let read = stream.read(&mut buffer).unwrap();
            assert!(read > 0);
            left = left.saturating_sub(read);
        }
        let get = begun.elapsed();
        let begun = Instant::now();
        let upload = Upload::create(&client, "/b/again");
        let parts = [upload.put_copy(1, "b/big", None)];
        upload.complete(&parts);
        println!("md5 {md5}: 1 GiB PUT {put:.2?}, GET {get:.2?}, copied as a part {:.2?}", begun.elapsed());
    }
}
