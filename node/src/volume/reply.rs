//! Where answers go: to whoever waits in this process, or to a caller over the network. The only
//! file that says how a waiting thread gets its answer.

use quorate_core::id::Ticket;

use super::{Committed, Opened, PageVersion, VolumeError};
use crate::answer::Promise;
use crate::env::Token;
use crate::wire::client::{Answer, ClientRefusal, ClientReply, PageSum};

/// Hands an answer to a thread or a task of this process.
pub type Waiter<T> = Promise<Result<T, VolumeError>>;

/// Where the answer to one command goes.
#[derive(Debug)]
pub(super) enum Reply<T> {
    /// To a client of this process, under its ticket.
    Caller { token: Token, ticket: Ticket },
    /// To a thread or a task.
    Waiter(Waiter<T>),
}

/// Answers for callers that aren't on their connections yet.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    pub(crate) replies: Vec<(Token, ClientReply, Vec<u8>)>,
}

/// What can be answered to a caller.
pub(crate) trait IntoAnswer {
    /// Returns the answer with the bytes that go beside it.
    fn into_answer(self) -> (Answer, Vec<u8>);
}

impl IntoAnswer for Committed {
    fn into_answer(self) -> (Answer, Vec<u8>) {
        (Answer::Written(self), Vec::new())
    }
}

impl IntoAnswer for Opened {
    fn into_answer(self) -> (Answer, Vec<u8>) {
        let Self { epoch, recovery_point, .. } = self;
        (Answer::Opened { epoch, recovery_point }, Vec::new())
    }
}

impl IntoAnswer for PageVersion {
    fn into_answer(self) -> (Answer, Vec<u8>) {
        let Self { page, read_point, lsn, bytes } = self;
        match PageSum::describe(page, &bytes) {
            Some(page) => (Answer::Page { page, read_point, lsn }, bytes),
            None => (Answer::Refused(ClientRefusal::Oversized), Vec::new()),
        }
    }
}

impl<T: IntoAnswer> Reply<T> {
    /// Returns whether somebody of this process gets the answer.
    pub(super) const fn is_waiter(&self) -> bool {
        matches!(self, Self::Waiter(_))
    }

    /// Sends the answer on its way. Whoever asked may have stopped waiting.
    pub(super) fn send(self, outcome: Result<T, VolumeError>, outbox: &mut Outbox) {
        match self {
            Self::Waiter(waiter) => waiter.give(outcome),
            Self::Caller { token, ticket } => {
                let refused = |error| (Answer::Refused(ClientRefusal::from(error)), Vec::new());
                let (answer, bytes) = outcome.map_or_else(refused, IntoAnswer::into_answer);
                outbox.replies.push((token, ClientReply { ticket, answer }, bytes));
            }
        }
    }
}
