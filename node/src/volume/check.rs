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

/// Returns whether the volume's history may have no room for another range, on a write quorum of
/// some group, as far as its segments told when they were reached. A seal would then find those
/// that were away, and their promise would cost the volume the writer that it has.
pub(super) fn is_history_full<S>(peers: &[Peer<S>], geometry: &VolumeGeometry) -> bool {
    let quorums = geometry.quorums();
    let ranges_max = u64::from(geometry.limits().history_ranges_max);
    geometry.groups().any(|group| {
        let told = || peers.iter().filter(|peer| peer.group == group).filter_map(|p| p.welcome);
        let full = told().filter(|told| told.status.history_ranges >= ranges_max).count();
        let away = quorums.members().saturating_sub(told().count());
        full > 0 && full.saturating_add(away) >= quorums.write()
    })
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
