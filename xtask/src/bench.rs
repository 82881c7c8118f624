//! What can be measured.

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};

use crate::Failure;
use crate::run::{cargo, step};
use crate::system::{self, Need};

/// A measurement: a bench target that takes its own arguments and prints its own table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bench {
    /// What it is called on the command line.
    name: &'static str,
    /// What it measures, for `--help`.
    about: &'static str,
    /// The package whose target it is.
    package: &'static str,
    /// The `[[bench]]` target.
    target: &'static str,
    /// The features it is built with.
    features: &'static [&'static str],
    /// What must be installed to run it, beyond what it takes to build.
    needs: &'static [Need],
}

/// Every measurement. One more is one line here and a `[[bench]]` target without harness that
/// ends at once when it is given `--test`.
const BENCHES: [Bench; 6] = [
    Bench {
        name: "conceal",
        about: "What concealing values costs a writer of entries; the argument is seconds each",
        package: "curfew-values",
        target: "conceal",
        features: &[],
        needs: &[],
    },
    Bench {
        name: "cut",
        about: "How late live traffic is cut, beside PostgreSQL's own idle_session_timeout",
        package: "curfew-gateway",
        target: "cut",
        features: &[],
        needs: &system::TO_RUN,
    },
    Bench {
        name: "ledger",
        about: "How fast entries become durable, beside a bare loop, SQLite and fjall",
        package: "curfew-sim",
        target: "ledger",
        features: &["rivals"],
        needs: &[],
    },
    Bench {
        name: "search",
        about: "How fast entries are found in a log of ten million, beside reading all of it",
        package: "curfew-search",
        target: "search",
        features: &[],
        needs: &[],
    },
    Bench {
        name: "storage",
        about: "How much a sealed log takes on disk beside its entries; the argument is their number",
        package: "curfew-verify",
        target: "storage",
        features: &[],
        needs: &[],
    },
    Bench {
        name: "verify",
        about: "How fast a log is proved, and in how much memory; arguments are sizes in entries",
        package: "curfew-verify",
        target: "verify",
        features: &[],
        needs: &[],
    },
];

impl Bench {
    /// Reads a measurement's name.
    pub(crate) fn parser() -> impl TypedValueParser<Value = Self> {
        let names = BENCHES.map(|bench| PossibleValue::new(bench.name).help(bench.about));
        PossibleValuesParser::new(names).try_map(|name| {
            BENCHES
                .into_iter()
                .find(|bench| bench.name == name)
                .ok_or("there is no such measurement")
        })
    }

    /// Builds it with optimisation and runs it, with `arguments` handed on.
    pub(crate) fn run(self, arguments: &[String]) -> Result<(), Failure> {
        system::install(&system::TO_BUILD)?;
        system::install(self.needs)?;
        let mut command = cargo(&["bench", "--package", self.package, "--bench", self.target]);
        command.arg("--features").arg(self.features.join(","));
        command.arg("--").args(arguments);
        step(&format!("bench {}", self.name), &mut command)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::workspace;

    #[test]
    fn every_measurement_is_a_bench_target_of_its_package() {
        for bench in BENCHES {
            let folder = bench.package.strip_prefix("curfew-").unwrap();
            let manifest = workspace().join("crates").join(folder).join("Cargo.toml");
            let text = std::fs::read_to_string(&manifest).unwrap();
            let target = format!("[[bench]]\nname = \"{}\"\nharness = false", bench.target);
            assert!(text.contains(&target), "{}: {target}", manifest.display());
        }
    }
}
