//! What runs, what is refused, and that answers keep their order.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt, TryStreamExt};
use postgres_protocol::message::frontend;

use crate::kit::{Raw, World};

#[tokio::test(flavor = "multi_thread")]
async fn psql_works_as_ever() {
    let world = World::start().await;
    let ana = world.person("ana", "dba").await;
    let script = "
create table t (a int primary key, b text);
copy t from stdin;
1\tone
2\ttwo
\\.
insert into t values (3, 'three') returning a;
begin; update t set b = 'x' where a = 1; rollback;
select a, b from t order by a;
copy (select b from t order by a) to stdout;
select 1 \\; select 2;
\\d t
select oops;
select count(*) from t;
\\bind 2
select b from t where a = $1 \\g
";
    let (out, err) = world.psql(&ana, script).await;
    for wanted in [
        "3\n",
        "1|one\n2|two\n3|three\n",
        "one\ntwo\nthree\n",
        "1\n2\n",
        "a|integer||not null|",
    ] {
        assert!(out.contains(wanted), "{wanted:?} is not in {out}\n{err}");
    }
    assert!(err.contains("42703") && err.contains("oops"), "{err}");
    let log = world.ledger();
    assert!(log.contains("insert into t values ($1, $2) returning a"));
    assert!(!log.contains("three"), "a literal is in the log");
}

#[tokio::test(flavor = "multi_thread")]
async fn drivers_prepare_pipeline_copy_and_page() {
    let world = World::start().await;
    let ana = world.person("ana", "dba").await;
    let mut client = world.connect(&ana).await;
    client
        .batch_execute("create table t (a int, b text)")
        .await
        .unwrap();
    let insert = client
        .prepare("insert into t values ($1, $2)")
        .await
        .unwrap();
    let all = (0..50).map(|n| {
        let (client, insert) = (&client, &insert);
        async move { client.execute(insert, &[&n, &format!("row {n}")]).await }
    });
    let done = futures_util::future::join_all(all).await;
    assert!(done.into_iter().all(|one| one.is_ok_and(|rows| rows == 1)));

    let sink = client.copy_in("copy t from stdin").await.unwrap();
    futures_util::pin_mut!(sink);
    for _ in 0..100 {
        sink.send(bytes::Bytes::from(
            "7\t".to_owned() + &"x".repeat(2_000) + "\n",
        ))
        .await
        .unwrap();
    }
    assert_eq!(sink.finish().await.unwrap(), 100);
    let copied = client.copy_out("copy t to stdout").await.unwrap();
    let bytes: Vec<bytes::Bytes> = copied.try_collect().await.unwrap();
    assert_eq!(bytes.len(), 150);

    let transaction = client.transaction().await.unwrap();
    let portal = transaction.bind("select a from t", &[]).await.unwrap();
    let mut pages = Vec::new();
    loop {
        let page = transaction.query_portal(&portal, 40).await.unwrap();
        if page.is_empty() {
            break;
        }
        pages.push(page.len());
    }
    assert_eq!(pages, [40, 40, 40, 30]);
    transaction.commit().await.unwrap();

    let rows = client.query_raw(
        "select generate_series(1, 200000), repeat('x', 50)",
        Vec::<i32>::new(),
    );
    let rows = rows.await.unwrap();
    futures_util::pin_mut!(rows);
    let mut count = 0;
    while let Some(row) = rows.next().await {
        row.unwrap();
        count += 1;
    }
    assert_eq!(count, 200_000);
    let error = client.query("select 1 / $1", &[&0_i32]).await.unwrap_err();
    assert_eq!(error.code().unwrap().code(), "22012");
    assert_eq!(
        client
            .query_one("select 2", &[])
            .await
            .unwrap()
            .get::<_, i32>(0),
        2
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_permitted_is_refused_and_the_connection_lives() {
    let world = with_table().await;
    let insert = "insert into t values (1)";
    dba(&world).await.batch_execute(insert).await.unwrap();
    let bob = world.person("bob", "analyst").await;
    let client = world.connect(&bob).await;
    for text in [
        "insert into t values (2)",
        "with d as (delete from t returning 1) select * from d",
        "explain analyze delete from t",
        "copy t from stdin",
        "do $$ begin delete from t; end $$",
        "select pg_terminate_backend(pg_backend_pid())",
        "select 1; delete from t",
        "set role curfew",
    ] {
        let error = client.batch_execute(text).await.unwrap_err();
        let told = error.as_db_error().unwrap();
        assert_eq!(told.code().code(), "42501", "{text}");
        assert!(
            told.detail().unwrap().contains("No rule permits sql."),
            "{told:?}"
        );
        let error = client.query(text, &[]).await.unwrap_err();
        let code = error.code().unwrap().code();
        assert!(code == "42501" || code == "42601", "{text}: {code}");
        client
            .batch_execute("select count(*) from t")
            .await
            .unwrap();
    }
    for (text, word) in [
        ("selct a from t", "selct"),
        ("select 'a from t", "unterminated"),
    ] {
        let error = client.batch_execute(text).await.unwrap_err();
        let told = error.as_db_error().unwrap();
        assert_eq!(told.code().code(), "42601", "{text}");
        assert!(told.message().contains(word), "{told:?}");
    }
    assert_eq!(
        client
            .query_one("select a from t", &[])
            .await
            .unwrap()
            .get::<_, i32>(0),
        1
    );
    assert!(world.ledger().contains("\"action.denied\""));
}

fn extended(out: &mut bytes::BytesMut, name: &str, portal: &str, text: &str) {
    frontend::parse(name, text, [], out).unwrap();
    bind(out, name, portal);
    frontend::execute(portal, 0, out).unwrap();
}

fn bind(out: &mut bytes::BytesMut, name: &str, portal: &str) {
    let none: [i16; 0] = [];
    let values: [i32; 0] = [];
    frontend::bind(portal, name, none, values, |_, _| unreachable!(), none, out)
        .ok()
        .unwrap();
}

/// A world with an empty table `t`.
async fn with_table() -> World {
    let world = World::start().await;
    dba(&world)
        .await
        .batch_execute("create table t (a int)")
        .await
        .unwrap();
    world
}

/// A client that may do everything.
async fn dba(world: &World) -> tokio_postgres::Client {
    let ana = world.person("ana", "dba").await;
    world.connect(&ana).await
}

/// A raw client that may only read.
async fn analyst(world: &World) -> Raw {
    let bob = world.person("bob", "analyst").await;
    world.raw(&bob, 0x0003_0000).await
}

async fn rows(world: &World) -> i64 {
    let row = dba(world)
        .await
        .query_one("select count(*) from t", &[])
        .await;
    row.unwrap().get(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_take_their_place_among_pipelined_answers() {
    let world = with_table().await;
    let mut raw = analyst(&world).await;
    // What follows a refusal is skipped up to the Sync, as after any error.
    raw.say(|out| {
        extended(out, "", "", "select 1");
        extended(out, "", "", "insert into t values (1)");
        extended(out, "", "", "select 2");
        frontend::sync(out);
        extended(out, "", "", "select 3");
        frontend::sync(out);
    })
    .await;
    assert_eq!(raw.until_ready().await, "12DCE(42501)ZI");
    assert_eq!(raw.until_ready().await, "12DCZI");
    // A transaction fails with it, as PostgreSQL's own would.
    raw.say(|out| frontend::query("begin", out).unwrap()).await;
    assert_eq!(raw.until_ready().await, "CZT");
    raw.say(|out| {
        extended(out, "", "", "delete from t");
        frontend::sync(out);
    })
    .await;
    assert_eq!(raw.until_ready().await, "E(42501)ZE");
    raw.say(|out| frontend::query("rollback", out).unwrap())
        .await;
    assert_eq!(raw.until_ready().await, "CZI");
    // So it does with a simple query.
    raw.say(|out| {
        frontend::query("begin", out).unwrap();
        frontend::query("delete from t", out).unwrap();
        frontend::query("select 1", out).unwrap();
        frontend::query("commit", out).unwrap();
    })
    .await;
    assert_eq!(raw.until_ready().await, "CZT");
    assert_eq!(raw.until_ready().await, "E(42501)ZE");
    assert_eq!(raw.until_ready().await, "E(25P02)ZE");
    assert_eq!(raw.until_ready().await, "CZI");
    // A function call by number is a statement like any other: here lowrite and loread.
    raw.send(b"F\0\0\0\x0e\0\0\x03\xbb\0\0\0\0\0\0").await;
    assert_eq!(raw.until_ready().await, "E(42501)ZI");
    raw.send(b"F\0\0\0\x0e\0\0\x03\xba\0\0\0\0\0\0").await;
    assert_eq!(raw.until_ready().await, "E(08P01)ZI");
    assert_eq!(rows(&world).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_server_skips_is_not_recorded_as_done() {
    let world = with_table().await;
    let ana = world.person("ana", "dba").await;
    let mut raw = world.raw(&ana, 0x0003_0000).await;
    raw.say(|out| {
        extended(out, "", "", "select 1/0");
        for _ in 0..3_000 {
            extended(out, "", "", "insert into t values (1)");
        }
        frontend::sync(out);
    })
    .await;
    assert_eq!(raw.until_ready().await, "1E(22012)ZI");
    assert_eq!(rows(&world).await, 0);
    let log = world.ledger();
    let (allowed, skipped) = (log.matches("insert into t").count(), r#""by":"skipped""#);
    assert!(allowed > 0 && allowed <= 1_024, "{allowed}");
    assert_eq!(log.matches(skipped).count(), allowed);
}

#[tokio::test(flavor = "multi_thread")]
async fn names_hide_nothing() {
    let world = with_table().await;
    let mut raw = analyst(&world).await;
    let write = "insert into t values (1) returning a";
    // What may not be run is not parsed either, and so has no name.
    raw.say(|out| {
        frontend::query("begin", out).unwrap();
        frontend::parse("w", write, [], out).unwrap();
        bind(out, "w", "p");
        frontend::sync(out);
        frontend::query("rollback", out).unwrap();
        frontend::query("fetch all from p", out).unwrap();
        frontend::query("execute w", out).unwrap();
        frontend::query("explain analyze execute w", out).unwrap();
    })
    .await;
    assert_eq!(raw.until_ready().await, "CZT");
    assert_eq!(raw.until_ready().await, "E(42501)ZE");
    assert_eq!(raw.until_ready().await, "CZI");
    for _ in 0..3 {
        assert_eq!(raw.until_ready().await, "E(42501)ZI");
    }
    // The nameless statement of a batch that was skipped is not the one that runs.
    raw.say(|out| {
        frontend::parse("", "select 1", [], out).unwrap();
        frontend::sync(out);
        frontend::parse("", write, [], out).unwrap();
        frontend::parse("", "select 2", [], out).unwrap();
        frontend::sync(out);
        bind(out, "", "");
        frontend::execute("", 0, out).unwrap();
        frontend::sync(out);
    })
    .await;
    assert_eq!(raw.until_ready().await, "1ZI");
    assert_eq!(raw.until_ready().await, "E(42501)ZI");
    assert_eq!(raw.until_ready().await, "2DCZI");
    assert_eq!(rows(&world).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn text_that_the_server_would_read_otherwise_is_not_trusted() {
    let world = with_table().await;
    let encoding = "alter role curfew set client_encoding = 'GBK'";
    dba(&world).await.batch_execute(encoding).await.unwrap();
    // Read as UTF-8 the quote is escaped; read as GBK the backslash is half a letter, the literal
    // ends there, and what follows is a statement.
    let attack = b"select E'\xe2\x82\xac\\'; insert into t values (1); --'";
    let mut raw = analyst(&world).await;
    let mut message = vec![b'Q'];
    message.extend_from_slice(&(attack.len() as u32 + 5).to_be_bytes());
    message.extend_from_slice(attack);
    message.push(0);
    raw.send(&message).await;
    assert_eq!(raw.until_ready().await, "E(42501)ZI");
    crate::kit::Server::get()
        .direct()
        .await
        .batch_execute("alter role curfew reset client_encoding")
        .await
        .unwrap();
    assert_eq!(rows(&world).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn long_texts_are_read_and_of_longer_ones_nothing_is_known() {
    let world = with_table().await;
    let mut raw = analyst(&world).await;
    let long = format!("select {}", vec!["1"; 30_000].join(" union all select "));
    let wide = format!(
        "select count(*) from (values {}) v",
        vec!["(1)"; 30_000].join(",")
    );
    let longer = format!("select '{}'", "x".repeat(1_100_000));
    raw.say(|out| frontend::query(&wide, out).unwrap()).await;
    assert_eq!(raw.until_ready().await, "TDCZI");
    // Too deep to be walked: of the highest class.
    raw.say(|out| frontend::query(&long, out).unwrap()).await;
    assert_eq!(raw.until_ready().await, "E(42501)ZI");
    let batch = |out: &mut bytes::BytesMut| {
        frontend::parse("", &longer, [], out).unwrap();
        bind(out, "", "");
        frontend::execute("", 0, out).unwrap();
        frontend::sync(out);
        frontend::query("select 1", out).unwrap();
    };
    raw.say(|out| frontend::query(&longer, out).unwrap()).await;
    assert_eq!(raw.until_ready().await, "E(42501)ZI");
    raw.say(batch).await;
    assert_eq!(raw.until_ready().await, "E(42501)ZI");
    assert_eq!(raw.until_ready().await, "TDCZI");
    let ana = world.person("ana", "dba").await;
    let mut raw = world.raw(&ana, 0x0003_0000).await;
    raw.say(|out| frontend::query(&longer, out).unwrap()).await;
    assert_eq!(raw.until_ready().await, "TDCZI");
    raw.say(batch).await;
    assert_eq!(raw.until_ready().await, "12DCZI");
    assert_eq!(raw.until_ready().await, "TDCZI");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_by_the_extended_protocol_ignores_the_sync_sent_with_it() {
    let world = with_table().await;
    let ana = world.person("ana", "dba").await;
    let mut raw = world.raw(&ana, 0x0003_0000).await;
    raw.say(|out| {
        extended(out, "", "", "copy t from stdin");
        frontend::sync(out);
    })
    .await;
    for tag in [b'1', b'2', b'G'] {
        assert_eq!(raw.next().await.map(|(tag, _)| tag), Some(tag));
    }
    raw.say(|out| {
        frontend::CopyData::new(&b"1\n2\n"[..]).unwrap().write(out);
        frontend::copy_done(out);
        frontend::sync(out);
    })
    .await;
    assert_eq!(raw.until_ready().await, "CZI");
    raw.say(|out| frontend::query("select 1", out).unwrap())
        .await;
    assert_eq!(raw.until_ready().await, "TDCZI");
    assert_eq!(rows(&world).await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_goodbye_waits_for_what_was_asked_and_a_vanished_client_is_cancelled() {
    let world = World::start().await;
    let ana = world.person("ana", "dba").await;
    let mut raw = world.raw(&ana, 0x0003_0000).await;
    raw.say(|out| {
        frontend::query("create table t (a int)", out).unwrap();
        frontend::query("select pg_sleep(0.2); insert into t values (1)", out).unwrap();
        frontend::terminate(out);
    })
    .await;
    while raw.next().await.is_some() {}
    assert_eq!(rows(&world).await, 1);
    let mut raw = world.raw(&ana, 0x0003_0000).await;
    raw.say(|out| frontend::query("select pg_sleep(30)", out).unwrap())
        .await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    drop(raw);
    world.until_gone().await;
}
