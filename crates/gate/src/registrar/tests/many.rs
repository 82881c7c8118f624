//! What concerns many sessions at once does not shut the door on the others.

use std::time::Instant;

use super::*;

/// A policy ends this many sessions, while somebody else asks on and on. Gives the longest that one
/// question had to wait, and how long it took until all ends were recorded.
async fn ended_by_one_policy(people: u64) -> (Duration, Duration) {
    let bench = bench_of_long_sessions().await;
    let mut left = people;
    let mut last = None;
    while left > 0 {
        // Few enough at once for the ledger's small queue here.
        let some = left.min(16);
        let many: Vec<_> = (0..some).map(|_| bench.sign_in("bo")).collect();
        last = last.max(futures_util::future::join_all(many).await.into_iter().max());
        left -= some;
    }
    let load = |text: String| bench.registrar.carry_out(Command::LoadPolicy { text });
    // Everybody but the one who asks.
    let only_ana = POLICY
        .replacen("(principal,", "(principal == Subject::\"ana\",", 1)
        .replacen("\"2s\"", "\"1h\"", 1)
        .replacen("\"6s\"", "\"1h\"", 1)
        .replacen("\"30s\"", "\"1h\"", 1);
    let begun = Instant::now();
    load(only_ana).await.unwrap();
    // Ends are told in order of name.
    let last = last.unwrap();
    let all_ended = async || {
        let found = bench.registrar.session(last.clone()).await.unwrap();
        found.lives().is_none()
    };
    let mut longest = Duration::ZERO;
    let mut asked = 0_u64;
    loop {
        let at = Instant::now();
        // The ledger's queue is small here: there is no room in it while a piece is handed on.
        while let Err(refusal) = bench.permit(Verb::WebRead).await {
            assert_eq!(refusal, Refusal::Unavailable(Unavailable::Ledger));
            tokio::task::yield_now().await;
        }
        longest = longest.max(at.elapsed());
        asked += 1;
        if asked.is_multiple_of(64) && all_ended().await {
            break;
        }
    }
    let took = begun.elapsed();
    bench.registrar.stop().await.unwrap();
    let is_end = |event: &Event| matches!(event, Event::SessionEnded { .. });
    assert_eq!(bench.count(is_end) as u64, people);
    bench.proven();
    println!("{people} ended in {took:?}; {asked} questions, the longest waited {longest:?}");
    (longest, took)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_that_ends_many_lets_others_ask_meanwhile() {
    let (longest, took) = ended_by_one_policy(5_000).await;
    // In pieces, each a part of the whole. What else this machine does is not held against it.
    assert!(longest < took, "{longest:?} of {took:?}");
}

/// `cargo test --release -p curfew-gate --lib -- --ignored --nocapture many`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes where it is not optimized"]
async fn a_policy_that_ends_200_000_lets_others_ask_meanwhile() {
    let (longest, _) = ended_by_one_policy(200_000).await;
    assert!(longest < Duration::from_secs(1), "{longest:?}");
}
