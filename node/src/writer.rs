//! A writer process: it opens a volume, takes it over, and serves clients until it is overtaken.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use quorate_core::rules::{Rules, Sound};

use crate::answer::{Answer, Outcome, answer};
use crate::clock::Moment;
use crate::env::Environment;
use crate::mailbox::Mailbox;
use crate::volume::driver::VolumeDriver;
use crate::volume::{Command, Opened, VolumeConfig, VolumeError};

/// How long a writer that ends goes on to answer: those who asked just before are told as well.
const ANSWER_MAX: Duration = Duration::from_secs(1);

/// How long an overtaken writer waits for requests that are on their way.
const LINGER: Duration = Duration::from_millis(200);

/// Why a writer process can't start or has to stop. The text says what happened, why, and what to
/// do.
#[derive(Debug, thiserror::Error)]
pub enum WriterError {
    /// Nobody can be listened to at the address.
    #[error(
        "cannot listen at {address}: {error}. Set another address under `listen` in the \
         configuration, or end the process that has this one"
    )]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        error: io::Error,
    },
    /// The operating system has no randomness.
    #[error("the operating system failed this process: {0}. Start the writer again")]
    System(#[from] io::Error),
    /// The volume can't be opened, or has been lost to another writer.
    #[error(transparent)]
    Volume(#[from] VolumeError),
}

/// A writer process over any environment.
pub struct WriterProcess<E: Environment, R: Rules = Sound> {
    driver: VolumeDriver<E, R>,
    /// Held open: the loop ends when this side is gone.
    _commands: Arc<Mailbox<Command>>,
    opened: Answer<Result<Opened, VolumeError>>,
}

impl<E: Environment> WriterProcess<E> {
    /// Starts to listen at `listen` and to open the volume: in this order, so that a process
    /// without an address takes nothing over.
    ///
    /// # Errors
    /// [`WriterError`] says why it can't start.
    pub fn start(env: E, config: VolumeConfig, listen: SocketAddr) -> Result<Self, WriterError> {
        Self::start_under(Sound, env, config, listen)
    }
}

impl<E: Environment, R: Rules> WriterProcess<E, R> {
    /// [`WriterProcess::start`] with a writer that obeys `rules`.
    ///
    /// # Errors
    /// As there.
    pub fn start_under(
        rules: R,
        env: E,
        config: VolumeConfig,
        listen: SocketAddr,
    ) -> Result<Self, WriterError> {
        let commands = Arc::new(Mailbox::new(1));
        let (opening, opened) = answer();
        let mut driver =
            VolumeDriver::start_under(rules, env, config, Arc::clone(&commands), opening)?;
        driver.listen(listen).map_err(|error| WriterError::Listen { address: listen, error })?;
        Ok(Self { driver, _commands: commands, opened })
    }

    /// Serves until `is_over`, which is asked at every turn; calls `when_open` once the volume is
    /// open.
    ///
    /// # Errors
    /// [`WriterError`] says why the writer has to stop; everybody who waited has been told by then.
    pub fn run(
        &mut self,
        is_over: impl Fn() -> bool,
        when_open: impl FnOnce(&Opened),
    ) -> Result<(), WriterError> {
        let mut when_open = Some(when_open);
        while !is_over() {
            self.driver.turn();
            if let Outcome::Given(Ok(opened)) = self.opened.take()
                && let Some(when_open) = when_open.take()
            {
                when_open(&opened);
            }
            if let Some(error) = self.driver.over() {
                self.answer_all(LINGER);
                return Err(error.into());
            }
        }
        self.answer_all(Duration::ZERO);
        Ok(())
    }

    /// Goes on until everything is answered, at least for `least`.
    fn answer_all(&mut self, least: Duration) {
        let start = self.driver.now();
        let passed = |now: Moment| now.since(start);
        while passed(self.driver.now()) < ANSWER_MAX
            && (passed(self.driver.now()) < least || !self.driver.is_idle())
        {
            self.driver.turn_for(LINGER / 10);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::net::{Ipv4Addr, TcpListener};
    use std::sync::mpsc;
    use std::thread;

    use super::*;
    use crate::config::VolumeId;
    use crate::env::real::RealEnvironment;

    /// A writer that can reach nobody must end when its patience does: nobody wakes it then.
    #[test]
    fn a_writer_that_cannot_open_ends_in_time() {
        let held: Vec<TcpListener> =
            (0..7).map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap()).collect();
        let addresses: Vec<SocketAddr> =
            held.iter().map(|listener| listener.local_addr().unwrap()).collect();
        drop(held);
        let (listen, segments) = addresses.split_first().unwrap();
        let (listen, segments) = (*listen, vec![segments.to_vec()]);
        let patience = Duration::from_millis(300);
        let (sender, outcome) = mpsc::channel();
        thread::spawn(move || {
            let config = VolumeConfig::new(VolumeId::new(1), segments, patience);
            let env = RealEnvironment::new().unwrap();
            let mut writer = WriterProcess::start(env, config, listen).unwrap();
            let _ = sender.send(writer.run(|| false, |_| {}));
        });
        let outcome = outcome.recv_timeout(Duration::from_secs(30)).unwrap();
        let Err(WriterError::Volume(VolumeError::Unavailable(unavailable))) = outcome else {
            unreachable!("{outcome:?}")
        };
        assert_eq!((unavailable.reached, unavailable.segments), (0, 6));
    }
}
