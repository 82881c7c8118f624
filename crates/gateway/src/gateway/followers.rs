//! What follows the log's checkpoints: set up before the log is opened, started once it is.

use std::sync::Arc;

use curfew_custody::standing::Standing;
use curfew_custody::{archive, forward, retention, signing, stamps, witness};
use curfew_gate::recorder::Durability;
use curfew_ledger::rotate::RotateError;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{Core, Gateway, StartError};
use crate::config::Config;
use crate::data::{DataDir, DataError};

/// What follows the log's checkpoints, looked at and not started yet.
pub(super) struct Followers {
    forwards: Vec<forward::Setup>,
    archive: Option<archive::Setup>,
    retention: Option<retention::Setup>,
    stamps: Option<stamps::Setup>,
    witnesses: Option<witness::Setup>,
}

impl Followers {
    pub(super) fn of(config: &Config) -> Result<Self, StartError> {
        let data = DataDir::of(config);
        data.master()?;
        // Before anybody is told by which key the log is signed.
        data.finish_rotation()?;
        let archive = archive(config)?;
        let place = forward::Place {
            origin: config.origin.clone(),
            ledger: data.ledger(),
            cursors: data.cursors(),
        };
        let forwards = forward::Setup::all(&config.forward, &place)?;
        let receivers = forwards.iter().map(forward::Setup::progress);
        let covers = archive.as_ref().map(archive::Setup::progress);
        let retention = match &config.log.retention {
            Some(retention) => {
                let key = data.verifier()?;
                let ledger = data.ledger();
                Some(retention::Setup::new(
                    retention, ledger, &key, receivers, covers,
                ))
            }
            None => None,
        };
        Ok(Self {
            retention,
            forwards,
            archive,
            stamps: stamps(config)?,
            witnesses: witnesses(config)?,
        })
    }

    /// Takes in the statements on all changes of the log's key.
    pub(super) fn follow(&mut self, rotations: &[String]) -> Result<(), StartError> {
        let wrong = |error| DataError::from(RotateError::from(error));
        if let Some(retention) = &mut self.retention {
            retention.follow(rotations).map_err(wrong)?;
        }
        if let Some(stamps) = &mut self.stamps {
            stamps.follow(rotations).map_err(wrong)?;
        }
        if let Some(witnesses) = &mut self.witnesses {
            witnesses.follow(rotations).map_err(wrong)?;
        }
        Ok(())
    }

    pub(super) fn standing(&self, core: &Core) -> Standing {
        let receivers = self.forwards.iter().map(forward::Setup::progress);
        let archive = self.archive.iter().map(archive::Setup::progress);
        let witnesses = self.witnesses.iter().map(witness::Setup::progress);
        Standing::new(
            receivers.chain(archive).chain(witnesses).collect(),
            self.stamps.is_some(),
            core.data.ledger(),
            &core.durability,
            &core.accounts,
            &core.conditions,
        )
    }

    pub(super) fn start(
        self,
        tasks: &mut JoinSet<()>,
        gateway: &Gateway,
        durability: Arc<Durability>,
        (stopping, closed): (&CancellationToken, &CancellationToken),
    ) {
        for setup in self.forwards {
            tasks.spawn(setup.run(durability.checkpoints(), stopping.clone()));
        }
        tasks.spawn(signing::watch(
            gateway.registrar().clone(),
            durability.signing(),
            gateway.config.log.signing_alarm_after.0,
            stopping.clone(),
        ));
        if let Some(archive) = self.archive {
            let (registrar, checkpoints) = (gateway.registrar().clone(), durability.checkpoints());
            tasks.spawn(archive.run(registrar, checkpoints, closed.clone()));
        }
        if let Some(retention) = self.retention {
            let (registrar, values) = (gateway.registrar().clone(), gateway.portal.values.clone());
            let checkpoints = durability.checkpoints();
            let conditions = Arc::clone(&gateway.standing().conditions);
            let told = (conditions, stopping.clone());
            tasks.spawn(retention.run(registrar, values, checkpoints, told));
        }
        if let Some(stamps) = self.stamps {
            let (registrar, durability) = (gateway.registrar().clone(), Arc::clone(&durability));
            tasks.spawn(stamps.run(registrar, durability, closed.clone()));
        }
        if let Some(witnesses) = self.witnesses {
            let registrar = gateway.registrar().clone();
            tasks.spawn(witnesses.run(registrar, durability, closed.clone()));
        }
    }
}

/// The log's archive, where one is configured.
fn archive(config: &Config) -> Result<Option<archive::Setup>, StartError> {
    let ledger = DataDir::of(config).ledger();
    let archive = config.archive.as_ref();
    let setup = archive.map(|archive| archive::Setup::new(archive, &ledger));
    Ok(setup.transpose()?)
}

/// The log's witnesses, where some are configured.
fn witnesses(config: &Config) -> Result<Option<witness::Setup>, StartError> {
    let Some(witnesses) = &config.log.witness else {
        return Ok(None);
    };
    let data = DataDir::of(config);
    let setup = witness::Setup::new(witnesses, &data.ledger(), data.verifier()?)?;
    Ok(Some(setup))
}

/// The timestamping authority, where one is configured.
fn stamps(config: &Config) -> Result<Option<stamps::Setup>, StartError> {
    let Some(timestamp) = &config.log.timestamp else {
        return Ok(None);
    };
    let data = DataDir::of(config);
    let is_witnessed = config.log.witness.is_some();
    let key = data.verifier()?;
    let setup = stamps::Setup::new(timestamp, &data.ledger(), key, is_witnessed)?;
    Ok(Some(setup))
}
