//! A team of threads that stay awake between small jobs.
//!
//! A decoding step is some dozens of products of a few microseconds each. A general thread pool puts its threads to sleep
//! between them, and waking one costs more than the product. Here workers spin for a moment, then yield, and sleep only
//! when nothing has come for [`STAY_AWAKE`], so that an idle program uses no processor time.
//!
//! Parts are claimed one by one from a common counter, by the caller too: a worker that the system has put aside delays
//! nobody as long as it holds no part. Who runs a part never shows in the result, because parts divide outputs.

use std::any::Any;
use std::cell::UnsafeCell;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// How long a worker without work stays awake.
pub const STAY_AWAKE: Duration = Duration::from_micros(500);

/// Looks at the counter before a thread begins to yield to others.
const SPINS: u32 = 2000;

/// A fixed number of threads, the caller being one of them.
pub struct Team {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    /// Held by the caller whose job the workers share.
    turn: Mutex<()>,
}

impl Team {
    /// A team of `threads` threads in all: the caller of [`run`](Self::run) and `threads - 1` workers.
    ///
    /// Zero counts as one. Where the system refuses a thread the team is smaller, see [`threads`](Self::threads).
    pub fn new(threads: usize) -> Self {
        let workers = threads.saturating_sub(1);
        let shared = Arc::new(Shared::new(workers));
        let spawn = |index: usize| {
            let shared = Arc::clone(&shared);
            thread::Builder::new().name(format!("team-{index}")).spawn(move || shared.work(index)).ok()
        };
        let workers = (0..workers).map_while(spawn).collect();
        Self { shared, workers, turn: Mutex::new(()) }
    }

    /// Number of threads, the caller included.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Runs `job(part)` once for every part in `0..parts`, and returns when all have been run.
    ///
    /// A job that calls `run` on its own team, or a second thread that calls it meanwhile, runs its parts alone, in order.
    /// If a part panics, the others still run to their end where they are shared, and then the panic goes on in the caller.
    pub fn run(&self, parts: usize, job: &(dyn Fn(usize) + Sync)) {
        let turn = if parts > 1 && !self.workers.is_empty() { self.turn.try_lock().ok() } else { None };
        let Some(turn) = turn else {
            return (0..parts).for_each(job);
        };
        self.shared.publish(parts, job);
        self.wake(parts - 1);
        let mut mine = 0;
        while self.shared.claim_and_run() {
            mine += 1;
        }
        self.shared.wait_for_workers(parts - mine);
        let panic = self.shared.panic.lock().unwrap_or_else(PoisonError::into_inner).take();
        // Given back before unwinding, or the lock would be poisoned and the team of no use any more.
        drop(turn);
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
    }

    /// Sees to it that up to `helpers` workers are awake.
    fn wake(&self, helpers: usize) {
        for (worker, asleep) in self.workers.iter().zip(&self.shared.asleep).take(helpers) {
            if asleep.load(Ordering::SeqCst) && asleep.swap(false, Ordering::SeqCst) {
                worker.thread().unpark();
            }
        }
    }
}

impl fmt::Debug for Team {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Team of {}", self.threads())
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        for worker in self.workers.drain(..) {
            worker.thread().unpark();
            // A worker catches the panics of its parts, so there is nothing to pass on.
            let _ = worker.join();
        }
    }
}

/// What the threads of a team have in common.
struct Shared {
    board: Board,
    finished: Finished,
    asleep: Vec<AtomicBool>,
    stop: AtomicBool,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

/// The line that workers watch, with the job on it, so that one transfer between cores brings both.
#[repr(align(128))]
struct Board {
    /// Parts that nobody has claimed yet.
    unclaimed: AtomicUsize,
    job: UnsafeCell<Job>,
}

/// Parts finished by workers, on a line of its own: the caller watches it.
#[repr(align(128))]
struct Finished(AtomicUsize);

#[derive(Clone, Copy)]
struct Job {
    parts: usize,
    run: *const (dyn Fn(usize) + Sync),
}

// SAFETY: all fields but `board.job` may be shared anyway. The job is written only by the thread that holds the team's
// turn, and only while no part is claimed and not finished; it is read only by threads that hold a claimed part
// (`claim_and_run`). The pointer in it leads to a closure that is `Sync`.
#[allow(unsafe_code)]
unsafe impl Sync for Shared {}
// SAFETY: as above; nothing in it belongs to one thread.
#[allow(unsafe_code)]
unsafe impl Send for Shared {}

impl Shared {
    fn new(workers: usize) -> Self {
        let nothing: &'static (dyn Fn(usize) + Sync) = &|_| ();
        Self {
            board: Board {
                unclaimed: AtomicUsize::new(0),
                job: UnsafeCell::new(Job { parts: 0, run: nothing }),
            },
            finished: Finished(AtomicUsize::new(0)),
            asleep: (0..workers).map(|_| AtomicBool::new(false)).collect(),
            stop: AtomicBool::new(false),
            panic: Mutex::new(None),
        }
    }

    /// Puts a job on the board. Only the holder of the turn may call this, after the job before has ended.
    #[allow(unsafe_code)]
    fn publish(&self, parts: usize, job: &(dyn Fn(usize) + Sync)) {
        let run: *const (dyn Fn(usize) + Sync + '_) = job;
        // SAFETY: only the lifetime changes. The pointer is followed by holders of a claimed part alone, and `run` does
        // not return, and so does not end the borrow, before every claimed part is finished and none is left to claim.
        let run: *const (dyn Fn(usize) + Sync) = unsafe { std::mem::transmute(run) };
        self.finished.0.store(0, Ordering::Relaxed);
        // SAFETY: `unclaimed` is 0 and all parts of the job before are finished, so no thread reads the cell. Their last
        // reads happen before this write: a worker adds to `finished` with Release after reading, `wait_for_workers`
        // loads it with Acquire, and the lock on the turn carries that over to the next caller.
        unsafe { *self.board.job.get() = Job { parts, run } };
        // Releases both writes to whoever claims. SeqCst rather than Release for the handshake with `sleep`.
        self.board.unclaimed.store(parts, Ordering::SeqCst);
    }

    /// Claims one part and runs it; false if there was none.
    #[allow(unsafe_code)]
    fn claim_and_run(&self) -> bool {
        let unclaimed = &self.board.unclaimed;
        let mut left = unclaimed.load(Ordering::Relaxed);
        loop {
            if left == 0 {
                return false;
            }
            // Acquire: the value read comes from `publish` or from claims that follow it (a release sequence), so the job
            // written before it is visible. A thread that was put aside between load and exchange, and meets the same
            // count in a later job, has a valid claim on that later job: the job is read only now.
            match unclaimed.compare_exchange_weak(left, left - 1, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => break,
                Err(now) => left = now,
            }
        }
        // SAFETY: this thread holds a claimed part, so the cell is not written and the closure lives until the part is
        // counted as finished (see `publish`).
        let job = unsafe { *self.board.job.get() };
        // SAFETY: as above.
        let run = unsafe { &*job.run };
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| run(job.parts - left))) {
            self.panic.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(panic);
        }
        true
    }

    /// Waits until workers have finished `parts` parts.
    fn wait_for_workers(&self, parts: usize) {
        let mut spins = 0;
        // Acquire: what workers wrote in their parts is visible afterwards.
        while self.finished.0.load(Ordering::Acquire) != parts {
            spins += 1;
            if spins < SPINS { std::hint::spin_loop() } else { thread::yield_now() }
        }
    }

    /// The life of a worker.
    fn work(&self, index: usize) {
        let mut spins = 0;
        let mut idle_since = None;
        while !self.stop.load(Ordering::Relaxed) {
            if self.claim_and_run() {
                // Release: the part's writes, and the read of the job, come before the count.
                self.finished.0.fetch_add(1, Ordering::Release);
                (spins, idle_since) = (0, None);
            } else if spins < SPINS {
                spins += 1;
                std::hint::spin_loop();
            } else if idle_since.get_or_insert_with(Instant::now).elapsed() < STAY_AWAKE {
                thread::yield_now();
            } else {
                self.sleep(index);
                (spins, idle_since) = (0, None);
            }
        }
    }

    /// Sleeps until [`Team::wake`] or the end of the team.
    fn sleep(&self, index: usize) {
        // Worker: write `asleep`, read `unclaimed`. Caller: write `unclaimed`, read `asleep`. All four are SeqCst, so at
        // least one of the two sees the other's write, and no job is slept through. `stop` is followed by an unpark.
        self.asleep[index].store(true, Ordering::SeqCst);
        if self.board.unclaimed.load(Ordering::SeqCst) == 0 && !self.stop.load(Ordering::SeqCst) {
            thread::park();
        }
        self.asleep[index].store(false, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU32;

    #[test]
    fn every_part_runs_exactly_once() {
        for threads in [0, 1, 2, 3, 5] {
            let team = Team::new(threads);
            for parts in [0, 1, 2, 3, 7, 64] {
                for round in 0..50 {
                    let counts: Vec<AtomicU32> = (0..parts).map(|_| AtomicU32::new(0)).collect();
                    team.run(parts, &|part| {
                        counts[part].fetch_add(1, Ordering::Relaxed);
                    });
                    let seen: Vec<u32> = counts.iter().map(|count| count.load(Ordering::Relaxed)).collect();
                    assert_eq!(seen, vec![1; parts], "{threads} threads, {parts} parts, round {round}");
                }
            }
        }
    }

    #[test]
    fn writes_of_workers_are_visible_after_the_run() {
        let team = Team::new(3);
        let mut expected = 0;
        let total = Mutex::new(0);
        for round in 0..2000 {
            team.run(4, &|part| *total.lock().unwrap() += part + round);
            expected += 6 + 4 * round;
            assert_eq!(*total.lock().unwrap(), expected);
        }
    }

    #[test]
    fn a_sleeping_team_wakes_up() {
        let team = Team::new(3);
        for _ in 0..3 {
            thread::sleep(STAY_AWAKE * 8);
            // Each part waits for the two others, so that the caller cannot do them all.
            let arrived = AtomicU32::new(0);
            team.run(3, &|_| {
                arrived.fetch_add(1, Ordering::SeqCst);
                while arrived.load(Ordering::SeqCst) < 3 {
                    thread::yield_now();
                }
            });
        }
    }

    #[test]
    fn an_idle_team_goes_to_sleep() {
        let team = Team::new(2);
        team.run(8, &|_| ());
        let deadline = Instant::now() + Duration::from_secs(20);
        while !team.shared.asleep[0].load(Ordering::SeqCst) {
            assert!(Instant::now() < deadline, "the worker never slept");
            thread::sleep(STAY_AWAKE);
        }
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_team_lives_on() {
        let team = Team::new(2);
        for bad in 0..4 {
            let ran = AtomicU32::new(0);
            let result = catch_unwind(AssertUnwindSafe(|| {
                team.run(4, &|part| {
                    ran.fetch_add(1, Ordering::Relaxed);
                    assert!(part != bad, "part {part} fails");
                });
            }));
            let message = *result.unwrap_err().downcast::<String>().unwrap();
            assert_eq!(message, format!("part {bad} fails"));
            assert_eq!(ran.load(Ordering::Relaxed), 4);
        }
        let ran = AtomicU32::new(0);
        team.run(4, &|_| {
            ran.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(ran.load(Ordering::Relaxed), 4);
    }

    #[test]
    fn nested_and_concurrent_runs_end() {
        let team = Team::new(2);
        let ran = AtomicU32::new(0);
        let count = |_| {
            ran.fetch_add(1, Ordering::Relaxed);
        };
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| (0..100).for_each(|_| team.run(2, &|_| team.run(2, &count))));
            }
        });
        assert_eq!(ran.load(Ordering::Relaxed), 3 * 100 * 2 * 2);
    }
}
