//! Checkpoints on disk: what is read equals what the safetensors crate reads, what is written it accepts, every kind of
//! damage has its own message, and replacing a folder never loses one.

use std::path::{Path, PathBuf};

use fs_err as fs;
use half::{bf16, f16};
use safetensors::SafeTensors;
use sakiyomi_model::checkpoint::{
    read_config, read_file_tensors, read_metadata, read_params, recover_folder, replace_folder, write_config,
    write_file, write_tensors,
};
use sakiyomi_model::{DecoderConfig, Result, presets};
use tempfile::TempDir;

mod common;
use common::shared_model;

#[test]
fn shared_models_read_as_the_safetensors_crate_reads_them() {
    for name in ["tiny-llama", "tiny-llama-tied", "stories260k"] {
        let Some(folder) = shared_model(name) else { return };
        let config = read_config(&folder).unwrap();
        let specs = config.tensors();
        let params = read_params(&folder, &config).unwrap();
        let bytes = fs::read(folder.join("model.safetensors")).unwrap();
        let reference = SafeTensors::deserialize(&bytes).unwrap();
        assert_eq!(specs.len(), reference.len(), "{name}");
        for (spec, (_, param)) in specs.iter().zip(params.iter()) {
            let tensor = reference.tensor(&spec.name).unwrap();
            assert_eq!((&param.name, tensor.shape()), (&spec.name, &spec.shape[..]));
            let expected = tensor.data().as_chunks().0.iter().map(|&b| f32::from_le_bytes(b));
            assert!(param.data.iter().copied().eq(expected), "{name}: {}", spec.name);
        }
        assert_eq!(config.parameters(), params.values() as u64);
    }
}

#[test]
fn bf16_shards_read_through_their_index() {
    let Some(folder) = shared_model("tiny-llama-sharded-bf16") else { return };
    let params = read_params(&folder, &read_config(&folder).unwrap()).unwrap();
    let mut compared = 0;
    for shard in 1..=3 {
        let bytes = fs::read(folder.join(format!("model-{shard:05}-of-00003.safetensors"))).unwrap();
        for (name, tensor) in SafeTensors::deserialize(&bytes).unwrap().tensors() {
            let values = params.data(params.find(&name).unwrap());
            // bf16 is the upper half of a float32.
            let bits = tensor.data().as_chunks().0.iter().map(|&b| u32::from(u16::from_le_bytes(b)) << 16);
            assert!(values.iter().map(|value| value.to_bits()).eq(bits), "{name}");
            compared += 1;
        }
    }
    assert_eq!(compared, params.len());
}

#[test]
fn an_index_that_disagrees_with_its_shards_is_refused() {
    let config = smallest();
    let folder = tempfile::tempdir().unwrap();
    write_weights(&folder.path().join("one.safetensors"), &config, |_| {});
    let index = folder.path().join("model.safetensors.index.json");
    let whole: Vec<String> =
        config.tensors().iter().map(|spec| format!(r#""{}": "one.safetensors""#, spec.name)).collect();
    let map = |entries: &[String]| format!(r#"{{"weight_map": {{{}}}}}"#, entries.join(", "));
    let read = |text: &str| {
        fs::write(&index, text).unwrap();
        read_params(folder.path(), &config)
    };
    let with = |entry: &str| map(&[&whole[..], &[entry.into()]].concat());
    for (text, expected) in [
        (with(r#""b": "one.safetensors""#), "tensor b: the index places it"),
        (map(&whole[1..]), "tensor model.embed_tokens.weight: the index does not place it"),
        (with(r#""b": "two.safetensors""#), "holds no two.safetensors"),
        (with(r#""b": "../one.safetensors""#), "no file name in the same folder"),
        (with(r#""b": "/one.safetensors""#), "no file name in the same folder"),
        (r#"{"weight_map": {}}"#.into(), "names no tensor"),
        (r#"{"weights": 1}"#.into(), "missing field `weight_map`"),
        ("{".into(), "model.safetensors.index.json"),
    ] {
        let text = message(read(&text));
        assert!(text.contains(expected), "{text}");
    }
    assert_eq!(read(&map(&whole)).unwrap().len(), whole.len());
}

#[test]
fn half_formats_convert_without_loss() {
    let values = [0.0, -0.0, 1.0, -2.5, 65504.0, 6.0e-8, 0.333];
    let halves: Vec<u8> = values.iter().flat_map(|&v| f16::from_f32(v).to_le_bytes()).collect();
    let brains: Vec<u8> = values.iter().flat_map(|&v| bf16::from_f32(v).to_le_bytes()).collect();
    let file = File::new(
        r#"{"h":{"dtype":"F16","shape":[7],"data_offsets":[0,14]},"b":{"dtype":"BF16","shape":[7,1],"data_offsets":[14,28]}}"#,
        &[halves, brains].concat(),
    );
    let tensors = read_file_tensors(&file.path).unwrap();
    let bits = |values: Vec<f32>| values.into_iter().map(f32::to_bits).collect::<Vec<_>>();
    assert_eq!(tensors[0].name, "h");
    assert_eq!(
        bits(tensors[0].data.clone()),
        bits(values.iter().map(|&v| f16::from_f32(v).to_f32()).collect())
    );
    assert_eq!(tensors[1].shape, [7, 1]);
    assert_eq!(
        bits(tensors[1].data.clone()),
        bits(values.iter().map(|&v| bf16::from_f32(v).to_f32()).collect())
    );
}

#[test]
fn what_is_written_reads_back_and_the_safetensors_crate_accepts_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("state.safetensors");
    // Longer than one buffer, an empty one, a single value, bits that a sloppy conversion would change, a name to escape.
    let long: Vec<f32> = (0..300_000).map(|i| (i as f32).sin()).collect();
    let bits = [f32::NAN, f32::INFINITY, -0.0, f32::MIN_POSITIVE / 4.0];
    write_tensors(
        &file,
        &[
            ("z", &[300, 1000], &long),
            ("empty", &[0, 4], &[]),
            ("m\"é\n", &[], &[7.5]),
            ("a", &[2, 2], &bits),
        ],
        &[("format", "pt"), ("step", "18446744073709551615")],
    )
    .unwrap();

    let read = read_file_tensors(&file).unwrap();
    assert_eq!(read.iter().map(|t| &*t.name).collect::<Vec<_>>(), ["a", "empty", "m\"é\n", "z"]);
    assert!(read[0].data.iter().zip(bits).all(|(ours, written)| ours.to_bits() == written.to_bits()));
    assert_eq!((&*read[1].shape, &*read[1].data), (&[0, 4][..], &[][..]));
    assert_eq!((&*read[2].shape, &*read[2].data), (&[][..], &[7.5][..]));
    assert_eq!(read[3].data, long);
    let metadata = read_metadata(&file).unwrap();
    assert_eq!(metadata["step"], u64::MAX.to_string());
    assert_eq!(metadata["format"], "pt");

    let bytes = fs::read(&file).unwrap();
    assert_eq!(u64::from_le_bytes(bytes[..8].try_into().unwrap()) % 8, 0);
    let reference = SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(reference.tensor("z").unwrap().shape(), [300, 1000]);
    assert_eq!(reference.tensor("m\"é\n").unwrap().data(), 7.5f32.to_le_bytes());
    assert_eq!(files_in(folder.path()), ["state.safetensors"]);
}

#[test]
fn tensors_that_do_not_fit_are_not_written() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.safetensors");
    write_file(&file, b"old").unwrap();
    let refused = |tensors: &[(&str, &[usize], &[f32])], expected: &str| {
        let message = message(write_tensors(&file, tensors, &[]));
        assert!(message.contains(expected), "{message}");
        assert_eq!(fs::read(&file).unwrap(), b"old");
    };
    refused(&[("a", &[2], &[1.0])], "tensor a: shape [2] does not hold 1 values");
    refused(&[("a", &[1], &[1.0]), ("a", &[1], &[1.0])], "tensor a: it is given twice");
    refused(&[("__metadata__", &[1], &[1.0])], "reserves this name");
    assert!(write_file(&folder.path().join("no/such/folder"), b"").is_err());
    assert_eq!(files_in(folder.path()), ["model.safetensors"]);
}

#[test]
fn every_damage_to_a_file_has_its_message() {
    let one = r#""a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}"#;
    let header = format!("{{{one}}}");
    let two =
        |offsets: &str| format!(r#"{{{one},"b":{{"dtype":"F32","shape":[2],"data_offsets":{offsets}}}}}"#);
    let entry = |dtype: &str, shape: &str, offsets: &str| {
        format!(r#"{{"a":{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}}}"#)
    };
    let ok = File::new(&header, &[0; 8]);
    assert_eq!(read_file_tensors(&ok.path).unwrap()[0].data, [0.0, 0.0]);

    let whole = fs::read(&ok.path).unwrap();
    for length in 0..whole.len() {
        let cut = File::raw(&whole[..length]);
        let text = message(read_file_tensors(&cut.path));
        let expected = match length {
            0 => "the file is empty",
            1..8 => "within the header's length",
            _ if length < whole.len() - 8 => "truncated: the header should take",
            _ => "tensor a: ends at byte 8 of the data",
        };
        assert!(text.contains(expected), "cut to {length}: {text}");
    }

    let cases = [
        (header.clone(), 9, "1 unaccounted bytes lie after the last tensor"),
        ("[1, 2]".into(), 0, "the header is not valid"),
        ("not JSON".into(), 0, "the header is not valid"),
        (String::new(), 0, "the header is not valid"),
        ("\u{0}\u{1}".into(), 0, "the header is not valid"),
        (format!("{header}{header}"), 8, "the header is not valid"),
        (format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000)), 0, "the header is not valid"),
        (r#"{"a":{"dtype":"F32","shape":[2]}}"#.into(), 8, "a: missing field `data_offsets`"),
        (entry("F32", "[-2]", "[0,8]"), 8, "a: invalid value: integer `-2`"),
        (entry("F32", "[2.0]", "[0,8]"), 8, "a: invalid type: floating point"),
        (entry("F32", "[2]", "[0,8,16]"), 8, "a: "),
        (r#"{"__metadata__":{"step":3}}"#.into(), 0, "__metadata__: invalid type: integer"),
        (format!("{{{one},{one}}}"), 8, "tensor a: is listed twice"),
        (entry("F32", "[2]", "[8,0]"), 8, "begins at byte 8 and ends before it"),
        (entry("F32", "[2]", "[0,18446744073709551615]"), 8, "tensor a: ends at byte 18446744073709551615"),
        (entry("F32", "[3]", "[0,8]"), 8, "tensor a: shape [3] of F32 does not take 8 bytes"),
        (entry("F32", "[]", "[0,8]"), 8, "tensor a: shape [] of F32 does not take 8 bytes"),
        (entry("F32", "[4294967296,4294967296,4294967296]", "[0,8]"), 8, "does not take 8 bytes"),
        (entry("F4", "[3]", "[0,1]"), 1, "does not take 1 bytes"),
        (entry("Q7", "[2]", "[0,8]"), 8, "tensor a has dtype Q7, only F32, F16 and BF16"),
        (entry("F64", "[1]", "[0,8]"), 8, "tensor a has dtype F64, only F32, F16 and BF16"),
        (entry("I64", "[1]", "[0,8]"), 8, "tensor a has dtype I64"),
        (two("[4,12]"), 12, "tensor b: overlaps tensor a"),
        (two("[0,8]"), 8, "overlaps tensor"),
        (two("[12,20]"), 20, "tensor b: 4 unaccounted bytes lie before it"),
    ];
    for (header, data, expected) in cases {
        let file = File::new(&header, &vec![0; data]);
        let text = message(read_file_tensors(&file.path));
        assert!(text.contains(expected), "{}: {text}", &header[..header.len().min(100)]);
        assert!(!text.contains('\n') && text.contains("model.safetensors"), "{text}");
    }

    let over_limit = [&100_000_001u64.to_le_bytes()[..], b"{}"].concat();
    assert!(message(read_metadata(&File::raw(&over_limit).path)).contains("over the limit of 100000000"));
    let longer = [&50_000u64.to_le_bytes()[..], b"{}"].concat();
    assert!(
        message(read_metadata(&File::raw(&longer).path)).contains("truncated: the header should take 50000")
    );
    assert!(message(read_file_tensors(&ok.folder.path().join("none"))).contains("none"));
}

#[test]
fn weights_must_be_those_of_the_architecture() {
    let config = smallest();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.safetensors");
    let read = |change: &dyn Fn(&mut Vec<Tensor>)| {
        write_weights(&file, &config, change);
        read_params(folder.path(), &config)
    };
    let find = |tensors: &mut Vec<Tensor>, name: &str| tensors.iter().position(|t| t.0 == name).unwrap();
    let set = |tensors: &mut Vec<Tensor>, name: &str, shape: &[usize], values: &[f32]| {
        let place = find(tensors, name);
        tensors[place] = (name.into(), shape.to_vec(), values.to_vec());
    };
    let add = |tensors: &mut Vec<Tensor>, name: &str, shape: &[usize], values: &[f32]| {
        tensors.push((name.into(), shape.to_vec(), values.to_vec()));
    };
    let embedding = read(&|_| {}).unwrap();
    let embedding = embedding.data(embedding.find("model.embed_tokens.weight").unwrap()).to_vec();

    let missing = |tensors: &mut Vec<Tensor>| {
        let place = find(tensors, "model.norm.weight");
        tensors.remove(place);
    };
    assert!(message(read(&missing)).contains("missing tensor model.norm.weight;"));
    let surplus = |tensors: &mut Vec<Tensor>| {
        for name in ["d", "c", "b", "a"] {
            add(tensors, name, &[], &[0.0]);
        }
    };
    let text = message(read(&surplus));
    assert!(text.contains("surplus tensors a, b, c and 1 more,"), "{text}");
    let text = message(read(&|tensors| set(tensors, "model.norm.weight", &[3], &[1.0; 3])));
    assert!(text.contains("model.norm.weight has shape [3], config.json implies [2]"), "{text}");
    // A vocabulary of another size than the embedding.
    let text = message(read(&|tensors| set(tensors, "model.embed_tokens.weight", &[5, 2], &[1.0; 10])));
    assert!(text.contains("embed_tokens.weight has shape [5, 2], config.json implies [4, 2]"), "{text}");
    let text = message(read(&|tensors| set(tensors, "model.norm.weight", &[2], &[1.0, f32::NAN])));
    assert!(text.contains("model.norm.weight holds NaN at index 1"), "{text}");

    // Surplus that is known to do nothing.
    let rotary = "model.layers.0.self_attn.rotary_emb.inv_freq";
    assert!(read(&|tensors| add(tensors, rotary, &[3], &[1.0, 0.1, 0.01])).is_ok());
    assert!(read(&|tensors| add(tensors, "lm_head.weight", &[4, 2], &embedding)).is_ok());
    let text = message(read(&|tensors| add(tensors, "lm_head.weight", &[4, 2], &[0.5; 8])));
    assert!(text.contains("lm_head.weight differs from model.embed_tokens.weight"), "{text}");
    let text = message(read(&|tensors| add(tensors, "lm_head.weight", &[2, 4], &embedding)));
    assert!(text.contains("lm_head.weight has shape [2, 4]"), "{text}");
    // The mask of GPT-2 is nothing that a Llama has.
    let text = message(read(&|tensors| add(tensors, "h.0.attn.bias", &[1], &[1.0])));
    assert!(text.contains("surplus tensor h.0.attn.bias"), "{text}");

    fs::remove_file(&file).unwrap();
    assert!(message(read_params(folder.path(), &config)).contains("holds no model.safetensors"));
    assert!(
        message(read_params(&folder.path().join("none"), &config)).contains("holds no model.safetensors")
    );
}

#[cfg(unix)]
#[test]
fn links_that_lead_in_a_circle_or_to_nothing_are_named() {
    use std::os::unix::fs::symlink;
    let folder = tempfile::tempdir().unwrap();
    for (name, other) in [("config.json", "b"), ("b", "config.json")] {
        symlink(other, folder.path().join(name)).unwrap();
    }
    let text = message(read_config(folder.path()));
    assert!(text.contains("config.json: the symbolic link leads in a circle or to nothing"), "{text}");
    fs::remove_file(folder.path().join("config.json")).unwrap();

    write_config(folder.path(), &smallest()).unwrap();
    symlink("nowhere", folder.path().join("model.safetensors")).unwrap();
    let text = message(read_params(folder.path(), &smallest()));
    assert!(text.contains("model.safetensors: the symbolic link leads"), "{text}");
    // A folder that is a link to itself.
    symlink("loop", folder.path().join("loop")).unwrap();
    let text = message(read_config(&folder.path().join("loop")));
    assert!(text.contains("loop"), "{text}");
    // A link to a whole file is as good as the file.
    fs::remove_file(folder.path().join("model.safetensors")).unwrap();
    write_weights(&folder.path().join("blob"), &smallest(), |_| {});
    symlink("blob", folder.path().join("model.safetensors")).unwrap();
    assert!(read_params(folder.path(), &smallest()).is_ok());
}

#[test]
fn a_replaced_folder_is_new_or_unchanged() {
    let parent = tempfile::tempdir().unwrap();
    let target = parent.path().join("run/best");
    replace_folder(&target, |folder| checkpoint(folder, 1.0)).unwrap();
    assert_eq!(value(&target), 1.0);
    replace_folder(&target, |folder| checkpoint(folder, 2.0)).unwrap();
    assert_eq!(value(&target), 2.0);
    assert_eq!(files_in(target.parent().unwrap()), ["best"]);

    let failed = replace_folder(&target, |folder| {
        checkpoint(folder, 3.0)?;
        Err(std::io::Error::other("no space left").into())
    });
    assert!(message(failed).contains("no space left"));
    assert_eq!(value(&target), 2.0);
    assert_eq!(files_in(target.parent().unwrap()), ["best"]);

    // A stale file of the old checkpoint does not survive in the new one.
    fs::write(target.join("mtp.json"), "{}").unwrap();
    replace_folder(&target, |folder| checkpoint(folder, 4.0)).unwrap();
    assert_eq!(files_in(&target), ["config.json", "generation_config.json", "model.safetensors"]);
}

#[test]
fn a_crash_between_any_two_steps_leaves_a_whole_checkpoint() {
    let parent = tempfile::tempdir().unwrap();
    let (target, partial, previous) = (
        parent.path().join("best"),
        parent.path().join(".best.partial"),
        parent.path().join(".best.previous"),
    );
    let reset = |target_value: Option<f32>, partial_value: Option<f32>, previous_value: Option<f32>| {
        for (folder, value) in
            [(&target, target_value), (&partial, partial_value), (&previous, previous_value)]
        {
            let _ = fs::remove_dir_all(folder);
            if let Some(value) = value {
                fs::create_dir(folder).unwrap();
                checkpoint(folder, value).unwrap();
            }
        }
    };
    // While the new one is being written; between the two renames; before the old one is removed; nothing happened.
    for (state, recovered, expected) in [
        ((Some(1.0), Some(2.0), None), false, 1.0),
        ((None, Some(2.0), Some(1.0)), true, 2.0),
        ((None, None, Some(1.0)), true, 1.0),
        ((Some(2.0), None, Some(1.0)), false, 2.0),
        ((Some(1.0), None, None), false, 1.0),
    ] {
        reset(state.0, state.1, state.2);
        assert_eq!(recover_folder(&target).unwrap(), recovered, "{state:?}");
        assert_eq!(value(&target), expected, "{state:?}");
        assert_eq!(files_in(parent.path()), ["best"], "{state:?}");

        reset(state.0, state.1, state.2);
        replace_folder(&target, |folder| checkpoint(folder, 9.0)).unwrap();
        assert_eq!(value(&target), 9.0);
        assert_eq!(files_in(parent.path()), ["best"], "{state:?}");
    }
    // A first checkpoint that was never finished is not taken for one.
    reset(None, Some(1.0), None);
    assert!(!recover_folder(&target).unwrap());
    assert!(files_in(parent.path()).is_empty());
}

#[test]
fn a_folder_of_something_else_is_not_replaced() {
    let parent = tempfile::tempdir().unwrap();
    let thesis = parent.path().join("thesis");
    fs::create_dir(&thesis).unwrap();
    replace_folder(&thesis, |folder| checkpoint(folder, 1.0)).unwrap();
    fs::remove_file(thesis.join("model.safetensors")).unwrap();
    let text = message(replace_folder(&thesis, |folder| checkpoint(folder, 2.0)));
    assert!(text.contains("thesis holds files that are no checkpoint"), "{text}");
    let file = thesis.join("config.json");
    assert!(
        message(replace_folder(&file, |folder| checkpoint(folder, 2.0))).contains("config.json is a file")
    );
    assert!(
        message(replace_folder(Path::new("/"), |folder| checkpoint(folder, 2.0)))
            .contains("no name for a folder")
    );
    assert_eq!(files_in(&thesis), ["config.json", "generation_config.json"]);
}

/// A safetensors file made byte by byte.
struct File {
    folder: TempDir,
    path: PathBuf,
}

impl File {
    fn new(header: &str, data: &[u8]) -> Self {
        Self::raw(&[&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat())
    }

    fn raw(bytes: &[u8]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        fs::write(&path, bytes).unwrap();
        Self { folder, path }
    }
}

fn checkpoint(folder: &Path, value: f32) -> Result<()> {
    write_config(folder, &presets::preset("1M", 256).unwrap())?;
    write_tensors(&folder.join("model.safetensors"), &[("a", &[1], &[value])], &[("format", "pt")])
}

fn value(folder: &Path) -> f32 {
    read_config(folder).unwrap();
    read_file_tensors(&folder.join("model.safetensors")).unwrap()[0].data[0]
}

/// A model of one layer with 4 tokens and a width of 2.
fn smallest() -> DecoderConfig {
    let mut config = presets::preset("1M", 4).unwrap();
    (config.width, config.layers, config.heads, config.kv_heads, config.head_dim, config.ffn) =
        (2, 1, 1, 1, 2, 3);
    config
}

type Tensor = (String, Vec<usize>, Vec<f32>);

/// The tensors of a plain decoder, all different, after `change`.
fn write_weights(file: &Path, config: &DecoderConfig, change: impl Fn(&mut Vec<Tensor>)) {
    let values = |place: usize, count: usize| (0..count).map(|i| (place * 100 + i) as f32 * 0.01).collect();
    let tensor = |(place, spec): (usize, sakiyomi_model::TensorSpec)| {
        let count = spec.shape.iter().product();
        (spec.name, spec.shape, values(place, count))
    };
    let mut tensors: Vec<Tensor> = config.tensors().into_iter().enumerate().map(tensor).collect();
    change(&mut tensors);
    let entries: Vec<_> = tensors.iter().map(|(name, shape, data)| (&**name, &**shape, &**data)).collect();
    write_tensors(file, &entries, &[("format", "pt")]).unwrap();
}

fn message<T>(result: Result<T>) -> String {
    let text = result.err().expect("an error").to_string();
    assert!(!text.contains('\n'), "{text}");
    text
}

fn files_in(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}
