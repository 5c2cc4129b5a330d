//! The `tollgate` command: one file a subcommand.
//!
//! Exit codes: 0 done, 1 failed, 2 wrong usage or config, 3 asked and answered: the two sides differ.

mod admin;
mod advise;
mod check;
mod demo;
mod diff;
mod doctor;
mod estimate;
mod health;
mod keys;
mod logs;
mod manual;
mod models;
mod reconcile;
mod reload;
mod replicas;
mod report;
mod serve;
mod settings;
mod store;
mod usage;
mod watch;
mod webhooks;
mod what_if;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The gate in front of Cloudflare Workers AI.
#[derive(Debug, Parser)]
#[command(name = "tollgate", version, about, max_term_width = 100)]
struct Tollgate {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the sidecar
    Serve(serve::Serve),
    /// Check the config and show what is in force, secrets hidden
    Check(check::Check),
    /// Look at all that the gate stands on, and say in order what to mend; exit 1 where there is something, 2 for the config
    Doctor(doctor::Doctor),
    /// List the models: task, limit, prices
    Models(models::Models),
    /// Tell what a call would cost, from its body
    Estimate(estimate::Estimate),
    /// Have the running sidecar read its config again; exit 2 where that is wrong, and the one before stays in force
    Reload(reload::Reload),
    /// Make keys for clients
    Keys(keys::Keys),
    /// Sum up what was used, from the records
    Usage(usage::Usage),
    /// Make a page of what was spent, by who is charged: for a month's end
    Report(report::Report),
    /// Say what to change to spend less, by what the records show
    Advise(advise::Advise),
    /// Replay a time of the records against other settings: what would have been spent, refused and waited for
    WhatIf(what_if::WhatIf),
    /// Show the latest calls, from the records
    Logs(logs::Logs),
    /// Hold the records against the vendor's own books; exit 3 where they differ, 1 where they cannot be read
    Reconcile(reconcile::Reconcile),
    /// List the gates that share limits and budgets, and what each holds
    Replicas(replicas::Replicas),
    /// Ask a running gate whether it is ready; exit 1 where it is not
    Health(health::Health),
    /// Print a shell's completions
    Completions(manual::Completions),
    /// Print the manual page
    Man(manual::Man),
    /// Try the webhooks of the config
    Webhooks(webhooks::Webhooks),
    /// Try it all on this machine: a stand-in for Workers AI, the sidecar, and traffic
    Demo(demo::Demo),
}

/// Why a command failed, and with which code it exits.
#[derive(Debug)]
enum Failure {
    /// 1: it could not be done.
    Failed(String),
    /// 2: what was asked for cannot be.
    Usage(String),
    /// 3: what was compared differs.
    Differs(String),
}

/// Runs the command line.
pub fn main() -> ExitCode {
    let result = match Tollgate::parse().command {
        Command::Serve(command) => command.run(),
        Command::Check(command) => command.run(),
        Command::Doctor(command) => command.run(),
        Command::Models(command) => command.run(),
        Command::Estimate(command) => command.run(),
        Command::Reload(command) => command.run(),
        Command::Keys(command) => command.run(),
        Command::Usage(command) => command.run(),
        Command::Report(command) => command.run(),
        Command::Advise(command) => command.run(),
        Command::WhatIf(command) => command.run(),
        Command::Logs(command) => command.run(),
        Command::Reconcile(command) => command.run(),
        Command::Replicas(command) => command.run(),
        Command::Health(command) => command.run(),
        Command::Completions(command) => command.run(),
        Command::Man(command) => command.run(),
        Command::Webhooks(command) => command.run(),
        Command::Demo(command) => command.run(),
    };
    let (message, code) = match result {
        Ok(()) => return ExitCode::SUCCESS,
        Err(Failure::Failed(message)) => (message, 1),
        Err(Failure::Usage(message)) => (message, 2),
        Err(Failure::Differs(message)) => (message, 3),
    };
    eprintln!("tollgate: {message}");
    ExitCode::from(code)
}

/// Runs what waits for somebody's answer.
fn block_on<T>(work: impl Future<Output = T>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    Ok(runtime.map_err(|error| Failure::Failed(error.to_string()))?.block_on(work))
}

/// Prints to standard output; a reader that has left, such as `head`, is no failure.
fn print(text: &str) -> Result<(), Failure> {
    use std::io::Write;
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(Failure::Failed(error.to_string())),
        _ => Ok(()),
    }
}
