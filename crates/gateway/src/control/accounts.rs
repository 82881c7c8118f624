//! What an operator does to accounts. What can be refused is refused first, then it is recorded, and only
//! then done: an account is never what the log does not say.

use std::collections::BTreeSet;

use curfew_authority::Command;
use curfew_entry::{AccountChange, Actor, RoleName, SubjectName};
use curfew_identity::{AccountView, Accounts, IdentityError, TotpEnrollment};
use secrecy::ExposeSecret;

use super::{Desk, Outcome, Password, told};

impl Desk {
    pub(super) async fn add_user(
        &self,
        name: SubjectName,
        roles: BTreeSet<RoleName>,
        password: Password,
        by: Actor,
    ) -> Result<Outcome, String> {
        let (who, checked) = (name.clone(), password.clone());
        self.on_accounts(move |accounts| accounts.check_new(&who, &checked.0))
            .await?;
        let warnings = self.unknown_roles(&roles).await?;
        self.note(&name, AccountChange::Added(roles.clone()), by)
            .await?;
        let who = name.clone();
        let enrolled = self
            .on_accounts(move |accounts| accounts.add(&who, roles, &password.0))
            .await
            .map_err(|error| undone(&name, &error))?;
        Ok(enrolment(&enrolled, warnings))
    }

    pub(super) async fn set_password(
        &self,
        name: SubjectName,
        password: Password,
        by: Actor,
    ) -> Result<Outcome, String> {
        let (who, checked) = (name.clone(), password.clone());
        self.on_accounts(move |accounts| accounts.check_password(&who, &checked.0))
            .await?;
        self.note(&name, AccountChange::PasswordSet, by).await?;
        let who = name.clone();
        self.on_accounts(move |accounts| accounts.set_password(&who, &password.0))
            .await
            .map_err(|error| undone(&name, &error))?;
        Ok(Outcome::Done)
    }

    pub(super) async fn renew_totp(&self, name: SubjectName, by: Actor) -> Result<Outcome, String> {
        self.known(&name).await?;
        self.note(&name, AccountChange::TotpSet, by).await?;
        let who = name.clone();
        let enrolled = self
            .on_accounts(move |accounts| accounts.renew_totp(&who))
            .await
            .map_err(|error| undone(&name, &error))?;
        Ok(enrolment(&enrolled, Vec::new()))
    }

    pub(super) async fn set_disabled(
        &self,
        name: SubjectName,
        off: bool,
        by: Actor,
    ) -> Result<Outcome, String> {
        self.known(&name).await?;
        let change = if off {
            AccountChange::Disabled
        } else {
            AccountChange::Enabled
        };
        self.note(&name, change, by).await?;
        let who = name.clone();
        self.on_accounts(move |accounts| accounts.set_disabled(&who, off))
            .await
            .map_err(|error| undone(&name, &error))?;
        Ok(Outcome::Done)
    }

    pub(super) async fn list_users(&self) -> Result<Outcome, String> {
        let users: Vec<AccountView> = self.on_accounts(|accounts| accounts.list()).await?;
        Ok(Outcome::Users(serde_json::json!(users)))
    }

    async fn known(&self, name: &SubjectName) -> Result<(), String> {
        let who = name.clone();
        let found = self.on_accounts(move |accounts| accounts.get(&who)).await?;
        found
            .map(drop)
            .ok_or_else(|| IdentityError::Unknown(name.clone()).to_string())
    }

    /// What to say of roles that no rule of the policy in force speaks of.
    async fn unknown_roles(&self, roles: &BTreeSet<RoleName>) -> Result<Vec<String>, String> {
        let unknown = self.registrar.unknown_roles(roles.clone());
        let unknown = unknown.await.map_err(|refusal| told(refusal.into()))?;
        let warn = |it: curfew_authority::UnknownRole| format!("{it}; {}", it.hint);
        Ok(unknown.into_iter().map(warn).collect())
    }

    /// Has the change recorded, unless the authority refuses it: then nothing is changed.
    async fn note(
        &self,
        subject: &SubjectName,
        change: AccountChange,
        by: Actor,
    ) -> Result<(), String> {
        let subject = subject.clone();
        let command = Command::ChangeAccount {
            subject,
            change,
            by,
        };
        self.registrar.carry_out(command).await.map_err(told)
    }

    /// The accounts block, so they are asked on a thread that may.
    async fn on_accounts<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&Accounts) -> Result<T, IdentityError> + Send + 'static,
    ) -> Result<T, String> {
        let accounts = std::sync::Arc::clone(&self.accounts);
        tokio::task::spawn_blocking(move || ask(&accounts))
            .await
            .map_err(|error| error.to_string())?
            .map_err(|error| error.to_string())
    }
}

/// It is on record, and the file of accounts failed after all.
fn undone(name: &SubjectName, error: &str) -> String {
    format!(
        "the change of {name} is in the audit log, but was not made: {error}. Its sessions are as the log \
         says. Do it again once that is mended"
    )
}

fn enrolment(enrolled: &TotpEnrollment, warnings: Vec<String>) -> Outcome {
    Outcome::Enrolled {
        uri: enrolled.uri.expose_secret().to_owned(),
        secret: enrolled.secret.expose_secret().to_owned(),
        warnings,
    }
}
