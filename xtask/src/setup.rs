//! Set-up: lists what is missing, asks, installs, and looks again.

use std::io::{self, BufRead, IsTerminal, Write};

use anyhow::{Context, Result, bail, ensure};

use crate::{
    Consent,
    command::{self, as_root, is_root},
    machine,
    packages::{Manager, Need, Purpose, missing, packages},
};

/// Makes sure that everything for `purpose` is there.
pub(crate) fn ensure_installed(purpose: Purpose, consent: Consent) -> Result<()> {
    let needs = missing(purpose);
    if needs.is_empty() {
        return Ok(());
    }
    let Some(manager) = Manager::of_this_machine() else {
        let names: Vec<_> = needs.iter().map(|need| need.name()).collect();
        bail!("neither apt-get nor dnf is here; please install: {}", names.join(", "));
    };
    show(&needs, manager);
    ask(consent)?;
    install(&packages(&needs, manager), manager)?;
    let left: Vec<_> = missing(purpose).iter().map(|need| need.name()).collect();
    ensure!(left.is_empty(), "still missing after the installation: {}", left.join(", "));
    Ok(())
}

/// The task `setup`: packages, then what the machine itself lacks, in words.
pub(crate) fn run(purpose: Purpose, consent: Consent) -> Result<()> {
    ensure_installed(purpose, consent)?;
    println!("Everything that building, the demo and the tests need is installed.");
    machine::report();
    Ok(())
}

fn show(needs: &[&Need], manager: Manager) {
    println!("Missing on this machine:");
    for need in needs {
        let package = need.package(manager);
        println!("  {:<12} {} (package {package})", need.name(), need.why);
    }
}

fn ask(consent: Consent) -> Result<()> {
    if consent.yes {
        return Ok(());
    }
    ensure!(
        io::stdin().is_terminal(),
        "packages are missing and nobody can be asked: run this with --yes to install them"
    );
    print!("Install these packages{}? [y/N] ", if is_root() { "" } else { " with sudo" });
    io::stdout().flush().context("asking")?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer).context("reading the answer")?;
    ensure!(matches!(answer.trim(), "y" | "Y" | "yes"), "nothing was installed");
    Ok(())
}

fn install(packages: &[&str], manager: Manager) -> Result<()> {
    let steps: &[(&str, &[&str])] = match manager {
        Manager::Apt => &[
            ("apt-get", &["update", "--quiet"]),
            ("apt-get", &["install", "--quiet", "--yes", "--no-install-recommends"]),
        ],
        Manager::Dnf => &[("dnf", &["install", "--quiet", "--assumeyes"])],
    };
    for (program, arguments) in steps {
        let mut command = as_root(program)?;
        command.args(*arguments).env("DEBIAN_FRONTEND", "noninteractive");
        if arguments[0] == "install" {
            command.args(packages);
        }
        command::run(&mut command).context("installing packages")?;
    }
    Ok(())
}
