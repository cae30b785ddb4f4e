//! The numbers of a sweep as CSV: `runs.csv` and `summary.csv`. A cell is empty where nothing was measured, or predicted.

use std::path::Path;

use report::{Estimate, VariantFigures};

use super::Failure;
use super::result::RunResult;
use super::tables::Gain;

/// A named value of a row; an empty one was not measured.
type Field = (String, String);

/// One row per run.
pub fn runs(file: &Path, results: &[RunResult], gains: &[Gain], failures: &[Failure]) -> anyhow::Result<()> {
    let row = |run: &RunResult| {
        let mut fields = run_fields(run);
        let of_run = gains.iter().filter(|gain| gain.run.place == run.place).flat_map(|gain| &gain.gains);
        for (name, gain) in of_run {
            for (part, value) in [("", gain.value), ("_low", gain.low), ("_high", gain.high)] {
                fields.push((format!("{name}_gain{part}"), value.to_string()));
            }
        }
        fields
    };
    let mut rows: Vec<Vec<Field>> = results.iter().map(row).collect();
    rows.extend(failures.iter().map(|failure| {
        vec![("run".to_owned(), failure.run.clone()), ("failed".to_owned(), failure.reason.clone())]
    }));
    write_csv(file, &rows)
}

fn run_fields(run: &RunResult) -> Vec<Field> {
    let mut fields = vec![("run".to_owned(), run.place.name()), ("failed".to_owned(), String::new())];
    fields.extend(run.place.choices.iter().map(|(axis, choice)| (axis.clone(), choice.clone())));
    let mut add = |name: &str, value: String| fields.push((name.to_owned(), value));
    add("seed", run.place.seed.to_string());
    add("depths", run.n.to_string());
    add("tokens_ahead", spaced(&run.tokens_ahead));
    add("threads", if run.threads > 0 { run.threads.to_string() } else { String::new() });
    add("trunk_parameters", run.trunk_parameters.to_string());
    add("head_parameters", run.head_parameters.to_string());
    add("steps", run.steps.to_string());
    add("tokens_seen", run.tokens.to_string());
    add("training_seconds", run.training_seconds.to_string());
    add("training_tokens_per_s", run.tokens_per_s().to_string());
    add("peak_memory_bytes", run.peak_memory_bytes.map_or(String::new(), |bytes| bytes.to_string()));
    if let Some(joint) = run.held_out.joint_loss {
        add("joint_loss", joint.to_string());
    }
    if let Some(answers) = run.answers() {
        add("answers", answers.to_string());
    }
    let mut depths = |name: &str, values: Vec<Option<f64>>| {
        let told = |value: Option<f64>| value.map_or(String::new(), |value| value.to_string());
        let numbered = values.into_iter().enumerate();
        fields.extend(numbered.map(|(index, value)| (format!("{name}_{}", index + 1), told(value))));
    };
    depths("loss", run.loss());
    depths("bits_per_byte", run.bits_per_byte());
    depths("accuracy", run.accuracy());
    let mut list = |name: &str, values: Vec<f64>| depths(name, values.into_iter().map(Some).collect());
    list("usage", run.held_out.usage.clone());
    list("targets", run.held_out.targets.iter().map(|&targets| targets as f64).collect());
    let Some(decoding) = &run.decoding else { return fields };
    let lengths = &decoding.lengths;
    list("tokens_per_forward", lengths.iter().map(|length| length.tokens_per_forward).collect());
    list("speedup", lengths.iter().map(|length| length.speedup).collect());
    list("ms_per_round", lengths.iter().map(|length| length.ms_per_round).collect());
    list("tokens_per_s", lengths.iter().map(|length| length.tokens_per_s).collect());
    list("drafted", decoding.depths.iter().map(|depth| depth.drafted as f64).collect());
    list("accepted", decoding.depths.iter().map(|depth| depth.accepted as f64).collect());
    for (manner, acceptance) in [("greedy", &decoding.greedy), ("sampled", &decoding.sampled)] {
        let Some(acceptance) = acceptance else { continue };
        let decode::Estimate { value, low, high } = acceptance.tokens_per_forward;
        for (name, value) in [("", value), ("_low", low), ("_high", high)] {
            fields.push((format!("{manner}_tokens_per_forward{name}"), value.to_string()));
        }
        let depths = acceptance.depths.iter().enumerate();
        for (index, depth) in depths {
            fields.push((format!("{manner}_acceptance_{}", index + 1), depth.observed.value.to_string()));
            fields.push((format!("{manner}_expected_{}", index + 1), depth.expected.to_string()));
        }
    }
    fields.push(("plain_tokens_per_s".to_owned(), decoding.plain_tokens_per_s.to_string()));
    fields.push(("prompts".to_owned(), decoding.prompts.to_string()));
    fields.push(("identical".to_owned(), decoding.identical.map_or(String::new(), |same| same.to_string())));
    fields
}

/// One row per variant.
pub fn summary(file: &Path, variants: &[VariantFigures]) -> anyhow::Result<()> {
    write_csv(file, &variants.iter().map(variant_fields).collect::<Vec<_>>())
}

fn variant_fields(variant: &VariantFigures) -> Vec<Field> {
    let mut fields = vec![("variant".to_owned(), variant.name())];
    fields.extend(variant.choices.iter().cloned());
    fields.push(("seeds".to_owned(), variant.seeds.to_string()));
    fields.push(("tokens_ahead".to_owned(), spaced(&variant.tokens_ahead)));
    let mut add = |name: String, estimate: Option<Estimate>| {
        let told = |value: Option<f64>| value.map_or(String::new(), |value| value.to_string());
        let (mean, deviation) =
            (estimate.map(|estimate| estimate.mean), estimate.and_then(|estimate| estimate.deviation));
        fields.extend([(format!("{name}_mean"), told(mean)), (format!("{name}_sd"), told(deviation))]);
    };
    for (name, estimate) in [
        ("parameters", Some(variant.parameters)),
        ("steps", Some(variant.steps)),
        ("tokens_seen", Some(variant.tokens)),
        ("training_seconds", Some(variant.training_seconds)),
        ("training_tokens_per_s", Some(variant.tokens_per_second)),
        ("peak_memory_bytes", variant.peak_memory_bytes),
        ("answers", variant.answers),
        ("plain_tokens_per_s", variant.plain_tokens_per_second),
    ] {
        if estimate.is_some() {
            add(name.to_owned(), estimate);
        }
    }
    let mut numbered = |name: &str, list: &mut dyn Iterator<Item = Option<Estimate>>| {
        list.enumerate().for_each(|(index, estimate)| add(format!("{name}_{}", index + 1), estimate));
    };
    for (name, depths) in
        [("loss", &variant.loss), ("bits_per_byte", &variant.bits_per_byte), ("accuracy", &variant.accuracy)]
    {
        numbered(name, &mut depths.iter().copied());
    }
    for (name, list) in [
        ("tokens_per_forward", &variant.tokens_per_forward),
        ("speedup", &variant.speedup),
        ("acceptance", &variant.acceptance),
    ] {
        numbered(name, &mut list.iter().copied().map(Some));
    }
    fields.push(("identical".to_owned(), variant.identical.map_or(String::new(), |same| same.to_string())));
    fields
}

/// Numbers in one cell.
fn spaced(numbers: &[usize]) -> String {
    numbers.iter().map(usize::to_string).collect::<Vec<_>>().join(" ")
}

/// One column for every name that occurs; a name that a longer row brings stands behind the one before it there.
fn write_csv(file: &Path, rows: &[Vec<Field>]) -> anyhow::Result<()> {
    let mut columns: Vec<&str> = Vec::new();
    for row in rows {
        let mut place = 0;
        for (name, _) in row {
            place = match columns.iter().position(|column| column == name) {
                Some(found) => found + 1,
                None => {
                    columns.insert(place, name);
                    place + 1
                }
            };
        }
    }
    let mut writer = csv::Writer::from_writer(Vec::new());
    if !columns.is_empty() {
        writer.write_record(&columns)?;
    }
    for row in rows {
        let cell = |column: &&str| row.iter().find(|(name, _)| name == column).map_or("", |(_, value)| value);
        writer.write_record(columns.iter().map(cell))?;
    }
    Ok(data::write_whole(file, &writer.into_inner()?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_depth_without_a_number_keeps_its_columns() {
        let variant = VariantFigures {
            tokens_ahead: vec![1, 5],
            loss: vec![Some(Estimate { mean: 6.0, deviation: Some(0.5) }), None],
            ..VariantFigures::default()
        };
        let fields = variant_fields(&variant);
        let field = |name: &str| fields.iter().find(|(field, _)| field == name).unwrap().1.as_str();
        assert_eq!(["loss_1_mean", "loss_1_sd"].map(field), ["6", "0.5"]);
        assert_eq!(["loss_2_mean", "loss_2_sd"].map(field), ["", ""]);
        assert_eq!(field("tokens_ahead"), "1 5");
    }
}
