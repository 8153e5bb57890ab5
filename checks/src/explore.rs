//! A model in the browser: stateright's explorer, with states and steps that a person can read.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use quorate_core::rules::{Bug, Rules, Seeded, Sound};
use quorate_models::configuration::Configuration;
use quorate_models::step::Action;
use quorate_models::world::{State, World};
use stateright::{Model, Path, Property};
use thiserror::Error;

use crate::diagram::diagram;
use crate::label::Names;
use crate::page::{beats, table};
use crate::story::{headline, scene};
use crate::table::Table;
use crate::trace::retell;
use crate::verdict::{explain, promise};

/// Why the explorer can't be served.
#[derive(Debug, Error)]
pub enum ExploreError {
    /// The address can't be used.
    #[error("The explorer can't listen on {address}: {source}.")]
    Address {
        /// The address.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// The address can be reached from other machines.
    #[error("The explorer only listens on this machine, like 127.0.0.1:3000; not on {address}.")]
    NotLoopback {
        /// The address.
        address: SocketAddr,
    },
}

/// Serves `configuration`, with a seeded bug if one is given, on `address`, until the process
/// ends.
///
/// # Errors
/// [`ExploreError`] when the address is not one of this machine's loopback addresses, or in use.
pub fn explore(
    configuration: &Configuration,
    bug: Option<Bug>,
    address: &str,
) -> Result<(), ExploreError> {
    let address = loopback(address)?;
    // The explorer panics when it can't listen: find out first, and which port, if any will do.
    let refused = |source| ExploreError::Address { address: address.to_string(), source };
    let address = TcpListener::bind(address).and_then(|free| free.local_addr());
    let address = address.map_err(refused)?;
    thread::spawn(move || announce(address));
    match bug {
        None => serve(World::new(configuration, Sound, 0), None, address),
        Some(bug) => serve(World::new(configuration, Seeded(bug), 0), Some(bug), address),
    }
    Ok(())
}

/// Returns the first address that `address` names, if all of them are loopback addresses: whoever
/// reaches the explorer makes this process work.
fn loopback(address: &str) -> Result<SocketAddr, ExploreError> {
    let unusable = |source| ExploreError::Address { address: address.to_owned(), source };
    let addresses: Vec<SocketAddr> = address.to_socket_addrs().map_err(unusable)?.collect();
    if let Some(open) = addresses.iter().find(|address| !address.ip().is_loopback()) {
        return Err(ExploreError::NotLoopback { address: *open });
    }
    let none = || unusable(io::Error::other("it names no address"));
    addresses.first().copied().ok_or_else(none)
}

/// How often it is tried whether the explorer listens yet, and how long in between.
const KNOCKS_MAX: u32 = 500;
const KNOCK_INTERVAL: Duration = Duration::from_millis(20);

/// Says where the explorer is, once it listens there.
fn announce(address: SocketAddr) {
    for _ in 0..KNOCKS_MAX {
        if TcpStream::connect(address).is_ok() {
            let _ = writeln!(io::stdout().lock(), "Open http://{address}/ (Ctrl-C ends)");
            return;
        }
        thread::sleep(KNOCK_INTERVAL);
    }
}

fn serve<R: Rules>(world: World<R>, bug: Option<Bug>, address: SocketAddr) {
    let explored = Explored { world: Arc::new(world), bug };
    let _ = explored.checker().serve(address);
}

/// A model whose states and steps say what they are. Its name is shown in the browser.
struct Explored<R: Rules> {
    world: Arc<World<R>>,
    bug: Option<Bug>,
}

/// A state that can print itself.
#[derive(Clone)]
struct Shown<R: Rules> {
    world: Arc<World<R>>,
    state: State,
}

/// A step, with what it is about in the state that it starts from.
#[derive(Clone, PartialEq)]
struct Choice {
    action: Action,
    label: String,
}

impl<R: Rules> PartialEq for Shown<R> {
    fn eq(&self, other: &Self) -> bool {
        self.state == other.state
    }
}

impl<R: Rules> Hash for Shown<R> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.state.hash(state);
    }
}

impl<R: Rules> fmt::Debug for Shown<R> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = Names::of(self.world.configuration());
        out.write_str(&table(&Table::of(&self.world, &self.state), names))?;
        if let Some(property) = self.world.verdict(&self.state) {
            let explanation = explain(&self.world, &self.state);
            writeln!(out, "\nBROKEN: {}. {}", property.name(), promise(property))?;
            writeln!(out, "{explanation}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Choice {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.label)
    }
}

impl<R: Rules> Explored<R> {
    fn shown(&self, state: State) -> Shown<R> {
        Shown { world: Arc::clone(&self.world), state }
    }
}

impl<R: Rules> Model for Explored<R> {
    type State = Shown<R>;
    type Action = Choice;

    fn init_states(&self) -> Vec<Self::State> {
        self.world.init_states().into_iter().map(|state| self.shown(state)).collect()
    }

    fn actions(&self, state: &Self::State, actions: &mut Vec<Self::Action>) {
        let mut plain = Vec::new();
        self.world.actions(&state.state, &mut plain);
        actions.extend(
            plain.into_iter().map(|action| Choice {
                action,
                label: headline(&self.world, &state.state, action),
            }),
        );
    }

    fn next_state(&self, state: &Self::State, choice: Choice) -> Option<Self::State> {
        self.world.next_state(&state.state, choice.action).map(|next| self.shown(next))
    }

    fn format_step(&self, state: &Self::State, choice: Choice) -> Option<String> {
        let (after, scene) = scene(&self.world, &state.state, choice.action)?;
        let names = Names::of(self.world.configuration());
        Some(format!("{}\n\n{:?}", beats(&scene, names), self.shown(after)))
    }

    fn as_svg(&self, path: Path<Self::State, Choice>) -> Option<String> {
        let actions: Vec<Action> =
            path.into_actions().into_iter().map(|choice| choice.action).collect();
        Some(diagram(&retell(&self.world, self.bug, &actions)))
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![Property::always("safety", |explored: &Self, shown: &Shown<R>| {
            explored.world.verdict(&shown.state).is_none()
        })]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_can_reach_the_explorer() {
        for open in ["0.0.0.0:0", "[::]:0", "192.0.2.1:3000"] {
            assert!(matches!(loopback(open), Err(ExploreError::NotLoopback { .. })), "{open}");
        }
        for own in ["127.0.0.1:3000", "[::1]:3000"] {
            assert!(loopback(own).is_ok(), "{own}");
        }
        assert!(matches!(loopback("3000"), Err(ExploreError::Address { .. })));
    }

    #[test]
    fn an_address_in_use_is_an_error_and_no_panic() -> io::Result<()> {
        let taken = TcpListener::bind("127.0.0.1:0")?;
        let result = explore(&Configuration::EMPTY, None, &taken.local_addr()?.to_string());
        assert!(matches!(result, Err(ExploreError::Address { .. })));
        Ok(())
    }
}
