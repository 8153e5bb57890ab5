//! A node's segment, as its log tells it.

use quorate_core::rules::Rules;

use super::error::{self, NodeError};
use crate::config::NodeConfig;
use crate::disk::{Replay, SegmentLog};
use crate::env::Environment;
use crate::format::{self, LogIdentity};
use crate::host::SegmentHost;

/// Opens the segment's log, and says so if damage has cost the segment its vote.
pub(super) fn open<E: Environment, R: Rules>(
    rules: R,
    env: &mut E,
    config: &NodeConfig,
) -> Result<(SegmentHost<E::Log, R>, Replay), NodeError> {
    let NodeConfig { volume, group, position, incarnation, geometry, directory, .. } = config;
    let salt = env.random()?;
    let identity = LogIdentity {
        volume: *volume,
        group: *group,
        position: *position,
        geometry: *geometry,
        incarnation: *incarnation,
        salt,
    };
    let header = format::encode_header(&identity)?;
    let file = env
        .open_log(directory, &header)
        .map_err(|error| NodeError::Log { directory: directory.clone(), error })?;
    let (log, image, replay) = SegmentLog::open_or_replace(file, &identity)
        .map_err(|error| NodeError::Open { directory: directory.clone(), error })?;
    let host = SegmentHost::new_under(rules, image, log);
    if let Some(replaced) = &replay.replaced {
        env.say(&error::replaced(directory, replaced, host.has_vote()));
    } else if !host.has_vote() {
        env.say(&error::impaired(directory));
    }
    Ok((host, replay))
}
