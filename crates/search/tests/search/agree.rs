//! On any log and any question the index finds what reading the whole log finds.

use curfew_search::{Answer, Asked, Bounds, Indexer, Order, scan};
use proptest::prelude::*;

use crate::kit::{Log, bounds, id, indexes, query};

#[derive(Clone, Debug)]
enum Line {
    Start(u32, usize),
    Read(u32, usize, usize),
    Deny(u32, usize, usize),
    End(u32),
    /// Not an entry at all.
    Odd,
}

const SUBJECTS: [&str; 3] = ["ada", "bob", "cy"];
const RESOURCES: [&str; 2] = ["shop", "orders-db"];
const PATHS: [&str; 3] = ["/cart/17", "/cart/user_id", "/Ünder"];
const STATEMENTS: [&str; 2] = ["DELETE FROM cart", "DROP TABLE orders"];

fn line() -> impl Strategy<Value = Line> {
    prop_oneof![
        1 => (0..6_u32, 0..3_usize).prop_map(|(s, w)| Line::Start(s, w)),
        5 => (0..6_u32, 0..2_usize, 0..3_usize).prop_map(|(s, r, p)| Line::Read(s, r, p)),
        2 => (0..6_u32, 0..2_usize, 0..2_usize).prop_map(|(s, r, p)| Line::Deny(s, r, p)),
        1 => (0..6_u32).prop_map(Line::End),
        1 => Just(Line::Odd),
    ]
}

fn one_of(values: &'static [&'static str]) -> impl Strategy<Value = String> {
    prop::sample::select(values).prop_map(str::to_owned)
}

fn question() -> impl Strategy<Value = Asked> {
    (
        one_of(&["", "", "", "ada", "bob,cy", "nobody"]),
        (0..12_u32).prop_map(|n| if n < 6 { id(n) } else { String::new() }),
        one_of(&["", "", "shop", "orders-db", "shop,gateway"]),
        one_of(&[
            "",
            "",
            "action",
            "action.denied",
            "session.*",
            "session.started,action.denied",
        ]),
        one_of(&["", "", "", "web.read", "sql.write,web.read"]),
        one_of(&[
            "", "", "", "cart", "cart 17", "user", "user_id", "drop", "under", "ünder", "nothing",
        ]),
        (
            one_of(&["", "", "", "100s", "20s"]),
            one_of(&["", "", "", "40s", "5s"]),
        ),
        one_of(&["newest", "oldest"]),
        prop::sample::select(vec!["1", "3", "1000"]),
    )
        .prop_map(
            |(subject, session, resource, kind, verb, text, time, order, limit)| Asked {
                subject,
                session,
                resource,
                kind,
                verb,
                text,
                since: time.0.clone(),
                // Never before `since`: 100s and 20s lie before 5s only.
                until: if time.0 == "20s" { "5s".into() } else { time.1 },
                order,
                limit: limit.to_owned(),
                ..Asked::default()
            },
        )
}

fn write(log: &mut Log, line: &Line) {
    match line {
        Line::Start(session, who) => log.start(*session, SUBJECTS[*who]),
        Line::Read(session, what, path) => log.read(*session, RESOURCES[*what], PATHS[*path]),
        Line::Deny(session, what, text) => log.deny(*session, RESOURCES[*what], STATEMENTS[*text]),
        Line::End(session) => log.end(*session),
        Line::Odd => log.raw(b"\xff no entry"),
    };
}

/// All pages of an answer, one after the other.
fn pages(
    searcher: &curfew_search::Searcher,
    mut query: curfew_search::Query,
    bounds: &Bounds,
) -> Answer {
    let mut all = searcher.search(&query, bounds).unwrap();
    while let Some(next) = all.next {
        match query.order {
            Order::Newest => query.before = Some(next),
            Order::Oldest => query.after = Some(next),
        }
        let more = searcher.search(&query, bounds).unwrap();
        assert!(more.next != Some(next), "a page that goes nowhere");
        all.hits.extend(more.hits);
        all.damaged |= more.damaged;
        all.next = more.next;
    }
    all
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_index_finds_what_reading_everything_finds(
        lines in prop::collection::vec(line(), 1..160),
        indexed in 0..160_usize,
        commits in 1..40_u64,
        questions in prop::collection::vec(question(), 12),
    ) {
        let mut log = Log::new();
        let indexed = indexed.min(lines.len());
        lines[..indexed].iter().for_each(|line| write(&mut log, line));
        log.sync();
        let mut sessions_started_once = true;
        let mut started = std::collections::BTreeSet::new();
        for line in &lines {
            if let Line::Start(session, _) = line {
                sessions_started_once &= started.insert(*session);
            }
        }
        let mut indexer = (indexed > 0).then(|| Indexer::open(&log.path(), &log.index(), true).unwrap());
        if let Some(indexer) = &mut indexer {
            // Many small commits, so that parts are merged as well.
            while !indexer.add(u64::MAX, commits).unwrap() {
                indexer.commit().unwrap();
            }
            indexer.commit().unwrap();
            indexer.settle().unwrap();
            prop_assert_eq!(indexer.indexed(), indexed as u64);
        }
        lines[indexed..].iter().for_each(|line| write(&mut log, line));
        log.sync();
        let searcher = match &indexer {
            Some(indexer) => indexer.searcher(),
            None => curfew_search::Searcher::new(&log.path()),
        };
        for asked in questions {
            // Which of two starts names the subject is for the verifier to refuse.
            if !sessions_started_once && !asked.subject.is_empty() {
                continue;
            }
            let query = query(asked.clone(), &log);
            let truth = scan(&log.path(), &query, |_, _| {}).unwrap();
            let found = searcher.search(&query, &bounds()).unwrap();
            prop_assert_eq!(indexes(&found), indexes(&truth), "{:?}", &asked);
            prop_assert!(!found.damaged);
            prop_assert_eq!(found.indexed, if indexer.is_some() { indexed as u64 } else { 0 });
            let bytes = |answer: &Answer| -> Vec<_> { answer.hits.iter().map(|h| h.bytes.clone()).collect() };
            prop_assert_eq!(bytes(&found), bytes(&truth));
            let mut everything = query.clone();
            everything.limit = 1_000;
            let all = scan(&log.path(), &everything, |_, _| {}).unwrap();
            prop_assert_eq!(indexes(&pages(&searcher, query, &bounds())), indexes(&all), "{:?}", &asked);
        }
    }
}
