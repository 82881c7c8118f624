//! A signer that is away, lies, or asks what a checkpoint goes on from.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use curfew_ledger::merkle::verify_growth;
use curfew_ledger::signer::Extends;
use curfew_ledger::{Checkpoint, LogKey, Options, SignError, Signer, VerifierKey};

use crate::common::{check, create, disk, key, open, options};

/// How it behaves.
const HONEST: u8 = 0;
const AWAY: u8 = 1;
const OTHER_SIZE: u8 = 2;
const OTHER_KEY: u8 = 3;

/// Signs by [`key`], as a process of its own would: only what goes on from what it signed before.
#[derive(Debug)]
struct Careful {
    mood: AtomicU8,
    nonces: AtomicBool,
    last: Mutex<Option<Checkpoint>>,
}

impl Careful {
    fn new() -> Arc<Careful> {
        Arc::new(Careful {
            mood: AtomicU8::new(HONEST),
            nonces: AtomicBool::new(true),
            last: Mutex::new(None),
        })
    }
}

impl Signer for Careful {
    fn name(&self) -> &str {
        "example.com/curfew"
    }

    fn verifiers(&self) -> Vec<VerifierKey> {
        vec![key().verifier()]
    }

    fn sign_checkpoint(
        &self,
        checkpoint: &Checkpoint,
        extends: &dyn Extends,
    ) -> Result<String, SignError> {
        let mut asked = checkpoint.clone();
        match self.mood.load(Ordering::SeqCst) {
            AWAY => return Err(SignError::Unreachable(std::io::ErrorKind::NotFound.into())),
            OTHER_SIZE => asked.size += 1,
            OTHER_KEY => {
                return LogKey::from_seed("example.com/curfew", &[9; 32])
                    .unwrap()
                    .sign_checkpoint(checkpoint, extends);
            }
            _ => {}
        }
        let mut last = self.last.lock().unwrap();
        if let Some(last) = &*last {
            let proof = extends.consistency_proof(last.size)?;
            let whole = verify_growth(
                last.size,
                checkpoint.size,
                &proof,
                &last.root,
                &checkpoint.root,
            );
            assert_eq!(whole, Ok(()), "from {} to {}", last.size, checkpoint.size);
        }
        *last = Some(checkpoint.clone());
        key().sign_checkpoint(&asked, extends)
    }

    fn frame_nonces(&self, epoch: u64) -> Result<Vec<u64>, SignError> {
        if self.nonces.load(Ordering::SeqCst) {
            key().frame_nonces(epoch)
        } else {
            Err(SignError::Unreachable(std::io::ErrorKind::NotFound.into()))
        }
    }
}

fn with(signer: &Arc<Careful>) -> Options {
    Options {
        signer: signer.clone(),
        publish_interval: Duration::from_millis(1),
        ..options()
    }
}

#[test]
fn a_signer_may_ask_what_each_checkpoint_goes_on_from() {
    let (disk, signer) = (disk(), Careful::new());
    let log = create(&disk, with(&signer));
    for size in [1, 2, 3, 255, 256, 257, 300, 511, 513] {
        log.fill(size);
        log.acks.wait(|state| published(state, size));
    }
    log.writer.close().unwrap();
    assert_eq!(check(&disk).unwrap().size, 513);
}

fn published(state: &crate::common::AckState, size: u64) -> bool {
    let line = format!("\n{size}\n");
    state
        .published
        .last()
        .is_some_and(|note| note.contains(&line))
}

#[test]
fn entries_stay_durable_while_nobody_signs_and_are_signed_afterwards() {
    for mood in [AWAY, OTHER_SIZE, OTHER_KEY] {
        let (disk, signer) = (disk(), Careful::new());
        let log = create(&disk, with(&signer));
        log.fill(10);
        log.acks.wait(|state| published(state, 10));
        signer.mood.store(mood, Ordering::SeqCst);
        log.fill(400);
        let state = log.acks.wait(|state| !state.publish_failed.is_empty());
        assert!(state.publish_failed[0].contains("signer"), "{mood}");
        assert!(state.failed.is_empty());
        signer.mood.store(HONEST, Ordering::SeqCst);
        log.acks.wait(|state| published(state, 400));
        log.writer.close().unwrap();
        let report = check(&disk).unwrap();
        assert_eq!(report.size, 400);
    }
}

#[test]
fn a_log_is_not_opened_while_its_signer_cannot_tell_its_frames() {
    let (disk, signer) = (disk(), Careful::new());
    let log = create(&disk, with(&signer));
    log.fill(10);
    log.writer.close().unwrap();
    signer.nonces.store(false, Ordering::SeqCst);
    let refused = open(&disk, with(&signer)).err().unwrap();
    assert!(matches!(refused, curfew_ledger::OpenError::Sign(_)));
    signer.nonces.store(true, Ordering::SeqCst);
    open(&disk, with(&signer)).unwrap().check_entries(10);
}
