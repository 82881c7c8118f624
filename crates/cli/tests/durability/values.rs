//! Concealed values of a real log, checked and exported on its host.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use crate::kit::Place;

fn curfew(place: &Place, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_curfew"));
    command.args(arguments).arg("--config");
    command.arg(place.dir.join("curfew.toml")).output().unwrap()
}

fn counts(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"))
}

/// The newest file of values.
fn records(values: &Path) -> std::path::PathBuf {
    let files = std::fs::read_dir(values)
        .unwrap()
        .map(|file| file.unwrap().path());
    let mut files: Vec<_> = files.filter(|path| path.extension().is_some()).collect();
    files.sort();
    files.pop().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn concealed_values_are_exported_and_held_against_the_log_and_damage_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let place = Place::new(dir.path()).await;
    place.configure("[log]\nconceal = [\"path\"]\n");
    let ana = place.session("ana", "worker").await;
    let served = place.serve();
    let client = place.client(&ana.bearer);
    for number in 0..5 {
        let url = place.url(&format!("/patients/{number}"));
        assert_eq!(client.post(url).send().await.unwrap().status(), 200);
    }
    place.published();
    served.kill();

    let good = curfew(&place, &["log", "values", "--json"]);
    assert!(good.status.success(), "{good:?}");
    let told = counts(&good);
    assert_eq!(
        (&told["entries"], &told["kept"]),
        (&5.into(), &5.into()),
        "{told}"
    );

    let export = ["log", "export", "--format", "cef", "--unsigned"];
    let plain = String::from_utf8(curfew(&place, &export).stdout).unwrap();
    assert!(
        plain.contains("commitment:") && !plain.contains("/patients/"),
        "{plain}"
    );
    let revealed = [&export[..], &["--reveal"]].concat();
    let opened = String::from_utf8(curfew(&place, &revealed).stdout).unwrap();
    for number in 0..5 {
        assert!(opened.contains(&format!("/patients/{number}")), "{opened}");
    }
    assert!(!opened.contains("commitment:"), "{opened}");

    // A byte of the last record is changed: its value is told as missing, and is not shown.
    let values = place.dir.join("data/values");
    let file = records(&values);
    let mut bytes = std::fs::read(&file).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let damaged = curfew(&place, &["log", "values", "--json"]);
    assert_eq!(damaged.status.code(), Some(1), "{damaged:?}");
    let told = counts(&damaged);
    assert_eq!(
        (&told["kept"], &told["missing"]),
        (&4.into(), &1.into()),
        "{told}"
    );
    let opened = String::from_utf8(curfew(&place, &revealed).stdout).unwrap();
    assert!(
        opened.contains("missing:") && !opened.contains("/patients/4"),
        "{opened}"
    );

    std::fs::remove_dir_all(&values).unwrap();
    let gone = curfew(&place, &["log", "values"]);
    assert_eq!(gone.status.code(), Some(1), "{gone:?}");
    let (whole, report) = place.verify();
    assert!(whole, "the log needs no values: {report}");
}
