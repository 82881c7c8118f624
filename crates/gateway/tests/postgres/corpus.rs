//! What somebody who may only read, or only connect, might try, through Curfew and around it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{BufMut, BytesMut};
use curfew_entry::AccountClass::{self, Connect, Ddl, Read, Write};
use curfew_entry::{Event, Verb};
use curfew_gateway::setup::Options;
use postgres_protocol::message::frontend;
use tokio_postgres::AsyncMessage;

use super::kit::{Estate, POLICY, Person, Raw, Server, World};

const CONTENTS: &str = include_str!("corpus/contents.sql");
const ATTEMPTS: &str = include_str!("corpus/attempts.txt");
const STATE: &str = include_str!("corpus/state.sql");

/// What some attempts would make.
const FILES: &[&str] = &["/tmp/curfew-corpus", "/tmp/curfew-corpus.so"];

/// Attempts made at the same time: a look at everything takes as long as one of them.
const TOGETHER: usize = 8;

/// How long an attempt may take; the slowest runs into its own limit of 50 ms.
const PATIENCE: Duration = Duration::from_secs(30);

/// Readers read, guests only connect.
const GUESTS: &str = r#"
@id("guest")
permit (principal in Role::"guest", action == Action::"sql.connect", resource == Resource::"orders");
"#;

/// One attempt.
#[derive(Debug)]
struct Attempt {
    title: &'static str,
    options: Vec<&'static str>,
    messages: Vec<Vec<Message>>,
}

/// One message of a client.
#[derive(Clone, Debug)]
enum Message {
    Query(Vec<u8>),
    Parse(Vec<u8>, Vec<u8>),
    Bind(Vec<u8>, Vec<u8>),
    Describe(u8, Vec<u8>),
    Execute(Vec<u8>),
    Close(u8, Vec<u8>),
    Sync,
    Flush,
    Call(u32),
}

impl Attempt {
    fn has(&self, option: &str) -> bool {
        self.options.contains(&option)
    }
}

/// The attempts of the file, with the names of this estate.
fn attempts(estate: &Estate) -> Vec<Attempt> {
    let (_, attempts) = ATTEMPTS.split_once("\n## ").unwrap();
    let blocks = attempts
        .split("\n\n")
        .filter(|block| block.starts_with("# "));
    blocks.map(|block| attempt(block, estate)).collect()
}

fn attempt(block: &'static str, estate: &Estate) -> Attempt {
    let (title, body) = block.split_once('\n').unwrap();
    let mut parts = title.trim_start_matches("# ").split('[');
    let title = parts.next().unwrap().trim();
    let options: Vec<_> = parts
        .map(|option| option.trim().trim_end_matches(']'))
        .collect();
    let body = named(body, estate);
    let messages = if body.starts_with('>') {
        let lines = body.lines().map(|line| line.trim_start_matches("> "));
        vec![lines.map(message).collect()]
    } else {
        let simple = vec![Message::Query(body.clone().into_bytes())];
        let extended = statements(&body).into_iter().flat_map(|statement| {
            [
                Message::Parse(Vec::new(), statement.into_bytes()),
                Message::Bind(Vec::new(), Vec::new()),
                Message::Describe(b'P', Vec::new()),
                Message::Execute(Vec::new()),
                Message::Sync,
            ]
        });
        match options.contains(&"simple") {
            true => vec![simple],
            false => vec![simple, extended.collect()],
        }
    };
    Attempt {
        title,
        options,
        messages,
    }
}

fn statements(body: &str) -> Vec<String> {
    match pg_query::split_with_parser(body) {
        Ok(statements) => statements.iter().map(|one| (*one).to_owned()).collect(),
        Err(_) => vec![body.to_owned()],
    }
}

fn named(text: &str, estate: &Estate) -> String {
    text.replace("{read}", &estate.role(Read))
        .replace("{connect}", &estate.role(Connect))
        .replace("{owner}", &format!("{}_owner", estate.database))
        .replace("{db}", &estate.database)
}

fn message(line: &str) -> Message {
    let (kind, rest) = line.split_once(' ').unwrap_or((line, ""));
    let pair = || {
        let (first, second) = rest.split_once('|').unwrap_or((rest, ""));
        (unescaped(first), unescaped(second))
    };
    match kind {
        "Q" => Message::Query(unescaped(rest)),
        "P" => Message::Parse(pair().0, pair().1),
        "B" => Message::Bind(pair().0, pair().1),
        "D" => Message::Describe(pair().0[0], pair().1),
        "C" => Message::Close(pair().0[0], pair().1),
        "E" => Message::Execute(unescaped(rest)),
        "S" => Message::Sync,
        "H" => Message::Flush,
        "F" => Message::Call(rest.parse().unwrap()),
        other => panic!("{other}"),
    }
}

/// With `\xNN` as bytes.
fn unescaped(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("\\x") {
        out.extend_from_slice(before.as_bytes());
        out.push(u8::from_str_radix(&after[..2], 16).unwrap());
        rest = &after[2..];
    }
    out.extend_from_slice(rest.as_bytes());
    out
}

fn put(out: &mut BytesMut, tag: u8, parts: &[&[u8]]) {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    out.put_u8(tag);
    out.put_u32(u32::try_from(length).unwrap() + 4);
    for part in parts {
        out.extend_from_slice(part);
    }
}

/// Writes a message. Gives whether a ReadyForQuery will answer it.
fn write(message: &Message, victim: i32, out: &mut BytesMut) -> bool {
    match message {
        Message::Query(text) => put(out, b'Q', &[text, b"\0"]),
        Message::Parse(name, text) => put(out, b'P', &[name, b"\0", text, b"\0\0\0"]),
        Message::Bind(portal, name) => {
            put(out, b'B', &[portal, b"\0", name, b"\0\0\0\0\0\0\0"]);
        }
        Message::Describe(kind, name) => put(out, b'D', &[&[*kind], name, b"\0"]),
        Message::Execute(portal) => put(out, b'E', &[portal, b"\0\0\0\0\0"]),
        Message::Close(kind, name) => put(out, b'C', &[&[*kind], name, b"\0"]),
        Message::Sync => frontend::sync(out),
        Message::Flush => put(out, b'H', &[]),
        Message::Call(function) => {
            let argument: i32 = match function {
                957 => 393_216,
                964 => 4_242,
                _ => victim,
            };
            let head = function.to_be_bytes();
            let argument = argument.to_be_bytes();
            // One binary argument of four bytes, a text as the result.
            let parts: [&[u8]; 4] = [&head, &[0, 1, 0, 1, 0, 1, 0, 0, 0, 4], &argument, &[0, 0]];
            put(out, b'F', &parts);
        }
    }
    matches!(
        message,
        Message::Query(_) | Message::Sync | Message::Call(_)
    )
}

/// What came back.
#[derive(Debug, Default)]
struct Seen {
    bytes: Vec<u8>,
    errors: Vec<String>,
    ended: bool,
}

impl Seen {
    fn holds(&self, text: &str) -> bool {
        self.bytes
            .windows(text.len())
            .any(|window| window == text.as_bytes())
    }
}

/// Sends all messages in one flight and reads the answers.
async fn send(raw: &mut Raw, messages: &[Message], victim: i32) -> Seen {
    let mut out = BytesMut::new();
    let mut awaited = 0;
    for message in messages {
        awaited += usize::from(write(message, victim, &mut out));
    }
    let mut seen = Seen::default();
    if raw.try_send(&out).await.is_err() {
        seen.ended = true;
        return seen;
    }
    while awaited > 0 {
        let Some((tag, body)) = raw.next().await else {
            seen.ended = true;
            return seen;
        };
        seen.bytes.extend_from_slice(&body);
        match tag {
            b'Z' => awaited -= 1,
            b'E' => seen.errors.push(format!(
                "{} {}",
                super::kit::field(&body, b'C'),
                super::kit::field(&body, b'M')
            )),
            b'G' => {
                let mut fail = BytesMut::new();
                put(&mut fail, b'f', &[b"none\0"]);
                let _ = raw.try_send(&fail).await;
            }
            _ => {}
        }
    }
    seen
}

/// How somebody gets to the server.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Way {
    Curfew,
    Directly,
}

/// Everything an attempt needs.
struct Scene {
    estate: Estate,
    world: World,
    people: BTreeMap<AccountClass, Person>,
    admin: tokio_postgres::Client,
    victims: Vec<tokio_postgres::Client>,
    victim: i32,
    notified: Arc<Mutex<Vec<String>>>,
}

impl Scene {
    async fn set() -> Self {
        let server = tokio::task::spawn_blocking(Server::get).await.unwrap();
        let estate = Estate::new("", &[]).await;
        let contents = named(CONTENTS, &estate)
            .replace("{host}", &server.dir.display().to_string())
            .replace("{port}", &server.port.to_string());
        estate.administrator(&contents).await;
        let estate = estate.with(&[Connect, Read, Write, Ddl]);
        let options = Options {
            grant_back: Vec::new(),
            schemas: vec!["public".to_owned(), "app".to_owned()],
            leave_tables: false,
        };
        estate.set_up(&options).await;
        let problems = curfew_gateway::rights::check(&estate.config).await;
        assert!(problems.is_empty(), "{problems:#?}");
        let world = estate.open(&format!("{POLICY}{GUESTS}")).await;
        let people = BTreeMap::from([
            (Read, world.person("ann", "analyst").await),
            (Connect, world.person("gus", "guest").await),
        ]);
        let notified = Arc::new(Mutex::new(Vec::new()));
        listen(&estate, Arc::clone(&notified)).await;
        let mut victims = Vec::new();
        for class in [Read, Connect] {
            victims.push(estate.account(class).await.unwrap());
        }
        victims.push(estate.administrator("").await);
        let name = "set application_name = 'victim'";
        for victim in &victims {
            victim.batch_execute(name).await.unwrap();
        }
        victims[2]
            .batch_execute("select 'HIDDEN-query'")
            .await
            .unwrap();
        let pid = victims[0].query_one("select pg_backend_pid()", &[]).await;
        Self {
            admin: estate.administrator("").await,
            victim: pid.unwrap().get(0),
            victims,
            people,
            world,
            estate,
            notified,
        }
    }

    async fn state(&self) -> BTreeMap<String, String> {
        let sql = named(STATE, &self.estate);
        let rows = self.admin.query(&sql, &[]).await.unwrap();
        let text = |row: &tokio_postgres::Row, at| -> String {
            row.get::<_, Option<String>>(at).unwrap_or_default()
        };
        rows.iter()
            .map(|row| (text(row, 0), text(row, 1)))
            .collect()
    }

    async fn connect(&self, way: Way, class: AccountClass) -> Raw {
        match way {
            Way::Curfew => self.world.raw(&self.people[&class], 0x0003_0000).await,
            Way::Directly => self.estate.raw(class).await,
        }
    }

    /// Makes an attempt in all ways there are for it.
    fn in_all_ways<'a>(
        &'a self,
        attempt: &'a Attempt,
    ) -> impl Iterator<Item = impl Future<Output = Vec<String>> + 'a> {
        let ways = [
            (Way::Curfew, Read),
            (Way::Curfew, Connect),
            (Way::Directly, Read),
            (Way::Directly, Connect),
        ];
        let ways = ways
            .into_iter()
            .filter(|(way, _)| *way == Way::Curfew || !attempt.has("gateway"));
        ways.map(move |(way, class)| self.attempt(attempt, way, class))
    }

    /// What has changed that must not.
    fn harm(
        &self,
        before: &BTreeMap<String, String>,
        after: &BTreeMap<String, String>,
    ) -> Vec<String> {
        let parts = before.keys().chain(after.keys());
        let changed = parts.filter(|part| before.get(*part) != after.get(*part));
        let mut harm: Vec<String> = changed.map(|part| format!("changed {part}")).collect();
        harm.dedup();
        for file in FILES
            .iter()
            .filter(|file| std::path::Path::new(file).exists())
        {
            harm.push(format!("made {file}"));
            let _ = std::fs::remove_file(file);
        }
        for channel in self.notified.lock().unwrap().drain(..) {
            harm.push(format!("notified {channel}"));
        }
        harm
    }

    /// Makes an attempt in one way. Gives what must not be.
    async fn attempt(&self, attempt: &Attempt, way: Way, class: AccountClass) -> Vec<String> {
        let mut wrong = Vec::new();
        for messages in &attempt.messages {
            let mut raw = self.connect(way, class).await;
            let sent = tokio::time::timeout(PATIENCE, send(&mut raw, messages, self.victim)).await;
            let how = format!("{} ({way:?}, {class})", attempt.title);
            let Ok(seen) = sent else {
                wrong.push(format!("{how}: no answer"));
                continue;
            };
            let secret = class == Connect && seen.holds("SECRET");
            if seen.holds("HIDDEN") || secret {
                wrong.push(format!("{how}: it was told what it may not see"));
            }
            if class == Connect {
                continue;
            }
            let refused = !seen.errors.is_empty() || seen.ended;
            if attempt.has("refused") && !refused {
                wrong.push(format!("{how}: it was not refused"));
            }
            let reads =
                attempt.has("reads") || attempt.has("reads directly") && way == Way::Directly;
            if reads && refused {
                wrong.push(format!("{how}: refused: {:?}", seen.errors));
            }
        }
        wrong
    }
}

/// A superuser who listens for what nobody should be able to send.
async fn listen(estate: &Estate, notified: Arc<Mutex<Vec<String>>>) {
    let (client, mut connection) = Server::get().connect_to(&estate.database).await;
    tokio::spawn(async move {
        let mut next = std::future::poll_fn(move |cx| connection.poll_message(cx));
        while let Some(Ok(message)) = (&mut next).await {
            if let AsyncMessage::Notification(notification) = message {
                notified
                    .lock()
                    .unwrap()
                    .push(notification.channel().to_owned());
            }
        }
    });
    client.batch_execute("listen corpus").await.unwrap();
    // It listens as long as it is connected.
    std::mem::forget(client);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_a_reader_or_a_guest_tries_is_more_than_reading() {
    let scene = Scene::set().await;
    let attempts = attempts(&scene.estate);
    assert!(attempts.len() > 300, "{}", attempts.len());
    let mut wrong = Vec::new();
    let mut before = scene.state().await;
    for together in attempts.chunks(TOGETHER) {
        let made = together
            .iter()
            .flat_map(|attempt| scene.in_all_ways(attempt));
        let found = futures_util::future::join_all(made).await;
        wrong.extend(found.into_iter().flatten());
        let after = scene.state().await;
        let titles: Vec<&str> = together.iter().map(|attempt| attempt.title).collect();
        for harm in scene.harm(&before, &after) {
            wrong.push(format!("{harm}, by one of {titles:?}"));
        }
        before = after;
    }
    for victim in &scene.victims {
        victim.batch_execute("select 1").await.unwrap();
    }
    assert!(
        wrong.is_empty(),
        "{} of {}:\n{}",
        wrong.len(),
        attempts.len(),
        wrong.join("\n")
    );
    judge_log(&scene, attempts.len());
}

/// The log tells of every connection with which account, and its auditor finds nothing.
fn judge_log(scene: &Scene, attempts: usize) {
    let mut connections = BTreeMap::new();
    for (index, event) in scene.world.audit().into_iter().enumerate() {
        let Event::ActionAllowed {
            session, action, ..
        } = event
        else {
            continue;
        };
        if action.verb == Verb::SqlConnect {
            let mut people = scene.people.iter();
            let (class, _) = people.find(|(_, one)| one.session == session).unwrap();
            assert_eq!(action.account, Some(*class), "entry {index}");
            *connections.entry(*class).or_insert(0) += 1;
        } else {
            // Only who reads has a statement allowed, and none that is more than reading.
            assert_eq!(action.verb, Verb::SqlRead, "entry {index}");
            assert_eq!(session, scene.people[&Read].session, "entry {index}");
        }
    }
    for class in [Read, Connect] {
        assert!(connections[&class] >= attempts, "{connections:?}");
    }
}
