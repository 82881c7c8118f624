//! A token that an entry tells of is the one that lies beside the log, or it counts for nothing.

use std::fs;

use curfew_authority::{Command, StampNews};
use curfew_entry::{LogTimestamped, Timestamp};

use crate::history::Log;
use crate::state::report;

/// SHA-256 of "no token".
const DIGEST: &str = "4fb0ec253762c2bc152b9ebd000f70fd8fca3a3f36f7962fa508d40f6adb1ade";

#[test]
fn a_token_that_is_missing_or_exchanged_is_refused_and_says_so() {
    let mut log = Log::new();
    log.grow(20);
    let checkpoint = fs::read(log.dir().join("checkpoint")).unwrap();
    let made = rcgen::generate_simple_self_signed(["tsa.test".to_owned()]).unwrap();
    let root = log.dir().parent().unwrap().join("root.pem");
    fs::write(&root, made.cert.pem()).unwrap();
    let refused = |log: &Log| {
        let more = ["--tsa-ca", root.to_str().unwrap()];
        let (code, json, _) = report(log, log.dir().to_str().unwrap(), &more);
        assert_eq!(code, Some(6), "{json}");
        json["timestamps"]["refused"].clone()
    };
    assert_eq!(refused(&log).as_array().unwrap().len(), 0);

    log.carry_out(&Command::Stamp(StampNews::Kept(LogTimestamped {
        size: 20,
        tsa: "CN=tsa.test".to_owned(),
        tsa_time: Timestamp::from_micros(1_764_000_000_000_000),
        accuracy_us: None,
        asked: None,
        off_us: None,
        digest: DIGEST.to_owned(),
        wall: None,
    })));
    log.write();
    let told = refused(&log);
    assert_eq!(told[0]["size"], 20);
    assert!(told[0]["detail"].to_string().contains("missing"), "{told}");

    let folder = log.dir().join("timestamps");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("20.checkpoint"), checkpoint).unwrap();
    fs::write(folder.join("20.tsr"), "another").unwrap();
    let told = refused(&log);
    let exchanged = "an entry of the log tells of";
    assert!(told[0]["detail"].to_string().contains(exchanged), "{told}");
    // The one it tells of is judged by itself.
    fs::write(folder.join("20.tsr"), "no token").unwrap();
    let told = refused(&log);
    assert!(!told[0]["detail"].to_string().contains(exchanged), "{told}");
}
