//! A full disk: the reserve, and the way back.

use std::time::{Duration, Instant};

use curfew_ledger::{AppendError, Space};

use crate::common::*;

fn wait_for(mut done: impl FnMut() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < Duration::from_secs(20), "waited for 20 s");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn on_a_full_disk_the_reserve_serves_those_who_may_and_space_comes_back() {
    let disk = disk();
    // Room for the first segment and little else: the next one cannot be made.
    disk.set_capacity(Some(300 * 1024));
    let log = create(&disk, options());
    assert_eq!(log.writer.space(), Space::Ample);
    let mut index = 0;
    let refused = loop {
        match log.writer.append(entry(index)) {
            Ok(_) => index += 1,
            // Until the first try to make a segment has failed.
            Err(AppendError::Full) => std::thread::sleep(Duration::from_millis(1)),
            Err(other) => break other,
        }
    };
    assert_eq!(refused, AppendError::NoSpace);
    let plain = index;
    // 256 KiB less a reserve of 64 KiB, in entries of some 70 bytes.
    assert!(plain > 100, "{plain}");
    wait_for(|| log.writer.durable_size() == plain);
    // The longest entry would not fit any more, so nothing is promised.
    assert_ne!(log.writer.space(), Space::Ample);
    loop {
        match log.writer.append_reserved(entry(index)) {
            Ok(_) => index += 1,
            Err(AppendError::Full) => std::thread::sleep(Duration::from_millis(1)),
            Err(other) => {
                assert_eq!(other, AppendError::NoSpace);
                break;
            }
        }
        // One frame each: the worst case for room.
        wait_for(|| log.writer.durable_size() == index);
    }
    assert_eq!(index - plain, 16, "64 KiB of reserve are 16 frames");
    assert_eq!(log.writer.space(), Space::Exhausted);
    assert!(
        log.acks.get().failed.is_empty(),
        "a full disk is no failure of what is written"
    );

    disk.set_capacity(None);
    wait_for(|| log.writer.space() == Space::Ample);
    log.fill(index + 5_000);
    log.writer.close().unwrap();
    let report = check(&disk).unwrap();
    assert_eq!((report.size, report.unsigned()), (index + 5_000, 0));
}

#[test]
fn a_restart_on_a_full_disk_keeps_the_reserve_and_the_prepared_segment() {
    let disk = disk();
    let log = create(&disk, options());
    log.fill(100);
    // The next segment is ready, and then the disk fills up.
    let prepared = std::path::Path::new("/log/segments/prepared-segment.tmp");
    wait_for(|| {
        disk.files()
            .get(prepared)
            .is_some_and(|bytes| bytes.len() == 256 * 1024)
    });
    log.writer.close().unwrap();
    // So full that what is given up is not got back.
    disk.set_capacity(Some(disk.used_bytes() / 2));
    let log = open(&disk, options()).unwrap();
    // A frame of one takes a block, one of two takes two: how they are gathered changes nothing.
    let block = |index| [entry(index), vec![b'x'; 3_900]].concat();
    let mut index = 100;
    // More than one segment holds.
    while index < 170 {
        assert_eq!(log.append(&block(index)), index);
        index += 1;
    }
    loop {
        match log.writer.append(block(index)) {
            Ok(_) => index += 1,
            Err(AppendError::Full) => std::thread::sleep(Duration::from_millis(1)),
            Err(other) => break assert_eq!(other, AppendError::NoSpace),
        }
    }
    log.writer.append_reserved(block(index)).unwrap();
    log.acks.wait_durable(index + 1);
    // Nothing can be published; that is said, and everything recorded is safe.
    assert!(log.writer.close().is_err());
    disk.set_capacity(None);
    let log = open(&disk, options()).unwrap();
    assert_eq!(log.recovered.size, index + 1);
    for found in log.recovered.range(100..index + 1) {
        let (at, bytes) = found.unwrap();
        assert_eq!(bytes, block(at));
    }
    log.writer.close().unwrap();
    assert_eq!(check(&disk).unwrap().unsigned(), 0);
}
