//! When the publisher works: at intervals while entries come in, and not at all while none do.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::write::error::{PublishError, WriteError};
use crate::write::guard::SwapError;
use crate::write::publisher::Publisher;
use crate::write::writer::{RETRY_INTERVAL, Shared, lock};

/// What the publisher is asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PublisherOrder {
    /// Publish at intervals.
    Run,
    /// Publish what is durable once more, then end.
    Finish,
    /// End.
    Stop,
}

/// Body of the publisher thread. Gives the outcome of the last try.
pub(crate) fn run_publisher(
    shared: &Shared,
    mut publisher: Publisher,
    size_at_open: u64,
) -> Result<(), PublishError> {
    // The first round checks and mends what the last run left, and signs only what it left
    // unsigned.
    let mut size = size_at_open;
    loop {
        let outcome = publish_once(shared, &mut publisher, size);
        let pause = match &outcome {
            Ok(()) => shared.publish_interval,
            Err(_) => RETRY_INTERVAL.max(shared.publish_interval),
        };
        let order = wait_for_work(shared, &publisher, pause, outcome.is_err());
        size = shared.durable.load(Ordering::SeqCst);
        match order {
            PublisherOrder::Run if shared.queue().failure.is_some() => return outcome,
            PublisherOrder::Run => {}
            PublisherOrder::Finish => return publish_once(shared, &mut publisher, size),
            PublisherOrder::Stop => return outcome,
        }
    }
}

fn publish_once(shared: &Shared, publisher: &mut Publisher, size: u64) -> Result<(), PublishError> {
    let outcome = publisher.publish(size);
    match &outcome {
        Ok(Some(note)) => {
            lock(&shared.note).clone_from(note);
            shared.observer.published(note);
        }
        Ok(None) => shared.observer.up_to_date(publisher.signed_size()),
        Err(error) => shared.observer.publish_failed(error),
    }
    if outcome.is_ok() {
        shared.sealing.signed(publisher.signed_size());
    }
    if let Err(PublishError::Guard(error)) = &outcome
        && !matches!(error, SwapError::NotSwapped(_))
    {
        // What was signed must be read again, and only opening does that.
        let problem = error.to_string();
        shared.fail(WriteError::Guard { problem });
    }
    outcome.map(|_| ())
}

/// Waits until there is something to publish and `pause` has passed, or for another order.
fn wait_for_work(
    shared: &Shared,
    publisher: &Publisher,
    pause: Duration,
    failed: bool,
) -> PublisherOrder {
    let ordered = |order: &mut PublisherOrder| *order == PublisherOrder::Run;
    let order = lock(&shared.publisher);
    let waited = shared.publish.wait_timeout_while(order, pause, ordered);
    let (mut order, _) = waited.unwrap_or_else(PoisonError::into_inner);
    loop {
        // Raised before the size is read: whoever makes more durable afterwards sees it.
        shared.publisher_idle.store(true, Ordering::SeqCst);
        let behind = shared.durable.load(Ordering::SeqCst) > publisher.signed_size();
        if *order != PublisherOrder::Run || behind || failed {
            shared.publisher_idle.store(false, Ordering::SeqCst);
            return *order;
        }
        order = shared
            .publish
            .wait(order)
            .unwrap_or_else(PoisonError::into_inner);
        // After a quiet time, let more gather: the first entry is seldom alone.
        if *order == PublisherOrder::Run {
            let half = shared.publish_interval / 2;
            let waited = shared.publish.wait_timeout_while(order, half, ordered);
            order = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}
