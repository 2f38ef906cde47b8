//! Sockets that whoever started this process passed on: which are there, and which of them is whose.
//!
//! | variable | by systemd | by the process before this one |
//! |---|---|---|
//! | `LISTEN_FDS` | their number; descriptors from 3 on | the same, and the hand-over's channel at the end |
//! | `LISTEN_FDNAMES` | their names, between colons | the same |
//! | `LISTEN_PID` | whom they are for | not set: nobody knows the number of a process before it is there |
//! | `TOLLGATE_HAND_OVER` | not set | its own number instead, and the `bind` of each socket's listener |

use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixStream;
use std::os::unix::process::parent_id;

use listenfd::ListenFd;
use socket2::{Domain, SockRef, Type};

use crate::config::Env;
use crate::net::BindError;

/// Says to a new process whose sockets it has.
pub(crate) const HAND_OVER: &str = "TOLLGATE_HAND_OVER";
/// The first descriptor that is passed on.
const FIRST: usize = 3;

/// A socket that was passed on.
#[derive(Debug)]
pub(crate) struct Inherited {
    /// What it is called, if it has a name.
    pub(crate) name: Option<String>,
    /// What its listener was configured with, if a process of ours had it before.
    pub(crate) bind: Option<SocketAddr>,
    /// Where it listens.
    pub(crate) address: SocketAddr,
    pub(crate) socket: TcpListener,
}

/// All that was passed on.
#[derive(Debug, Default)]
pub(crate) struct Inheritance {
    pub(crate) sockets: Vec<Inherited>,
    /// To the process before this one.
    pub(crate) channel: Option<UnixStream>,
}

impl Inheritance {
    /// Takes what is there. Before there is another thread: it removes variables, so that nobody takes them for their own.
    pub(crate) fn take(env: &Env) -> Result<Self, BindError> {
        let predecessor = Predecessor::of(env);
        let for_us = env.var("LISTEN_PID") == Some(&std::process::id().to_string());
        if !for_us && predecessor.is_none() {
            return Ok(Self::default());
        }
        let names: Vec<&str> =
            env.var("LISTEN_FDNAMES").map(|names| names.split(':').collect()).unwrap_or_default();
        let mut passed = ListenFd::from_env();
        let mut taken = Self::default();
        let sockets = passed.len() - usize::from(predecessor.is_some() && passed.len() > 0);
        for index in 0..sockets {
            let name = names.get(index).copied().filter(|name| !name.is_empty());
            let bind = predecessor.as_ref().and_then(|one| one.binds.get(index).copied());
            let wrong = |problem: String| {
                let what = format!("`{}` (descriptor {})", name.unwrap_or_default(), FIRST + index);
                BindError::Inherited { what, problem }
            };
            let socket = passed.take_tcp_listener(index).map_err(|error| wrong(error.to_string()))?;
            let Some(socket) = socket else { continue };
            if !SockRef::from(&socket).is_listener().unwrap_or(false) {
                return Err(wrong("it does not listen".to_owned()));
            }
            let address = socket.local_addr().map_err(|error| wrong(error.to_string()))?;
            taken.sockets.push(Inherited { name: name.map(str::to_owned), bind, address, socket });
        }
        if predecessor.is_some() {
            let (family, kind) = (Domain::UNIX.into(), Type::STREAM.into());
            let channel = passed.take_custom::<UnixStream>(sockets, family, kind, "channel");
            taken.channel = channel.map_err(|error| BindError::Inherited {
                what: "`hand-over`".to_owned(),
                problem: error.to_string(),
            })?;
        }
        Ok(taken)
    }
}

/// The process that started this one to take over from it.
struct Predecessor {
    binds: Vec<SocketAddr>,
}

impl Predecessor {
    fn of(env: &Env) -> Option<Self> {
        let mut words = env.var(HAND_OVER)?.split(' ');
        // What is inherited by somebody further down is not meant for them.
        let parent: u32 = words.next()?.parse().ok()?;
        (parent == parent_id()).then(|| Self { binds: words.filter_map(|bind| bind.parse().ok()).collect() })
    }
}

/// Takes out the socket of the listener `name`, to be bound at `bind`.
pub(super) fn take(sockets: &mut Vec<Inherited>, name: &str, bind: SocketAddr) -> Option<Inherited> {
    let named = |one: &Inherited| one.name.as_deref() == Some(name);
    // A listener that was given another address since is not served at the old one.
    let unmoved = |one: &Inherited| one.bind.is_none_or(|before| before == bind);
    let index = sockets
        .iter()
        .position(|one| named(one) && one.address == bind)
        .or_else(|| sockets.iter().position(|one| named(one) && unmoved(one)))
        .or_else(|| sockets.iter().position(|one| one.address == bind))?;
    Some(sockets.swap_remove(index))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A socket of this name whose listener had this `bind`.
    fn socket(name: &str, bind: Option<&str>) -> Inherited {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let name = (!name.is_empty()).then(|| name.to_owned());
        let bind = bind.map(|bind| bind.parse().unwrap());
        Inherited { name, bind, address: socket.local_addr().unwrap(), socket }
    }

    fn taken(sockets: &mut Vec<Inherited>, name: &str, bind: &str) -> Option<SocketAddr> {
        take(sockets, name, bind.parse().unwrap()).map(|one| one.address)
    }

    #[test]
    fn a_listener_takes_the_socket_of_its_name_else_of_its_address() {
        let mut sockets = vec![socket("web", None), socket("", None), socket("other", None)];
        let addresses: Vec<_> = sockets.iter().map(|one| one.address).collect();
        assert_eq!(taken(&mut sockets, "main", "127.0.0.1:1"), None);
        assert_eq!(taken(&mut sockets, "web", "127.0.0.1:1"), Some(addresses[0]));
        assert_eq!(taken(&mut sockets, "web", "127.0.0.1:1"), None, "it is taken once");
        assert_eq!(taken(&mut sockets, "main", &addresses[1].to_string()), Some(addresses[1]));
        // Several sockets of one unit have one name: the address tells them apart.
        let mut twins = vec![socket("unit", None), socket("unit", None)];
        let second = twins[1].address;
        assert_eq!(taken(&mut twins, "unit", &second.to_string()), Some(second));
    }

    #[test]
    fn a_listener_that_moved_between_two_processes_does_not_take_its_old_socket() {
        let mut sockets = vec![socket("main", Some("127.0.0.1:0"))];
        assert_eq!(taken(&mut sockets, "main", "127.0.0.1:9"), None);
        assert_eq!(taken(&mut sockets, "extra", "127.0.0.1:0"), None, "any port, and not that of another");
        let address = sockets[0].address;
        assert_eq!(taken(&mut sockets, "main", "127.0.0.1:0"), Some(address));
    }

    #[test]
    fn what_is_meant_for_another_process_is_left_alone() {
        for (name, value) in [("LISTEN_PID", "1"), (HAND_OVER, "0 127.0.0.1:1"), (HAND_OVER, "nonsense")] {
            let env = Env::of([(name, value), ("LISTEN_FDS", "2")]);
            let taken = Inheritance::take(&env).unwrap();
            assert!(taken.sockets.is_empty() && taken.channel.is_none(), "{name}={value}");
        }
    }
}
