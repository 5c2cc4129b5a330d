//! How many connections a worker has room for, and who makes room for whom.
//!
//! Where all places are taken, connections without a call make room for a new one: first those that have not got as far
//! as a request, the oldest before the newer ones, then those that wait for their next. Only where a call runs on every
//! connection is a new one turned away. So silent connections, however many, keep nobody out.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::activity::{Activity, Phase};

/// The places of one worker.
#[derive(Debug)]
pub(super) struct Room {
    max: usize,
    addresses: Addresses,
    open: Mutex<OpenConnections>,
    /// A place was given back.
    freed: Notify,
}

#[derive(Debug, Default)]
struct OpenConnections {
    connections: HashMap<u64, Arc<Activity>>,
    next: u64,
}

/// How many connections each address has, over all workers. Clones share it.
#[derive(Clone, Debug)]
pub(in crate::sidecar) struct Addresses {
    /// Zero sets no bound, and then none are counted.
    max: usize,
    counts: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

/// A connection's place, given back when it is dropped.
#[derive(Debug)]
pub(super) struct ConnectionSlot {
    room: Arc<Room>,
    number: u64,
    pub(super) activity: Arc<Activity>,
    _address: Option<AddressCount>,
}

#[derive(Debug)]
struct AddressCount {
    addresses: Addresses,
    address: IpAddr,
}

/// Why there is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Every place is taken.
    Full,
    /// The address has all it may have.
    Address,
}

/// So many make room at once (one of so many that are open), so that a crowd is not looked through for each newcomer.
const ONE_OF: usize = 16;
/// How long those may take who make room, before a newcomer is turned away.
const MAKING_ROOM: Duration = Duration::from_secs(1);

// === impl Room ===

impl Room {
    pub(super) fn new(max: usize, addresses: Addresses) -> Arc<Self> {
        Arc::new(Self { max, addresses, open: Mutex::default(), freed: Notify::new() })
    }

    /// A place for a connection from this address.
    pub(super) async fn take(self: &Arc<Self>, address: IpAddr) -> Result<ConnectionSlot, Refusal> {
        let address = self.addresses.count(address)?;
        if let Some((number, activity)) = self.enter() {
            return Ok(ConnectionSlot { room: self.clone(), number, activity, _address: address });
        }
        if self.make_room() == 0 {
            return Err(Refusal::Full);
        }
        // Those who make room are tasks of this thread, and end when it comes to them.
        let entering = async {
            loop {
                if let Some(entered) = self.enter() {
                    return entered;
                }
                self.freed.notified().await;
            }
        };
        let entered = tokio::time::timeout(MAKING_ROOM, entering).await;
        let (number, activity) = entered.map_err(|_| Refusal::Full)?;
        Ok(ConnectionSlot { room: self.clone(), number, activity, _address: address })
    }

    fn enter(&self) -> Option<(u64, Arc<Activity>)> {
        let mut open = self.open.lock();
        if open.connections.len() >= self.max {
            return None;
        }
        let number = open.next;
        open.next += 1;
        let activity = Activity::new();
        open.connections.insert(number, activity.clone());
        Some((number, activity))
    }

    /// Has the connections closed that will be missed least. How many they are.
    fn make_room(&self) -> usize {
        let open = self.open.lock();
        let mut candidates: Vec<_> = open
            .connections
            .values()
            .filter_map(|activity| {
                let (phase, since) = activity.phase();
                let has_asked = phase == Phase::Idle;
                (phase != Phase::Calls).then_some((has_asked, since, activity))
            })
            .collect();
        let count = (open.connections.len() / ONE_OF).max(1).min(candidates.len());
        if count < candidates.len() {
            candidates.select_nth_unstable_by_key(count, |(has_asked, since, _)| (*has_asked, *since));
        }
        candidates[..count].iter().filter(|(_, _, activity)| activity.evict()).count()
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        self.room.open.lock().connections.remove(&self.number);
        self.room.freed.notify_one();
    }
}

// === impl Addresses ===

impl Addresses {
    /// So many connections for each address; zero sets no bound.
    pub(in crate::sidecar) fn new(max: usize) -> Self {
        Self { max, counts: Arc::default() }
    }

    fn count(&self, address: IpAddr) -> Result<Option<AddressCount>, Refusal> {
        if self.max == 0 {
            return Ok(None);
        }
        let address = client_of(address);
        let mut counts = self.counts.lock();
        let count = counts.entry(address).or_default();
        if *count >= self.max {
            return Err(Refusal::Address);
        }
        *count += 1;
        Ok(Some(AddressCount { addresses: self.clone(), address }))
    }
}

impl Drop for AddressCount {
    fn drop(&mut self) {
        let mut counts = self.addresses.counts.lock();
        if let Some(count) = counts.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.address);
            }
        }
    }
}

/// What counts as one address: in IPv6 the /64 that a client has all of.
fn client_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOME: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    /// Ends where it has to make room.
    fn drive(place: ConnectionSlot) -> tokio::task::JoinHandle<()> {
        tokio::spawn(async move {
            std::future::poll_fn(|cx| place.activity.poll_evicted(cx)).await;
            drop(place);
        })
    }

    #[tokio::test]
    async fn the_oldest_silent_one_makes_room_and_a_call_does_not() {
        let room = Room::new(3, Addresses::new(0));
        let calling = room.take(HOME).await.unwrap();
        let call = calling.activity.begin_call();
        let waiting = room.take(HOME).await.unwrap();
        drop(waiting.activity.begin_call());
        let waiting = drive(waiting);
        let silent = drive(room.take(HOME).await.unwrap());
        tokio::task::yield_now().await;
        let newest = drive(room.take(HOME).await.unwrap());
        silent.await.unwrap();
        assert!(!waiting.is_finished(), "who has asked before is the last to go");
        tokio::task::yield_now().await;
        let newer = room.take(HOME).await.unwrap();
        newest.await.unwrap();
        let newer_call = newer.activity.begin_call();
        let last = room.take(HOME).await.unwrap();
        waiting.await.unwrap();
        let last_call = last.activity.begin_call();
        assert_eq!(room.take(HOME).await.unwrap_err(), Refusal::Full, "calls on all of them");
        drop((call, newer_call, last_call));
    }

    #[tokio::test]
    async fn an_address_has_so_many_and_no_more() {
        let room = Room::new(100, Addresses::new(2));
        let first = room.take(HOME).await.unwrap();
        let _second = room.take("::ffff:127.0.0.1".parse().unwrap()).await.unwrap();
        assert_eq!(room.take(HOME).await.unwrap_err(), Refusal::Address);
        let _other = room.take("127.0.0.2".parse().unwrap()).await.unwrap();
        drop(first);
        assert!(room.take(HOME).await.is_ok());
        let network: Vec<_> = ["2001:db8::1", "2001:db8::2", "2001:db8::3"].map(|a| a.parse().unwrap()).into();
        let _six = (room.take(network[0]).await.unwrap(), room.take(network[1]).await.unwrap());
        assert_eq!(room.take(network[2]).await.unwrap_err(), Refusal::Address, "a /64 is one client");
    }
}
