//! What texts and names mean, and what an account bounds of what is not known.

use bytes::BytesMut;
use postgres_protocol::message::frontend as front;

use super::play::{Play, bind, extended, parse};
use crate::frame::message;
use crate::sql::Class;

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
