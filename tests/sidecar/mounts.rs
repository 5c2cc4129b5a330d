//! What a test mounts for itself, and one database by the names that mounts give it.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::support::{Process, command_under, vendor};

/// A namespace with mounts of its own, which outlives the programs in it; nobody else sees them.
pub struct Mounted {
    holder: Child,
}

impl Mounted {
    /// By a script, whose `$0` is a folder. `None`, with a word, where nothing can be mounted.
    pub fn by(script: &str, place: &Path) -> Option<Self> {
        let mut try_out = Command::new("unshare");
        if !try_out.args(["-rm", "mount", "-t", "tmpfs", "none", "/mnt"]).output().is_ok_and(|run| run.status.success())
        {
            println!("left out: nothing can be mounted here");
            return None;
        }
        let mut command = Command::new("unshare");
        command.args(["-rm", "bash", "-c", &format!("{script} && echo mounted && exec cat")]).arg(place);
        let mut holder = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(holder.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line.trim(), "mounted");
        Some(Self { holder })
    }

    /// What starts a program that sees them.
    pub fn starter(&self) -> Vec<String> {
        let holder = self.holder.id().to_string();
        ["nsenter", "-t", &holder, "-U", "-m", "--preserve-credentials"].map(str::to_owned).into()
    }

    /// A file on them, as everybody else sees it.
    pub fn outside(&self, path: &Path) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{}", self.holder.id(), path.display()))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

#[test]
fn a_database_has_one_writer_though_a_mount_gives_it_another_name() {
    let (place, vendor) = (tempfile::tempdir().unwrap(), vendor());
    let at = |name: &str| place.path().join(name).display().to_string();
    std::fs::create_dir(at("books")).unwrap();
    std::fs::create_dir(at("folder")).unwrap();
    std::fs::write(at("file.db"), "").unwrap();
    let serve = |starter: &[&str], name: &str| {
        Process::serve_under(starter, &vendor.base_url(), &[("TOLLGATE_RECORDS_PATH", &*at(name))])
    };
    let is_refused = |starter: &[&str], name: &str| {
        let mut command = command_under(starter);
        command.args(["serve", "--upstream", &vendor.base_url()]).envs([
            ("TOLLGATE_RECORDS_PATH", &*at(name)),
            ("TOLLGATE_LISTEN", "127.0.0.1:0"),
            ("TOLLGATE_ADMIN", "127.0.0.1:0"),
            ("CLOUDFLARE_ACCOUNT_ID", "acc"),
        ]);
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains("are another sidecar"), "{name}: {said}");
    };
    let mut outside = serve(&[], "books/t.db");
    let binds = "mount --bind \"$0/books\" \"$0/folder\" && mount --bind \"$0/books/t.db\" \"$0/file.db\"";
    let Some(mounted) = Mounted::by(binds, place.path()) else { return };
    let starter = mounted.starter();
    let starter: Vec<_> = starter.iter().map(String::as_str).collect();
    for name in ["folder/t.db", "file.db", "books/t.db"] {
        is_refused(&starter, name);
    }
    outside.kill();
    let mut inside = serve(&starter, "folder/t.db");
    is_refused(&[], "books/t.db");
    is_refused(&starter, "file.db");
    inside.kill();
    let mut again = serve(&[], "books/t.db");
    again.kill();
}
