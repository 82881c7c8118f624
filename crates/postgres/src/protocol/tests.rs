//! Playbooks: what the client says, what is asked, what the server answers, and what each hears.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use bytes::BytesMut;
use postgres_protocol::message::frontend as front;

use super::super::frame::{Complaint, INSPECTED_BYTES_MAX, message, ready_for_query};
use super::super::sql::{Class, Classifier};
use super::*;

/// A right that the play can take back and hold the record of.
#[derive(Clone, Debug)]
struct Token(Rc<Marks>);

#[derive(Debug)]
struct Marks {
    lives: Cell<bool>,
    recorded: Cell<bool>,
    skipped: RefCell<Vec<usize>>,
}

impl Right for Token {
    fn lives(&self) -> bool {
        self.0.lives.get()
    }

    fn is_recorded(&self) -> bool {
        self.0.recorded.get()
    }

    fn skipped(&self, asks: &[usize]) {
        self.0.skipped.borrow_mut().extend_from_slice(asks);
    }
}

fn token() -> Token {
    Token(Rc::new(Marks {
        lives: Cell::new(true),
        recorded: Cell::new(true),
        skipped: RefCell::default(),
    }))
}

struct Play {
    protocol: Protocol<Token>,
    classifier: Classifier,
    /// What is being asked.
    asked: Vec<String>,
}

/// The types of some messages; of an error its SQLSTATE, of ReadyForQuery its status.
fn tags(bytes: &mut BytesMut) -> String {
    let mut seen = String::new();
    while let Some(head) = bytes.get(..5) {
        let length = i32::from_be_bytes(head[1..].try_into().unwrap());
        let body = bytes.split_to(usize::try_from(length).unwrap() + 1);
        match body[0] {
            b'Z' => seen += &format!("Z{}", char::from(body[5])),
            b'E' if body[5] == b'S' => {
                let fields = body[5..].split(|byte| *byte == 0);
                let code = fields
                    .into_iter()
                    .find(|field| field.first() == Some(&b'C'));
                seen += &format!("E({})", String::from_utf8_lossy(&code.unwrap()[1..]));
            }
            tag => seen.push(char::from(tag)),
        }
    }
    assert!(bytes.is_empty(), "half a message");
    seen
}

impl Play {
    fn new() -> Self {
        Self::of(None)
    }

    fn of(account: Option<Class>) -> Self {
        let (read, rest) = (BytesMut::new(), BytesMut::new());
        Self {
            protocol: Protocol::new(read, rest, account, "none".to_owned()),
            classifier: Classifier::new(),
            asked: Vec::new(),
        }
    }

    fn advance(&mut self) {
        match self.protocol.advance(&self.classifier).unwrap() {
            Some(Want::Ask(asks)) => {
                let told = asks.iter().map(|ask| {
                    let verb = if ask.prepares { "prepare" } else { "run" };
                    format!("{verb} {:?} {}", ask.class, ask.statement.text)
                });
                self.asked = told.collect();
            }
            Some(Want::Read(..)) => panic!("no text here is long"),
            None => {}
        }
    }

    /// The client says this. Gives what is asked then.
    fn client(&mut self, write: impl FnOnce(&mut BytesMut)) -> Vec<String> {
        write(self.protocol.buffers().from_client);
        self.advance();
        std::mem::take(&mut self.asked)
    }

    fn query(&mut self, text: &str) -> Vec<String> {
        self.client(|out| front::query(text, out).unwrap())
    }

    /// What was asked is allowed. Gives what goes to the server.
    fn allow(&mut self) -> String {
        self.allow_with(&token())
    }

    fn allow_with(&mut self, token: &Token) -> String {
        let all = self.protocol.unit.asks.len();
        self.protocol.answered(Some(token.clone()), all, None);
        self.advance();
        self.sent()
    }

    /// All but the first `allowed` of what was asked is refused.
    fn refuse(&mut self, allowed: usize) -> String {
        let token = (allowed > 0).then(token);
        let refusal = Complaint::error("42501", "no");
        self.protocol.answered(token, allowed, Some(refusal));
        self.advance();
        self.sent()
    }

    fn sent(&mut self) -> String {
        tags(self.protocol.buffers().to_server)
    }

    /// The server says messages of these types. Gives what goes to the client.
    fn server(&mut self, types: &str) -> String {
        let out = self.protocol.buffers().from_server;
        let mut types = types.chars();
        while let Some(tag) = types.next() {
            match tag {
                'Z' => ready_for_query(out, types.next().unwrap() as u8),
                'E' => Complaint::error("22012", "its own").write(out),
                tag => message(out, tag as u8, |_| {}),
            }
        }
        self.advance();
        self.heard()
    }

    fn parameter(&mut self, name: &str, value: &str) {
        frame::parameter_status(self.protocol.buffers().from_server, name, value);
        self.advance();
        self.heard();
    }

    fn heard(&mut self) -> String {
        tags(self.protocol.buffers().to_client)
    }

    /// A simple query that is allowed and works.
    fn run(&mut self, text: &str, status: char) {
        self.query(text);
        assert_eq!(self.allow(), "Q");
        self.server(&format!("CZ{status}"));
    }
}

fn parse(out: &mut BytesMut, name: &str, text: &str) {
    front::parse(name, text, [], out).unwrap();
}

fn bind(out: &mut BytesMut, portal: &str, name: &str, value: &[u8]) {
    let put = |value: &[u8], out: &mut BytesMut| {
        out.extend_from_slice(value);
        Ok(postgres_protocol::IsNull::No)
    };
    front::bind(portal, name, [1], [value], put, [1], out)
        .ok()
        .unwrap();
}

fn extended(out: &mut BytesMut, text: &str) {
    parse(out, "", text);
    bind(out, "", "", b"");
    front::describe(b'P', "", out).unwrap();
    front::execute("", 0, out).unwrap();
}

#[test]
fn nothing_goes_upstream_before_it_is_answered_for() {
    let mut play = Play::new();
    let asked = play.client(|out| {
        extended(out, "select 1");
        extended(out, "delete from t");
        front::sync(out);
        extended(out, "select 2");
        front::sync(out);
    });
    assert_eq!(asked, ["run Read select $1", "run Write delete from t"]);
    assert_eq!((play.sent(), play.heard()), (String::new(), String::new()));
    // The second segment waits until the first is answered in full.
    assert_eq!(play.allow(), "PBDEPBDES");
    assert_eq!(play.server("12TDC12nCZI"), "12TDC12nCZI");
    assert_eq!(play.sent(), "");
    assert_eq!(play.asked, ["run Read select $1"]);
    assert_eq!(play.allow(), "PBDES");
    assert_eq!(play.server("12TDCZI"), "12TDCZI");
}

#[test]
fn what_is_only_parsed_or_described_is_asked_for_as_that() {
    let mut play = Play::new();
    let asked = play.client(|out| {
        parse(out, "a", "select 1");
        front::describe(b'S', "a", out).unwrap();
        front::sync(out);
    });
    assert_eq!(asked, ["prepare Read select $1"]);
    assert_eq!(play.allow(), "PDS");
    assert_eq!(play.server("1tTZI"), "1tTZI");
    let asked = play.client(|out| {
        front::describe(b'S', "a", out).unwrap();
        bind(out, "p", "a", b"");
        front::sync(out);
    });
    assert_eq!(asked, ["run Read select $1"]);
    assert_eq!(play.allow(), "DBS");
    assert_eq!(play.server("tT2ZI"), "tT2ZI");
    // A statement that nobody has seen is known to nobody.
    let asked = play.client(|out| {
        front::describe(b'S', "b", out).unwrap();
        front::execute("q", 0, out).unwrap();
        front::sync(out);
    });
    let unknown = [
        "prepare Ddl (prepared elsewhere)",
        "run Ddl (prepared elsewhere)",
    ];
    assert_eq!(asked, unknown);
}

#[test]
fn a_refusal_is_an_error_of_the_server() {
    let mut play = Play::new();
    play.client(|out| {
        extended(out, "select 1");
        extended(out, "delete from t");
        extended(out, "select 2");
        front::sync(out);
        front::query("select 3", out).unwrap();
    });
    assert_eq!(play.refuse(1), "PBDEES");
    assert_eq!(play.server("12TDC"), "12TDC");
    assert_eq!(play.server("EZI"), "E(42501)ZI");
    assert_eq!(play.asked, ["run Read select $1"]);
    assert_eq!(play.allow(), "Q");
    assert_eq!(play.server("TDCZI"), "TDCZI");
    // Where there is nothing to be undone the server hears nothing of it.
    play.query("delete from t");
    assert_eq!(play.refuse(0), "");
    assert_eq!(play.heard(), "E(42501)ZI");
    play.client(|out| {
        extended(out, "delete from t");
        front::flush(out);
    });
    assert_eq!(play.refuse(0), "");
    assert_eq!(play.heard(), "E(42501)");
    // Up to the Sync all is skipped.
    let asked = play.client(|out| {
        extended(out, "select 1");
        front::query("select 1", out).unwrap();
        front::sync(out);
    });
    assert!(asked.is_empty());
    assert_eq!(play.sent(), "S");
    assert_eq!(play.server("ZI"), "ZI");
}

#[test]
fn a_refusal_fails_the_transaction() {
    let mut play = Play::new();
    play.run("begin", 'T');
    play.query("drop table t");
    assert_eq!(play.refuse(0), "ES");
    assert_eq!(play.server("EZE"), "E(42501)ZE");
    // It has failed: nothing need fail once more.
    play.query("drop table t");
    assert_eq!(play.refuse(0), "");
    assert_eq!(play.heard(), "E(42501)ZE");
    play.run("rollback", 'I');
    // So does what was begun without a BEGIN and not synced.
    play.client(|out| {
        extended(out, "delete from t");
        front::flush(out);
        extended(out, "drop table t");
        front::sync(out);
    });
    assert_eq!(play.allow(), "PBDEH");
    assert_eq!(play.server("12nC"), "12nC");
    assert_eq!(play.refuse(0), "ES");
    assert_eq!(play.server("EZI"), "E(42501)ZI");
}

#[test]
fn what_the_server_skips_is_not_asked_for() {
    let mut play = Play::new();
    play.client(|out| {
        extended(out, "select 1/0");
        front::flush(out);
    });
    assert_eq!(play.allow(), "PBDEH");
    assert_eq!(play.server("12TE"), "12TE(22012)");
    for _ in 0..20_000 {
        assert!(play.client(|out| extended(out, "delete from t")).is_empty());
        assert_eq!(play.sent(), "");
    }
    assert!(play.client(front::sync).is_empty());
    assert_eq!(play.sent(), "S");
    assert_eq!(play.server("ZI"), "ZI");
    // What was asked for together with it and comes after it was never done.
    play.client(|out| {
        extended(out, "select 1");
        extended(out, "select 1/0");
        extended(out, "delete from t");
        parse(out, "", "delete from t");
        front::sync(out);
    });
    let right = token();
    play.allow_with(&right);
    play.server("12TDC12TEZI");
    assert_eq!(*right.0.skipped.borrow(), [2, 3]);
}

#[test]
fn a_long_pipeline_goes_in_portions() {
    let mut play = Play::new();
    let asked = play.client(|out| {
        for _ in 0..3_000 {
            extended(out, "select 1");
        }
        front::sync(out);
    });
    assert_eq!(asked.len(), unit::ASKS_MAX);
    let mut run = 0;
    loop {
        let sent = play.allow();
        assert!(sent.len() <= unit::MESSAGES_MAX + 4);
        run += sent.matches('E').count();
        if sent.ends_with('S') {
            break;
        }
        assert!(sent.ends_with('H'));
        let answers = sent.replace('P', "1").replace('B', "2").replace('E', "C");
        let answers = answers.replace('D', "T").replace('H', "");
        assert_eq!(play.server(&answers).len(), answers.len());
    }
    assert_eq!(run, 3_000);
}

#[test]
fn text_under_rules_in_doubt_is_not_read() {
    let mut play = Play::new();
    let asked = play.client(|out| {
        extended(out, "set standard_conforming_strings = off");
        extended(out, "select '\\'");
        extended(out, "select 2");
        front::sync(out);
    });
    let told = [
        "run Read set standard_conforming_strings = off",
        "run Ddl (unreadable, 10 bytes)",
        "run Read select $1",
    ];
    assert_eq!(asked, told);
    play.allow();
    play.server("12nC12TDC12TDC");
    play.parameter("standard_conforming_strings", "off");
    play.server("ZI");
    let asked = play.query("select '\\'");
    assert_eq!(asked, ["run Ddl (unreadable, 10 bytes)"]);
    play.refuse(0);
    // A simple query waits for what was flushed before it, and is still in doubt.
    play.client(|out| {
        extended(out, "reset standard_conforming_strings");
        front::query("select '\\'", out).unwrap();
    });
    assert_eq!(play.allow(), "PBDEH");
    play.server("12nC");
    assert_eq!(play.asked, ["run Ddl (unreadable, 10 bytes)"]);
}

#[test]
fn names_are_told_apart_as_the_server_does() {
    let mut play = Play::new();
    play.parameter("client_encoding", "LATIN1");
    play.heard();
    let mut text = BytesMut::new();
    // Two names: one byte, and the three that stand for its replacement.
    message(&mut text, b'P', |out| {
        out.extend_from_slice(b"\xef\xbf\xbd\0select 1\0\0\0");
    });
    message(&mut text, b'P', |out| {
        out.extend_from_slice(b"\xe9\0delete from t\0\0\0");
    });
    front::sync(&mut text);
    let asked = play.client(|out| out.extend_from_slice(&text));
    let told = ["prepare Read select $1", "prepare Write delete from t"];
    assert_eq!(asked, told);
    play.allow();
    play.server("11ZI");
    let mut execute = BytesMut::new();
    message(&mut execute, b'Q', |out| {
        out.extend_from_slice(b"execute \xe9\0")
    });
    let asked = play.client(|out| out.extend_from_slice(&execute));
    assert_eq!(asked, ["run Write execute é"]);
    play.refuse(0);
    // Under another encoding the same bytes are another name.
    play.parameter("client_encoding", "UTF8");
    assert_eq!(play.query("execute \"é\""), ["run Write execute \"é\""]);
    play.refuse(0);
    assert_eq!(play.query("execute \"ï¿½\""), ["run Read execute \"ï¿½\""]);
    play.refuse(0);
    assert_eq!(
        play.query("fetch all from nobody"),
        ["run Ddl fetch all from nobody"]
    );
    play.refuse(0);
    // Names are cut after 63 bytes.
    let long = "n".repeat(63);
    play.client(|out| {
        parse(out, &format!("{long}a"), "delete from t");
        front::sync(out);
    });
    play.allow();
    play.server("1ZI");
    let asked = play.query(&format!("execute {long}bc"));
    assert_eq!(asked, [format!("run Write execute {long}bc")]);
    play.refuse(0);
    // A name that cannot be told for certain makes those like it unknown.
    let odd = "é".repeat(40);
    play.client(|out| {
        parse(out, &odd, "select 1");
        front::sync(out);
    });
    play.allow();
    play.server("1ZI");
    assert_eq!(play.query("execute \"é\""), ["run Ddl execute \"é\""]);
}

#[test]
fn a_name_means_what_the_server_took() {
    let mut play = Play::new();
    play.client(|out| {
        parse(out, "w", "delete from t");
        front::sync(out);
    });
    play.allow();
    play.server("1ZI");
    // It is taken: the second Parse fails, and with it its batch.
    play.client(|out| {
        parse(out, "w", "select 1");
        front::sync(out);
    });
    play.allow();
    play.server("EZI");
    let asked = play.client(|out| {
        bind(out, "", "w", b"");
        front::sync(out);
    });
    assert_eq!(asked, ["run Write delete from t"]);
    play.refuse(0);
    // What was refused has taken no name.
    play.client(|out| {
        parse(out, "x", "drop table t");
        front::sync(out);
    });
    play.refuse(0);
    assert_eq!(play.query("execute x"), ["run Ddl execute x"]);
    play.refuse(0);
    // By SQL: until it is known to have worked, the further reach counts.
    play.query("prepare s as select 1");
    play.allow();
    play.server("CZI");
    assert_eq!(play.query("execute s"), ["run Read execute s"]);
    play.refuse(0);
    play.query("deallocate s; prepare s as delete from t; select 1/0");
    play.allow();
    play.server("CCEZI");
    assert_eq!(play.query("execute s"), ["run Write execute s"]);
    play.refuse(0);
    play.run("deallocate all", 'I');
    assert_eq!(play.query("execute s"), ["run Ddl execute s"]);
    play.refuse(0);
    // A cursor is gone with its transaction, unless it holds.
    play.run("begin", 'T');
    play.run("declare c cursor for select 1", 'T');
    play.run("declare h cursor with hold for select 1", 'T');
    assert_eq!(play.query("fetch c"), ["run Read fetch c"]);
    play.refuse(0);
    play.server("EZE");
    play.run("rollback", 'I');
    assert_eq!(play.query("fetch c"), ["run Ddl fetch c"]);
    play.refuse(0);
    assert_eq!(play.query("fetch h"), ["run Read fetch h"]);
}

#[test]
fn an_account_bounds_what_is_not_known() {
    for (account, told) in [
        (Class::Read, "Read"),
        (Class::Write, "Write"),
        (Class::Ddl, "Ddl"),
    ] {
        let mut play = Play::of(Some(account));
        let asked = play.query("select own_function(1)");
        assert_eq!(asked, [format!("run {told} select own_function($1)")]);
        play.refuse(0);
        assert_eq!(play.query("drop table t"), ["run Ddl drop table t"]);
    }
}

#[test]
fn no_account_bounds_a_text_that_cannot_be_read() {
    // What stands in it may be a statement that the database keeps from nobody.
    let hidden = "select '\\'; notify ch, 'x'; --'";
    let unreadable = [format!("run Ddl (unreadable, {} bytes)", hidden.len())];
    let mut play = Play::of(Some(Class::Read));
    assert_eq!(play.query("selct 1"), ["run Ddl (unreadable, 7 bytes)"]);
    play.refuse(0);
    play.run("set standard_conforming_strings = off", 'I');
    play.parameter("standard_conforming_strings", "off");
    assert_eq!(play.query(hidden), unreadable);
    play.refuse(0);
    // Whatever a function may have set is not known before the next ReadyForQuery.
    play.parameter("standard_conforming_strings", "on");
    play.client(|out| {
        extended(out, "select ('a'::text).ts_stat");
        front::query(hidden, out).unwrap();
    });
    play.allow();
    play.server("12nC");
    assert_eq!(play.asked, unreadable);
}

#[test]
fn a_portal_with_more_rows_goes_on_by_its_right() {
    let mut play = Play::new();
    play.run("begin", 'T');
    let page = |out: &mut BytesMut| {
        front::execute("p", 10, out).unwrap();
        front::sync(out);
    };
    play.client(|out| {
        parse(out, "", "select * from t");
        bind(out, "p", "", b"");
        page(out);
    });
    let right = token();
    assert_eq!(play.allow_with(&right), "PBES");
    assert_eq!(play.server("12DsZT"), "12DsZT");
    assert!(play.client(page).is_empty());
    assert_eq!(play.sent(), "ES");
    assert_eq!(play.protocol.rights().len(), 1);
    play.server("DsZT");
    // A right that was taken back is asked for again.
    right.0.lives.set(false);
    assert_eq!(play.client(page), ["run Read select * from t"]);
    play.allow();
    play.server("DCZT");
    assert_eq!(play.client(page), ["run Read select * from t"]);
}

#[test]
fn a_copy_takes_its_data_and_nothing_else() {
    let mut play = Play::new();
    let data = |out: &mut BytesMut, bytes: &[u8]| {
        message(out, b'd', |out| out.extend_from_slice(bytes));
    };
    // Outside of a copy data goes nowhere.
    play.client(|out| data(out, b"stray"));
    assert_eq!(play.sent(), "");
    assert!(!play.protocol.take_copied());
    play.client(|out| {
        extended(out, "copy t from stdin");
        front::sync(out);
    });
    // The Sync waits until it is known whether there is a copy.
    assert_eq!(play.allow(), "PBDEH");
    assert_eq!(play.server("12nG"), "12nG");
    assert!(!play.protocol.server_works());
    play.client(|out| data(out, b""));
    assert!(!play.protocol.take_copied());
    play.client(|out| data(out, b"1\n"));
    assert!(play.protocol.take_copied());
    play.client(|out| {
        front::copy_done(out);
        front::sync(out);
    });
    assert_eq!(play.sent(), "ddcH");
    assert_eq!(play.server("C"), "C");
    assert_eq!(play.sent(), "S");
    assert_eq!(play.server("ZI"), "ZI");
    // One that fails: what the client still sends of it is lost.
    play.query("copy t from stdin");
    play.allow();
    play.server("G");
    play.client(|out| data(out, b"x"));
    assert_eq!(play.server("EZI"), "E(22012)ZI");
    play.client(|out| {
        data(out, b"y");
        front::copy_done(out);
        front::query("select 1", out).unwrap();
    });
    assert_eq!(play.sent(), "d");
    assert_eq!(play.allow(), "Q");
    play.server("CZI");
    // Another message ends it.
    play.query("copy t from stdin");
    play.allow();
    play.server("G");
    play.query("select 1");
    assert_eq!(play.sent(), "f");
    assert_eq!(play.server("EZI"), "E(22012)ZI");
    assert_eq!(play.allow(), "Q");
}

#[test]
fn a_client_that_leaves_a_copy_leaves_nothing_behind() {
    let mut play = Play::new();
    play.query("copy t from stdin");
    play.allow();
    play.server("G");
    // Without a word: nothing of it is kept.
    assert!(!play.protocol.client_ends() && play.protocol.is_running());
    play.protocol.terminate();
    assert_eq!(play.sent(), "fX");
    let mut play = Play::new();
    play.query("copy t from stdin");
    play.allow();
    play.server("G");
    play.client(front::terminate);
    assert_eq!(play.sent(), "f");
    assert!(play.protocol.client_ends());
    play.server("EZI");
    assert!(play.protocol.has_left());
}

#[test]
fn a_goodbye_waits_for_what_was_synced_and_drops_the_rest() {
    let mut play = Play::new();
    play.client(|out| {
        front::query("insert into t values (1)", out).unwrap();
        extended(out, "insert into t values (2)");
        front::terminate(out);
    });
    assert!(play.protocol.client_ends());
    assert_eq!(play.allow(), "Q");
    assert!(!play.protocol.has_left());
    assert_eq!(play.server("CZI"), "CZI");
    assert!(play.protocol.has_left() && play.asked.is_empty());
    assert_eq!(play.sent(), "");
    // A client that only closes has not said goodbye.
    let mut play = Play::new();
    play.query("insert into t values (1)");
    assert!(!play.protocol.client_ends());
}

#[test]
fn long_messages_pass_once_they_are_answered_for() {
    let mut play = Play::new();
    let mut long = BytesMut::new();
    bind(&mut long, "p", "", &[7; 200_000]);
    let (first, rest) = long.split_at(2_000);
    let asked = play.client(|out| {
        parse(out, "", "insert into t values ($1)");
        out.extend_from_slice(first);
    });
    assert_eq!(asked, ["run Write insert into t values ($1)"]);
    play.protocol.answered(Some(token()), 1, None);
    play.advance();
    assert!(!play.protocol.server_works());
    let rest = rest.to_vec();
    for portion in rest.chunks(30_000) {
        play.client(|out| out.extend_from_slice(portion));
    }
    assert_eq!(play.sent(), "PBH");
    assert!(play.protocol.server_works());
    assert_eq!(play.server("12"), "12");
    assert!(
        play.client(|out| front::execute("p", 0, out).unwrap())
            .is_empty()
    );
    play.client(front::sync);
    assert_eq!(play.sent(), "ES");
    play.server("CZI");
    // A text that is too long to be read: nothing is known of it.
    let text = format!("select '{}'", "x".repeat(INSPECTED_BYTES_MAX));
    let asked = play.query(&text);
    assert_eq!(
        asked,
        [format!("run Ddl (unreadable, {} bytes)", text.len() + 1)]
    );
    assert_eq!(play.refuse(0), "");
    assert_eq!(play.heard(), "E(42501)ZI");
    assert_eq!(play.query("select 1"), ["run Read select $1"]);
}

#[test]
fn calls_by_number_are_judged_by_their_function() {
    let mut play = Play::new();
    let call = |oid: u32| {
        move |out: &mut BytesMut| {
            message(out, b'F', |out| {
                out.extend_from_slice(&oid.to_be_bytes());
                out.extend_from_slice(&[0; 6]);
            });
        }
    };
    assert_eq!(play.client(call(954)), ["run Read loread($1, $2)"]);
    assert_eq!(play.allow(), "F");
    assert_eq!(play.server("VZI"), "VZI");
    let asked = play.client(call(1_234));
    assert_eq!(asked, ["run Ddl (function 1234, called by number)"]);
    assert_eq!(play.refuse(0), "");
    assert_eq!(play.heard(), "E(42501)ZI");
}

#[test]
fn a_client_that_takes_no_answer_keeps_nothing_working() {
    let mut play = Play::new();
    play.query("select 1");
    play.allow();
    assert!(play.protocol.server_works());
    for _ in 0..20 {
        let row = |out: &mut BytesMut| out.extend_from_slice(&[7; 5_000]);
        message(play.protocol.buffers().from_server, b'D', row);
        play.advance();
    }
    assert!(!play.protocol.server_works() && !play.protocol.reads_server());
    play.heard();
    assert!(play.protocol.server_works() && play.protocol.reads_server());
}

#[test]
fn no_answer_overtakes_its_record() {
    let mut play = Play::new();
    let right = token();
    right.0.recorded.set(false);
    play.query("select 1");
    assert_eq!(play.allow_with(&right), "Q");
    assert_eq!(play.server("TDCZI"), "");
    assert!(play.protocol.waits_for_record() && !play.protocol.reads_server());
    right.0.recorded.set(true);
    play.advance();
    assert_eq!(play.heard(), "TDCZI");
    // Where it fails, the client is told instead.
    right.0.recorded.set(false);
    play.query("select 1");
    play.allow_with(&right);
    play.server("TD");
    play.protocol
        .replace_answer(&Complaint::error("57P03", "not recorded"));
    assert_eq!(play.server("CZI"), "E(57P03)ZI");
}

#[test]
fn what_was_not_sent_when_it_ends_is_not_sent() {
    let mut play = Play::new();
    play.query("insert into t values (1)");
    let all = play.protocol.unit.asks.len();
    play.protocol.answered(Some(token()), all, None);
    play.protocol.terminate();
    assert_eq!(play.sent(), "");
    let mut play = Play::new();
    play.run("select 1", 'I');
    play.protocol.terminate();
    assert_eq!(play.sent(), "X");
}
