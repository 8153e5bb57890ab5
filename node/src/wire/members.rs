//! What a writer process says of the members of its volume's groups.

use std::net::SocketAddr;

use quorate_core::formula::Formula;
use quorate_core::geometry::GROUPS_MAX;
use quorate_core::id::{Incarnation, PgId, Position, SEGMENTS_MAX, SegmentSet};
use quorate_core::list;
use quorate_core::lsn::Lsn;
use quorate_core::membership::{Membership, StepRefusal};
use serde::{Deserialize, Serialize};

/// The members of all groups, by group.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct VolumeMembers {
    /// The groups.
    #[serde(deserialize_with = "list::deserialize_at_most::<_, _, { GROUPS_MAX as usize }>")]
    pub groups: Vec<GroupMembers>,
}

/// The members of one group.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct GroupMembers {
    /// The group.
    pub group: PgId,
    /// The membership that the writer has proposed or adopted last.
    pub membership: Membership,
    /// Whether the next step may be taken: the last one is settled, and a write quorum knows it.
    pub is_settled: bool,
    /// What members that join must hold; zero without a change under way.
    pub target: Lsn,
    /// At or under it the group has met its write quorum.
    pub pgcl: Lsn,
    /// Everybody whom the membership concerns, by position.
    #[serde(deserialize_with = "list::deserialize_at_most::<_, _, SEGMENTS_MAX>")]
    pub members: Vec<MemberView>,
}

/// A member as its writer sees it.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct MemberView {
    /// Its position.
    pub position: Position,
    /// Which disk.
    pub incarnation: Incarnation,
    /// Where it is, as far as the writer knows.
    pub address: Option<SocketAddr>,
    /// Whether there is a connection to it.
    pub is_up: bool,
    /// The SCL that it has acknowledged to this writer; zero before it has.
    pub scl: Lsn,
}

/// What became of a step that a client asked for.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Stepped {
    /// The writer has no such group.
    NoGroup,
    /// It can't be taken, or not yet.
    Refused(StepRefusal),
    /// It is proposed, or was taken before.
    Taken,
    /// The disk that is to join doesn't answer at its address, or another one does. It can be asked
    /// for again in a moment.
    Unreachable,
}

/// What a member does in its group.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum MemberRole {
    /// It joins: it takes what is written and votes on nothing that is read.
    Joining,
    /// It goes once the change under way is finished.
    Leaving,
    /// It is a member, and stays one.
    Member,
    /// It is none any more, or never became one; some don't know that yet.
    Removed,
}

/// Returns what the segment at `position` does under `membership`.
#[must_use]
pub fn role(membership: &Membership, position: Position) -> MemberRole {
    let quorums = membership.quorums();
    let stays = stays(quorums);
    if stays.contains(position) {
        MemberRole::Member
    } else if quorums.reading().members().contains(position) {
        MemberRole::Leaving
    } else if quorums.members().contains(position) {
        MemberRole::Joining
    } else {
        MemberRole::Removed
    }
}

/// Returns the members of every term.
fn stays(quorums: &Formula) -> SegmentSet {
    let terms = quorums.terms().iter();
    terms.fold(quorums.members(), |all, term| all.and(term.members()))
}
