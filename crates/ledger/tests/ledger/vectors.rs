//! Published test vectors: the proofs of transparency-dev/merkle (testdata/inclusion,
//! testdata/consistency and the ways in which proof/verify_test.go spoils them), and the log of
//! transparency-dev/tessera (testdata/log). Both are of the Apache License, version 2.0.

use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use curfew_ledger::merkle::{
    CompactTree, empty_root, leaf_hash, verify_consistency, verify_inclusion,
};
use curfew_ledger::tile::TileBuilder;
use curfew_ledger::verify::{FailureKind, Report, Verify, verify};
use curfew_ledger::{Checkpoint, Disk, Hash, VerifierKey};
use curfew_ledger_faults::FaultyDisk;

use crate::common::DIR;

fn hash(text: &str) -> Hash {
    let bytes = base64::engine::general_purpose::STANDARD.decode(text);
    Hash(bytes.unwrap().try_into().unwrap())
}

/// A hash that is nowhere in the vectors.
fn some_hash() -> Hash {
    leaf_hash(b"something else")
}

const ROOT_3: &str = "rra8/idLcKFPsGel5VeCZNsPqbUa9eC6FZFY8yngbnc=";
const ROOT_5: &str = "Tju7H3tHjc/nH7YxYxUZo7yhLJrvyhYSv85ME6hiZNQ=";
const ROOT_6: &str = "duZ9rbzfHhDht03cYIq9L5jfsW+851J3tSMqEn8gh+8=";
const ROOT_7: &str = "3bib5AOAnjJXUNPSY814kpwpQreUKjS3fhIslZSnTIw=";
const ROOT_8: &str = "XcnaeacGWamtVZy3Ad7ZoqudgjqtL0lgz+Nw7/RgQyg=";
const LEAF_0: &str = "bjQLnP+zepicpUTmu3gKLHiQHT+zNzh2hRGjBhevoB0=";
const LEAF_1: &str = "lqKW0iTyhcZ77pPDD4owkVfw2qNdxbh+QQt4YwoJz8c=";
const LEAF_2: &str = "ApjRIpBtz8EIkstTpzmS/FufST6kybrbJ7eRtBJ6f+c=";
const LEAF_4: &str = "vBoGQ7EuTS18d5GPROD095qDi2z57FtcKD4fTYhZnms=";
const LEAF_5: &str = "QnGia+DYqE8L1UyMMC58s6O10fpngKQLzOKHNHfatlg=";
const LEAF_6: &str = "sIaT7C5yFZcTBkHoIR5+7cy0wmQTlj7ubB4u0W/7Gl8=";
const NODE_0_1: &str = "+sVCA+fMaWzw38tCySodnbr3CtnmIfS9jZhmLwDjwSU=";
const NODE_2_3: &str = "Xwg/ChozygdqlSeYMlgNs+DvRYS9/x9UyKNg9Q3jAx4=";
const NODE_4_5: &str = "DrxdNDf74tsVi58Sah0RjjCBgQMdCpSfje3t68VY72o=";
const NODE_6_7: &str = "yoVOoSjtBQtBs1/8G4e46yveRh6eO1WW7Oa51ZdaCuA=";
const NODE_0_3: &str = "037kGJdt2VdTwcc4Yrk5j6Kiz5tP8P3+izDNlSCWFLc=";
const NODE_4_7: &str = "a0eq8p7jwq+a+Im8H7klTavTEXfxYjLdaqsDXKOb9uQ=";

/// Index, size, root, leaf and proof.
const INCLUSION: [(u64, u64, &str, &str, &[&str]); 5] = [
    (0, 1, LEAF_0, LEAF_0, &[]),
    (0, 8, ROOT_8, LEAF_0, &[LEAF_1, NODE_2_3, NODE_4_7]),
    (5, 8, ROOT_8, LEAF_5, &[LEAF_4, NODE_6_7, NODE_0_3]),
    (2, 3, ROOT_3, LEAF_2, &[NODE_0_1]),
    (1, 5, ROOT_5, LEAF_1, &[LEAF_0, NODE_2_3, LEAF_4]),
];

/// Both sizes, both roots, and the proof.
const CONSISTENCY: [(u64, u64, &str, &str, &[&str]); 4] = [
    (1, 8, LEAF_0, ROOT_8, &[LEAF_1, NODE_2_3, NODE_4_7]),
    (6, 8, ROOT_6, ROOT_8, &[NODE_4_5, NODE_6_7, NODE_0_3]),
    (2, 5, NODE_0_1, ROOT_5, &[NODE_2_3, LEAF_4]),
    (6, 7, ROOT_6, ROOT_7, &[NODE_4_5, LEAF_6, NODE_0_3]),
];

/// Proofs spoiled in the ways that both kinds share, `bit` of the first byte of each hash among them.
fn spoiled(proof: &[Hash], bit: u8, more: &[Hash]) -> Vec<Vec<Hash>> {
    let mut all = Vec::new();
    for hash in more {
        all.push([proof, &[*hash]].concat());
        all.push([&[*hash], proof].concat());
    }
    for at in 0..proof.len() {
        let mut changed = proof.to_vec();
        changed[at].0[0] ^= bit;
        all.push(changed);
    }
    if let Some((_, shorter)) = proof.split_last() {
        all.push(shorter.to_vec());
    }
    all
}

#[test]
fn the_published_inclusion_proofs_hold_and_nothing_near_them() {
    for (index, size, root, leaf, proof) in INCLUSION {
        let (root, leaf) = (hash(root), hash(leaf));
        let proof: Vec<Hash> = proof.iter().map(|node| hash(node)).collect();
        let holds = |index, size, root: &Hash, leaf: &Hash, proof: &[Hash]| {
            verify_inclusion(leaf, index, size, proof, root).is_ok()
        };
        assert!(
            holds(index, size, &root, &leaf, &proof),
            "{index} of {size}"
        );
        for wrong in [index.wrapping_sub(1), index + 1, index ^ 2] {
            assert!(!holds(wrong, size, &root, &leaf, &proof), "{wrong}");
        }
        for wrong in [size * 2, size / 2] {
            assert!(!holds(index, wrong, &root, &leaf, &proof), "{wrong}");
        }
        assert!(!holds(index, size, &root, &some_hash(), &proof));
        for wrong in [empty_root(), some_hash()] {
            assert!(!holds(index, size, &wrong, &leaf, &proof), "{wrong}");
        }
        let mut wrong = spoiled(&proof, 8, &[root]);
        if let [first, rest @ ..] = &proof[..] {
            wrong.push([&[*first, some_hash()], rest].concat());
        }
        for wrong in wrong {
            assert!(!holds(index, size, &root, &leaf, &wrong), "{wrong:?}");
        }
    }
    // Of a tree without leaves, or past its end.
    for (index, size) in [(0, 0), (0, 1), (1, 0), (2, 1)] {
        let outcome = verify_inclusion(&some_hash(), index, size, &[], &empty_root());
        assert!(outcome.is_err(), "{index} of {size}");
    }
}

#[test]
fn the_published_consistency_proofs_hold_and_nothing_near_them() {
    for (first, second, root1, root2, proof) in CONSISTENCY {
        let (root1, root2) = (hash(root1), hash(root2));
        let proof: Vec<Hash> = proof.iter().map(|node| hash(node)).collect();
        let holds = |first, second, root1: &Hash, root2: &Hash, proof: &[Hash]| {
            verify_consistency(first, second, proof, root1, root2).is_ok()
        };
        assert!(
            holds(first, second, &root1, &root2, &proof),
            "{first}, {second}"
        );
        for wrong in [first - 1, first + 1, first ^ 2] {
            assert!(!holds(wrong, second, &root1, &root2, &proof), "{wrong}");
        }
        for wrong in [second * 2, second / 2] {
            assert!(!holds(first, wrong, &root1, &root2, &proof), "{wrong}");
        }
        let some = some_hash();
        for (root1, root2) in [(some, root2), (root1, some), (root2, root1)] {
            assert!(!holds(first, second, &root1, &root2, &proof));
        }
        let mut wrong = spoiled(&proof, 16, &[root1, root2, proof[0]]);
        wrong.push(Vec::new());
        for wrong in wrong {
            assert!(!holds(first, second, &root1, &root2, &wrong), "{wrong:?}");
        }
    }
    let (empty, one) = (empty_root(), hash(LEAF_0));
    assert!(verify_consistency(1, 1, &[], &one, &one).is_ok());
    assert!(verify_consistency(0, 0, &[], &empty, &empty).is_ok());
    let cases = [
        // "Consistency check on empty tree is useless", and neither root of no leaves is that of some.
        (0, 1, empty, one, vec![]),
        (0, 8, empty, hash(ROOT_8), vec![]),
        (0, 0, one, one, vec![]),
        (1, 0, one, one, vec![]),
        (2, 1, one, one, vec![]),
        (1, 2, one, one, vec![]),
        (0, 0, empty, one, vec![]),
        (1, 1, empty, one, vec![]),
        (0, 0, empty, empty, vec![empty]),
        (0, 1, empty, empty, vec![empty]),
        (1, 1, empty, empty, vec![empty]),
    ];
    for (first, second, root1, root2, proof) in cases {
        let outcome = verify_consistency(first, second, &proof, &root1, &root2);
        assert!(outcome.is_err(), "{first}, {second}, {proof:?}");
    }
}

/// The key of Tessera's log, its entries, and for each size the root and the signature.
const KEY: &str = "example.com/log/testdata+33d7b496+AeHTu4Q3hEIMHNqc6fASMsq3rKNx280NI+oO5xCFkkSx";
const ENTRIES: [&str; 15] = [
    "one", "two", "three", "four", "five", "six", "seven", "eit", "nain", "ten", "ileven", "twelf",
    "threeten", "fourten", "fivten",
];
const CHECKPOINTS: [[&str; 2]; 16] = [
    [
        "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=",
        "M9e0lhxJACzE1KoUdqKuPa+9p6R7dSW8BlEvrg/noo8FkGg6PbJoRNOcdjqjOq89wVvTA60eubCc4oufo5BvIVEgtQc=",
    ],
    [
        "0Nc2CrefWKseHj/mStd+LqC8B+NrX0btIiPt2SmN+ek=",
        "M9e0lhr9kuLxGdAtaUrhm84TQffVsLdcy808sN0a3WyniNlfcr9+bywoiIke1YYciCNjJGkCgIlQ8b16jhsmg/SChAM=",
    ],
    [
        "T1X2GdkhUjV3iyufF9b0kVsWFxIU0VI4EpNml2Teci4=",
        "M9e0llH4NKmlf0u7C8tkJioQOmi7l5ELqljXgKRg6R3G5JJ7vx7emDWo5fpqKuA/Dk/jRrI6il+7QCVirNhyUAWGoAk=",
    ],
    [
        "Wqx3HImawpLnS/Gv4ubjAvi1WIOy0b8Ze0amvqbavKk=",
        "M9e0lvAQRtH832pk2RTbeSeZMkp4FZSdJYFBUjO5SKxuRbywPUF3cx+HUrb50kjd3rUWW/fj53Wj1dwcwh9bGQnqVAg=",
    ],
    [
        "zY1lN35vrXYAPixXSd59LsU29xUJtuW4o2dNNg5Y2Co=",
        "M9e0lnFuWt0cp60moO4jAkeXvMNLIIOGn4WdyeHQurBt9mBi0tWdfkldiAt9k0FpwuZymvttsVn9uwyouXU3vPpeNAc=",
    ],
    [
        "gy5gl3aksFyiCO95a/1vLXz88A3dRq+0l9Sxte8ZqZQ=",
        "M9e0lmn5eDHyHP10zJObZdFAX2y1V8fdDKBi4IiHbDYf1TCUBwxZOhqwv2QZCqrdda2zTRTrmnwjwscN5RBTEmZUYAs=",
    ],
    [
        "a6sWvsc2eEzmj72vah7mZ5dwFltivehh2b11qwlp5Jg=",
        "M9e0ln+nHSdGSHEZBcjvqyYDXDbG8WxDwCDjbbGAMv/NTynAtJWhckSXIpuwpN3yJ4PTtzUbD34YGqIZr6RgJRn16gU=",
    ],
    [
        "IrSXADBqJ7EQoUODSDKROySgNveeL6CFhik2w/+fS7U=",
        "M9e0luA5JhTRUki/BBQD0QNiH6AEJ2pdtsA5CQjqJErViuuKrN6513RCTL2640wXJv0dCed3neRGI6dMzBq9uANf2Qc=",
    ],
    [
        "bC+VwvrJbalNVjfkdI8kUgs7mJoXrqiXCE7bgnD28pY=",
        "M9e0lq1EK37dHtgv9O3UzPxisw5vwIPcJsX9ab0xt4mvVfbdUR1fbMjN6sBFYpBoBEmD4+cWhj/AVgI5MitCO5+mews=",
    ],
    [
        "CvhHViE3S9E3htHLR+25mapWoGCJ3WckMq1UtC3VmEY=",
        "M9e0ls3mdnWX0qk4P3uGG0eYiFRWSwPR+RdeD1ARmrHPHjXP0x9UJWASPFTOTqJo0mp7Epck2O9RFB0J9IjDdAewagw=",
    ],
    [
        "y8/gZsZCtitsMan09tY+k8I7Qpr7Y5fbO2tLi9GQnfU=",
        "M9e0lrmwaVEOWFZ+HS5ITnRd2YMOSWE5QeoYu+6DHwJLnJ+SVeJ2ZiYeD7lVC5oGJx76gbfLSyCUEq6D8JkarrsuiQQ=",
    ],
    [
        "Yok1cS5VdokGLBy73BC2I16b3atss6KBN9jnIi6Fz/A=",
        "M9e0lqbRtWirJwbUy4w3VrK2RyzfW8P+OIkc8t6b6AVG/tQd1Q2SN+uCLYzNNFnf/PhzeCdURSGQe1MRnohCxPu21wg=",
    ],
    [
        "uZo6M+IhVna+CLgWCrJs0xBPUHbozHkYTQASduHSLME=",
        "M9e0lrFzoTgi+ovhrqX0DpsEAp3wLu1coMLIkeCwSkGfS4Ox4pLXo2LHudqm4merh0ZkCNzHr8kQwq5gS5mmimIvdA4=",
    ],
    [
        "av0kLH0VkkVDrTuZzBGIx7d9z5G1l/GlKz/nAV/8woQ=",
        "M9e0liO8x8xfEOGmZVYODUjQajkEpjccPQ9EkG3yEEDet4K3BWE/DFRPH6H+b6gFFFaG5KS1bBmYS/xeZJs8lj+z+wM=",
    ],
    [
        "SvCd38yNade7xEPY1a/aAc1M3A2AHYVF8lIiUnsH1ao=",
        "M9e0lu8roIpjC+NXEG7JDkajIahoYDYWgxDtxfx/6rzLoztU9t/PvivZ48xt8ygJpjzaboSpkbVv3Jb+D3NdXWQf5wo=",
    ],
    [
        "rKbDipCvhuX1GZ7g5BBe8sA6BbJ7ja/1nk427v383cs=",
        "M9e0luh4jTG+UMBqOUo9/q+yAEvx1ilBEniMvjf1zfcBOhg+CKubMt53MvIt/uEWP6zdkdIQzd/fmwlM/dlPWF74ewI=",
    ],
];

/// Tessera's checkpoint of this size.
fn checkpoint(size: usize) -> String {
    let [root, signature] = CHECKPOINTS[size];
    let name = "example.com/log/testdata";
    format!("{name}\n{size}\n{root}\n\n\u{2014} {name} {signature}\n")
}

/// Tessera's log of these entries: its checkpoint and tiles, in a directory.
fn copy(entries: &[&str], size: usize) -> FaultyDisk {
    let disk = FaultyDisk::new();
    let mut tiles = TileBuilder::new();
    for entry in entries {
        tiles.push(entry.as_bytes(), |_, _| {});
    }
    let note = checkpoint(size);
    let note = (Path::new(DIR).join("checkpoint"), note.as_bytes().to_vec());
    let tiles = tiles.partial();
    let tiles = tiles.map(|(tile, bytes)| (Path::new(DIR).join(tile.to_string()), bytes.to_vec()));
    for (path, bytes) in tiles.chain([note]) {
        disk.create_dir_all(path.parent().unwrap()).unwrap();
        disk.put(&path, &bytes);
    }
    disk
}

fn check(disk: &FaultyDisk, remembered: Option<&str>) -> Result<Report, Vec<FailureKind>> {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    let what = Verify {
        dir: Path::new(DIR),
        keys: &[VerifierKey::parse(KEY).unwrap()],
        remembered: remembered.map(str::as_bytes),
        from: None,
        disk,
    };
    let outcome = verify(&what, &mut ());
    outcome.map_err(|failures| failures.into_iter().map(|failure| failure.kind).collect())
}

#[test]
fn another_implementations_log_is_proven_at_each_of_its_sizes() {
    let key = [VerifierKey::parse(KEY).unwrap()];
    let mut tree = CompactTree::new();
    for (size, [root, _]) in CHECKPOINTS.iter().enumerate() {
        let note = checkpoint(size);
        let signed = Checkpoint::verify(note.as_bytes(), &key).unwrap();
        assert_eq!((signed.size, signed.root), (size as u64, hash(root)));
        assert_eq!(tree.root(), signed.root, "{size} entries");
        // Its signature is over this size and no other.
        let other = note.replacen(&format!("\n{size}\n"), &format!("\n{}\n", size + 1), 1);
        assert!(Checkpoint::verify(other.as_bytes(), &key).is_err());
        if let Some(entry) = ENTRIES.get(size) {
            tree.push(leaf_hash(entry.as_bytes()));
        }
    }
    for size in 1..CHECKPOINTS.len() {
        let disk = copy(&ENTRIES[..size], size);
        // Whoever remembers an earlier one is shown that it goes on from there.
        for earlier in 0..=size {
            let report = check(&disk, Some(&checkpoint(earlier))).unwrap();
            assert!(report.tiles_only);
            assert_eq!(
                (report.size, report.signed.size),
                (size as u64, size as u64)
            );
        }
        if let Some(later) = CHECKPOINTS.get(size + 1).map(|_| checkpoint(size + 1)) {
            assert!(check(&disk, Some(&later)).is_err());
        }
    }
    // Another word in any place is seen.
    for at in 0..ENTRIES.len() {
        let mut entries = ENTRIES;
        entries[at] = "zero";
        let failures = check(&copy(&entries, 15), None).unwrap_err();
        let is_root = |kind: &FailureKind| matches!(kind, FailureKind::Root { size: 15, .. });
        assert!(failures.iter().any(is_root), "{failures:?}");
    }
}
