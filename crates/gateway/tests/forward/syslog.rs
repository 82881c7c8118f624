//! Forwarding to a syslog receiver.

use curfew_ledger::LogReader;

use super::hub::{Ending, Hub};
use super::{Place, nothing_is_missing, record, wait};

/// A window that is over soon, and one that is not over before the gateway stops.
const SHORT: &str = "window = \"100ms\"\n";
const LONG: &str = "window = \"1h\"\n";

fn size(place: &Place) -> u64 {
    LogReader::open(&place.ledger()).unwrap().size()
}

async fn confirmed(place: &Place) -> u64 {
    let size = size(place);
    wait("the cursor", || (place.cursor() >= size).then_some(())).await;
    size
}

async fn arrived(hub: &Hub, size: u64) {
    wait("the last entry", || {
        let last = hub.see(|seen| seen.arrived.last().map(|last| last.index));
        last.filter(|last| *last + 1 >= size)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_gets_each_entry_once_and_in_order_over_restarts() {
    let place = Place::new();
    let hub = Hub::start(&place, &[]).await;
    let mut running = place.start(&hub.forward(SHORT)).await;
    record(&running, 200).await;
    confirmed(&place).await;
    // Between windows, then inside one: stopping has it confirmed.
    for window in [LONG, LONG] {
        running.stop().await.unwrap();
        running = place.start(&hub.forward(window)).await;
        record(&running, 5).await;
        let size = size(&place);
        // It arrives long before the window is over.
        arrived(&hub, size).await;
        assert!(place.cursor() < size);
    }
    running.stop().await.unwrap();
    let arrived = hub.see(|seen| seen.arrived.clone());
    assert_eq!(arrived, place.expected(arrived.len() as u64));
    assert_eq!(place.cursor(), arrived.len() as u64);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_window_that_was_not_confirmed_is_sent_again_and_no_other() {
    let place = Place::new();
    let hub = Hub::start(&place, &[]).await;
    let running = place.start(&hub.forward(SHORT)).await;
    confirmed(&place).await;
    hub.see(|seen| {
        let endings = [Ending::After(2), Ending::EarlyAfter(3), Ending::Plainly];
        seen.endings.extend(endings);
    });
    record(&running, 20).await;
    confirmed(&place).await;
    running.stop().await.unwrap();
    hub.see(|seen| {
        assert!(seen.endings.is_empty());
        nothing_is_missing(&seen.arrived);
        // Confirmed once each and in order; what a connection without an end carried came again.
        assert!(seen.confirmed.iter().copied().eq(0..place.cursor()));
        assert!(seen.arrived.len() > seen.confirmed.len());
        let leaves = place.expected(place.cursor());
        for one in &seen.arrived {
            assert_eq!(*one, leaves[usize::try_from(one.index).unwrap()]);
        }
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_that_knows_no_close_notify_counts_only_where_that_is_said() {
    let place = Place::new();
    let hub = Hub::start(&place, &[Ending::Plainly; 50]).await;
    let running = place.start(&hub.forward(SHORT)).await;
    wait("the second connection", || {
        hub.see(|seen| (seen.connections > 1).then_some(()))
    })
    .await;
    assert_eq!(place.cursor(), 0);
    running.stop().await.unwrap();
    let before = hub.see(|seen| seen.arrived.len());
    let told = format!("{SHORT}plain_close = true\n");
    let running = place.start(&hub.forward(&told)).await;
    confirmed(&place).await;
    running.stop().await.unwrap();
    let arrived = hub.see(|seen| seen.arrived.split_off(before));
    assert_eq!(arrived, place.expected(place.cursor()));
}
