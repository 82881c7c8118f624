//! `curfew-verify`: proves a Curfew audit log offline.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use curfew_verify::cli::{self, EXIT_CODES, Options};

/// Proves a Curfew audit log, without trusting whoever keeps it.
///
/// Integrity: nothing was changed, dropped, inserted or signed by anybody else. Legitimacy: no
/// action outside a live session, no limit passed, no session that ended late or never.
#[derive(Debug, Parser)]
#[command(name = "curfew-verify", version, after_help = EXIT_CODES)]
struct Arguments {
    #[command(flatten)]
    options: Options,
    /// The directory of the log, with `checkpoint` in it and `segments`; or of a copy of it that has
    /// only `checkpoint` and `tile`, in the form of C2SP tlog-tiles; or the address at which these are
    /// served, such as https://curfew.example.com/log/.
    #[arg(value_name = "DIR|URL", required_unless_present = "receipt")]
    dir: Option<PathBuf>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let dir = arguments.dir.unwrap_or_default();
    ExitCode::from(cli::run(&arguments.options, &dir))
}
