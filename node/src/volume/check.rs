//! What a volume client checks before it does something.

use std::collections::BTreeMap;
use std::sync::Arc;

use quorate_core::geometry::VolumeGeometry;
use quorate_core::lsn::Lsn;

use super::flow::Peer;
use super::{PageImage, VolumeConfig, VolumeError};
use crate::payload::PAGE_BYTES_MAX;
use crate::wire::{self, Envelope};

/// Returns why a write can't be carried out in any volume.
pub(super) fn refuse(pages: &[PageImage]) -> Option<VolumeError> {
    if pages.iter().any(|page| page.bytes.len() > PAGE_BYTES_MAX) {
        return Some(VolumeError::Oversized);
    }
    pages.is_empty().then_some(VolumeError::Empty)
}

/// What the segments say about the volume's shape.
pub(super) enum Shape {
    Known(VolumeGeometry),
    Other { found: u32 },
    Unknown,
}

/// Returns the shape once a read quorum of every group has told it.
pub(super) fn shape<S>(peers: &[Peer<S>], config: &VolumeConfig) -> Shape {
    let told = || peers.iter().filter_map(|peer| Some((peer.group, peer.welcome?.geometry)));
    let Some((_, geometry)) = told().next() else { return Shape::Unknown };
    let found = geometry.groups_count();
    if usize::try_from(found) != Ok(config.segments.len()) {
        return Shape::Other { found };
    }
    // A segment that says something else doesn't count; its seal answer will be rejected.
    let agree = |group| told().filter(|(of, told)| (*of, *told) == (group, geometry)).count();
    let is_known = geometry.groups().all(|group| agree(group) >= geometry.quorums().read());
    if is_known { Shape::Known(geometry) } else { Shape::Unknown }
}

/// Returns the frame of a message with its payloads, or `None` when it can't be sent: a payload is
/// gone once its record is complete, and gossip brings it then.
pub(super) fn encode(
    envelope: &Envelope,
    payloads: &BTreeMap<Lsn, Arc<[u8]>>,
) -> Option<Arc<Vec<u8>>> {
    let slices: Vec<&[u8]> = envelope
        .records()
        .iter()
        .map(|record| payloads.get(&record.lsn).map(AsRef::as_ref))
        .collect::<Option<_>>()?;
    wire::encode(envelope, &slices).ok().map(Arc::new)
}
