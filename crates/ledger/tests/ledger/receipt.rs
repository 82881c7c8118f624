//! Receipts: what they prove, and how little it takes that they prove nothing.

use std::path::Path;
use std::sync::Arc;

use curfew_ledger::verify::receipt::ReceiptError;
use curfew_ledger::{LogKey, LogReader, Published, Reached, Receipt, Stamped};

use crate::common::{DIR, create, disk, entry, keys, options};

/// A log of 300 entries, all signed, and two that are not.
fn published() -> (Published, LogReader) {
    let disk = disk();
    let log = create(&disk, options());
    log.fill(300);
    log.writer.close().unwrap();
    let again = crate::common::open(&disk, options()).unwrap();
    again.append(&entry(300));
    again.append(&entry(301));
    again.acks.wait_durable(302);
    let disk = Arc::new(disk.copy());
    let reader = LogReader::open_on(Path::new(DIR), disk.clone()).unwrap();
    assert_eq!(reader.size(), 302);
    (Published::new_on(Path::new(DIR), disk), reader)
}

#[test]
fn a_receipt_says_how_far_an_entry_has_come_and_proves_it() {
    let (published, reader) = published();
    for index in [0, 1, 255, 256, 299] {
        let bytes = reader.entry(index).unwrap();
        let (reached, receipt) = published.receipt(index, &bytes).unwrap();
        let receipt = receipt.unwrap();
        assert_eq!(reached, Reached::Signed);
        let read = Receipt::parse(receipt.to_string().as_bytes()).unwrap();
        assert_eq!(read, receipt);
        assert_eq!(read.verify(&keys()).unwrap().size, 300);
    }
    let (reached, receipt) = published.receipt(300, &entry(300)).unwrap();
    assert_eq!((reached, receipt), (Reached::Durable, None));
    // Once a checkpoint is witnessed, it is the one that counts, as far as it goes.
    let note = published.checkpoint().unwrap().unwrap();
    let note = String::from_utf8(note).unwrap();
    published.keep_witnessed(&note).unwrap();
    let (reached, _) = published.receipt(5, &entry(5)).unwrap();
    assert_eq!(reached, Reached::Witnessed);
    assert!(Reached::Durable < Reached::Signed && Reached::Signed < Reached::Witnessed);
}

#[test]
fn a_token_is_carried_along_and_is_over_the_note_before_it() {
    let (published, reader) = published();
    let checkpoint = published.checkpoint().unwrap().unwrap();
    let stamped = |response: &str| Stamped {
        checkpoint: checkpoint.clone(),
        response: response.as_bytes().to_vec(),
    };
    assert!(published.keep_timestamp(300, &stamped("token")).unwrap());
    assert!(!published.keep_timestamp(300, &stamped("other")).unwrap());
    let bytes = reader.entry(299).unwrap();
    let (reached, receipt) = published.receipt(299, &bytes).unwrap();
    assert_eq!(reached, Reached::Timestamped);
    assert!(Reached::Witnessed < reached);
    let read = Receipt::parse(receipt.unwrap().to_string().as_bytes()).unwrap();
    assert_eq!(read.verify(&keys()).unwrap().size, 300);
    assert_eq!(read.stamped(), Some(stamped("token")));
    // What came after it is not covered.
    let (reached, _) = published.receipt(300, &entry(300)).unwrap();
    assert_eq!(reached, Reached::Durable);
    // Any other last line is no token.
    let mut other = read.clone();
    other.checkpoint = String::from_utf8(checkpoint).unwrap();
    assert_eq!(other.stamped(), None);
}

#[test]
fn whatever_is_altered_proves_nothing() {
    let (published, reader) = published();
    let bytes = reader.entry(77).unwrap();
    let receipt = published.receipt(77, &bytes).unwrap().1.unwrap();
    let good = receipt.to_string().into_bytes();
    // Every byte of it: the receipt is refused, or is the same receipt for other eyes only.
    for at in 0..good.len() {
        for other in [good[at] ^ 1, b'\n', b'A'] {
            let mut bytes = good.clone();
            bytes[at] = other;
            if bytes == good {
                continue;
            }
            let proved = Receipt::parse(&bytes).and_then(|r| r.verify(&keys()).map(|_| r));
            assert!(proved.is_err(), "byte {at} as {other}");
        }
        assert!(
            Receipt::parse(&good[..at])
                .and_then(|r| r.verify(&keys()))
                .is_err()
        );
    }
    let with = |change: fn(&mut Receipt)| {
        let mut altered = receipt.clone();
        change(&mut altered);
        altered.verify(&keys()).unwrap_err()
    };
    assert_eq!(with(|r| r.entry = None), ReceiptError::NoEntry);
    assert!(matches!(with(|r| r.index = 76), ReceiptError::Proof { .. }));
    assert!(matches!(
        with(|r| r.index = 300),
        ReceiptError::Proof { .. }
    ));
    assert!(matches!(
        with(|r| r.proof.clear()),
        ReceiptError::Proof { .. }
    ));
    let other = LogKey::from_seed("example.com/curfew", &[9; 32]).unwrap();
    assert!(receipt.verify(&[other.verifier()]).is_err());
    let elsewhere = LogKey::from_seed("example.com/other", &[9; 32]).unwrap();
    assert!(receipt.verify(&[elsewhere.verifier()]).is_err());
    // Beside another log it is still found.
    let mut both = vec![elsewhere.verifier()];
    both.extend(keys());
    assert!(receipt.verify(&both).is_ok());
}

#[test]
fn the_form_is_that_of_the_specification() {
    let note = "example.com/log\n1\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n\n\
                \u{2014} example.com/log AAAAAAAA\n";
    let hash = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n";
    let parse = |head: &str| Receipt::parse(format!("{head}\n{note}").as_bytes());
    let head = "c2sp.org/tlog-proof@v1\n";
    let plain = parse(&format!("{head}index 0\n")).unwrap();
    assert_eq!((plain.index, plain.entry, plain.proof.len()), (0, None, 0));
    let full = parse(&format!("{head}extra aGk=\nindex 7\n{hash}{hash}")).unwrap();
    assert_eq!((full.entry, full.proof.len()), (Some(b"hi".to_vec()), 2));
    for wrong in [
        "c2sp.org/tlog-proof@v2\nindex 0\n".to_owned(),
        head.to_owned(),
        format!("{head}index 00\n"),
        format!("{head}index -1\n"),
        format!("{head}index\n"),
        format!("{head}extra a\nindex 0\n"),
        format!("{head}index 0\nextra aGk=\n"),
        format!("{head}index 0\nAAAA\n"),
        format!("{head}index 0\n{}", hash.repeat(65)),
        format!("{head}index 0\r\n"),
    ] {
        let refused = parse(&wrong).unwrap_err();
        assert!(matches!(refused, ReceiptError::Malformed(_)), "{wrong}");
    }
}
