//! Two gateways on copies of one log, as after a machine was restored from a picture of its disk.

use std::time::{Duration, Instant};

use crate::kit::Place;

/// Asks both in turn until one is refused for good; gives how many answers each had by then.
async fn until_one_stops(clients: [&reqwest::Client; 2], places: [&Place; 2]) -> [bool; 2] {
    let start = Instant::now();
    loop {
        let mut runs = [true; 2];
        for (at, (client, place)) in clients.into_iter().zip(places).enumerate() {
            let answer = client.post(place.url("/work")).send().await;
            runs[at] = answer.is_ok_and(|answer| answer.status() == 200);
        }
        if runs != [true; 2] {
            return runs;
        }
        assert!(start.elapsed() < Duration::from_secs(60), "both go on");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_second_of_two_gateways_on_one_log_stops() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let one = Place::new(dir.path()).await;
    let ana = one.session("ana", "worker").await;
    let two = one.twin(other.path());
    let clients = [one.client(&ana.bearer), two.client(&ana.bearer)];
    let clients = [&clients[0], &clients[1]];
    let served = [one.serve(), two.serve()];
    let runs = until_one_stops(clients, [&one, &two]).await;
    assert_ne!(runs, [false; 2], "one of them is right");
    let (winner, loser) = if runs[0] { (0, 1) } else { (1, 0) };
    let places = [&one, &two];

    // It stays so: the one works, the other answers nobody.
    for _ in 0..20 {
        let right = clients[winner].get(places[winner].url("/on")).send().await;
        assert_eq!(right.unwrap().status(), 200);
        let wrong = clients[loser].get(places[loser].url("/on")).send().await;
        assert!(wrong.map_or(true, |answer| answer.status() == 503));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let [first, second] = served;
    first.kill();
    second.kill();
    let said = places[loser].refused();
    assert!(
        said.contains("older copy") || said.contains("not the log"),
        "{said}"
    );
    places[winner].mend();
    let (whole, report) = places[winner].verify();
    assert!(whole, "{report}");
}
