//! A reader process: it follows a volume's writer, outlives it, and serves clients that only read.
//!
//! It has a link to every writer process that it was told of, and follows the one with the highest
//! epoch; and one to every segment, of which it asks what it doesn't have in memory.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use quorate_core::consistency::Vdl;
use quorate_core::epoch::VolumeEpoch;
use quorate_core::rules::{Rules, Sound};

use crate::config::VolumeId;
use crate::env::Environment;

mod driver;
mod reads;

use driver::ReaderDriver;

/// How long a turn waits for events, so that whoever ends the process is heard.
const TURN_MAX: Duration = Duration::from_millis(200);

/// What a reader process is told.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ReaderConfig {
    /// The volume.
    pub volume: VolumeId,
    /// The segments' addresses: by group, by position.
    pub segments: Vec<Vec<SocketAddr>>,
    /// Where writer processes of the volume are, or may be later.
    pub writers: Vec<SocketAddr>,
}

/// The beginning of a reader's life.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Attached {
    /// The epoch of the writer that registered it.
    pub epoch: VolumeEpoch,
    /// The point from which it reads.
    pub vdl: Vdl,
}

/// Why a reader process can't start or has to stop.
#[derive(Debug, thiserror::Error)]
pub enum ReaderError {
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
    /// A writer serves a volume of another shape.
    #[error(
        "the writer's volume has {found} groups, and the configuration lists {expected}: list the \
         addresses of all segments under `segments`"
    )]
    OtherGeometry {
        /// How many groups the configuration lists.
        expected: usize,
        /// How many there are.
        found: u32,
    },
    /// The operating system failed this process.
    #[error("the operating system failed this process: {0}. Start the reader again")]
    System(#[from] io::Error),
}

/// A reader process over any environment.
pub struct ReaderProcess<E: Environment, R: Rules = Sound> {
    driver: ReaderDriver<E, R>,
}

impl<E: Environment, R: Rules> ReaderProcess<E, R> {
    /// Starts to listen at `listen`, and to look for a writer; the reader obeys `rules`.
    ///
    /// # Errors
    /// [`ReaderError`] says why it can't start.
    pub fn start_under(
        rules: R,
        env: E,
        config: ReaderConfig,
        listen: SocketAddr,
    ) -> Result<Self, ReaderError> {
        let mut driver = ReaderDriver::new(rules, env, config)?;
        driver.listen(listen).map_err(|error| ReaderError::Listen { address: listen, error })?;
        Ok(Self { driver })
    }

    /// Serves until `is_over`, which is asked at every turn; calls `when_attached` whenever another
    /// writer has registered this reader.
    ///
    /// # Errors
    /// [`ReaderError`] says why the reader has to stop.
    pub fn run(
        &mut self,
        is_over: impl Fn() -> bool,
        mut when_attached: impl FnMut(&Attached),
    ) -> Result<(), ReaderError> {
        let mut epoch = None;
        while !is_over() {
            self.driver.turn_for(TURN_MAX)?;
            if let Some(attached) = self.driver.attached()
                && epoch != Some(attached.epoch)
            {
                epoch = Some(attached.epoch);
                when_attached(&attached);
            }
        }
        self.driver.detach();
        Ok(())
    }
}
