//! The names of a model's steps.

use std::fmt;

use quorate_core::id::Position;
use serde::{Deserialize, Serialize};

use crate::clones::CloneStep;
use crate::reader::ReaderStep;
use crate::step::position_of;

/// One step. Segments are named by group and position, writers by the order of their epochs.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub enum Action {
    /// An answer of a segment reaches its writer.
    Answer {
        /// Group of the segment.
        group: u8,
        /// Position of the segment.
        position: u8,
        /// Which of its unsent answers.
        index: u8,
    },
    /// A strict read arrives at an open writer.
    Ask {
        /// The writer.
        writer: u8,
    },
    /// An open writer locates a point of the log, and the next writer starts to go there.
    Backtrack {
        /// The writer that locates.
        writer: u8,
        /// The LSN.
        target: u8,
    },
    /// Something of, or about, a clone.
    Clone(CloneStep),
    /// A segment discards what its garbage floor allows.
    Collect {
        /// Group of the segment.
        group: u8,
        /// Position of the segment.
        position: u8,
    },
    /// A segment crashes and restarts.
    Crash {
        /// Group of the segment.
        group: u8,
        /// Position of the segment.
        position: u8,
        /// How many of the unsynced writes survived whole.
        survivors: u8,
        /// Whether the next one survived in part.
        torn: bool,
    },
    /// The log of a segment is damaged while it is down, and it restarts with what is whole.
    Damage {
        /// Group of the segment.
        group: u8,
        /// Position of the segment.
        position: u8,
        /// How many of its records are left, with its history; `None` when nothing is.
        kept: Option<u8>,
    },
    /// A message of a writer reaches a segment.
    Deliver {
        /// The writer.
        writer: u8,
        /// Which of the messages it has sent, in the order of their hashes.
        message: u8,
        /// Group of the segment.
        group: u8,
        /// Position of the segment.
        position: u8,
    },
    /// The gossip answer on its way to a segment arrives.
    Gossip {
        /// Group of the segment.
        group: u8,
        /// Position of the segment.
        position: u8,
    },
    /// The disk of a segment is lost, and an empty one takes its place.
    Lose {
        /// Group of the segment.
        group: u8,
        /// Position of the segment.
        position: u8,
    },
    /// An open writer tells the VDL.
    Publish {
        /// The writer.
        writer: u8,
    },
    /// A segment pulls from another one.
    Pull {
        /// Group of both.
        group: u8,
        /// The one that asks.
        into: u8,
        /// The one that answers.
        from: u8,
    },
    /// Something of, or about, the reader.
    Reader(ReaderStep),
    /// The next writer starts its recovery.
    Recover,
    /// Something of, or about, the second region.
    Region(RegionStep),
    /// A writer sends a segment again what it may lack.
    Resend {
        /// The writer.
        writer: u8,
        /// Group of the segment.
        group: u8,
        /// Position of the segment.
        position: u8,
    },
    /// An open writer takes a step of a membership change.
    Step {
        /// The writer.
        writer: u8,
        /// Which of the configuration's steps.
        step: u8,
    },
    /// A write of a segment is synced and reported durable.
    Sync {
        /// Group of the segment.
        group: u8,
        /// Position of the segment.
        position: u8,
        /// Which of the writes under way.
        index: u8,
    },
    /// An open writer writes a mini-transaction.
    Write {
        /// The writer.
        writer: u8,
        /// Which of the configuration's mini-transactions.
        mtr: u8,
    },
}

impl fmt::Display for Action {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |position: u8| {
            Position::new(usize::from(position)).map_or_else(String::new, |p| p.to_string())
        };
        let nth = |writer: u8| u32::from(writer).saturating_add(1);
        match *self {
            Self::Answer { group, position, index } => {
                write!(out, "answer {index} of g{group}{} arrives", name(position))
            }
            Self::Ask { writer } => write!(out, "writer {} gets a strict read", nth(writer)),
            Self::Backtrack { writer, target } => {
                write!(
                    out,
                    "the next writer starts, to go where writer {} says {target} is",
                    nth(writer)
                )
            }
            Self::Clone(step) => step.fmt(out),
            Self::Collect { group, position } => {
                write!(out, "g{group}{} discards old versions", name(position))
            }
            Self::Crash { group, position, survivors, torn } => {
                let tail = if torn { ", the next one torn" } else { "" };
                write!(out, "g{group}{} crashes, {survivors} writes survive{tail}", name(position))
            }
            Self::Damage { group, position, kept: Some(kept) } => {
                write!(out, "g{group}{} is damaged, {kept} records are left", name(position))
            }
            Self::Damage { group, position, kept: None } => {
                write!(out, "g{group}{} is damaged, nothing is left", name(position))
            }
            Self::Deliver { writer, message, group, position } => {
                let to = name(position);
                write!(out, "message {message} of writer {} reaches g{group}{to}", nth(writer))
            }
            Self::Gossip { group, position } => {
                write!(out, "the answer to its pull reaches g{group}{}", name(position))
            }
            Self::Lose { group, position } => {
                write!(out, "g{group}{} loses its disk", name(position))
            }
            Self::Publish { writer } => write!(out, "writer {} tells its VDL", nth(writer)),
            Self::Pull { group, into, from } => {
                write!(out, "g{group}{} pulls from {}", name(into), name(from))
            }
            Self::Reader(step) => step.fmt(out),
            Self::Recover => write!(out, "the next writer starts"),
            Self::Region(step) => step.fmt(out),
            Self::Resend { writer, group, position } => {
                write!(out, "writer {} sends again to g{group}{}", nth(writer), name(position))
            }
            Self::Step { writer, step } => write!(out, "writer {} takes step {step}", nth(writer)),
            Self::Sync { group, position, index } => {
                write!(out, "write {index} of g{group}{} is durable", name(position))
            }
            Self::Write { writer, mtr } => write!(out, "writer {} writes MTR {mtr}", nth(writer)),
        }
    }
}

/// A step of, or about, the second region.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub enum RegionStep {
    /// The relay's request for a stream reaches an open writer.
    Attach {
        /// The writer.
        writer: u8,
    },
    /// Something that a relay has sent reaches a segment.
    Deliver {
        /// Which of what it has sent.
        index: u8,
        /// Position of the segment.
        position: u8,
    },
    /// A message of a writer reaches the relay.
    Follow {
        /// The writer.
        writer: u8,
        /// Which of the messages it has sent to readers, in the order of their hashes.
        message: u8,
    },
    /// The second region is promoted.
    Promote,
    /// A relay from the second region to the first takes the place of the other one.
    Reattach,
    /// The relay asks a segment for what is missing, and gets it.
    Refill {
        /// Group of the segment.
        group: u8,
        /// Position of the segment.
        position: u8,
    },
    /// The relay crashes, and another one starts.
    Restart,
    /// A planned switch: the second region opens after the first was fenced and drained.
    Switch {
        /// The writer that has fenced the first region.
        writer: u8,
    },
    /// The writer of the second region writes a mini-transaction.
    Write {
        /// Which of the configuration's mini-transactions.
        mtr: u8,
    },
}

impl fmt::Display for RegionStep {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nth = |writer: u8| u32::from(writer).saturating_add(1);
        match *self {
            Self::Attach { writer } => write!(out, "writer {} registers the relay", nth(writer)),
            Self::Deliver { index, position } => {
                write!(out, "parcel {index} of the relay reaches {}", position_of(position))
            }
            Self::Follow { writer, message } => {
                write!(out, "message {message} of writer {} reaches the relay", nth(writer))
            }
            Self::Promote => write!(out, "the second region is promoted"),
            Self::Reattach => write!(out, "the first region is attached to the second"),
            Self::Refill { group, position } => {
                write!(out, "the relay pulls from g{group}{}", position_of(position))
            }
            Self::Restart => write!(out, "the relay crashes, and another one starts"),
            Self::Switch { .. } => write!(out, "the second region takes over as planned"),
            Self::Write { mtr } => write!(out, "the second region's writer writes MTR {mtr}"),
        }
    }
}
