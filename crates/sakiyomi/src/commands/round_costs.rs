//! What rounds of decoding cost on this machine: measured once for a model, and kept in a file of the user's cache.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use decode::{DraftLength, RoundCosts, Target, positions_of_rounds, round_costs};
use objective::Objective;

use super::checkpoint::Loaded;
use super::machine;
use crate::output::Output;

/// Tokens before the rounds that are measured.
const CONTEXT: usize = 32;

const REPEATS: usize = 3;

/// Models that are remembered, at most: the file is no archive.
const MOST_KEPT: usize = 256;

/// A policy for drafts on `loaded`, for what `drafts` names; none where nothing drafts, or the model's context is too short to
/// measure.
pub fn policy(
    loaded: &Loaded,
    drafts: &str,
    measured: &mut Target,
    threads: usize,
    output: Output,
) -> anyhow::Result<Option<DraftLength>> {
    let longest = measured.longest_draft();
    if longest == 0 || measured.capacity() < positions(longest) {
        return Ok(None);
    }
    let file = file();
    let mut kept: BTreeMap<String, RoundCosts> = file
        .as_ref()
        .and_then(|file| serde_json::from_slice(&fs_err::read(file).ok()?).ok())
        .unwrap_or_default();
    let key = key(loaded, drafts, longest, threads);
    if let Some(costs) = kept.get(&key).filter(|costs| costs.seconds.len() == longest + 1)
        && let Ok(policy) = DraftLength::new(costs)
    {
        return Ok(Some(policy));
    }
    output.remark("measuring what drafts cost on this machine (once for each model) ...");
    let vocabulary = measured.vocabulary() as u32;
    let context: Vec<u32> = (0..CONTEXT as u32).map(|place| place * 7919 % vocabulary).collect();
    let costs = round_costs(measured, &context, REPEATS)?;
    let policy = DraftLength::new(&costs)?;
    if kept.len() >= MOST_KEPT {
        kept.pop_first();
    }
    kept.insert(key, costs);
    if let Some(file) = file {
        // It only saves time next time.
        let _ = keep(&file, &kept);
    }
    Ok(Some(policy))
}

/// Positions that measuring drafts of up to `longest` tokens takes.
pub fn positions(longest: usize) -> usize {
    CONTEXT + positions_of_rounds(longest, REPEATS)
}

fn keep(file: &Path, kept: &BTreeMap<String, RoundCosts>) -> anyhow::Result<()> {
    if let Some(folder) = file.parent() {
        fs_err::create_dir_all(folder)?;
    }
    Ok(model::checkpoint::write_file(file, &serde_json::to_vec_pretty(kept)?)?)
}

/// Everything that the costs depend on.
fn key(loaded: &Loaded, drafts: &str, longest: usize, threads: usize) -> String {
    let config = &loaded.checkpoint.decoder.config;
    let objective = &loaded.checkpoint.objective;
    let heads = objective.heads().map(|heads| heads.spec().kind);
    format!(
        "{} | {} | {} weights, cache {:?} | {} layers, width {}, {}/{} heads of {}, ffn {}, vocabulary {} | \
         {longest} drafts by {drafts}, {} {heads:?}",
        env!("CARGO_PKG_VERSION"),
        machine::line(threads),
        loaded.weight_type(),
        loaded.cache_type(),
        config.layers,
        config.width,
        config.heads,
        config.kv_heads,
        config.head_dim,
        config.ffn,
        config.vocabulary,
        objective.kind(),
    )
}

/// `sakiyomi/round-costs.json` in the folder that the system keeps for such things; none where it names none.
fn file() -> Option<PathBuf> {
    let folder = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = folder("XDG_CACHE_HOME")
        .or_else(|| folder("LOCALAPPDATA"))
        .or_else(|| Some(folder("HOME")?.join(".cache")))?;
    Some(cache.join("sakiyomi").join("round-costs.json"))
}
