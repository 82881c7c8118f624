//! The end of a session reaches every connection: at once, with the reason, and upstream too.

use std::time::{Duration, Instant};

use postgres_protocol::message::frontend;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};

use crate::kit::{Raw, World, field};

/// A policy whose sessions last this long.
fn policy(idle: &str, reauth: &str, lifetime: &str) -> String {
    crate::kit::POLICY.replace(
        r#"@id("sessions") @idle("15m") @reauth("12h") @lifetime("12h")"#,
        &format!(r#"@id("sessions") @idle("{idle}") @reauth("{reauth}") @lifetime("{lifetime}")"#),
    )
}

/// Waits for the last words and the end after them.
async fn last_words(raw: &mut Raw) -> Vec<u8> {
    loop {
        let (tag, body) = raw.next().await.expect("last words");
        if tag == b'E' && field(&body, b'S') == "FATAL" {
            assert!(raw.next().await.is_none(), "nothing follows the last words");
            return body.to_vec();
        }
    }
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ended_session_is_cut_within_milliseconds() {
    let world = World::start().await;
    for (state, before, code, bound) in [
        ("idle", "select 1", "57P01", 50),
        ("in transaction", "begin", "57P01", 50),
        ("running", "select pg_sleep(60)", "57P01", 100),
    ] {
        let mut times = Vec::new();
        for _ in 0..15 {
            let ana = world.person("ana", "dba").await;
            let mut raw = world.raw(&ana, 0x0003_0000).await;
            raw.say(|out| frontend::query(before, out).unwrap()).await;
            if state == "running" {
                tokio::time::sleep(Duration::from_millis(50)).await;
            } else {
                raw.until_ready().await;
            }
            let start = Instant::now();
            let ((), (told, time)) = tokio::join!(world.end(&ana.session), async {
                let told = last_words(&mut raw).await;
                (told, start.elapsed())
            });
            assert_eq!(field(&told, b'C'), code, "{state}");
            assert_eq!(field(&told, b'D'), "An administrator ended it.");
            assert!(field(&told, b'H').contains("https://curfew.localhost"));
            times.push(time);
        }
        let median = median(times);
        println!("{state}: {median:?} from the command to the end of the stream");
        assert!(median < Duration::from_millis(bound), "{state}: {median:?}");
        world.until_gone().await;
    }
    let log = world.ledger();
    assert!(log.contains("\"action.closed\"") && log.contains("\"session_end\""));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_limit_has_the_codes_of_postgresql() {
    let world = World::with_policy(&policy("1s", "12h", "12h")).await;
    for (before, code) in [("select 1", "57P05"), ("begin", "25P03")] {
        let ana = world.person("ana", "dba").await;
        let mut raw = world.raw(&ana, 0x0003_0000).await;
        raw.say(|out| frontend::query(before, out).unwrap()).await;
        raw.until_ready().await;
        let start = Instant::now();
        let told = last_words(&mut raw).await;
        assert_eq!(field(&told, b'C'), code);
        assert_eq!(
            field(&told, b'D'),
            "The idle limit of your session has run out: 1s."
        );
        let took = start.elapsed();
        assert!(
            took > Duration::from_millis(900) && took < Duration::from_millis(1_300),
            "{took:?}"
        );
        world.until_gone().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_that_runs_is_activity_and_ends_at_the_limit_of_its_age() {
    let world = World::with_policy(&policy("500ms", "2s", "2s")).await;
    let ana = world.person("ana", "dba").await;
    let start = Instant::now();
    let mut raw = world.raw(&ana, 0x0003_0000).await;
    raw.say(|out| frontend::query("select pg_sleep(60)", out).unwrap())
        .await;
    let told = last_words(&mut raw).await;
    assert_eq!(field(&told, b'C'), "57P01");
    assert_eq!(
        field(&told, b'D'),
        "The reauth limit of your session has run out: 2s."
    );
    assert!(
        start.elapsed() > Duration::from_millis(1_700),
        "{:?}",
        start.elapsed()
    );
    world.until_gone().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_write_commits_after_the_end() {
    let world = World::start().await;
    let ana = world.person("ana", "dba").await;
    let owner = world.person("owner", "dba").await;
    let owner = world.connect(&owner).await;
    owner
        .batch_execute("create table t (a int); insert into t values (1)")
        .await
        .unwrap();
    let mut raw = world.raw(&ana, 0x0003_0000).await;
    let slow = "update t set a = 2 where (select true from pg_sleep(1))";
    raw.say(|out| frontend::query(slow, out).unwrap()).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    world.end(&ana.session).await;
    last_words(&mut raw).await;
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    let row = owner.query_one("select a from t", &[]).await.unwrap();
    assert_eq!(row.get::<_, i32>(0), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_catches_its_cancellation_is_ended_too() {
    const STUBBORN: &str = "do $$ begin raise notice 'begun'; loop begin perform pg_sleep(0.2); \
         exception when query_canceled then null; end; end loop; end $$";
    let world = World::start().await;
    let ana = world.person("ana", "dba").await;
    let mut raw = world.raw(&ana, 0x0003_0000).await;
    raw.say(|out| frontend::query(STUBBORN, out).unwrap()).await;
    while !matches!(raw.next().await, Some((b'N', _))) {}
    let ((), told) = tokio::join!(world.end(&ana.session), last_words(&mut raw));
    assert_eq!(field(&told, b'C'), "57P01");
    let start = Instant::now();
    while world.backends().await > 0 {
        assert!(start.elapsed() < Duration::from_secs(10), "it goes on");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_was_queued_runs_after_the_end() {
    let world = World::start().await;
    let owner = world.person("owner", "dba").await;
    let owner = world.connect(&owner).await;
    owner.batch_execute("create table t (a int)").await.unwrap();
    let slow = "insert into t select 1 from pg_sleep(0.3)";
    let extended = |out: &mut bytes::BytesMut, sync: bool| {
        let none: [i32; 0] = [];
        frontend::parse("", slow, [], out).unwrap();
        frontend::bind("", "", [], none, |_, _| unreachable!(), [], out)
            .ok()
            .unwrap();
        frontend::execute("", 0, out).unwrap();
        if sync {
            frontend::sync(out);
        }
    };
    for way in ["simple", "synced", "pipelined"] {
        let ana = world.person("ana", "dba").await;
        let mut raw = world.raw(&ana, 0x0003_0000).await;
        raw.say(|out| {
            for _ in 0..20 {
                match way {
                    "simple" => frontend::query(slow, out).unwrap(),
                    way => extended(out, way == "synced"),
                }
            }
            frontend::sync(out);
        })
        .await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        world.end(&ana.session).await;
        last_words(&mut raw).await;
        tokio::time::sleep(Duration::from_millis(1_000)).await;
        let row = owner
            .query_one("select count(*) from t", &[])
            .await
            .unwrap();
        assert_eq!(row.get::<_, i64>(0), 0, "{way}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_for_the_client_is_no_activity() {
    let world = World::with_policy(&policy("1s", "12h", "12h")).await;
    let owner = world.person("owner", "dba").await;
    let setup = "create table t (a int)";
    world
        .connect(&owner)
        .await
        .batch_execute(setup)
        .await
        .unwrap();
    world.until_gone().await;
    for way in ["copy", "stray copy data", "portal", "half a bind"] {
        let ana = world.person("ana", "dba").await;
        let mut raw = world.raw(&ana, 0x0003_0000).await;
        let started = Instant::now();
        raw.say(|out| match way {
            "copy" => frontend::query("copy t from stdin", out).unwrap(),
            "portal" => {
                let none: [i32; 0] = [];
                frontend::query("begin", out).unwrap();
                frontend::parse("", "select generate_series(1, 9)", [], out).unwrap();
                frontend::bind("", "", [], none, |_, _| unreachable!(), [], out)
                    .ok()
                    .unwrap();
                frontend::execute("", 1, out).unwrap();
                frontend::sync(out);
            }
            "unread answer" => {
                let long = "select repeat('x', 5000) from generate_series(1, 100000000)";
                frontend::query(long, out).unwrap();
            }
            _ => {}
        })
        .await;
        if way == "half a bind" {
            raw.say(|out| frontend::parse("", "select $1", [], out).unwrap())
                .await;
            raw.send(b"B\0\x0f\0\0\0\0half").await;
        }
        let drip = tokio::spawn(async move {
            while started.elapsed() < Duration::from_secs(4) {
                tokio::time::sleep(Duration::from_millis(200)).await;
                let message: &[u8] = match way {
                    // Empty, and outside of a copy.
                    "copy" => b"d\0\0\0\x04",
                    "stray copy data" => b"d\0\0\0\x05x",
                    _ => continue,
                };
                if raw.stream.write_all(message).await.is_err() {
                    break;
                }
            }
        });
        let mut took = Duration::ZERO;
        while world.backends().await > 0 {
            took = started.elapsed();
            assert!(took < Duration::from_millis(2_500), "{way}: still there");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        println!("{way}: gone after {took:?}");
        drip.abort();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_a_copy_keeps_no_lock() {
    let world = World::start().await;
    let owner = world.person("owner", "dba").await;
    let owner = world.connect(&owner).await;
    owner.batch_execute("create table t (a int)").await.unwrap();
    for goodbye in [true, false] {
        let ana = world.person("ana", "dba").await;
        let mut raw = world.raw(&ana, 0x0003_0000).await;
        raw.say(|out| frontend::query("copy t from stdin", out).unwrap())
            .await;
        while raw.next().await.is_some_and(|(tag, _)| tag != b'G') {}
        raw.send(b"d\0\0\0\x061\n").await;
        if goodbye {
            raw.say(frontend::terminate).await;
        }
        drop(raw);
        let lock = owner.batch_execute("truncate t");
        let got = tokio::time::timeout(Duration::from_secs(2), lock).await;
        got.expect("the lock is free").unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_comes_between_messages_of_a_large_answer() {
    let world = World::start().await;
    let mut told = 0;
    for _ in 0..5 {
        let ana = world.person("ana", "dba").await;
        let mut raw = world.raw(&ana, 0x0003_0000).await;
        let text = "select repeat('x', 500) from generate_series(1, 100000000)";
        raw.say(|out| frontend::query(text, out).unwrap()).await;
        let reading = tokio::spawn(async move {
            let mut last = None;
            // Each message is whole: the reader would otherwise wait for the rest of one.
            while let Some((tag, body)) = raw.next().await {
                last = Some((tag, body.to_vec()));
            }
            assert!(raw.read.is_empty(), "half a message at the end");
            last
        });
        tokio::time::sleep(Duration::from_millis(100)).await;
        world.end(&ana.session).await;
        let (tag, body) = reading.await.unwrap().unwrap();
        if tag == b'E' && field(&body, b'C') == "57P01" {
            told += 1;
        }
        world.until_gone().await;
    }
    assert!(told >= 4, "{told} of 5 were told why");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_is_cut_all_the_same() {
    let world = World::start().await;
    let ana = world.person("ana", "dba").await;
    let mut raw = world.raw(&ana, 0x0003_0000).await;
    let text = "select repeat('x', 5000) from generate_series(1, 100000000)";
    raw.say(|out| frontend::query(text, out).unwrap()).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    world.end(&ana.session).await;
    world.until_gone().await;
    let mut rest = Vec::new();
    let _ = raw.stream.read_to_end(&mut rest).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn psql_tells_the_person() {
    let world = World::start().await;
    let ana = world.person("ana", "dba").await;
    let mut child = world.psql_command(&ana).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    stdin
        .write_all(b"select 'ready';\nselect pg_sleep(60);\n")
        .await
        .unwrap();
    assert_eq!(lines.next_line().await.unwrap().as_deref(), Some("ready"));
    tokio::time::sleep(Duration::from_millis(300)).await;
    world.end(&ana.session).await;
    drop(stdin);
    let done = child.wait_with_output().await.unwrap();
    let err = String::from_utf8_lossy(&done.stderr);
    for wanted in [
        "57P01",
        "An administrator ended it.",
        "Sign in at",
        "curfew psql orders",
    ] {
        assert!(err.contains(wanted), "{wanted} is not in {err}");
    }
    world.until_gone().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopping_gateway_says_so() {
    let world = World::start().await;
    let ana = world.person("ana", "dba").await;
    let mut raw = world.raw(&ana, 0x0003_0000).await;
    let running = world.gateway.running;
    let (stopped, told) = tokio::join!(running.stop(), last_words(&mut raw));
    stopped.unwrap();
    assert_eq!(field(&told, b'C'), "57P01");
    assert!(field(&told, b'M').contains("stopping"));
}
