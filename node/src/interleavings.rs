//! What threads share, in every order that loom finds.
//!
//! The files are compiled a second time here, against loom's types. Each test runs on two or three
//! threads without a bound on preemptions, and must have seen more than one order. Each weakened
//! memory order, and each rule left out by the code around a structure, is shown to be noticed.
#![allow(clippy::unwrap_used, unreachable_pub, dead_code)]

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering as StdOrdering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use loom::sync::atomic::AtomicU64;
use loom::thread;
use quorate_core::lsn::Lsn;

mod sync {
    pub(crate) use std::sync::PoisonError;

    pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU64, Ordering};
    pub(crate) use loom::sync::{Arc, Condvar, Mutex, MutexGuard};
}

#[path = "answer.rs"]
mod answer;
#[path = "frontier.rs"]
mod frontier;
#[path = "handover.rs"]
mod handover;
#[path = "mailbox.rs"]
mod mailbox;
mod relaxed_load;
mod relaxed_store;

/// Runs `body` in every order and returns how many there were.
fn explore(body: impl Fn() + Sync + Send + 'static) -> usize {
    let executions = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&executions);
    loom::model(move || {
        counted.fetch_add(1, StdOrdering::Relaxed);
        body();
    });
    executions.load(StdOrdering::Relaxed)
}

/// Asserts that `body` holds in every order, of which there are several.
fn holds(body: impl Fn() + Sync + Send + 'static) {
    let executions = explore(body);
    println!("{executions} executions");
    assert!(executions > 1, "only one order was explored");
}

/// Asserts that `body` fails in some order.
fn fails(body: impl Fn() + Sync + Send + 'static) {
    let outcome = catch_unwind(AssertUnwindSafe(|| explore(body)));
    assert!(outcome.is_err(), "no order shows the mistake");
}

/// What wakes a sleeping thread: rung once, it lets one wait pass.
#[derive(Debug, Default)]
struct Bell {
    is_rung: loom::sync::Mutex<bool>,
    rung: loom::sync::Condvar,
}

impl Bell {
    fn ring(&self) {
        *self.is_rung.lock().unwrap() = true;
        self.rung.notify_one();
    }

    fn wait(&self) {
        let mut is_rung = self.is_rung.lock().unwrap();
        while !*is_rung {
            is_rung = self.rung.wait(is_rung).unwrap();
        }
        *is_rung = false;
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.ring();
    }
}

mod mailboxes {
    use super::*;

    fn post(mailbox: &mailbox::Mailbox<u8>, bell: &Bell, letter: u8) -> bool {
        let posted = mailbox.post(letter);
        if posted == Ok(true) {
            bell.ring();
        }
        posted.is_ok()
    }

    /// Lets one thread post each of `letters`, and this one take them all.
    fn deliver(letters_max: usize, letters: &'static [&'static [u8]], trusts_doze: bool) {
        let mailbox = Arc::new(mailbox::Mailbox::new(letters_max));
        let bell = Arc::new(Bell::default());
        let posters: Vec<_> = letters
            .iter()
            .map(|letters| {
                let (mailbox, bell) = (Arc::clone(&mailbox), Arc::clone(&bell));
                thread::spawn(move || {
                    assert!(letters.iter().all(|letter| post(&mailbox, &bell, *letter)));
                })
            })
            .collect();
        let mut taken = VecDeque::new();
        let expected: usize = letters.iter().map(|letters| letters.len()).sum();
        loop {
            assert!(mailbox.take(usize::MAX, &mut taken));
            if taken.len() == expected {
                break;
            }
            if mailbox.doze() || !trusts_doze {
                bell.wait();
            }
        }
        for poster in posters {
            poster.join().unwrap();
        }
        let mut taken: Vec<u8> = taken.into();
        taken.sort_unstable();
        assert_eq!(taken, letters.concat());
    }

    /// A letter left behind with the loop asleep is a write that is never acknowledged.
    #[test]
    fn no_letter_is_left_behind() {
        holds(|| deliver(4, &[&[1], &[2]], true));
    }

    /// A poster that waits for room must not wait for ever.
    #[test]
    fn a_full_mailbox_gets_empty_again() {
        holds(|| deliver(1, &[&[1, 2]], true));
    }

    /// The first test has to be able to fail.
    #[test]
    fn a_loop_that_sleeps_whatever_doze_says_loses_letters() {
        fails(|| deliver(4, &[&[1], &[2]], false));
    }

    /// A letter is taken, or its poster is told that it won't be.
    #[test]
    fn no_letter_is_lost_to_a_closing_loop() {
        holds(|| {
            let mailbox = Arc::new(mailbox::Mailbox::new(4));
            let bell = Arc::new(Bell::default());
            let poster = {
                let (mailbox, bell) = (Arc::clone(&mailbox), Arc::clone(&bell));
                thread::spawn(move || post(&mailbox, &bell, 1))
            };
            mailbox.close();
            let is_posted = poster.join().unwrap();
            let mut taken = VecDeque::new();
            let more = mailbox.take(usize::MAX, &mut taken);
            assert!(!more, "a closed mailbox that is empty has no more");
            assert_eq!(is_posted, taken == [1]);
        });
    }

    /// A loop that is told to end while it is going to sleep has to wake up.
    #[test]
    fn closing_wakes_the_loop() {
        holds(|| {
            let mailbox = Arc::new(mailbox::Mailbox::<u8>::new(4));
            let bell = Arc::new(Bell::default());
            let closer = {
                let (mailbox, bell) = (Arc::clone(&mailbox), Arc::clone(&bell));
                thread::spawn(move || {
                    if mailbox.close() {
                        bell.ring();
                    }
                })
            };
            while mailbox.take(usize::MAX, &mut VecDeque::new()) {
                if mailbox.doze() {
                    bell.wait();
                }
            }
            closer.join().unwrap();
        });
    }
}

mod answers {
    use super::*;

    /// An answer that comes while somebody begins to wait for it must not be slept through.
    #[test]
    fn a_waiting_thread_gets_its_answer() {
        holds(|| {
            let (promise, answer) = answer::answer();
            let loop_ = thread::spawn(move || promise.give(7));
            assert_eq!(answer.wait(Duration::MAX), answer::Outcome::Given(7));
            assert_eq!(answer.wait(Duration::MAX), answer::Outcome::Never, "it is given out once");
            loop_.join().unwrap();
        });
    }

    /// A loop that ends leaves nobody waiting.
    #[test]
    fn a_dropped_promise_ends_the_wait() {
        holds(|| {
            let (promise, answer) = answer::answer::<u8>();
            let loop_ = thread::spawn(move || drop(promise));
            assert_eq!(answer.wait(Duration::MAX), answer::Outcome::Never);
            loop_.join().unwrap();
        });
    }

    /// A task that isn't woken never asks again.
    #[test]
    fn a_waiting_task_is_woken() {
        holds(|| {
            let (promise, answer) = answer::answer();
            let loop_ = thread::spawn(move || promise.give(7));
            let bell = Arc::new(Bell::default());
            let waker = Waker::from(Arc::clone(&bell));
            let outcome = loop {
                match answer.poll(&Context::from_waker(&waker)) {
                    Poll::Ready(outcome) => break outcome,
                    Poll::Pending => bell.wait(),
                }
            };
            assert_eq!(outcome, answer::Outcome::Given(7));
            loop_.join().unwrap();
        });
    }
}

mod frontiers {
    use super::*;

    /// Makes a test of the compilation `$of`: what the loop does before it publishes a VDL, or
    /// that it is overtaken, is seen by whoever sees that.
    macro_rules! publishes {
        ($of:ident) => {{
            || {
                let shared = Arc::new(($of::frontier::Frontier::new(), AtomicU64::new(0)));
                let publisher = {
                    let shared = Arc::clone(&shared);
                    thread::spawn(move || {
                        shared.1.store(5, StdOrdering::Relaxed);
                        shared.0.advance(Lsn::new(5));
                    })
                };
                if shared.0.vdl() == Lsn::new(5) {
                    assert_eq!(shared.1.load(StdOrdering::Relaxed), 5);
                }
                publisher.join().unwrap();
            }
        }};
    }

    /// Makes a test of the compilation `$of`: who sees that a volume is overtaken sees its last
    /// VDL.
    macro_rules! overtakes {
        ($of:ident) => {{
            || {
                let frontier = Arc::new($of::frontier::Frontier::new());
                let publisher = {
                    let frontier = Arc::clone(&frontier);
                    thread::spawn(move || {
                        frontier.advance(Lsn::new(5));
                        frontier.overtake();
                    })
                };
                if frontier.is_overtaken() {
                    assert_eq!(frontier.vdl(), Lsn::new(5));
                }
                publisher.join().unwrap();
            }
        }};
    }

    /// A thread that sees a VDL goes on to use what the loop published with it.
    #[test]
    fn a_vdl_is_seen_with_what_came_before() {
        holds(publishes!(super));
        fails(publishes!(relaxed_store));
        fails(publishes!(relaxed_load));
    }

    /// A writer that knows that it is over must not report an older VDL than it reached.
    #[test]
    fn an_overtaken_volume_is_seen_with_its_last_vdl() {
        holds(overtakes!(super));
        fails(overtakes!(relaxed_store));
        fails(overtakes!(relaxed_load));
    }
}

mod handovers {
    use super::*;

    /// What a thread and a loop write, in the order of their writing.
    #[derive(Debug, Default)]
    struct Written {
        bytes: loom::sync::Mutex<Vec<u8>>,
        /// Whether somebody is at it.
        is_busy: loom::sync::atomic::AtomicBool,
    }

    impl Written {
        fn append(&self, group: &[Vec<u8>], through: u64) {
            let was_busy = self.is_busy.swap(true, StdOrdering::Relaxed);
            assert!(!was_busy, "two write at once: groups can change places");
            let mut bytes = self.bytes.lock().unwrap();
            bytes.extend(group.concat());
            assert_eq!(bytes.len() as u64, through, "a number covers its bytes");
            drop(bytes);
            self.is_busy.store(false, StdOrdering::Relaxed);
        }
    }

    /// How the loop makes what it added durable.
    #[derive(Clone, Copy, Debug, Eq, PartialEq)]
    enum Commit {
        Claim,
        Forget,
        Offer,
        TakeAnyway,
    }

    /// Adds a frame for each of `commits` and commits it so, beside a thread that writes.
    fn write(commits: &'static [Commit]) {
        let handover = Arc::new(handover::Handover::new());
        let written = Arc::new(Written::default());
        let writer = {
            let (handover, written) = (Arc::clone(&handover), Arc::clone(&written));
            thread::spawn(move || {
                let mut spare = Vec::new();
                while let Some(through) = handover.exchange(&mut spare) {
                    written.append(&spare, through);
                    handover.release();
                }
            })
        };
        let mut spare = Vec::new();
        for (number, commit) in (1..).zip(commits) {
            handover.add(b"x".to_vec(), number);
            match commit {
                Commit::Claim => {
                    if let handover::Claim::Mine(through) = handover.claim(&mut spare) {
                        written.append(&spare, through);
                        handover.release();
                    }
                }
                Commit::Forget => {}
                Commit::Offer => handover.offer(),
                Commit::TakeAnyway => {
                    handover.release();
                    if let handover::Claim::Mine(through) = handover.claim(&mut spare) {
                        written.append(&spare, through);
                        handover.release();
                    }
                }
            }
        }
        handover.close();
        writer.join().unwrap();
        assert_eq!(written.bytes.lock().unwrap().len(), commits.len());
    }

    /// Bytes that get lost, or come twice, or change places between the loop and the disk are
    /// acknowledged all the same.
    #[test]
    fn every_frame_is_written_once_in_order() {
        holds(|| write(&[Commit::Offer, Commit::Claim]));
        holds(|| write(&[Commit::Claim, Commit::Offer, Commit::Claim]));
        holds(|| write(&[Commit::Offer, Commit::Offer]));
    }

    /// What nobody committed when a log is closed is written then.
    #[test]
    fn closing_leaves_nothing_behind() {
        holds(|| write(&[Commit::Offer, Commit::Forget]));
    }

    /// The first test has to be able to fail.
    #[test]
    fn a_loop_that_does_not_wait_for_the_thread_is_noticed() {
        fails(|| write(&[Commit::Offer, Commit::TakeAnyway]));
    }
}
