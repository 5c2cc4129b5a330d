//! What a gate offers to the next one: its listening sockets, on a Unix socket that its own user alone may reach.

use std::io;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::pass::{Sockets, give};

/// Sockets that may be had, and where.
#[derive(Debug)]
pub(in crate::sidecar) struct Offer {
    path: PathBuf,
    listener: UnixListener,
    sockets: Arc<Sockets>,
}

/// Out of descriptors: others may end meanwhile.
const BREATH: Duration = Duration::from_millis(100);

impl Offer {
    /// Takes the place of what is there, be it a gate's that has ended or that has handed over to this one.
    pub(in crate::sidecar) fn new(path: &Path, listen: Vec<TcpListener>, admin: Vec<TcpListener>) -> io::Result<Self> {
        // Nobody connects to a name that is not told, and what gets its name is the owner's alone.
        let mut unnamed = path.as_os_str().to_owned();
        unnamed.push(format!(".{}", std::process::id()));
        let unnamed = PathBuf::from(unnamed);
        let bound = UnixListener::bind(&unnamed).and_then(|listener| {
            listener.set_nonblocking(true)?;
            std::fs::set_permissions(&unnamed, std::fs::Permissions::from_mode(0o600))?;
            std::fs::rename(&unnamed, path)?;
            Ok(listener)
        });
        let listener = bound.inspect_err(|_| drop(std::fs::remove_file(&unnamed)))?;
        Ok(Self { path: path.to_owned(), listener, sockets: Arc::new(Sockets { listen, admin }) })
    }

    /// Until the next gate has taken them, which then stops this one, or until it is stopped otherwise.
    pub(in crate::sidecar) async fn wait(self, stop: CancellationToken) -> io::Result<()> {
        let listener = tokio::net::UnixListener::from_std(self.listener)?;
        while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
            let (stream, _) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "the next gate could not be heard (handover_path)");
                    tokio::time::sleep(BREATH).await;
                    continue;
                }
            };
            let sockets = self.sockets.clone();
            let given = tokio::task::spawn_blocking(move || {
                let stream: UnixStream = stream.into_std()?;
                stream.set_nonblocking(false)?;
                give(&stream, &sockets)
            });
            match given.await.unwrap_or_else(|error| Err(io::Error::other(error))) {
                Ok(()) => {
                    tracing::info!("another gate has taken the sockets: this one ends what it has begun");
                    stop.cancel();
                    // The path is the next one's from here on.
                    return Ok(());
                }
                Err(error) => tracing::warn!(%error, "sockets were asked for and not taken: this gate goes on"),
            }
        }
        drop(std::fs::remove_file(&self.path));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_is_the_owners_alone_and_is_taken_from_one_that_has_ended() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("handover.sock");
        let first = Offer::new(&path, Vec::new(), Vec::new()).unwrap();
        drop(first);
        assert!(UnixStream::connect(&path).is_err(), "a gate that has ended offers something");
        let _second = Offer::new(&path, Vec::new(), Vec::new()).unwrap();
        UnixStream::connect(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 1);
        let long = place.path().join("x".repeat(200));
        assert!(Offer::new(&long, Vec::new(), Vec::new()).is_err(), "a path has at most 107 bytes");
    }
}
