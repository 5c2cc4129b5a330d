//! A TCP proxy of the tests' own, which passes what comes, delays it, holds it, or cuts it off.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What becomes of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Pass,
    /// Each piece comes so much later.
    Delay(Duration),
    /// Nothing passes, and nobody is told. What was on its way comes when it passes again.
    Stop,
    /// Connections end, and no other is taken.
    Cut,
}

/// One on a free port of loopback, on a thread of its own; it ends with the test.
pub struct Proxy {
    pub port: u16,
    way: watch::Sender<Way>,
}

impl Proxy {
    /// Before this port of loopback.
    pub fn before(port: u16) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let own = listener.local_addr().unwrap().port();
        let (way, ways) = watch::channel(Way::Pass);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                serve(TcpListener::from_std(listener).unwrap(), ([127, 0, 0, 1], port).into(), ways).await;
            });
        });
        Self { port: own, way }
    }

    pub fn set(&self, way: Way) {
        self.way.send_replace(way);
    }
}

async fn serve(listener: TcpListener, to: SocketAddr, ways: watch::Receiver<Way>) {
    let mut ended = ways.clone();
    loop {
        let from = tokio::select! {
            accepted = listener.accept() => accepted.unwrap().0,
            () = async { while ended.changed().await.is_ok() {} } => return,
        };
        tokio::spawn(pass(from, to, ways.clone()));
    }
}

async fn pass(from: TcpStream, to: SocketAddr, ways: watch::Receiver<Way>) {
    let mut cut = ways.clone();
    let both = async {
        if *ways.borrow() == Way::Cut {
            return;
        }
        let Ok(there) = TcpStream::connect(to).await else { return };
        let (near, far) = (from.into_split(), there.into_split());
        tokio::select! {
            () = copy(near.0, far.1, ways.clone()) => {}
            () = copy(far.0, near.1, ways.clone()) => {}
        }
    };
    tokio::select! {
        () = both => {}
        _ = cut.wait_for(|way| *way == Way::Cut) => {}
    }
}

async fn copy(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, mut ways: watch::Receiver<Way>) {
    let mut bytes = [0; 16 * 1024];
    loop {
        let Ok(read @ 1..) = from.read(&mut bytes).await else { return };
        let way = *ways.borrow();
        if let Way::Delay(late) = way {
            tokio::time::sleep(late).await;
        }
        if ways.wait_for(|way| *way != Way::Stop).await.is_err() || to.write_all(&bytes[..read]).await.is_err() {
            return;
        }
    }
}
