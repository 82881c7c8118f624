//! kill -9 around the approval of an erasure: what was approved is erased, by whoever comes next.

use std::process::Command;
use std::time::{Duration, Instant};

use curfew_entry::Event;
use serde_json::Value;

use crate::kit::{Person, Place};

/// Deaths, each at another moment of its erasure.
const ROUNDS: u32 = 10;

/// How long the next start may take to finish what was approved.
const LONG: Duration = Duration::from_secs(60);

fn portal(place: &Place, path: &str) -> String {
    format!("https://curfew.localhost:{}/api/v1/{path}", place.web)
}

/// Posts, and gives the answer if one came.
async fn post(place: &Place, person: &Person, path: &str) -> Option<Value> {
    let asked = place.client(&person.bearer).post(portal(place, path));
    let answer = asked.send().await.ok()?;
    assert!(answer.status().is_success(), "{path}: {}", answer.status());
    answer.json().await.ok()
}

/// What `curfew log values` finds.
fn values(place: &Place) -> Value {
    let mut command = Command::new(env!("CARGO_BIN_EXE_curfew"));
    command.args(["log", "values", "--json", "--config"]);
    let output = command.arg(place.dir.join("curfew.toml")).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn steps(place: &Place) -> (usize, usize) {
    let events = place.events();
    let count = |fits: fn(&Event) -> bool| events.iter().filter(|event| fits(event)).count();
    (
        count(|event| matches!(event, Event::ErasureApproved { .. })),
        count(|event| matches!(event, Event::ErasureDone { .. })),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erasure_that_was_approved_is_done_whenever_the_gateway_dies() {
    let dir = tempfile::tempdir().unwrap();
    let place = Place::new(dir.path()).await;
    place.configure("[log]\nconceal = [\"path\"]\n");
    let asks = place.session("ana", "worker").await;
    let approves = place.session("ben", "worker").await;
    let mut people = Vec::new();
    for round in 0..ROUNDS {
        people.push(place.session(&format!("p{round}"), "worker").await);
    }
    let mut answered = 0;
    for (round, person) in (0..).zip(&people) {
        let served = place.serve();
        for number in 0..3 {
            let url = place.url(&format!("/patients/{number}"));
            let sent = place.client(&person.bearer).post(url).send().await;
            assert_eq!(sent.unwrap().status(), 200);
        }
        let path = format!("subjects/{}/erase", person.name);
        let asked = post(&place, &asks, &path).await.unwrap();
        let path = format!("erasures/{}/approve", asked["erasure"].as_str().unwrap());
        let approval = post(&place, &approves, &path);
        let death = tokio::time::sleep(Duration::from_millis(2 * round));
        let taken = tokio::select! {
            answer = approval => answer,
            () = death => None,
        };
        served.kill();
        answered += usize::from(taken.is_some());
    }
    let served = place.serve();
    let start = Instant::now();
    loop {
        let (approved, done) = steps(&place);
        assert!(approved >= answered, "{approved} of {answered}");
        if approved == done {
            break;
        }
        assert!(start.elapsed() < LONG, "{approved} approved, {done} done");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    place.published();
    served.kill();
    let (_, done) = steps(&place);
    let told = values(&place);
    assert_eq!(told["erased"], 3 * done, "{told}");
    assert_eq!((&told["missing"], &told["wrong"]), (&0.into(), &0.into()));
    let (whole, report) = place.verify();
    assert!(whole, "{report}");
}
