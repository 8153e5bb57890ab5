//! `quorate members`.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use quorate_core::formula::Formula;
use quorate_core::id::Position;
use quorate_node::client::Client;
use quorate_node::cluster::ClusterFile;
use quorate_node::config::file::WriterFile;
use quorate_node::steward;
use quorate_node::wire::members::{GroupMembers, MemberRole, MemberView, role};
use serde::Serialize;

use crate::Outcome;
use crate::place::{PATIENCE, Place, print_json};

/// Show who the members of the volume's protection groups are, and which change is under way.
#[derive(Args, Debug)]
#[command(after_help = "\
Example: quorate members

A member is named by its position (A to H) and by the number of the disk that has it. role: joining
members take what is written and vote on nothing that is read; leaving ones are there until the
change is finished.")]
pub(crate) struct MembersArguments {
    #[command(flatten)]
    place: Place,
    /// Ask the writer of this configuration instead of a cluster on this machine
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Group {
    group: u32,
    /// The version of the membership: the epoch's counter and the number of the step.
    membership: String,
    settled: bool,
    /// `ABCDEF 4/3`: the members, how many a write needs, and how many a read or a recovery.
    quorums: Vec<String>,
    change: Option<String>,
    pgcl: u64,
    target: Option<u64>,
    members: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    position: String,
    incarnation: u32,
    name: Option<String>,
    zone: Option<String>,
    address: Option<SocketAddr>,
    role: MemberRole,
    state: &'static str,
    scl: u64,
    behind: u64,
}

impl MembersArguments {
    pub(crate) fn execute(self) -> Outcome {
        let (mut client, file) = match &self.config {
            Some(path) => {
                let (config, listen) = WriterFile::load(path)?;
                (Client::connect(listen, config.volume, PATIENCE)?, None)
            }
            None => (self.place.connect()?, Some(self.place.running()?)),
        };
        let members = client.members()?;
        let groups: Vec<Group> =
            members.groups.iter().map(|group| describe(group, file.as_ref())).collect();
        if self.json {
            return print_json(&groups);
        }
        let mut out = io::stdout().lock();
        for group in &groups {
            print(&mut out, group)?;
        }
        Ok(())
    }
}

fn describe(group: &GroupMembers, file: Option<&ClusterFile>) -> Group {
    let change = steward::under_way(&group.membership);
    Group {
        group: group.group.get(),
        membership: group.membership.epoch().to_string(),
        settled: group.is_settled,
        quorums: quorums(group.membership.quorums()),
        change: change.map(|(_, change)| format!("{} for {}", change.new, change.old)),
        pgcl: group.pgcl.get(),
        target: change.map(|_| group.target.get()),
        members: group.members.iter().map(|member| row(group, member, file)).collect(),
    }
}

fn quorums(formula: &Formula) -> Vec<String> {
    let term = |term: &quorate_core::formula::Term| {
        let members: String = term.members().iter().map(|at| at.to_string()).collect();
        format!("{members} {}/{}", term.write(), term.read())
    };
    formula.terms().iter().map(term).collect()
}

fn row(group: &GroupMembers, member: &MemberView, file: Option<&ClusterFile>) -> Row {
    let MemberView { position, incarnation, address, is_up, scl } = *member;
    let role = role(&group.membership, position);
    let known = file.and_then(|file| {
        let mut nodes = file.nodes.iter().enumerate();
        let is_it = |(index, node): &(usize, &quorate_node::cluster::Member)| {
            Position::new(node.position.unwrap_or(*index)) == Some(position)
                && node.incarnation == incarnation.get()
        };
        nodes.find(is_it).map(|(_, node)| node)
    });
    Row {
        position: position.to_string(),
        incarnation: incarnation.get(),
        name: known.map(|node| node.name.clone()),
        zone: known.and_then(|node| node.zone.clone()),
        address,
        role,
        state: if is_up { "up" } else { "down" },
        scl: scl.get(),
        behind: group.pgcl.get().saturating_sub(scl.get()),
    }
}

fn print(out: &mut impl Write, group: &Group) -> io::Result<()> {
    let state = if group.settled { "settled" } else { "not settled" };
    let quorums = group.quorums.join(" and ");
    writeln!(out, "group {}: membership {}, {state}: {quorums}", group.group, group.membership)?;
    if let Some(change) = &group.change {
        writeln!(out, "under way: {change}, which has to hold all up to LSN {}", {
            group.target.unwrap_or_default()
        })?;
    }
    writeln!(out, "\n  member  name    zone  address          role     state  {:>12}", "SCL")?;
    for row in &group.members {
        let dash = || "-".to_string();
        let role = match row.role {
            MemberRole::Joining => "joining",
            MemberRole::Leaving => "leaving",
            MemberRole::Member => "member",
            MemberRole::Removed => "removed",
        };
        writeln!(
            out,
            "  {:<6}  {:<6}  {:<4}  {:<15}  {role:<7}  {:<5}  {:>12}",
            format!("{}#{}", row.position, row.incarnation),
            row.name.clone().unwrap_or_else(dash),
            row.zone.clone().unwrap_or_else(dash),
            row.address.map_or_else(dash, |address| address.to_string()),
            row.state,
            row.scl
        )?;
    }
    Ok(())
}
