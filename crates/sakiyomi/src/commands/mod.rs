//! The verbs: each checks its settings, makes one call into the libraries, and shows the result.

mod bench;
mod checkpoint;
mod continuing;
mod data;
mod demo;
mod doctor;
mod eval;
mod figures;
mod generate;
mod init;
pub mod lens;
mod limits;
mod machine;
mod merge;
mod new_folder;
mod prompts;
mod quantize;
mod report;
mod round_costs;
mod sweep;
mod text_file;
mod train;
mod verify;

pub use train::{measured, per_depth};

use crate::arguments::{Arguments, DataVerb, Task, Verb};
use crate::failure::Verdict;
use crate::output::Output;

/// Runs the verb that was typed.
pub fn run(arguments: Arguments) -> anyhow::Result<Verdict> {
    let output = Output { json: arguments.json };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    anyhow::ensure!(
        arguments.threads <= machine::MOST_THREADS,
        "--threads {}: at most {}",
        arguments.threads,
        machine::MOST_THREADS
    );
    let threads = if arguments.threads == 0 { cores } else { arguments.threads };
    match arguments.verb {
        Verb::Demo(demo) => demo::run(&demo, threads, output),
        Verb::Doctor => doctor::run(threads, output),
        Verb::Init(init) => init::run(&init, output),
        Verb::Data { verb: DataVerb::Show(show) } => data::show(&show, output),
        Verb::Data { verb: DataVerb::Tokenizer(learn) } => data::tokenizer(&learn, threads, output),
        Verb::Data { verb: DataVerb::Continuations(continued) } => {
            data::continuations(&continued, threads, output)
        }
        Verb::Data { verb: DataVerb::Generate { task: Task::Answered(task) } } => {
            data::generate(&task, output)
        }
        Verb::Data { verb: DataVerb::Generate { task: Task::PlantedMixture(planted) } } => {
            data::planted_mixture(&planted, output)
        }
        Verb::Train(train) => train::run(&train, arguments.threads, output),
        Verb::Sweep(sweep) => sweep::run(&sweep, arguments.threads, output),
        Verb::SweepRun => sweep::run_child(output),
        Verb::Eval(eval) => eval::run(&eval, threads, output),
        Verb::Merge(merge) => merge::run(&merge, output),
        Verb::Quantize(quantize) => quantize::run(&quantize, output),
        Verb::Generate(generate) => generate::run(&generate, threads, output),
        Verb::Verify(verify) => verify::run(&verify, threads, output),
        Verb::Bench(bench) => bench::run(&bench, threads, output),
        Verb::Lens { verb } => lens::run(&verb, threads, output),
        Verb::Report(report) => report::run(&report, output),
    }
}
