//! `tollgate keys`

use std::io::Read;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clap::{Args, Subcommand};

use super::{Failure, print};
use crate::layers::identify::keys::sha256;

#[derive(Args, Debug)]
pub(super) struct Keys {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a key for a client: it is shown once and kept nowhere
    New {
        /// Names it in records and budgets
        name: String,
    },
}

/// 192 bits: nobody guesses it, and its SHA-256 needs no salt.
const KEY_BYTES: usize = 24;

impl Keys {
    pub(super) fn run(self) -> Result<(), Failure> {
        let Command::New { name } = self.command;
        if name.is_empty() || name.len() > 64 {
            return Err(Failure::Usage("a key's name has 1 to 64 bytes".into()));
        }
        let mut random = [0; KEY_BYTES];
        let source = std::fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut random));
        source.map_err(|error| Failure::Failed(format!("no random numbers from /dev/urandom: {error}")))?;
        let key = format!("tg_{}", URL_SAFE_NO_PAD.encode(random));
        let name = toml::Value::from(name);
        print(&format!(
            "The key, for the client. It is not shown again:\n\n    {key}\n\nIn the config:\n\n    [[keys]]\n    \
             name = {name}\n    sha256 = \"{}\"\n",
            sha256(&key)
        ))
    }
}
