//! Descriptors over a Unix socket, one a message.
//!
//! The gate before sends each of its sockets under its name's first letter, and an end. The next one says `g` when it is ready to
//! serve, and is told `k`: from then on the sockets are its own. Who leaves before that has taken nothing.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::net::TcpListener;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};

/// The sockets of one gate.
#[derive(Debug, Default)]
pub(super) struct Sockets {
    pub(super) listen: Vec<TcpListener>,
    pub(super) admin: Vec<TcpListener>,
}

const LISTEN: u8 = b'l';
const ADMIN: u8 = b'a';
const END: u8 = b'e';
const GO: u8 = b'g';
const TAKEN: u8 = b'k';

/// No other process has the descriptors that are taken. Apple's systems know neither flag, and std has SIGPIPE ignored.
#[cfg(not(target_vendor = "apple"))]
const FLAGS: (SendFlags, RecvFlags) = (SendFlags::NOSIGNAL, RecvFlags::CMSG_CLOEXEC);
#[cfg(target_vendor = "apple")]
const FLAGS: (SendFlags, RecvFlags) = (SendFlags::empty(), RecvFlags::empty());

/// The other one is a gate on this machine, and it may be busy.
const PATIENCE: Duration = Duration::from_secs(10);
/// Of either kind: one a worker.
const MOST: usize = 4096;

/// Sends them; returns when the other side has said that it serves from here on.
pub(super) fn give(mut stream: &UnixStream, sockets: &Sockets) -> io::Result<()> {
    be_patient(stream)?;
    let named = |name, sockets: &[TcpListener]| sockets.iter().try_for_each(|socket| send(stream, name, socket));
    named(LISTEN, &sockets.listen)?;
    named(ADMIN, &sockets.admin)?;
    stream.write_all(&[END])?;
    let mut said = [0];
    stream.read_exact(&mut said)?;
    match said[0] {
        GO => stream.write_all(&[TAKEN]),
        other => Err(unknown(other)),
    }
}

/// Takes what the other side has. It goes on with all of it until it is [told](go).
pub(super) fn take(stream: &UnixStream) -> io::Result<Sockets> {
    be_patient(stream)?;
    let mut sockets = Sockets::default();
    loop {
        match receive(stream)? {
            (LISTEN, Some(socket)) if sockets.listen.len() < MOST => sockets.listen.push(socket),
            (ADMIN, Some(socket)) if sockets.admin.len() < MOST => sockets.admin.push(socket),
            (END, None) => return Ok(sockets),
            (other, _) => return Err(unknown(other)),
        }
    }
}

/// The sockets that were taken are this side's from here on, and the other one ends.
pub(super) fn go(mut stream: &UnixStream) -> io::Result<()> {
    stream.write_all(&[GO])?;
    let mut said = [0];
    stream.read_exact(&mut said)?;
    if said[0] == TAKEN { Ok(()) } else { Err(unknown(said[0])) }
}

fn send(stream: &UnixStream, name: u8, socket: &TcpListener) -> io::Result<()> {
    let descriptors = [socket.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(&descriptors)) {
        return Err(io::Error::other("no room for a descriptor"));
    }
    // One byte is sent whole or not at all.
    sendmsg(stream, &[IoSlice::new(&[name])], &mut control, FLAGS.0)?;
    Ok(())
}

fn receive(stream: &UnixStream) -> io::Result<(u8, Option<TcpListener>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut name = [0];
    let read = recvmsg(stream, &mut [IoSliceMut::new(&mut name)], &mut control, FLAGS.1)?;
    if read.bytes == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let rights = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    Ok((name[0], rights.map(TcpListener::from)))
}

fn be_patient(stream: &UnixStream) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))
}

fn unknown(said: u8) -> io::Error {
    let why = format!("it said {:?}, which means nothing: is a gate of another version there?", char::from(said));
    io::Error::new(io::ErrorKind::InvalidData, why)
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;

    fn sockets() -> Sockets {
        let bind = || TcpListener::bind("127.0.0.1:0").unwrap();
        Sockets { listen: vec![bind(), bind()], admin: vec![bind()] }
    }

    #[test]
    fn a_socket_keeps_its_queue_from_one_owner_to_the_next() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let before = sockets();
        let mut client = TcpStream::connect(before.listen[1].local_addr().unwrap()).unwrap();
        client.write_all(b"x").unwrap();
        let giving = std::thread::spawn(move || give(&ours, &before));
        let taken = take(&theirs).unwrap();
        assert_eq!((taken.listen.len(), taken.admin.len()), (2, 1));
        go(&theirs).unwrap();
        giving.join().unwrap().unwrap();
        // The one before has closed its own.
        let mut said = [0];
        taken.listen[1].accept().unwrap().0.read_exact(&mut said).unwrap();
        assert_eq!(&said, b"x");
    }

    #[test]
    fn who_leaves_without_a_word_or_says_another_takes_nothing() {
        for word in [None, Some(b"x"), Some(b"e")] {
            let (ours, theirs) = UnixStream::pair().unwrap();
            let giving = std::thread::spawn(move || give(&ours, &sockets()));
            drop(take(&theirs).unwrap());
            if let Some(word) = word {
                (&theirs).write_all(word).unwrap();
            }
            drop(theirs);
            assert!(giving.join().unwrap().is_err(), "{word:?}");
        }
    }

    #[test]
    fn what_is_no_gate_hands_over_nothing() {
        for words in [&b""[..], b"e", b"l", b"HTTP/1.1 400 Bad Request\r\n\r\n"] {
            let (ours, theirs) = UnixStream::pair().unwrap();
            (&ours).write_all(words).unwrap();
            drop(ours);
            let taken = take(&theirs);
            assert!(taken.is_err() || taken.is_ok_and(|sockets| sockets.listen.is_empty()), "{words:?}");
        }
    }
}
