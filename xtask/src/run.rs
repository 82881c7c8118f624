//! Running programs.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use crate::{Failure, say};

/// Where a program is found, if it is.
pub(crate) fn on_path(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path)
        .map(|folder| folder.join(program))
        .find(|file| file.is_file())
}

/// The workspace's folder.
pub(crate) fn workspace() -> &'static Path {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().unwrap_or(own)
}

/// Cargo in the workspace, with libclang where bindgen finds it.
pub(crate) fn cargo(arguments: &[&str]) -> Command {
    let program = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(program);
    command.args(arguments).current_dir(workspace());
    if let Some(folder) = crate::system::libclang_folder() {
        command.env("LIBCLANG_PATH", folder);
    }
    command
}

/// Where cargo puts what it builds for `profile`.
pub(crate) fn built(profile: &str, program: &str) -> PathBuf {
    let target =
        env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), PathBuf::from);
    target.join(profile).join(program)
}

/// Runs a command to its end, with our own input and output.
pub(crate) fn run(command: &mut Command) -> Result<(), Failure> {
    let name = command.get_program().to_string_lossy().into_owned();
    let status = command
        .status()
        .map_err(|error| Failure::Missing(format!("cannot run {name}: {error}")))?;
    if status.success() {
        return Ok(());
    }
    let words: Vec<_> = command
        .get_args()
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    Err(Failure::Step(format!(
        "`{name} {}` failed: {status}",
        words.join(" ")
    )))
}

/// Runs a command as a step with a heading and the time it took.
pub(crate) fn step(title: &str, command: &mut Command) -> Result<(), Failure> {
    say::step(title);
    let begun = Instant::now();
    run(command)?;
    say::done(title, begun.elapsed());
    Ok(())
}
