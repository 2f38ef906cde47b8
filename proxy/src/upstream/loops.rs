//! Connections of our own, remembered while they are open, so that one which comes back to a transparent listener is known.
//!
//! The redirect rules leave out what the proxy's user sends. Where they do not (another user, rules made by hand), each
//! connection to an upstream would be captured, routed and dialled again, without end. It has the same two ends when it
//! leaves and when it comes back, and no other connection of this machine has both.
//!
//! What this machine sends to its own address comes in like anybody else's, by the rules: a workload that calls itself. It goes
//! on to the workload. Where it would be sent by the cluster that it came by, it would come in again, without end.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rustc_hash::FxHashMap;

use crate::socket::canonical;

/// What is known of our own connections. One for a proxy, whatever its configuration is.
#[derive(Debug, Default)]
pub(crate) struct Loops {
    /// Where the sockets of transparent listeners are; without any nothing is remembered.
    captures: ArcSwap<Vec<SocketAddr>>,
    open: Mutex<FxHashMap<Ends, Ours>>,
    /// How many were remembered.
    count: AtomicU64,
}

/// A connection of ours.
#[derive(Debug)]
struct Ours {
    towards: Towards,
    /// The cluster that it was opened for.
    cluster: Arc<str>,
    number: u64,
}

/// The near and the far end, as a socket of ours has them.
type Ends = (SocketAddr, SocketAddr);

/// Whom a connection of ours is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Towards {
    /// Other workloads. One that is beside us has its own way in captured, as it should be.
    Others,
    /// The workload beside us: it was captured, and must not be again.
    App,
}

/// A connection of ours, remembered until this is dropped.
#[derive(Debug)]
pub(super) struct Entry {
    loops: Arc<Loops>,
    ends: Ends,
    number: u64,
}

impl Loops {
    /// These are the transparent listeners from now on.
    pub(crate) fn capture_at(&self, listeners: Vec<SocketAddr>) {
        self.captures.store(Arc::new(listeners.into_iter().map(canonical).collect()));
    }

    /// Whether a connection that was captured, from `source` on its way to `wanted`, is one of ours that has come back.
    pub(crate) fn has_come_back(&self, source: SocketAddr, wanted: SocketAddr, inbound: bool) -> bool {
        let open = self.open.lock();
        match open.get(&(canonical(source), canonical(wanted))).map(|ours| ours.towards) {
            None => false,
            Some(Towards::App) => true,
            Some(Towards::Others) => !inbound,
        }
    }

    /// Whether such a connection is one that was opened for this cluster.
    pub(super) fn is_of(&self, cluster: &str, source: SocketAddr, wanted: SocketAddr) -> bool {
        let open = self.open.lock();
        open.get(&(canonical(source), canonical(wanted))).is_some_and(|ours| *ours.cluster == *cluster)
    }

    /// Whether an address is a transparent listener, as far as it can be known before anybody is connected to.
    pub(super) fn is_capture(&self, to: SocketAddr) -> bool {
        let to = canonical(to);
        self.is_at(to, to.ip().is_loopback())
    }

    /// Begins a connection and remembers it: it may have come back when the system has begun, so nobody looks meanwhile. An
    /// error if it leads to a transparent listener of ours.
    pub(super) fn remember(
        self: &Arc<Self>,
        begin: impl FnOnce() -> io::Result<Ends>,
        towards: Towards,
        cluster: &Arc<str>,
    ) -> io::Result<Option<Entry>> {
        if self.captures.load().is_empty() {
            begin()?;
            return Ok(None);
        }
        let mut open = self.open.lock();
        let (near, far) = begin()?;
        let (near, far) = (canonical(near), canonical(far));
        // Who speaks with itself has the same address at both ends.
        if self.is_at(far, far.ip().is_loopback() || near.ip() == far.ip()) {
            return Err(leads_back(far));
        }
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        open.insert((near, far), Ours { towards, cluster: Arc::clone(cluster), number });
        Ok(Some(Entry { loops: Arc::clone(self), ends: (near, far), number }))
    }

    fn is_at(&self, to: SocketAddr, on_this_machine: bool) -> bool {
        let is = |own: &SocketAddr| {
            own.port() == to.port() && (own.ip() == to.ip() || own.ip().is_unspecified() && on_this_machine)
        };
        self.captures.load().iter().any(is)
    }
}

/// An endpoint that is our own transparent listener.
pub(super) fn leads_back(to: SocketAddr) -> io::Error {
    io::Error::other(format!("{to} is a transparent listener of this proxy"))
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut open = self.loops.open.lock();
        // The next one may have the same ends already.
        if open.get(&self.ends).is_some_and(|ours| ours.number == self.number) {
            open.remove(&self.ends);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn our_own_connections_are_known_while_they_are_open() {
        let loops = Arc::new(Loops::default());
        let ends = (at("10.0.0.2:40000"), at("10.0.0.9:80"));
        let open = |ends: Ends, towards| loops.remember(|| Ok(ends), towards, &"others".into());
        assert!(open(ends, Towards::Others).unwrap().is_none(), "nothing is transparent");
        loops.capture_at(vec![at("127.0.0.1:15001"), at("[::]:15006")]);
        let entry = open(ends, Towards::Others).unwrap();
        let seen = at("[::ffff:10.0.0.2]:40000");
        assert!(loops.has_come_back(seen, ends.1, false));
        assert!(
            !loops.has_come_back(seen, ends.1, true),
            "a workload that calls itself comes in by its sidecar"
        );
        assert!(loops.is_of("others", seen, ends.1) && !loops.is_of("app", seen, ends.1));
        assert!(!loops.has_come_back(at("10.0.0.2:40001"), ends.1, false));
        assert!(!loops.has_come_back(ends.0, at("10.0.0.9:81"), false));
        drop(entry);
        assert!(!loops.has_come_back(ends.0, ends.1, false) && !loops.is_of("others", seen, ends.1));
        // A port may be had again before it is known that it was given up.
        let (first, second) = (open(ends, Towards::Others).unwrap(), open(ends, Towards::Others).unwrap());
        drop(first);
        assert!(loops.has_come_back(ends.0, ends.1, false));
        drop(second);
        assert!(!loops.has_come_back(ends.0, ends.1, false));
        let to_app = open((at("127.0.0.6:5000"), at("10.0.0.2:8080")), Towards::App).unwrap();
        assert!(loops.has_come_back(at("127.0.0.6:5000"), at("10.0.0.2:8080"), true));
        drop(to_app);
    }

    #[test]
    fn transparent_listeners_are_never_dialled() {
        let loops = Arc::new(Loops::default());
        loops.capture_at(vec![at("127.0.0.1:15001"), at("[::]:15006")]);
        for (to, expected) in [
            ("127.0.0.1:15001", true),
            ("127.0.0.1:15006", true),
            ("[::1]:15006", true),
            ("[::1]:15001", false),
            ("10.0.0.9:15006", false),
            ("10.0.0.9:80", false),
            ("[::ffff:127.0.0.1]:15001", true),
        ] {
            assert_eq!(loops.is_capture(at(to)), expected, "{to}");
        }
        let ends = |to: &str| Ok((at("10.0.0.2:40000"), at(to)));
        let open = |to: &str| loops.remember(|| ends(to), Towards::Others, &"c".into());
        assert!(open("10.0.0.2:15006").is_err(), "this machine by its own address");
        assert!(open("10.0.0.9:15006").is_ok(), "another sidecar");
    }
}
