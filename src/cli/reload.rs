//! `tollgate reload`

use clap::Args;
use serde_json::Value;

use super::admin::AdminArgs;
use super::{Failure, print};

#[derive(Args, Debug)]
pub(super) struct Reload {
    #[command(flatten)]
    admin: AdminArgs,
    /// As JSON
    #[arg(long)]
    json: bool,
}

impl Reload {
    pub(super) fn run(self) -> Result<(), Failure> {
        // Where the config is wrong, its admin port is the one that it names nevertheless, or the one of --admin.
        let admin = self.admin.open()?;
        let (status, body) = admin.send(http::Method::POST, "/reload", None)?;
        if self.json {
            print(&format!("{body:#}\n"))?;
        }
        match status {
            200 if self.json => Ok(()),
            200 => print(&in_words(&body)),
            422 => Err(Failure::Usage(body["error"].as_str().unwrap_or("the config is wrong").to_owned())),
            _ => Err(super::admin::refused(status, &body)),
        }
    }
}

fn in_words(body: &Value) -> String {
    let names = |key: &str| {
        let names = body[key].as_array().into_iter().flatten().filter_map(Value::as_str);
        names.collect::<Vec<_>>().join(", ")
    };
    let (changed, restart) = (names("changed"), names("needs_restart"));
    let mut text = if changed.is_empty() { "nothing has changed\n".into() } else { format!("in force: {changed}\n") };
    if !restart.is_empty() {
        text += &format!("as before until a restart: {restart}\n");
    }
    text
}
