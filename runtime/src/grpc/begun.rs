//! Calls of a connection that were begun and are not answered yet.
//!
//! Calls that were begun in one look at their connection mostly wait for the same thing, so they are woken as one: each
//! by itself would cost more than what it waits for. They may also wait for bytes of their own, of which each then wakes
//! all of them; so a group has [`MAX_CALLS`] at most, however many a peer begins at once.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Wake, Waker};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use futures_util::task::AtomicWaker;
use hyper::rt::Executor;
use parking_lot::Mutex;

use crate::tasks::Tasks;

/// Calls that are woken as one. Larger groups save little, and each of them is looked at for what only one waits for.
const MAX_CALLS: usize = 64;

/// A call that panics resets its stream, as it would in a task of its own, and no other.
type Call = BoxFuture<'static, std::thread::Result<()>>;

/// Runs what can be run at once; the rest goes to a task, or is kept until it is taken to where it waits.
#[derive(Clone)]
pub(super) struct Begun {
    connection: Arc<AtomicWaker>,
    /// The last one is filled; those before it are full.
    groups: Arc<Mutex<Vec<Group>>>,
    tasks: Option<Tasks>,
}

impl Begun {
    /// With tasks, calls that wait go on in these.
    pub(super) fn new(tasks: Option<Tasks>) -> Self {
        Self { connection: Arc::default(), groups: Arc::default(), tasks }
    }

    /// Whom calls wake that wait with their connection.
    pub(super) fn register(&self, connection: &Waker) {
        self.connection.register(connection);
    }

    /// Adds the groups of calls that were begun since the last time and wait.
    pub(super) fn take_waiting(&self, waiting: &mut Vec<Group>) {
        waiting.extend(self.groups.lock().extract_if(.., |group| !group.calls.is_empty()));
    }

    /// Wakes those that the next call would wait with.
    fn waker(&self) -> Waker {
        let mut groups = self.groups.lock();
        match groups.last() {
            Some(group) if group.calls.len() < MAX_CALLS => group.waker.clone(),
            _ => {
                let group = Group::new(&self.connection);
                let waker = group.waker.clone();
                groups.push(group);
                waker
            }
        }
    }
}

impl<F> Executor<F> for Begun
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, call: F) {
        let mut call: Call = AssertUnwindSafe(call).catch_unwind().boxed();
        match &self.tasks {
            Some(tasks) => {
                // Nobody is woken by this first look: it is looked at again in its task.
                if call.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending() {
                    drop(tasks.spawn("grpc-call", call));
                }
            }
            None => {
                let waker = self.waker();
                if call.as_mut().poll(&mut Context::from_waker(&waker)).is_pending()
                    && let Some(group) = self.groups.lock().last_mut()
                {
                    group.calls.push(call);
                }
            }
        }
    }
}

/// Goes on with the calls of groups that were woken. Whether one of them has been answered by that.
pub(super) fn go_on(waiting: &mut Vec<Group>) -> bool {
    let mut answered = false;
    for group in waiting.iter_mut().filter(|group| group.woken.is_set.swap(false, Ordering::AcqRel)) {
        let (mut context, before) = (Context::from_waker(&group.waker), group.calls.len());
        group.calls.retain_mut(|call| call.as_mut().poll(&mut context).is_pending());
        answered |= group.calls.len() < before;
    }
    waiting.retain(|group| !group.calls.is_empty());
    answered
}

/// Calls that are woken as one.
pub(super) struct Group {
    calls: Vec<Call>,
    woken: Arc<Woken>,
    waker: Waker,
}

struct Woken {
    is_set: AtomicBool,
    connection: Arc<AtomicWaker>,
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.is_set.swap(true, Ordering::AcqRel) {
            self.connection.wake();
        }
    }
}

impl Group {
    fn new(connection: &Arc<AtomicWaker>) -> Self {
        let woken = Arc::new(Woken { is_set: AtomicBool::new(false), connection: Arc::clone(connection) });
        Self { calls: Vec::new(), waker: Waker::from(Arc::clone(&woken)), woken }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::atomic::AtomicUsize;

    use tokio::sync::oneshot;

    use super::*;

    const CALLS: usize = 1_000;
    /// What a byte may cost.
    const FEW: usize = 100;

    #[test]
    fn what_one_call_waits_for_costs_few_others_a_look() {
        let (begun, looks) = (Begun::new(None), Arc::new(AtomicUsize::new(0)));
        let begin = |_| {
            let ((sender, mut bytes), looks) = (oneshot::channel::<()>(), Arc::clone(&looks));
            begun.execute(poll_fn(move |context| {
                looks.fetch_add(1, Ordering::Relaxed);
                bytes.poll_unpin(context).map(Result::unwrap)
            }));
            sender
        };
        // All in one look at their connection.
        let senders: Vec<_> = (0..CALLS).map(begin).collect();
        let mut waiting = Vec::new();
        begun.take_waiting(&mut waiting);
        assert_eq!(looks.swap(0, Ordering::Relaxed), CALLS);
        assert!(!go_on(&mut waiting), "nothing has come");
        for (call, sender) in senders.into_iter().enumerate() {
            sender.send(()).unwrap();
            assert!(go_on(&mut waiting), "call {call}");
            let looked = looks.swap(0, Ordering::Relaxed);
            assert!((1..=FEW).contains(&looked), "{looked} looks for call {call}");
        }
        assert!(waiting.is_empty(), "all were answered");
    }

    #[test]
    fn calls_that_are_answered_at_once_leave_nothing_to_look_at() {
        let begun = Begun::new(None);
        let mut waiting = Vec::new();
        for call in 0..CALLS {
            begun.execute(async {});
            begun.take_waiting(&mut waiting);
            assert!(waiting.is_empty(), "call {call}");
        }
        assert_eq!(begun.groups.lock().len(), 1, "and need one group among them");
    }
}
