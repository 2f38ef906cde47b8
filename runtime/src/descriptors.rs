//! File descriptors: as many as the system lets this process have, and the last of them kept for what must go on.
//!
//! The system gives the lowest number that is free. So a socket with a number among the last ones tells that all below
//! are taken, and nobody has to count.
//!
//! Linux keeps them in a table that doubles when it is full. Where threads share it, as they do here, whoever opens the one that
//! no longer fits waits until all processors have let go of the old table: some ten milliseconds at the 257th connection,
//! the 513th, and so on, in which that thread serves nobody. So the table is made large while there is one thread.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd as _};

use rustix::io::fcntl_dupfd_cloexec;
use rustix::process::{Resource, getrlimit, setrlimit};

/// Kept for the process listener, for configuration that is read again, for telemetry and the services that are asked.
const RESERVED: u64 = 64;

/// A table for so many is made at once: for what a listener takes by default, and its upstreams. 8 bytes each, the system's.
const TABLE: u64 = 16_384;

/// The descriptors of this process.
#[derive(Debug, Clone, Copy)]
pub struct Descriptors {
    first_reserved: u64,
    first_of_upstreams: u64,
}

impl Descriptors {
    /// Takes as many as may be: the soft limit becomes the hard one. Best before there are threads.
    pub fn take() -> Self {
        let mut limit = getrlimit(Resource::Nofile);
        if limit.current != limit.maximum {
            let raised = rustix::process::Rlimit { current: limit.maximum, ..limit };
            match setrlimit(Resource::Nofile, raised) {
                Ok(()) => limit = raised,
                Err(error) => tracing::warn!(%error, "the number of open files cannot be raised"),
            }
        }
        let most = limit.current.unwrap_or(u64::MAX);
        enlarge_table(most.min(TABLE));
        Self::of(most)
    }

    fn of(most: u64) -> Self {
        // Where there are few, the most part of them is still for clients.
        let first_reserved = most - RESERVED.min(most / 4);
        Self { first_reserved, first_of_upstreams: first_reserved - most / 8 }
    }

    /// Whether `socket`, the last that was opened, leaves enough for upstreams and for what is reserved.
    pub fn has_room_for_client(&self, socket: &impl AsFd) -> bool {
        number(socket) < self.first_of_upstreams
    }

    /// Whether `socket`, the last that was opened, leaves what is reserved.
    pub fn has_room_for_upstream(&self, socket: &impl AsFd) -> bool {
        number(socket) < self.first_reserved
    }
}

/// The table has to hold the number that is asked for, and never shrinks.
fn enlarge_table(descriptors: u64) {
    let last = i32::try_from(descriptors.saturating_sub(1)).unwrap_or(i32::MAX);
    let enlarged = File::open("/dev/null").and_then(|file| Ok(fcntl_dupfd_cloexec(file, last)?));
    // Without it the table grows as it is needed.
    if let Err(error) = enlarged {
        tracing::debug!(%error, "the table of open files is not enlarged");
    }
}

fn number(socket: &impl AsFd) -> u64 {
    u64::try_from(socket.as_fd().as_raw_fd()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_ones_are_reserved() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let all = Descriptors::take();
        assert!(all.has_room_for_client(&socket) && all.has_room_for_upstream(&socket));
        let number = number(&socket);
        let of = |first_of_upstreams, first_reserved| Descriptors { first_reserved, first_of_upstreams };
        for (descriptors, client, upstream) in [
            (of(number + 1, number + 2), true, true),
            (of(number, number + 1), false, true),
            (of(number - 1, number), false, false),
        ] {
            assert_eq!(descriptors.has_room_for_client(&socket), client);
            assert_eq!(descriptors.has_room_for_upstream(&socket), upstream);
        }
        for (most, upstreams, reserved) in [(1024, 832, 960), (100, 63, 75)] {
            let Descriptors { first_reserved, first_of_upstreams } = Descriptors::of(most);
            assert_eq!((first_of_upstreams, first_reserved), (upstreams, reserved));
        }
    }

    #[test]
    fn the_table_has_room() {
        Descriptors::take();
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let size = status.lines().find_map(|line| line.strip_prefix("FDSize:")).unwrap();
        let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        assert!(size.trim().parse::<u64>().unwrap() >= limit.min(TABLE), "{size}");
    }

    #[test]
    fn the_soft_limit_is_the_hard_one_afterwards() {
        Descriptors::take();
        let limit = getrlimit(Resource::Nofile);
        assert_eq!(limit.current, limit.maximum);
    }
}
