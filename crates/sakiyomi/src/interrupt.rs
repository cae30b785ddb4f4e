//! Ctrl-C, and the signals that ask a program to end (SIGTERM, SIGHUP): the first asks the work to stop at the next safe
//! place, the second ends the program at once.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What the shell reports of a program that Ctrl-C ended.
const ENDED_BY_SIGNAL: i32 = 130;

/// A flag that Ctrl-C raises.
#[derive(Clone, Default)]
pub struct Interrupt(Arc<AtomicBool>);

/// What training promises.
pub const SAVING: &str = "stopping: the step is finished and saved first (Ctrl-C again: at once, without the steps since the \
                          last checkpoint)";

impl Interrupt {
    /// Listens for Ctrl-C from now on; the first one is answered with `promise`, if there is one.
    pub fn listen(promise: Option<&'static str>) -> anyhow::Result<Self> {
        let interrupt = Self::default();
        let flag = Arc::clone(&interrupt.0);
        ctrlc::set_handler(move || {
            if flag.swap(true, Ordering::Relaxed) {
                // Whatever is being written was not yet in its place: what was whole stays whole.
                std::process::exit(ENDED_BY_SIGNAL);
            }
            if let Some(promise) = promise {
                let _ = writeln!(std::io::stderr(), "{promise}");
            }
        })?;
        Ok(interrupt)
    }

    /// As if the user had pressed Ctrl-C once.
    pub fn raise(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether the user wants to stop.
    pub fn raised(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
