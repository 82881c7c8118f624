//! kill -9 under load, again and again.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use curfew_entry::{EndReason, Event};

use crate::kit::Place;

/// `cargo xtask crash --kills N` asks for more.
pub(crate) fn kills() -> u64 {
    let asked = std::env::var("CURFEW_CRASH_KILLS").ok();
    asked.map_or(50, |text| text.parse().unwrap())
}

const CLIENTS: u64 = 8;

/// Asks for one path after the other and notes which were answered.
async fn load(client: reqwest::Client, url: String, acknowledged: Arc<Mutex<BTreeSet<String>>>) {
    for number in 0_u64.. {
        let path = format!("{url}/{number}");
        // A read's answer waits for its record, a write waits before it goes: an answer of either
        // kind says that the entry is durable.
        let request = if number % 2 == 0 {
            client.post(&path)
        } else {
            client.get(&path)
        };
        match request.send().await {
            Ok(answer) if answer.status() == 200 => {
                let path = answer.url().path().to_owned();
                acknowledged.lock().unwrap().insert(path);
            }
            _ => return,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_acknowledged_entry_is_lost_and_what_ran_out_meanwhile_has_ended() {
    let dir = tempfile::tempdir().unwrap();
    let place = Place::new(dir.path()).await;
    let ana = place.session("ana", "worker").await;
    let client = place.client(&ana.bearer);
    let acknowledged = Arc::new(Mutex::new(BTreeSet::new()));
    let mut guests = Vec::new();
    let kills = kills();
    for round in 0..kills {
        if round % 10 == 0 {
            // Runs out while nothing runs, or just after.
            guests.push(
                place
                    .session(&format!("guest{round}"), "guest")
                    .await
                    .session,
            );
        }
        let served = place.serve();
        let mut clients = Vec::new();
        for number in 0..CLIENTS {
            let url = place.url(&format!("/{round}/{number}"));
            clients.push(tokio::spawn(load(
                client.clone(),
                url,
                Arc::clone(&acknowledged),
            )));
        }
        // A spread of moments, the same in every run.
        tokio::time::sleep(Duration::from_millis(60 + round * 37 % 240)).await;
        served.kill();
        for client in clients {
            client.await.unwrap();
        }
    }
    let acknowledged = acknowledged.lock().unwrap();
    println!("{kills} kills, {} answers", acknowledged.len());
    assert!(
        acknowledged.len() as u64 > 10 * kills,
        "hardly any load: {}",
        acknowledged.len()
    );
    place.mend();
    let events = place.events();
    let recorded: BTreeSet<&str> = events
        .iter()
        .filter_map(|event| match event {
            Event::ActionAllowed { action, .. } => action.path.as_deref(),
            _ => None,
        })
        .collect();
    let lost: Vec<_> = acknowledged
        .iter()
        .filter(|path| !recorded.contains(path.as_str()))
        .collect();
    assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
    for guest in &guests {
        let ends = events.iter().filter(|event| {
            matches!(event, Event::SessionEnded { session, reason: EndReason::Idle, .. }
                if session == guest)
        });
        assert_eq!(ends.count(), 1, "{guest} ended once");
    }
    ended_before_the_first_action(&events);
    let (whole, report) = place.verify();
    assert!(whole, "{report}");
}

/// After each start, sessions that had run out end before anything is allowed.
fn ended_before_the_first_action(events: &[Event]) {
    let mut since_start = None;
    for event in events {
        match event {
            Event::GatewayStarted { .. } => since_start = Some(false),
            Event::ActionAllowed { .. } => since_start = Some(true),
            Event::SessionEnded {
                deadline: Some(deadline),
                effective,
                ..
            } if effective == deadline => {
                // Logged as ended at its deadline: that is for the time when nothing ran.
                assert_ne!(since_start, Some(true), "an action came before {event:?}");
            }
            _ => {}
        }
    }
}
