//! A small server of HTTP/1.1, which says whatever it is told to.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What is said to one request.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Option<Vec<u8>>,
    pub(crate) location: Option<String>,
    pub(crate) broken: bool,
}

impl Answer {
    pub(crate) fn ok(bytes: Vec<u8>) -> Self {
        let body = Some(bytes);
        Self {
            body,
            ..Self::status(200)
        }
    }

    pub(crate) fn status(status: u16) -> Self {
        Self {
            status,
            body: None,
            location: None,
            broken: false,
        }
    }

    /// The connection ends in the middle of the answer.
    pub(crate) fn broken() -> Self {
        Self {
            broken: true,
            ..Self::ok(b"half".to_vec())
        }
    }

    pub(crate) fn to(url: &str) -> Self {
        Self {
            location: Some(format!("{url}checkpoint")),
            ..Self::status(302)
        }
    }
}

type Says = dyn Fn(&str) -> Answer + Send + Sync;

struct Shared {
    says: Box<Says>,
    token: Option<String>,
    asked: Mutex<Vec<String>>,
    now: AtomicUsize,
    most: AtomicUsize,
    stop: AtomicBool,
}

/// A server of its own for as long as it is held.
pub(crate) struct Server {
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl Server {
    pub(crate) fn start(says: impl Fn(&str) -> Answer + Send + Sync + 'static) -> Self {
        Self::with(None, Box::new(says))
    }

    /// Answers only who has the token.
    pub(crate) fn guarded(
        token: &str,
        says: impl Fn(&str) -> Answer + Send + Sync + 'static,
    ) -> Self {
        Self::with(Some(token.to_owned()), Box::new(says))
    }

    fn with(token: Option<String>, says: Box<Says>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            says,
            token,
            asked: Mutex::default(),
            now: AtomicUsize::new(0),
            most: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
        });
        let server = Self {
            address,
            shared: shared.clone(),
        };
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if shared.stop.load(Ordering::SeqCst) {
                    return;
                }
                let shared = shared.clone();
                std::thread::spawn(move || serve(&shared, &stream.unwrap()));
            }
        });
        server
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/log/", self.address)
    }

    pub(crate) fn asked(&self) -> Vec<String> {
        self.shared.asked.lock().unwrap().clone()
    }

    pub(crate) fn most_at_once(&self) -> usize {
        self.shared.most.load(Ordering::SeqCst)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        // So that it looks.
        let _ = TcpStream::connect(self.address);
    }
}

fn serve(shared: &Shared, stream: &TcpStream) {
    let mut reader = BufReader::new(stream);
    // Whoever says no more ends it.
    while let Some(()) = one(shared, &mut reader, stream) {}
}

fn one(shared: &Shared, reader: &mut BufReader<&TcpStream>, mut stream: &TcpStream) -> Option<()> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    let path = lines.first()?.split(' ').nth(1)?.to_owned();
    let sent = |line: &String| Some(line.split_once("Bearer ")?.1.to_owned());
    let token = lines.iter().find_map(sent);
    let now = shared.now.fetch_add(1, Ordering::SeqCst) + 1;
    shared.most.fetch_max(now, Ordering::SeqCst);
    // So that what comes at once is seen to.
    std::thread::sleep(Duration::from_millis(2));
    let answer = match path.strip_prefix("/log/") {
        Some(_) if token != shared.token && shared.token.is_some() => Answer::status(401),
        Some(name) => {
            shared.asked.lock().unwrap().push(name.to_owned());
            (shared.says)(name)
        }
        None => Answer::status(404),
    };
    shared.now.fetch_sub(1, Ordering::SeqCst);
    let body = answer.body.unwrap_or_default();
    let promised = if answer.broken {
        body.len() + 9
    } else {
        body.len()
    };
    let location = answer
        .location
        .map_or(String::new(), |to| format!("Location: {to}\r\n"));
    let head = format!(
        "HTTP/1.1 {} Said\r\nContent-Length: {promised}\r\n{location}\r\n",
        answer.status
    );
    stream.write_all(&[head.as_bytes(), &body].concat()).ok()?;
    if answer.broken {
        let _ = stream.shutdown(std::net::Shutdown::Both);
        return None;
    }
    Some(())
}
