//! When a node or a writer is to end: at a signal, or when whoever started it is gone.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use quorate_node::env::Waker;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// Returns a flag that is set, with a call of `waker`, when this process is to end: at SIGINT,
/// SIGTERM or SIGHUP, and when standard input is closed if it is leashed.
pub(crate) fn watch(is_leashed: bool, waker: impl Waker) -> io::Result<Arc<AtomicBool>> {
    let is_over = Arc::new(AtomicBool::new(false));
    let mut signals = Signals::new([SIGHUP, SIGINT, SIGTERM])?;
    let (flag, signalled) = (Arc::clone(&is_over), waker.clone());
    thread::spawn(move || {
        if signals.forever().next().is_some() {
            flag.store(true, Ordering::SeqCst);
            signalled.wake();
        }
    });
    if is_leashed {
        let flag = Arc::clone(&is_over);
        thread::spawn(move || {
            // Nothing is ever said; the end of the input is the whole message.
            let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
            flag.store(true, Ordering::SeqCst);
            waker.wake();
        });
    }
    Ok(is_over)
}
