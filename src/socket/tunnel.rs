//! A socket that is open: both its ways, its clocks, and its end.
//!
//! As soon as one side ends it, so does the other: a close frame passes with its code, and the answer to it; a connection that is
//! gone without one is gone on the other side too. Where the gate ends it, the vendor is asked to finish and its last words pass;
//! then the client is told why.

use std::sync::Arc;
use std::time::Duration;

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, timeout};

use super::ended::{Cut, Ended};
use super::frames::{Side, close, text};
use super::lane::{Lane, Pulse};
use super::meter::Meter;
use super::{Connected, Held, Settings};
use crate::receipt::Outcome;

/// Both ends of a socket whose handshake is done, and what is written about it.
pub(crate) struct Tunnel {
    pub(crate) client: OnUpgrade,
    pub(crate) vendor: OnUpgrade,
    pub(crate) meter: Arc<Meter>,
    pub(crate) connected: Option<Connected>,
    pub(crate) held: Option<Held>,
}

/// Tells the receipt how things stand at the end, also where the tunnel is dropped in the middle.
struct Told<'a>(&'a Meter);

/// For the handshake's last bytes, on both sides.
const OPENING: Duration = Duration::from_secs(10);
/// How long the answer to a close frame is waited for.
const CLOSING: Duration = Duration::from_secs(5);
/// How long the vendor may take for its last words, where it is asked for them or nobody is there to hear.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// How long a client is given to read why.
const FAREWELL: Duration = Duration::from_secs(1);
/// How often the readers are told how it goes.
const TELLING: Duration = Duration::from_secs(1);

impl Tunnel {
    /// Drives it to its end.
    pub(crate) async fn run(self) {
        let Self { client, vendor, meter, connected, held } = self;
        let told = Told(&meter);
        let both = async { tokio::try_join!(client, vendor) };
        if let Ok(Ok((client, vendor))) = timeout(OPENING, both).await {
            meter.receipt().upgraded();
            drive(TokioIo::new(client), TokioIo::new(vendor), &meter, connected.as_ref()).await;
        }
        drop((told, held));
    }
}

impl Drop for Told<'_> {
    fn drop(&mut self) {
        self.0.tell();
    }
}

async fn drive<C, V>(client: C, vendor: V, meter: &Meter, connected: Option<&Connected>)
where
    C: AsyncRead + AsyncWrite,
    V: AsyncRead + AsyncWrite,
{
    let settings = meter.opening().settings;
    let ((from_client, to_client), (from_vendor, to_vendor)) = (tokio::io::split(client), tokio::io::split(vendor));
    let mut up = Lane::new(Side::Client, from_client, to_vendor, settings.max_frame);
    let mut down = Lane::new(Side::Vendor, from_vendor, to_client, settings.max_frame);
    let pulse = Pulse::new();
    let closing = async {
        match connected {
            Some(Connected(connection)) => connection.closing().await,
            None => std::future::pending().await,
        }
    };
    let ended = tokio::select! {
        biased;
        ended = down.run(meter, &pulse) => ended,
        ended = up.run(meter, &pulse) => ended,
        error = meter.renew() => Ended::Cut(Cut::Budget(error)),
        cut = watch(meter, &pulse, settings) => Ended::Cut(cut),
        () = closing => Ended::Cut(Cut::Stopping),
    };
    finish(&ended, &mut up, &mut down, meter, &pulse).await;
    note(&ended, meter);
}

/// Tells how it goes, until it was open or silent for too long.
async fn watch(meter: &Meter, pulse: &Pulse, settings: Settings) -> Cut {
    let begun = Instant::now();
    let limit = |limit: Duration| Some(limit).filter(|limit| !limit.is_zero());
    loop {
        tokio::time::sleep(TELLING).await;
        meter.tell();
        if let Some(limit) = limit(settings.max_duration).filter(|limit| begun.elapsed() >= *limit) {
            return Cut::TooLong(limit);
        }
        if let Some(limit) = limit(settings.idle_timeout).filter(|limit| pulse.last().elapsed() >= *limit) {
            return Cut::Idle(limit);
        }
    }
}

/// Ends both sides, each as the other ended, or as the gate says.
async fn finish<A, B, C, D>(ended: &Ended, up: &mut Lane<A, B>, down: &mut Lane<C, D>, meter: &Meter, pulse: &Pulse)
where
    A: AsyncRead + Unpin,
    B: AsyncWrite + Unpin,
    C: AsyncRead + Unpin,
    D: AsyncWrite + Unpin,
{
    up.is_free = true;
    match ended {
        Ended::Closed { by: Side::Client, code } => {
            let answered = timeout(CLOSING, down.run(meter, pulse)).await;
            // A client that takes its leave in order gets its answer, also where the vendor only hangs up.
            if !matches!(answered, Ok(Ended::Closed { .. }))
                && down.is_between()
                && let Some(code) = code
            {
                let _ = timeout(FAREWELL, down.say(&close(Side::Client, *code, ""))).await;
            }
        }
        Ended::Closed { by: Side::Vendor, .. } => drop(timeout(CLOSING, up.run(meter, pulse)).await),
        Ended::Gone(Side::Client) => {
            down.is_mute = true;
            let _ = timeout(LAST_WORDS, async {
                up.shut().await;
                down.run(meter, pulse).await
            })
            .await;
        }
        Ended::Gone(Side::Vendor) => {}
        Ended::Cut(cut) => {
            if matches!(cut, Cut::Broken(Side::Vendor, _)) {
                // What it says after that cannot be read.
            } else {
                let _ = timeout(LAST_WORDS, last_words(up, down, meter, pulse)).await;
            }
            let _ = timeout(FAREWELL, farewell(cut, down, meter)).await;
            if up.is_between() {
                let _ = timeout(FAREWELL, up.say(&close(Side::Vendor, 1000, ""))).await;
            }
        }
    }
    let _ = timeout(FAREWELL, async { tokio::join!(up.shut(), down.shut()) }).await;
    if matches!(ended, Ended::Cut(_)) {
        let _ = timeout(FAREWELL, up.drain()).await;
    }
}

/// Has the vendor finish, and passes on what it still has to say.
async fn last_words<A, B, C, D>(up: &mut Lane<A, B>, down: &mut Lane<C, D>, meter: &Meter, pulse: &Pulse)
where
    A: AsyncRead + Unpin,
    B: AsyncWrite + Unpin,
    C: AsyncRead + Unpin,
    D: AsyncWrite + Unpin,
{
    down.keeps_close = true;
    let finish = meter.opening().dialect.finish().filter(|_| up.is_between_messages());
    if let Some(finish) = finish
        && up.say(&text(Side::Vendor, finish)).await.is_ok()
    {
        down.run(meter, pulse).await;
    }
}

/// Tells the client why, in the model's dialect and in the close frame.
async fn farewell<A, B>(cut: &Cut, down: &mut Lane<A, B>, meter: &Meter) -> std::io::Result<()>
where
    A: AsyncRead + Unpin,
    B: AsyncWrite + Unpin,
{
    let (long, short) = cut.told();
    if down.is_between_messages()
        && let Some(message) = meter.opening().dialect.message(cut.name(), &long)
    {
        down.say(&text(Side::Client, &message)).await?;
    }
    if down.is_between() {
        down.say(&close(Side::Client, cut.code(), &short)).await?;
    }
    Ok(())
}

fn note(ended: &Ended, meter: &Meter) {
    meter.tell();
    let outcome = ended.outcome(meter.has_failed());
    tracing::debug!(by = ended.by(), code = ended.code(), outcome = outcome.label(), "a socket ended");
    meter.receipt().note(|facts| {
        facts.outcome = outcome;
        facts.refused = ended.refused().or(facts.refused);
        if let Some(socket) = &mut facts.socket {
            (socket.ended_by, socket.close_code) = (Some(ended.by()), ended.code());
        }
    });
    debug_assert!(Outcome::ALL.contains(&outcome));
}
