//! Policies in the form of C2SP tlog-policy: what they may say, and when a quorum is met.

use std::collections::BTreeSet;

use curfew_ledger::cosignature::Algorithm;
use curfew_ledger::signer::Extends;
use curfew_ledger::trust::TrustPolicy;
use curfew_ledger::{Checkpoint, Cosigner, Hash, LogKey, ReadError, Signer};

fn witness(number: u8) -> Cosigner {
    let algorithm = match number % 2 {
        0 => Algorithm::Ed25519,
        _ => Algorithm::MlDsa44,
    };
    Cosigner::from_seed(&format!("w{number}.example"), algorithm, &[number; 32]).unwrap()
}

fn log(number: u8) -> LogKey {
    LogKey::from_seed(&format!("log{number}.example"), &[number; 32]).unwrap()
}

/// `$wN` and `$lN` are the keys of witness and log N.
fn filled(text: &str) -> Vec<u8> {
    let mut text = text.to_owned();
    for number in (0..=6).rev() {
        text = text.replace(
            &format!("$w{number}"),
            &witness(number).verifier().to_string(),
        );
        text = text.replace(&format!("$l{number}"), &log(number).verifier().to_string());
    }
    text.into_bytes()
}

fn parse(text: &str) -> TrustPolicy {
    TrustPolicy::parse(&filled(text)).unwrap()
}

/// As the specification's own example: two of X, any of Y.
const NESTED: &str = "\
# two organisations
log $l0 https://log.example/
 log\t$l1

witness X1 $w0 https://x1.example/prefix
witness X2 $w1
witness X3 $w2
group X-witnesses 2 X1 X2 X3
witness Y1 $w3
witness Y2 $w4
witness Y3 $w5
group Y-witnesses any Y1 Y2 Y3
group X-and-Y all X-witnesses Y-witnesses
   quorum X-and-Y  
witness late $w6
";

#[test]
fn a_quorum_is_met_by_its_rule_and_nothing_else() {
    let policy = parse(NESTED);
    assert_eq!((policy.logs().len(), policy.witnesses().len()), (2, 7));
    assert_eq!(
        policy.witnesses()[0].url.as_deref(),
        Some("https://x1.example/prefix")
    );
    for set in 0_u32..128 {
        let cosigned: BTreeSet<usize> = (0..7).filter(|at| set & (1 << at) != 0).collect();
        let x = cosigned.range(0..3).count() >= 2;
        let y = cosigned.range(3..6).count() >= 1;
        assert_eq!(policy.is_met(&cosigned), x && y, "{cosigned:?}");
    }
    let none = parse("witness a $w0\nquorum none\n");
    assert!(none.is_met(&BTreeSet::new()));
    let one = parse("witness a $w0\nwitness b $w1\nquorum b\n");
    assert!(!one.is_met(&[0].into()) && one.is_met(&[1].into()));
}

#[test]
fn what_is_wrong_is_named_with_its_line() {
    let cases: &[(&str, usize, &str)] = &[
        ("", 2, "is missing"),
        ("# nothing\n", 3, "is missing"),
        ("witness a $w0\nquorum a\nquorum a\n", 3, "already"),
        ("quorum a\n", 1, "`a` stands above"),
        ("quorum\n", 1, "write it as"),
        ("quorum a b\n", 1, "write it as"),
        ("log\n", 1, "write it as"),
        ("log $w0\n", 1, "not Ed25519"),
        ("log $l0\nlog $l0\n", 2, "above already"),
        ("witness a $l0\n", 1, "not that of a cosigner"),
        (
            "witness a $w0\nwitness b $w0\n",
            2,
            "the key of the witness `a`",
        ),
        ("witness a $w0\nwitness a $w1\n", 2, "`a` is taken"),
        ("witness none $w0\n", 1, "cannot be a name"),
        ("witness a\n", 1, "write it as"),
        ("witness a $w0\ngroup g any b\n", 2, "`b` stands above"),
        ("witness a $w0\ngroup g any\n", 2, "no members"),
        (
            "witness a $w0\ngroup g any none\n",
            2,
            "`none` stands above",
        ),
        ("witness a $w0\ngroup g 0 a\n", 2, "from 1 to 1"),
        ("witness a $w0\ngroup g 2 a\n", 2, "from 1 to 1"),
        ("witness a $w0\ngroup g +1 a\n", 2, "from 1 to 1"),
        ("witness a $w0\ngroup g some a\n", 2, "from 1 to 1"),
        ("witness a $w0\ngroup g any a a\n", 2, "member already"),
        (
            "witness a $w0\ngroup g any a\ngroup h any a\n",
            3,
            "member already",
        ),
        ("witness a $w0\ngroup a any a\n", 2, "`a` is taken"),
        ("group g any g\n", 1, "`g` stands above"),
        ("Witness a $w0\n", 1, "is not one of"),
        ("quorum none\r\n", 1, "control character 0x0d"),
        ("quorum none # why\n", 1, "write it as"),
    ];
    for (text, line, problem) in cases {
        let error = TrustPolicy::parse(&filled(text)).unwrap_err();
        assert_eq!(error.line, *line, "{text:?}: {error}");
        assert!(error.problem.contains(problem), "{text:?}: {error}");
    }
    // Octets that are no text may stand in comments and names.
    let mut bytes = b"# \xff\nwitness \xe2 ".to_vec();
    bytes.extend(filled("$w0\nwitness "));
    bytes.extend(b"\xe3 ");
    bytes.extend(filled("$w1\nquorum "));
    bytes.extend(b"\xe3\n");
    assert!(TrustPolicy::parse(&bytes).unwrap().is_met(&[1].into()));
    // The last newline may be missing, as editors leave it.
    assert!(TrustPolicy::parse(b"quorum none").is_ok());
}

struct NoProof;

impl Extends for NoProof {
    fn consistency_proof(&self, _size: u64) -> Result<Vec<Hash>, ReadError> {
        Ok(Vec::new())
    }
}

#[test]
fn a_checkpoint_is_judged_by_whoever_has_signed_it() {
    let policy = parse(NESTED);
    let checkpoint = Checkpoint {
        origin: "log1.example".to_owned(),
        size: 9,
        root: Hash([3; 32]),
    };
    let note = log(1).sign_checkpoint(&checkpoint, &NoProof).unwrap();
    let line = |number: u8| witness(number).cosign(&checkpoint.to_string(), 5).unwrap();
    let judge = |note: &str| policy.judge(note.as_bytes(), &[]);
    let judged = judge(&note).unwrap();
    assert!(!judged.met && judged.cosigned.is_empty());
    assert_eq!(judged.checkpoint, checkpoint);
    let with = format!("{note}{}{}{}", line(0), line(2), line(6));
    let judged = judge(&with).unwrap();
    assert!(!judged.met);
    assert_eq!(judged.missing, ["X2", "Y1", "Y2", "Y3"]);
    let judged = judge(&format!("{with}{}", line(3))).unwrap();
    assert!(judged.met);
    let names: Vec<&str> = judged.cosigned.iter().map(|c| c.witness.as_str()).collect();
    assert_eq!(names, ["X1", "X3", "Y1", "late"]);
    assert!(judged.cosigned.iter().all(|cosigned| cosigned.seconds == 5));
    // Its cosignature on another checkpoint is worse than none.
    let other = Checkpoint {
        size: 8,
        ..checkpoint.clone()
    };
    let wrong = witness(3).cosign(&other.to_string(), 5).unwrap();
    assert!(judge(&format!("{with}{wrong}")).is_err());
    // Another log, and a key that only has its name.
    let elsewhere = log(2);
    let foreign = Checkpoint {
        origin: "log2.example".to_owned(),
        ..checkpoint.clone()
    };
    let foreign = elsewhere.sign_checkpoint(&foreign, &NoProof).unwrap();
    assert!(judge(&foreign).is_err());
    let namesake = LogKey::from_seed("log1.example", &[2; 32]).unwrap();
    let forged = namesake.sign_checkpoint(&checkpoint, &NoProof).unwrap();
    assert!(judge(&forged).is_err());
    // A policy without logs takes those it is given.
    let open = parse("witness a $w0\nquorum a\n");
    let with = format!("{note}{}", line(0));
    assert!(open.judge(with.as_bytes(), &[]).is_err());
    assert!(
        open.judge(with.as_bytes(), &[log(1).verifier()])
            .unwrap()
            .met
    );
}
