//! An HTTP proxy as companies have them: it tunnels by CONNECT, forwards plain requests, and may want a password.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// It ends with this value.
pub struct Proxy {
    address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
}

/// What every connection needs.
struct Rules {
    /// The one server that all names lead to.
    server: SocketAddr,
    /// What the header `Proxy-Authorization` must hold.
    login: Option<String>,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    /// All host names lead to `server`: only the proxy can resolve them.
    pub fn start(server: SocketAddr, login: Option<&str>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let address = listener.local_addr().expect("an address");
        let heads = Arc::new(Mutex::new(Vec::new()));
        let rules =
            Arc::new(Rules { server, login: login.map(ToOwned::to_owned), heads: Arc::clone(&heads) });
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let rules = Arc::clone(&rules);
                if Arc::strong_count(&rules.heads) == 1 {
                    // The test is over, and this connection is its last word.
                    return;
                }
                // A client that goes away is no concern of the proxy's.
                thread::spawn(move || drop(rules.serve(client)));
            }
        });
        Self { address, heads }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The first request of each connection, with its headers.
    pub fn heads(&self) -> Vec<String> {
        self.heads.lock().expect("no panic").clone()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.heads = Arc::default();
        let _last_word = TcpStream::connect(self.address);
    }
}

impl Rules {
    fn serve(&self, mut client: TcpStream) -> io::Result<()> {
        let head = head_of(&mut client)?;
        self.heads.lock().expect("no panic").push(head.clone());
        let is_welcome = self.login.as_ref().is_none_or(|login| head.contains(login.as_str()));
        if !is_welcome {
            return client.write_all(
                b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            );
        }
        let mut server = TcpStream::connect(self.server)?;
        if head.starts_with("CONNECT ") {
            client.write_all(b"HTTP/1.1 200 OK\r\n\r\n")?;
        } else {
            server.write_all(head.as_bytes())?;
        }
        let (mut to_server, mut from_client) = (server.try_clone()?, client.try_clone()?);
        thread::spawn(move || {
            let _ended = io::copy(&mut from_client, &mut to_server);
            let _closed = to_server.shutdown(Shutdown::Write);
        });
        io::copy(&mut server, &mut client)?;
        client.shutdown(Shutdown::Both)
    }
}

/// Up to the empty line, byte by byte: what follows is the tunnel's.
fn head_of(client: &mut TcpStream) -> io::Result<String> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        client.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}
