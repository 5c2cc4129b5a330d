//! `tollgate completions` and `tollgate man`: for packages.

use std::path::PathBuf;

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::{Failure, Tollgate, print};

#[derive(Args, Debug)]
pub(super) struct Completions {
    /// The shell that completes
    shell: Shell,
}

#[derive(Args, Debug)]
pub(super) struct Man {
    /// Write a page for each command into this directory, instead of the first one to standard output
    #[arg(long, value_name = "DIRECTORY")]
    out: Option<PathBuf>,
}

impl Completions {
    pub(super) fn run(self) -> Result<(), Failure> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Tollgate::command(), "tollgate", &mut script);
        print(&String::from_utf8_lossy(&script))
    }
}

impl Man {
    pub(super) fn run(self) -> Result<(), Failure> {
        let failed = |error: std::io::Error| Failure::Failed(format!("the manual cannot be written: {error}"));
        let command = Tollgate::command();
        match self.out {
            Some(directory) => {
                std::fs::create_dir_all(&directory).map_err(failed)?;
                clap_mangen::generate_to(command, directory).map_err(failed)
            }
            None => {
                let mut page = Vec::new();
                clap_mangen::Man::new(command).render(&mut page).map_err(failed)?;
                print(&String::from_utf8_lossy(&page))
            }
        }
    }
}
