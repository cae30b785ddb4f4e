//! Checkpoints: what is written comes back, and what does not belong together is refused by name.

use std::path::{Path, PathBuf};

use data::Vocabulary;
use model::DecoderConfig;
use objective::{HeadKind, HeadsSpec, Objective, UnembeddingKind};
use train::Checkpoint;

use crate::support::{Model, tiny_config};

fn config() -> DecoderConfig {
    DecoderConfig { vocabulary: Vocabulary::bytes().size(), ..tiny_config(true) }
}

fn spec(kind: HeadKind) -> HeadsSpec {
    HeadsSpec { n: 3, kind, unembedding: UnembeddingKind::Shared, weights: vec![1.0, 0.5, 0.1] }
}

fn checkpoint(spec: &HeadsSpec) -> Checkpoint {
    let model = Model::new(&config(), spec);
    Checkpoint {
        vocabulary: Vocabulary::bytes(),
        decoder: model.decoder,
        params: model.params,
        objective: model.objective.into(),
        lora: None,
    }
}

/// A folder with a saved checkpoint of linear heads.
fn saved() -> (tempfile::TempDir, PathBuf) {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path().join("checkpoint");
    checkpoint(&spec(HeadKind::Linear)).save(&folder).unwrap();
    (temporary, folder)
}

fn files(folder: &Path) -> Vec<String> {
    let name = |entry: std::io::Result<fs_err::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
    let mut names: Vec<String> = fs_err::read_dir(folder).unwrap().map(name).collect();
    names.sort();
    names
}

fn refusal(folder: &Path) -> String {
    let message = Checkpoint::load(folder).unwrap_err().to_string();
    assert!(!message.contains('\n'), "one line: {message}");
    message
}

const PLAIN: [&str; 5] =
    ["config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"];

#[test]
fn every_kind_of_head_comes_back_to_the_bit() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path().join("checkpoint");
    let mut specs = crate::support::every_kind();
    specs.push(HeadsSpec { unembedding: UnembeddingKind::Replicated, ..spec(HeadKind::Linear) });
    for spec in specs {
        let saved = checkpoint(&spec);
        saved.save(&folder).unwrap();
        let loaded = Checkpoint::load(&folder).unwrap();
        assert_eq!(loaded.decoder.config, saved.decoder.config);
        for ((_, a), (_, b)) in saved.params.iter().zip(loaded.params.iter()) {
            assert_eq!((&a.name, &a.shape, &a.data), (&b.name, &b.shape, &b.data));
        }
        assert_eq!(saved.params.len(), loaded.params.len());
        assert_eq!(loaded.objective.heads().unwrap().spec(), saved.objective.heads().unwrap().spec());
        let mut expected: Vec<&str> = PLAIN.to_vec();
        if spec.n > 1 {
            expected.push("mtp.json");
        }
        if !saved.objective.parameters().is_empty() {
            expected.push("mtp.safetensors");
        }
        expected.sort_unstable();
        assert_eq!(files(&folder), expected, "{spec:?}");
    }
}

#[test]
fn without_its_heads_it_is_a_plain_checkpoint() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path().join("checkpoint");
    let with_heads = checkpoint(&spec(HeadKind::Layer));
    with_heads.save_without_heads(&folder).unwrap();
    assert_eq!(files(&folder), PLAIN);
    let loaded = Checkpoint::load(&folder).unwrap();
    assert_eq!(loaded.objective.depths(), 1);
    assert!(loaded.params.iter().all(|(_, param)| !param.name.starts_with("heads.")));
    assert_eq!(loaded.params.len(), with_heads.params.len() - with_heads.objective.parameters().len());
}

#[test]
fn heads_of_another_model_are_noticed() {
    let (_temporary, folder) = saved();
    let mut other = checkpoint(&HeadsSpec::next_token());
    let id = other.decoder.embedding.table;
    other.params.data_mut(id)[5] += 1e-6;
    let elsewhere = folder.with_file_name("other");
    other.save(&elsewhere).unwrap();
    fs_err::copy(elsewhere.join("model.safetensors"), folder.join("model.safetensors")).unwrap();
    let message = refusal(&folder);
    assert!(message.contains("mtp.json was made for other weights"), "{message}");
    let mtp = fs_err::read_to_string(folder.join("mtp.json")).unwrap();
    let unchecked = mtp.lines().map(|line| if line.contains("trunk") { "\"trunk\": null" } else { line });
    fs_err::write(folder.join("mtp.json"), unchecked.collect::<Vec<_>>().join("\n")).unwrap();
    Checkpoint::load(&folder).unwrap();
}

/// A tensor's new name and shape; `None`: it is left out.
type Renamed = Option<(String, Vec<usize>)>;

#[test]
fn head_tensors_are_checked_by_name() {
    let (_temporary, folder) = saved();
    let file = folder.join("mtp.safetensors");
    let tensors = model::checkpoint::read_file_tensors(&file).unwrap();
    let write = |change: &dyn Fn(&str, &[usize]) -> Renamed| {
        let changed: Vec<_> = tensors
            .iter()
            .filter_map(|tensor| {
                change(&tensor.name, &tensor.shape).map(|(name, shape)| (name, shape, &tensor.data))
            })
            .collect();
        let entries: Vec<_> =
            changed.iter().map(|(name, shape, data)| (name.as_str(), &shape[..], &data[..])).collect();
        model::checkpoint::write_tensors(&file, &entries, &[]).unwrap();
        refusal(&folder)
    };
    let message = write(&|name, shape| (!name.contains(".3.")).then(|| (name.to_owned(), shape.to_vec())));
    assert!(message.contains("mtp.safetensors: tensor heads.3.map.weight is missing"), "{message}");
    let message = write(&|name, _| Some((name.to_owned(), vec![4, 16])));
    assert!(message.contains("tensor heads.2.map.weight has shape [4, 16]"), "{message}");
    let message = write(&|name, shape| Some((name.replace("3", "4"), shape.to_vec())));
    assert!(message.contains("heads.3.map.weight is missing"), "{message}");
    fs_err::remove_file(&file).unwrap();
    assert!(refusal(&folder).contains("mtp.safetensors is missing"));
}

#[test]
fn heads_that_are_not_finite_are_refused_by_name() {
    let (_temporary, folder) = saved();
    let file = folder.join("mtp.safetensors");
    let mut tensors = model::checkpoint::read_file_tensors(&file).unwrap();
    for value in [f32::NAN, f32::INFINITY] {
        tensors[1].data[3] = value;
        let entries: Vec<_> =
            tensors.iter().map(|tensor| (&*tensor.name, &*tensor.shape, &*tensor.data)).collect();
        model::checkpoint::write_tensors(&file, &entries, &[]).unwrap();
        let message = refusal(&folder);
        let expected = format!("mtp.safetensors: tensor {} holds {value} at index 3", tensors[1].name);
        assert!(message.contains(&expected), "{message}");
    }
}

#[test]
fn damaged_and_foreign_descriptions_are_refused() {
    let (_temporary, folder) = saved();
    let file = folder.join("mtp.json");
    let good = fs_err::read_to_string(&file).unwrap();
    for (from, to, expected) in [
        ("\"format\": 1", "\"format\": 2", "format 2 is not known"),
        ("\"hidden\": \"pre-norm\"", "\"hidden\": \"post-norm\"", "post-norm"),
        ("\"kind\": \"heads\"", "\"kind\": \"registers\"", "registers"),
        ("\"n\": 3", "\"n\": 0", "0 heads"),
        ("{", "", "mtp.json"),
    ] {
        assert!(good.contains(from), "{good}");
        fs_err::write(&file, good.replacen(from, to, 1)).unwrap();
        let message = refusal(&folder);
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn a_tokenizer_larger_than_the_embedding_is_refused() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path().join("checkpoint");
    let model = Model::new(&tiny_config(true), &HeadsSpec::next_token());
    let small = Checkpoint {
        vocabulary: Vocabulary::bytes(),
        decoder: model.decoder,
        params: model.params,
        objective: model.objective.into(),
        lora: None,
    };
    small.save(&folder).unwrap();
    assert!(refusal(&folder).contains("257 tokens and the embedding 11 rows"));
}

#[test]
fn a_failed_save_leaves_the_old_checkpoint() {
    let (_temporary, folder) = saved();
    let before = fs_err::read(folder.join("mtp.safetensors")).unwrap();
    let something_else = folder.with_file_name("notes");
    fs_err::create_dir(&something_else).unwrap();
    fs_err::write(something_else.join("diary.txt"), "dear diary").unwrap();
    assert!(checkpoint(&spec(HeadKind::Layer)).save(&something_else).is_err());
    assert_eq!(files(&something_else), ["diary.txt"]);
    assert_eq!(fs_err::read(folder.join("mtp.safetensors")).unwrap(), before);
}
