//! The limits on attempts, by virtual time.

#![allow(clippy::unwrap_used)]

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

fn at(secs: u64) -> Timestamp {
    Timestamp::from_micros(secs * 1_000_000)
}

fn v4(n: u32) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from(n))
}

#[test]
fn an_address_has_its_burst_and_then_its_rate() {
    let throttle = Throttle::new(1);
    for _ in 0..ADDRESS_BURST {
        throttle.take_address(v4(1), at(100)).unwrap();
    }
    let wait = throttle.take_address(v4(1), at(100)).unwrap_err();
    assert_eq!(wait, ADDRESS_INTERVAL);
    throttle.take_address(v4(2), at(100)).unwrap();
    assert!(throttle.take_address(v4(1), at(102)).is_err());
    throttle.take_address(v4(1), at(103)).unwrap();
    assert!(throttle.take_address(v4(1), at(103)).is_err());
}

#[test]
fn a_success_is_given_back() {
    let throttle = Throttle::new(1);
    for _ in 0..10 * ADDRESS_BURST {
        throttle.take_address(v4(1), at(100)).unwrap();
        throttle.take_global(Lane::Far, at(100)).unwrap();
        throttle.give_back_address(v4(1));
        throttle.give_back_global(Lane::Far);
    }
}

#[test]
fn a_flood_of_strangers_leaves_the_familiar_their_share() {
    let throttle = Throttle::new(1);
    for _ in 0..GLOBAL_BURST_PER_CORE {
        throttle.take_global(Lane::Far, at(100)).unwrap();
    }
    assert!(throttle.take_global(Lane::Far, at(100)).is_err());
    throttle.take_global(Lane::Near, at(100)).unwrap();
}

#[test]
fn the_gate_lets_so_many_run_and_so_many_wait() {
    let gate = Arc::new(Gate::new(2));
    let first = gate.enter(Lane::Far).unwrap();
    let second = gate.enter(Lane::Far).unwrap();
    let (running, most) = (AtomicUsize::new(2), AtomicUsize::new(2));
    std::thread::scope(|scope| {
        for _ in 0..2 * FAR_QUEUE_PER_CORE {
            scope.spawn(|| {
                let slot = gate.enter(Lane::Far);
                assert!(slot.is_some());
                let now = running.fetch_add(1, Ordering::SeqCst) + 1;
                most.fetch_max(now, Ordering::SeqCst);
                running.fetch_sub(1, Ordering::SeqCst);
            });
        }
        while lock(&gate.state).waiting < 2 * FAR_QUEUE_PER_CORE {
            std::thread::yield_now();
        }
        assert!(gate.enter(Lane::Far).is_none());
        running.fetch_sub(2, Ordering::SeqCst);
        drop((first, second));
    });
    assert!(most.load(Ordering::SeqCst) <= 2);
    let state = lock(&gate.state);
    assert_eq!((state.running, state.waiting), (0, 0));
}

#[test]
fn the_familiar_may_still_queue_where_strangers_may_not() {
    let gate = Gate::new(1);
    let slot = gate.enter(Lane::Far).unwrap();
    lock(&gate.state).waiting = FAR_QUEUE_PER_CORE;
    assert!(gate.enter(Lane::Far).is_none());
    std::thread::scope(|scope| {
        let near = scope.spawn(|| gate.enter(Lane::Near).is_some());
        while lock(&gate.state).waiting == FAR_QUEUE_PER_CORE {
            std::thread::yield_now();
        }
        drop(slot);
        assert!(near.join().unwrap());
    });
    lock(&gate.state).waiting = QUEUE_PER_CORE;
    let _slot = gate.enter(Lane::Near).unwrap();
    assert!(gate.enter(Lane::Near).is_none());
}
