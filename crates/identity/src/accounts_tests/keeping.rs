//! What is kept, and what survives a restart.

use super::*;

#[test]
fn a_new_password_replaces_the_old_one() {
    let bench = Bench::new();
    let new = "cherry tart at one";
    bench
        .accounts()
        .set_password(&alice(), &secret(new))
        .unwrap();
    assert_eq!(
        cause(bench.sign_in(PASSWORD, 1, NOON)),
        RefusalCause::WrongPassword
    );
    bench.sign_in(new, 1, NOON).unwrap();
}

#[test]
fn a_new_totp_secret_replaces_the_old_one() {
    let mut bench = Bench::new();
    bench.sign_in(PASSWORD, 1, NOON).unwrap();
    let enrollment = bench.accounts().renew_totp(&alice()).unwrap();
    assert_eq!(
        cause(bench.sign_in(PASSWORD, 1, NOON + 60)),
        RefusalCause::WrongCode
    );
    bench.totp = TotpSecret::from_base32(enrollment.secret.expose_secret()).unwrap();
    bench.sign_in(PASSWORD, 1, NOON + 60).unwrap();
}

#[test]
fn new_roles_are_those_of_the_next_sign_in() {
    let bench = Bench::new();
    let new = BTreeSet::from(["auditor".parse().unwrap()]);
    bench.accounts().set_roles(&alice(), new.clone()).unwrap();
    assert_eq!(bench.view().roles, new);
    assert_eq!(bench.sign_in(PASSWORD, 1, NOON).unwrap().roles, new);
}

#[test]
fn an_old_hash_is_made_anew_at_the_next_sign_in() {
    let mut bench = Bench::new();
    bench.accounts = None;
    bench.accounts = Some(open(&bench.path(), 1, PasswordCost::Standard).unwrap());
    let phc = |bench: &Bench| bench.accounts().store.find("alice").unwrap().record.phc;
    let old = phc(&bench);
    assert!(bench.sign_in("plum tart at one", 1, NOON).is_err());
    assert_eq!(phc(&bench), old);
    bench.sign_in(PASSWORD, 1, NOON).unwrap();
    assert!(phc(&bench).starts_with("$argon2id$v=19$m=19456,t=2,p=1$"));
    bench.sign_in(PASSWORD, 1, NOON + 60).unwrap();
}

#[test]
fn what_is_given_out_at_enrollment() {
    let bench = Bench::new();
    let bob: SubjectName = "bob@example.org".parse().unwrap();
    let enrollment = bench
        .accounts()
        .add(&bob, roles(), &secret(PASSWORD))
        .unwrap();
    let base32 = enrollment.secret.expose_secret();
    assert_eq!(base32.len(), 32);
    assert_eq!(
        enrollment.uri.expose_secret(),
        format!(
            "otpauth://totp/Curfew:bob@example.org?secret={base32}&issuer=Curfew\
             &algorithm=SHA1&digits=6&period=30"
        )
    );
    let shown = format!("{enrollment:?} {:?} {:?}", bench.accounts(), bench.totp);
    assert!(!shown.contains(base32) && !shown.contains("otpauth"));
    let names: Vec<_> = bench.accounts().list().unwrap();
    let names: Vec<_> = names.iter().map(|view| view.subject.as_str()).collect();
    assert_eq!(names, ["alice", "bob@example.org"]);
}

#[test]
fn what_cannot_be_done() {
    let bench = Bench::new();
    let accounts = bench.accounts();
    let bob: SubjectName = "bob".parse().unwrap();
    assert!(matches!(
        accounts.add(&alice(), roles(), &secret("cherry tart at one")),
        Err(IdentityError::Exists(name)) if name == alice()
    ));
    assert!(matches!(
        accounts.add(&bob, roles(), &secret("short")),
        Err(IdentityError::WeakPassword(WeakPassword::TooShort))
    ));
    assert!(matches!(
        accounts.set_password(&alice(), &secret("alicealicealice")),
        Err(IdentityError::WeakPassword(WeakPassword::LikeName))
    ));
    assert_eq!(accounts.get(&bob).unwrap(), None);
    let unknown = [
        accounts.set_password(&bob, &secret(PASSWORD)).unwrap_err(),
        accounts.renew_totp(&bob).unwrap_err(),
        accounts.set_disabled(&bob, true).unwrap_err(),
        accounts.set_roles(&bob, roles()).unwrap_err(),
    ];
    for error in unknown {
        assert!(matches!(error, IdentityError::Unknown(_)), "{error}");
    }
    assert_eq!(accounts.list().unwrap().len(), 1);
    // What was there before still is.
    bench.sign_in(PASSWORD, 1, NOON).unwrap();
}

#[test]
fn the_wrong_vault_key_is_named_and_changes_nothing() {
    let mut bench = Bench::new();
    bench.accounts = None;
    let error = open(&bench.path(), 2, PasswordCost::Minimal).unwrap_err();
    assert!(matches!(&error, IdentityError::WrongVaultKey(path) if *path == bench.path()));
    assert!(
        error
            .to_string()
            .starts_with("the vault key is not the one that ")
    );
    assert!(!error.client_text().contains("key"));
    bench.reopen();
    bench.sign_in(PASSWORD, 1, NOON).unwrap();
}

#[test]
fn a_second_opener_is_told_that_the_store_is_in_use() {
    let bench = Bench::new();
    let error = open(&bench.path(), 1, PasswordCost::Minimal).unwrap_err();
    assert!(matches!(error, IdentityError::InUse(_)), "{error}");
}

#[test]
fn the_file_is_its_owners_only() {
    let bench = Bench::new();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&bench.path()), 0o600);
    assert_eq!(mode(bench.path().parent().unwrap()), 0o700);
}

#[test]
fn a_file_or_folder_open_to_others_is_refused() {
    let mut bench = Bench::new();
    bench.accounts = None;
    let path = bench.path();
    let chmod = |path: &Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    let refused = || {
        matches!(
            open(&path, 1, PasswordCost::Minimal),
            Err(IdentityError::Exposed { .. })
        )
    };
    chmod(&path, 0o640);
    assert!(refused());
    chmod(&path, 0o600);
    let folder = path.parent().unwrap();
    chmod(folder, 0o770);
    assert!(refused());
    chmod(folder, 0o755);
    bench.reopen();
}

#[test]
fn a_damaged_file_is_an_error_and_no_panic() {
    let mut bench = Bench::new();
    bench.accounts = None;
    std::fs::write(bench.path(), vec![7; 40_000]).unwrap();
    let error = open(&bench.path(), 1, PasswordCost::Minimal).unwrap_err();
    assert!(matches!(error, IdentityError::Store(_)), "{error}");
    assert_eq!(
        error.client_text(),
        "Accounts are not available at the moment"
    );
}

#[test]
fn the_file_holds_no_secret_in_the_clear() {
    let mut bench = Bench::new();
    bench.sign_in(PASSWORD, 1, NOON).unwrap();
    let typed = "a password typed as name";
    let _ = bench.attempt(typed, "x", "123456", 1, NOON);
    bench.accounts = None;
    let file = std::fs::read(bench.path()).unwrap();
    let holds = |needle: &[u8]| file.windows(needle.len()).any(|part| part == needle);
    let in_json = serde_json::to_string(bench.totp.as_bytes()).unwrap();
    assert!(holds(b"alice"));
    assert!(!holds(PASSWORD.as_bytes()));
    assert!(!holds(typed.as_bytes()));
    assert!(!holds(bench.totp.as_bytes()));
    assert!(!holds(in_json.trim_matches(['[', ']']).as_bytes()));
    assert!(!holds(bench.totp.to_base32().expose_secret().as_bytes()));
}

#[test]
fn a_store_whose_disk_failed_is_opened_again_by_itself() {
    use std::sync::atomic::Ordering::SeqCst;
    let bench = Bench::new();
    let accounts = bench.accounts();
    let disk = &accounts.store.disk;
    let opened = disk.opened.load(SeqCst);
    disk.broken.store(true, SeqCst);
    for _ in 0..3 {
        let code = bench.code(NOON);
        let failed = accounts.verify("alice", &secret(PASSWORD), &code, &at_home(1), at(NOON));
        assert!(matches!(failed, Err(SignInError::Failed(_))), "{failed:?}");
        accounts.check().unwrap_err();
    }
    disk.broken.store(false, SeqCst);
    // Nothing of the attempts that failed is left: the code is not used up.
    bench.sign_in(PASSWORD, 1, NOON).unwrap();
    accounts.check().unwrap();
    assert_eq!(
        cause(bench.sign_in(PASSWORD, 1, NOON)),
        RefusalCause::CodeReused
    );
    let after = disk.opened.load(SeqCst);
    assert!(after > opened);
    bench.sign_in(PASSWORD, 1, NOON + 60).unwrap();
    assert_eq!(
        disk.opened.load(SeqCst),
        after,
        "it is not opened for nothing"
    );
}

#[test]
fn a_store_that_is_gone_is_not_made_anew_under_a_running_gateway() {
    use std::sync::atomic::Ordering::SeqCst;
    let bench = Bench::new();
    let accounts = bench.accounts();
    accounts.store.disk.broken.store(true, SeqCst);
    accounts.check().unwrap_err();
    accounts.list().unwrap_err();
    accounts.store.disk.broken.store(false, SeqCst);
    std::fs::remove_file(bench.path()).unwrap();
    accounts.check().unwrap_err();
    assert!(!bench.path().exists());
}
