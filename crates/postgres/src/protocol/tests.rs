//! Playbooks: what the client says, what is asked, what the server answers, and what each hears.

mod play;
mod texts;

use bytes::BytesMut;
use postgres_protocol::message::frontend as front;

use self::play::{Play, bind, extended, parse, token};
use super::*;
use crate::frame::{Complaint, INSPECTED_BYTES_MAX, message};

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
