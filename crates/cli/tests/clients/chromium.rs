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

use crate::stage::{APP, PORTAL, Stage};
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

/// A browser with its pages, which goes with its first.
struct Tab {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    asked: u64,
    /// Where the browser is spoken to.
    host: String,
    _browser: Option<Child>,
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
            host: host.to_owned(),
            _browser: Some(browser),
        }
    }

    /// One more page of the same browser, with the same cookies.
    async fn another(&self) -> Self {
        let new = format!("http://{}/json/new?about:blank", self.host);
        let page = reqwest::Client::new().put(new).send().await.unwrap();
        let page: Value = page.json().await.unwrap();
        let address = page["webSocketDebuggerUrl"].as_str().unwrap();
        let (socket, _) = tokio_tungstenite::connect_async(address).await.unwrap();
        Self {
            socket,
            asked: 0,
            host: self.host.clone(),
            _browser: None,
        }
    }

    /// What happens when a person looks at the page again.
    async fn look_at(&mut self) {
        self.call("Page.bringToFront", json!({})).await;
        let text = "document.dispatchEvent(new Event('visibilitychange')); true";
        self.script(text).await;
    }

    /// Lets so much time go by for the page, in milliseconds, and nothing after it.
    async fn pass(&mut self, ms: u64) {
        let now = self.script("document.timeline.currentTime").await;
        let wanted = now.as_f64().unwrap() + f64::from(u32::try_from(ms).unwrap());
        let policy = json!({"policy": "advance", "budget": ms});
        self.call("Emulation.setVirtualTimePolicy", policy).await;
        self.until(&format!(
            "document.timeline.currentTime >= {}",
            wanted - 50.0
        ))
        .await;
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
        // The page went elsewhere while it was asked: nobody answered.
        let told = answer["error"]["message"].as_str().unwrap_or_default();
        if method == "Runtime.evaluate" && told.contains("navigated or closed") {
            return Value::Null;
        }
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

/// Whether what is guarded, the warning and the lock can be seen.
const SEEN: &str = "['main', '.warning', '.locked'].map((what) =>
    getComputedStyle(document.querySelector(what)).visibility == 'visible').join()";

/// Whether each animation says the same from its beginning to its end, so that it does not matter how
/// far a rounding error leaves it.
const ONE_VALUE: &str = "document.getAnimations().every((animation) => {
    const frames = animation.effect.getKeyframes();
    return frames.length == 2 && frames[0].visibility == frames[1].visibility
        && animation.effect.getTiming().fill == 'forwards'; })";

#[tokio::test(flavor = "multi_thread")]
async fn a_page_hides_what_it_shows_at_the_end_of_its_time_and_ever_after() {
    let Some(program) = chromium() else {
        return;
    };
    let stage = Stage::get().await;
    let profile = tempfile::tempdir().unwrap();
    let first = Tab::open(&program, profile.path()).await;
    for left in [7, 59, 60, 599, 900, 3_600] {
        let mut tab = first.another().await;
        tab.go(&stage.url(PORTAL, "/sign-in")).await;
        tab.until("document.readyState == 'complete' && location.pathname == '/sign-in'")
            .await;
        let sheet = |name: &str| format!("<link rel=stylesheet href='/assets/{name}'>");
        let page = format!(
            "{}{}<main class=guarded>secret</main><aside class=warning>soon</aside>\
             <div class=locked>locked</div>",
            sheet("curfew.css"),
            sheet(&format!("left.css?s={left}&warn=3000"))
        );
        let frame = tab.call("Page.getFrameTree", json!({})).await;
        let frame = frame["frameTree"]["frame"]["id"].clone();
        let content = json!({"frameId": frame, "html": page});
        tab.call("Page.setDocumentContent", content).await;
        tab.until("document.getAnimations().length == 4").await;
        assert_eq!(tab.script(SEEN).await, json!("true,false,false"), "{left}");
        assert_eq!(tab.script(ONE_VALUE).await, json!(true), "{left}");
        tab.pass(left * 1_000 - 2_000).await;
        assert_eq!(tab.script(SEEN).await, json!("true,true,false"), "{left}");
        tab.pass(2_500).await;
        // Where the animation has come to its end, its last value holds: by a rounding error that was
        // one or the other, at one moment or another.
        for moment in 0..10 {
            let seen = tab.script(SEEN).await;
            assert_eq!(seen, json!("false,false,true"), "{left}, {moment}");
            tab.pass(733).await;
        }
        // Nor is anything shown where the style did not come that shows it.
        let sheets = "document.querySelector('link[href*=left]').remove(); true";
        tab.script(sheets).await;
        let seen = tab.script(SEEN).await;
        assert_eq!(seen, json!("false,false,true").clone(), "{left}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn all_tabs_arrive_and_follow_their_session() {
    let Some(program) = chromium() else {
        return;
    };
    let stage = Stage::get().await;
    let account = stage.account("tabs", "worker").await;
    let profile = tempfile::tempdir().unwrap();
    let mut first = Tab::open(&program, profile.path()).await;
    let mut tabs = Vec::new();
    for n in 0..6 {
        let mut tab = first.another().await;
        tab.go(&stage.url(APP, &format!("/?tab={n}"))).await;
        tabs.push(tab);
    }
    let at_form = "location.pathname == '/sign-in' && document.readyState == 'complete'";
    for tab in &mut tabs {
        tab.until(at_form).await;
    }
    let last = tabs.last_mut().unwrap();
    for (field, text) in account.fields() {
        last.type_into(&field, &text).await;
    }
    // A double click.
    last.script("const button = document.querySelector('form[action=\"/sign-in\"] button'); button.click(); button.click(); true")
        .await;
    for (n, tab) in tabs.iter_mut().enumerate().rev() {
        tab.look_at().await;
        tab.until(&format!(
            "location.search == '?tab={n}' && document.body.innerText.includes('Hello tabs')"
        ))
        .await;
    }
    // Back and forth.
    let tab = &mut tabs[0];
    tab.script("history.back(); true").await;
    tab.until("document.body.innerText.includes('Hello tabs') || location.href == 'about:blank'")
        .await;

    // What was typed outlives the lock, and the page opens again for the same person.
    first.go(&stage.url(PORTAL, "/sign-in/again")).await;
    first
        .until("location.pathname == '/sign-in/again' && document.readyState == 'complete'")
        .await;
    first.type_into("password", "typed before").await;
    stage.end(&stage.session_of("tabs").await).await;
    first.look_at().await;
    let locked = "document.querySelector('.locked').innerText.includes('An administrator ended your session.')
        && getComputedStyle(document.querySelector('main')).visibility == 'hidden'";
    first.until(locked).await;
    let typed = first
        .script("document.getElementById('password').value")
        .await;
    assert_eq!(typed, json!("typed before"));
    let look = first
        .script("fetch('/session/state').then((a) => a.json())")
        .await;
    assert_eq!(look["state"], "over");
    first.call("Browser.close", json!({})).await;
}
