//! What people do with it.

use std::time::Duration;

use curfew_search::{Asked, Bounds, Follower, Indexer, Searcher};

use crate::kit::{Log, bounds, id, indexes, query};

fn asked(field: &str, value: &str) -> Asked {
    serde_json::from_value(serde_json::json!({ field: value })).unwrap()
}

fn find(searcher: &Searcher, log: &Log, field: &str, value: &str) -> Vec<u64> {
    let query = query(asked(field, value), log);
    indexes(&searcher.search(&query, &bounds()).unwrap())
}

#[test]
fn everything_is_found_by_what_people_know_of_it() {
    let mut log = Log::new();
    let start = log.start(1, "ada");
    let read = log.read(1, "shop", "/cart/17");
    let other = log.start(2, "bob");
    let target = log.add(&format!(
        r#""kind":"action.allowed","session":"{}","verb":"session.end","resource":"gateway","target":"{}","rules":["admins"]"#,
        id(2),
        id(1),
    ));
    let end = log.add(&format!(
        r#""kind":"session.ended","session":"{}","reason":"ended_by_admin","effective":"2026-11-23T16:40:00.000000Z","by":{{"session":"{}"}}"#,
        id(1),
        id(2),
    ));
    let denied = log.deny(2, "orders-db", "DELETE FROM secret_plans");
    log.sync();
    let mut indexer = Indexer::open(&log.path(), &log.index(), true).unwrap();
    assert!(indexer.was_rebuilt());
    indexer.catch_up(|_, _| {}).unwrap();
    let searcher = indexer.searcher();
    for (field, value, wanted) in [
        // What is done to a session is about its subject as well.
        ("subject", "ada", vec![end, target, read, start]),
        ("subject", "bob", vec![denied, end, target, other]),
        ("session", &id(1), vec![end, target, read, start]),
        ("resource", "shop", vec![read]),
        ("verb", "session.end", vec![target]),
        ("kind", "session", vec![end, other, start]),
        ("address", "10.0.0.1", vec![start]),
        ("text", "CART", vec![read]),
        ("text", "plans", vec![denied]),
        ("text", "secret_plans", vec![denied]),
        ("text", "secret cart", vec![]),
        ("since", "0s", vec![denied]),
        ("until", "0s", vec![end, target, other, read, start]),
    ] {
        assert_eq!(
            find(&searcher, &log, field, value),
            wanted,
            "{field} {value}"
        );
    }
    let shown = searcher
        .search(&query(asked("resource", "shop"), &log), &bounds())
        .unwrap();
    assert_eq!(shown.hits[0].subject.as_ref().unwrap().as_str(), "ada");
}

#[test]
fn a_merge_that_was_looked_at_while_it_ran_can_still_be_waited_for() {
    const PART: u64 = 2_000;
    let mut log = Log::new();
    log.start(1, "ada");
    for index in 1..8 * PART {
        log.read(1, "shop", "/cart/17");
        if index.is_multiple_of(200) {
            log.sync();
        }
    }
    log.sync();
    let mut indexer = Indexer::open(&log.path(), &log.index(), true).unwrap();
    for _ in 0..8 {
        indexer.add(u64::MAX, PART).unwrap();
        indexer.commit().unwrap();
    }
    // The eighth part began a merge; this is a look at it.
    indexer.commit().unwrap();
    indexer.settle().unwrap();
    assert_eq!(indexer.indexed(), 8 * PART);
    let found = find(&indexer.searcher(), &log, "kind", "session.started");
    assert_eq!(found, [0]);
}

#[test]
fn an_entry_is_found_as_soon_as_it_is_there_and_not_before_it_is_durable() {
    let mut log = Log::new();
    log.start(1, "ada");
    log.sync();
    let mut indexer = Indexer::open(&log.path(), &log.index(), true).unwrap();
    indexer.catch_up(|_, _| {}).unwrap();
    let searcher = indexer.searcher();
    let fresh = log.read(1, "shop", "/fresh");
    log.start(2, "bob");
    let theirs = log.read(2, "shop", "/theirs");
    log.sync();
    assert_eq!(find(&searcher, &log, "text", "fresh"), [fresh]);
    // Started in the log, or in what is not in the index yet.
    assert_eq!(find(&searcher, &log, "subject", "ada"), [fresh, 0]);
    assert_eq!(
        find(&searcher, &log, "subject", "bob"),
        [theirs, theirs - 1]
    );
    let only_durable = Bounds {
        size: Some(fresh),
        ..bounds()
    };
    let answer = searcher
        .search(&query(asked("text", "fresh"), &log), &only_durable)
        .unwrap();
    assert_eq!(
        (answer.hits.len(), answer.size, answer.indexed),
        (0, fresh, 1)
    );
}

#[test]
fn an_answer_stops_at_its_bounds_and_says_where_to_go_on() {
    let mut log = Log::new();
    log.start(1, "ada");
    for n in 0..50 {
        log.read(1, "shop", &format!("/p/{n}"));
    }
    log.sync();
    let mut indexer = Indexer::open(&log.path(), &log.index(), true).unwrap();
    indexer.add(u64::MAX, 30).unwrap();
    indexer.commit().unwrap();
    let searcher = indexer.searcher();
    let mut question = query(asked("limit", "10"), &log);
    let answer = searcher.search(&question, &bounds()).unwrap();
    assert_eq!(
        (indexes(&answer), answer.next),
        ((41..51).rev().collect(), Some(41))
    );
    question.before = answer.next;
    let answer = searcher.search(&question, &bounds()).unwrap();
    assert_eq!(indexes(&answer), (31..41).rev().collect::<Vec<_>>());
    let no_time = Bounds {
        time: Duration::ZERO,
        ..bounds()
    };
    let answer = searcher.search(&question, &no_time).unwrap();
    assert!(answer.cut_short && answer.hits.is_empty());
    assert_eq!(answer.next, Some(41), "nothing was looked at");
    let few_bytes = Bounds {
        bytes: 10,
        ..bounds()
    };
    let answer = searcher.search(&question, &few_bytes).unwrap();
    assert_eq!(
        (indexes(&answer), answer.next),
        (vec![40], Some(40)),
        "one entry always fits"
    );
}

#[test]
fn a_follower_keeps_up_and_goes_on_after_a_restart() {
    let mut log = Log::new();
    log.start(1, "ada");
    log.sync();
    let follow = |log: &Log| Follower::start(log.path(), log.index(), || u64::MAX, |_| {}).unwrap();
    let wait = |follower: &Follower, wanted: u64| {
        let begun = std::time::Instant::now();
        while follower.progress().indexed < wanted {
            assert!(
                begun.elapsed() < Duration::from_secs(60),
                "{:?}",
                follower.progress()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    let follower = follow(&log);
    wait(&follower, 1);
    assert_eq!(follower.progress().rebuilt, 1);
    drop(follower);
    // The start lies before the restart: whose session it is must be looked up.
    let read = log.read(1, "shop", "/later");
    log.sync();
    let follower = follow(&log);
    wait(&follower, 2);
    assert_eq!(
        follower.progress().rebuilt,
        0,
        "it went on where it had stopped"
    );
    assert_eq!(find(follower.searcher(), &log, "subject", "ada"), [read, 0]);
}
