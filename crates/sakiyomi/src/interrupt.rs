//! Ctrl-C, and the signals that ask a program to end (SIGTERM, SIGHUP): the first asks the work to stop at the next safe
//! place, the second ends the program at once.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::output::Output;

/// What the shell reports of a program that Ctrl-C ended.
pub const ENDED_BY_SIGNAL: u8 = 130;

/// A flag that Ctrl-C raises.
#[derive(Clone, Default)]
pub struct Interrupt(Arc<State>);

#[derive(Default)]
struct State {
    raised: AtomicBool,
    /// Whether the promise can be kept yet.
    promising: AtomicBool,
}

/// Lets a file that would grow beyond what the system allows (`ulimit -f`) be an error of writing, as a full disk is, which the
/// run survives; left alone, the signal that comes with it ends the program.
pub fn outlive_file_limits() -> anyhow::Result<()> {
    #[cfg(unix)]
    signal_hook::flag::register(signal_hook::consts::SIGXFSZ, Arc::default())?;
    Ok(())
}

/// For work that leaves nothing behind: Ctrl-C ends the program at once, with one line. What is being written in the folder
/// `partial` goes with it.
pub fn end_at_once(output: Output, partial: Option<&Path>) -> anyhow::Result<()> {
    let partial = partial.map(Path::to_owned);
    ctrlc::set_handler(move || {
        // A second signal or the next start cannot do more about a folder that does not go.
        partial.iter().for_each(|folder| drop(fs_err::remove_dir_all(folder)));
        output.remark("stopped; nothing was written");
        std::process::exit(ENDED_BY_SIGNAL.into());
    })?;
    Ok(())
}

/// What training promises.
pub const SAVING: &str = "stopping: the step is finished and saved first (Ctrl-C again: at once, without the steps since the \
                          last checkpoint)";

impl Interrupt {
    /// Listens for Ctrl-C from now on; the first one is answered with `promise`, if there is one and it has been
    /// [`begun`](Self::begin_promise).
    pub fn listen(promise: Option<&'static str>) -> anyhow::Result<Self> {
        let interrupt = Self::default();
        let state = Arc::clone(&interrupt.0);
        ctrlc::set_handler(move || {
            if state.raised.swap(true, Ordering::Relaxed) {
                // Whatever is being written was not yet in its place: what was whole stays whole.
                std::process::exit(ENDED_BY_SIGNAL.into());
            }
            if let (Some(promise), true) = (promise, state.promising.load(Ordering::Relaxed)) {
                let _ = writeln!(std::io::stderr(), "{promise}");
            }
        })?;
        Ok(interrupt)
    }

    /// From now on the promise can be kept.
    pub fn begin_promise(&self) {
        self.0.promising.store(true, Ordering::Relaxed);
    }

    /// As if the user had pressed Ctrl-C once.
    pub fn raise(&self) {
        self.0.raised.store(true, Ordering::Relaxed);
    }

    /// Whether the user wants to stop.
    pub fn raised(&self) -> bool {
        self.0.raised.load(Ordering::Relaxed)
    }
}
