//! A real browser, driven over its own protocol: a person signs in by typing, works, and is sent
//! back to sign-in when the session ends.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use crate::stage::{APP, Stage};
use crate::tool::{found, run};

/// How long a page may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

const FLAGS: [&str; 11] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-proxy-server",
    "--ignore-certificate-errors",
];

fn chromium() -> Option<PathBuf> {
    found("chromium")
}

fn command(program: &Path, profile: &Path) -> Command {
    let mut command = Command::new(program);
    command
        .args(FLAGS)
        .arg(format!("--user-data-dir={}", profile.display()));
    command
}

/// One page of a running browser.
struct Tab {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    asked: u64,
    _browser: Child,
}

impl Tab {
    async fn open(program: &Path, profile: &Path) -> Self {
        let mut command = command(program, profile);
        command
            .args(["--remote-debugging-port=0", "about:blank"])
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::piped())
            .kill_on_drop(true);
        let mut browser = command.spawn().unwrap();
        let mut lines = BufReader::new(browser.stderr.take().unwrap()).lines();
        let address = async {
            loop {
                let line = lines.next_line().await.unwrap().expect("it starts");
                if let Some((_, address)) = line.split_once("DevTools listening on ws://") {
                    return address.to_owned();
                }
            }
        };
        let address = tokio::time::timeout(PATIENCE, address).await.unwrap();
        // What else it says is of no interest, but it must be able to say it.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        let host = address.split('/').next().unwrap();
        let list = reqwest::get(format!("http://{host}/json/list")).await;
        let list: Value = list.unwrap().json().await.unwrap();
        let mut pages = list.as_array().unwrap().iter();
        let page = pages.find(|one| one["type"] == "page").expect("a page");
        let address = page["webSocketDebuggerUrl"].as_str().unwrap();
        let (socket, _) = tokio_tungstenite::connect_async(address).await.unwrap();
        Self {
            socket,
            asked: 0,
            _browser: browser,
        }
    }

    async fn call(&mut self, method: &str, params: Value) -> Value {
        self.asked += 1;
        let id = self.asked;
        let text = json!({"id": id, "method": method, "params": params}).to_string();
        self.socket.send(Message::text(text)).await.unwrap();
        let answer = async {
            loop {
                let message = self.socket.next().await.unwrap().unwrap();
                let value: Value = serde_json::from_str(message.to_text().unwrap()).unwrap();
                if value["id"] == id {
                    return value;
                }
            }
        };
        let answer = tokio::time::timeout(PATIENCE, answer).await.unwrap();
        assert!(answer["error"].is_null(), "{method}: {answer}");
        answer["result"].clone()
    }

    /// What a script in the page gives.
    async fn script(&mut self, text: &str) -> Value {
        let params = json!({"expression": text, "returnByValue": true, "awaitPromise": true});
        let result = self.call("Runtime.evaluate", params).await;
        result["result"]["value"].clone()
    }

    async fn go(&mut self, url: &str) {
        self.call("Page.navigate", json!({"url": url})).await;
    }

    /// Waits until a script in the page gives true.
    async fn until(&mut self, text: &str) {
        let start = Instant::now();
        while self.script(text).await != json!(true) {
            let page = "document.location + ' ' + document.body.innerText";
            if start.elapsed() > PATIENCE {
                panic!("not so: {text}: {}", self.script(page).await);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn type_into(&mut self, id: &str, text: &str) {
        self.script(&format!("document.getElementById('{id}').focus()"))
            .await;
        self.call("Input.insertText", json!({"text": text})).await;
    }
}

const WORK: &str = "
    window.seen = {events: 0};
    const socket = new WebSocket(location.origin.replace('https', 'wss') + '/ws');
    socket.onopen = () => socket.send('hello');
    socket.onmessage = (message) => { window.seen.echo = message.data; };
    socket.onclose = (event) => { window.seen.code = event.code; };
    const events = new EventSource('/events');
    events.onmessage = () => { window.seen.events += 1; };
    events.onerror = () => { events.close(); window.seen.broken = true; };
    fetch('/', {method: 'POST', body: 'posted'})
        .then((answer) => answer.text())
        .then((text) => { window.seen.posted = text; });
    true";

#[tokio::test(flavor = "multi_thread")]
async fn a_person_in_chromium_signs_in_works_and_is_sent_back_to_sign_in() {
    let Some(program) = chromium() else {
        return;
    };
    let version = run(
        {
            let mut command = Command::new(&program);
            command.arg("--version");
            command
        },
        "",
    );
    eprintln!("chromium: {}", version.await.out.trim());
    let stage = Stage::get().await;
    let account = stage.account("browser", "worker").await;
    let profile = tempfile::tempdir().unwrap();
    let mut tab = Tab::open(&program, profile.path()).await;
    tab.go(&stage.url(APP, "/?page=1")).await;
    tab.until("location.pathname == '/sign-in' && document.readyState == 'complete'")
        .await;
    for (field, text) in account.fields() {
        tab.type_into(&field, &text).await;
    }
    tab.script("document.querySelector('form[action=\"/sign-in\"] button').click()")
        .await;
    tab.until("document.body.innerText.includes('Hello browser')")
        .await;
    let place = tab.script("location.pathname + location.search").await;
    assert_eq!(place, json!("/?page=1"), "back where it wanted to go");

    tab.script(WORK).await;
    tab.until("seen.echo == 'hello' && seen.events > 1 && seen.posted == 'posted'")
        .await;
    let session = stage.session_of("browser").await;
    stage.end(&session).await;
    tab.until("seen.code == 3000 && seen.broken == true").await;
    let status = "fetch('/api').then((answer) => answer.status)";
    assert_eq!(tab.script(status).await, json!(401));
    tab.go(&stage.url(APP, "/")).await;
    tab.until("location.pathname == '/sign-in' && document.readyState == 'complete'")
        .await;
    let note = tab
        .script("document.querySelector('.note')?.innerText")
        .await;
    assert!(note.as_str().unwrap_or_default().contains("end"), "{note}");
    tab.call("Browser.close", json!({})).await;
}
