//! A Redis of the test's own, as `tests/all` installs it; or another server of its kind, which `TOLLGATE_TEST_STORE_SERVER` names.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::support::tool;

/// A server on a free port of loopback; it ends with the test.
pub struct Redis {
    child: Child,
    place: tempfile::TempDir,
    bin: PathBuf,
    more: Vec<String>,
    pub port: u16,
}

impl Redis {
    /// `None`, with a word, where none is installed.
    pub fn start() -> Option<Self> {
        Self::start_with(&[])
    }

    /// With these arguments more.
    pub fn start_with(more: &[&str]) -> Option<Self> {
        let more: Vec<_> = more.iter().map(|&word| word.to_owned()).collect();
        let bin = PathBuf::from(tool("TOLLGATE_TEST_REDIS", "gates that share a Redis")?);
        let place = tempfile::tempdir().unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let child = spawn(&bin, place.path(), port, &more);
        let redis = Self { child, place, bin, more, port };
        redis.wait();
        Some(redis)
    }

    /// A Sentinel that watches the server on this port of loopback, by the name of `primary`.
    pub fn sentinel(of: u16) -> Option<Self> {
        let bin = PathBuf::from(tool("TOLLGATE_TEST_REDIS", "gates that share a Redis")?);
        let place = tempfile::tempdir().unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let config = place.path().join("sentinel.conf");
        let lines = [
            format!("port {port}\nbind 127.0.0.1\nsentinel monitor primary 127.0.0.1 {of} 1"),
            "sentinel down-after-milliseconds primary 500\nsentinel failover-timeout primary 2000\n".into(),
        ];
        std::fs::write(&config, lines.join("\n")).unwrap();
        let mut command = server(&bin);
        let child = command.arg(config).arg("--sentinel").stdout(Stdio::null()).spawn().unwrap();
        let sentinel = Self { child, place, bin, more: Vec::new(), port };
        sentinel.wait();
        Some(sentinel)
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    fn wait(&self) {
        let is_up = |_: &u32| {
            std::thread::sleep(Duration::from_millis(20));
            std::net::TcpStream::connect(("127.0.0.1", self.port)).is_ok()
        };
        (0..1000).find(is_up).expect("redis-server does not listen");
    }

    /// What `redis-cli` says.
    pub fn ask(&self, words: &[&str]) -> String {
        let mut command = Command::new(self.bin.join("redis-cli"));
        command.args(["-p", &self.port.to_string()]).args(words).env("LD_LIBRARY_PATH", libraries(&self.bin));
        String::from_utf8_lossy(&command.output().unwrap().stdout).into_owned()
    }

    /// As `kill -9` does.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Its log of changes is lost.
    pub fn forget(&self) {
        for entry in std::fs::read_dir(self.place.path()).unwrap() {
            drop(std::fs::remove_dir_all(entry.unwrap().path()));
        }
    }

    /// Where it would write is gone.
    pub fn forget_place(&self) {
        std::fs::remove_dir_all(self.place.path()).unwrap();
    }

    /// The same again, with what its log of changes has.
    pub fn start_again(&mut self) {
        self.child = spawn(&self.bin, self.place.path(), self.port, &self.more);
        self.wait();
    }
}

fn libraries(bin: &Path) -> PathBuf {
    bin.join("../lib/x86_64-linux-gnu")
}

fn server(bin: &Path) -> Command {
    let named = std::env::var_os("TOLLGATE_TEST_STORE_SERVER").map(PathBuf::from);
    let mut command = Command::new(named.unwrap_or_else(|| bin.join("redis-server")));
    command.env("LD_LIBRARY_PATH", libraries(bin));
    command
}

fn spawn(bin: &Path, place: &Path, port: u16, more: &[String]) -> Child {
    server(bin)
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "yes", "--dir"])
        .arg(place)
        .args(more)
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

impl Drop for Redis {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
