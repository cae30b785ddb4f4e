//! Text around decoding: stop strings, whole characters, sampling, and what is refused.

mod common;

use std::ops::ControlFlow;

use common::{Toy, config, planted, random, spec};
use data::Vocabulary;
use objective::HeadKind::Linear;
use objective::UnembeddingKind::Shared;
use sakiyomi_decode::{
    DecodeSettings, Ending, Error, GenerateSettings, Generation, MeasureSettings, Piece, Target, generate,
    measure,
};

/// A byte model that recites `text` (no byte twice) over and over; its heads know it as well.
fn reciter(text: &str) -> Toy {
    let cycle: Vec<u32> = text.bytes().map(u32::from).collect();
    planted(&cycle, &config(257, 2, 200), spec(Linear, 5, Shared))
}

fn settings(draft_length: usize, max_new_tokens: usize, stop: &[&str]) -> GenerateSettings {
    GenerateSettings {
        decoding: DecodeSettings { draft_length, max_new_tokens, ..DecodeSettings::default() },
        stop: stop.iter().map(|stop| (*stop).to_owned()).collect(),
    }
}

/// Generates after a text; also checks that what was streamed is what is returned.
fn run(toy: &Toy, prompt: &str, settings: &GenerateSettings) -> Generation {
    let vocabulary = Vocabulary::bytes();
    let prompt = vocabulary.encode(prompt).unwrap();
    let mut streamed: Vec<Piece> = Vec::new();
    let generation = generate(&mut toy.target(1), &vocabulary, &prompt, settings, &mut |piece| {
        streamed.push(piece.clone());
        ControlFlow::Continue(())
    })
    .unwrap();
    assert_eq!(streamed, generation.pieces);
    assert!(streamed.iter().all(|piece| !piece.text.is_empty()));
    assert_eq!(generation.text, streamed.iter().map(|piece| piece.text.as_str()).collect::<String>());
    generation
}

#[test]
fn stop_strings_inside_drafts_cut_what_follows() {
    let toy = reciter("abcdefghijklmnopqrst");
    for stop in ["c", "ef", "fghi", "bcdefghijkl", "tab", "st"] {
        let plain = run(&toy, "a", &settings(0, 60, &[stop]));
        assert_eq!(plain.decoded.ending, Ending::StopString);
        let after_a = "bcdefghijklmnopqrstabcdefghijklmnopqrst";
        assert_eq!(plain.text, after_a[..after_a.find(stop).unwrap()]);
        for draft_length in 1..=4 {
            let drafted = run(&toy, "a", &settings(draft_length, 60, &[stop]));
            assert_eq!(drafted.text, plain.text);
            assert_eq!(drafted.decoded.ids, plain.decoded.ids);
            assert_eq!(drafted.decoded.ending, plain.decoded.ending);
            let committed = plain.decoded.ids.len() - 1;
            assert_eq!(drafted.decoded.statistics.committed_tokens, committed);
            assert_eq!(drafted.decoded.statistics.forwards, committed.div_ceil(draft_length + 1));
        }
    }
}

#[test]
fn text_held_back_for_a_stop_string_comes_out_at_the_end() {
    let toy = reciter("abcdefghij");
    let generation = run(&toy, "a", &settings(3, 6, &["efgX", "fgh"]));
    assert_eq!(generation.text, "bcdefg");
    assert_eq!(generation.decoded.ending, Ending::MaxNewTokens);
}

#[test]
fn characters_are_whole_whatever_tokens_they_come_in() {
    // No byte stands twice in it.
    let text = "é—🦙x";
    let toy = reciter(text);
    let plain = run(&toy, "x", &settings(0, 20, &[]));
    assert_eq!(plain.text, format!("{text}{text}"));
    for draft_length in 1..=4 {
        let drafted = run(&toy, "x", &settings(draft_length, 20, &[]));
        let pieces: Vec<&str> = drafted.pieces.iter().map(|piece| piece.text.as_str()).collect();
        assert_eq!(pieces, ["é", "—", "🦙", "x", "é", "—", "🦙", "x"]);
    }
    // Cut within the llama: the bytes that are there never become a character.
    assert_eq!(run(&toy, "x", &settings(4, 7, &[])).text, "é—\u{fffd}");
    // A prompt that ends within one: the continuation completes it.
    let vocabulary = Vocabulary::bytes();
    let half = vocabulary.encode_bytes(&"x—".as_bytes()[..2]).unwrap();
    let rest = generate(&mut toy.target(1), &vocabulary, &half, &settings(4, 6, &[]), &mut |_| {
        ControlFlow::Continue(())
    });
    assert_eq!(rest.unwrap().text, "—🦙");
}

#[test]
fn end_tokens_have_no_text() {
    let toy = reciter("abcdefghij");
    let mut settings = settings(4, 50, &[]);
    settings.decoding.end_tokens = vec![u32::from(b'f')];
    let generation = run(&toy, "a", &settings);
    assert_eq!((generation.text.as_str(), generation.decoded.ending), ("bcde", Ending::EndToken));
    assert_eq!(generation.decoded.ids.last(), Some(&u32::from(b'f')));
}

#[test]
fn a_receiver_can_interrupt() {
    let toy = reciter("abcdefghij");
    let vocabulary = Vocabulary::bytes();
    let mut calls = 0;
    let generation = generate(&mut toy.target(1), &vocabulary, &[97], &settings(4, 50, &[]), &mut |piece| {
        calls += 1;
        if piece.text == "d" { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })
    .unwrap();
    assert_eq!((generation.text.as_str(), calls), ("bcd", 3));
    assert_eq!(generation.decoded.ending, Ending::Interrupted);
}

#[test]
fn what_cannot_work_is_refused_with_the_reason() {
    let toy = random(&config(60, 2, 32), spec(Linear, 3, Shared), 3);
    let refusal = |prompt: &[u32], settings: &GenerateSettings| -> String {
        let vocabulary = Vocabulary::bytes();
        let outcome =
            generate(&mut toy.target(1), &vocabulary, prompt, settings, &mut |_| ControlFlow::Continue(()));
        let message = outcome.unwrap_err().to_string();
        assert!(!message.contains('\n') && message.len() > 20, "{message}");
        message
    };
    let good = settings(2, 5, &[]);
    assert!(refusal(&[], &good).contains("no tokens"));
    assert!(refusal(&[1; 32], &good).contains("at most 31"));
    assert!(refusal(&[1; 500], &good).contains("500 tokens"));
    assert!(refusal(&[1, 2, 60], &good).contains("token 60 at place 2"));
    assert!(refusal(&[1], &settings(3, 5, &[])).contains("draft 1 to 2"));
    assert!(refusal(&[1], &settings(2, 0, &[])).starts_with("max_new_tokens"));
    assert!(refusal(&[1], &settings(2, 5, &["ok", ""])).starts_with("stop"));
    let mut bad = good.clone();
    bad.decoding.sampling.top_p = 2.0;
    assert!(refusal(&[1], &bad).starts_with("top_p"));

    let team = std::sync::Arc::new(kernels::team::Team::new(1));
    let target = |capacity| Target::new(&toy.decoder, None, toy.weights.clone(), team.clone(), capacity);
    assert!(matches!(target(0).err(), Some(Error::Setting { setting: "context", .. })));
    assert!(target(33).is_err());
    let mut headless = target(32).unwrap();
    let outcome =
        generate(&mut headless, &Vocabulary::bytes(), &[1], &good, &mut |_| ControlFlow::Continue(()));
    assert!(outcome.unwrap_err().to_string().contains("no heads"));
}

#[test]
fn logits_that_are_no_numbers_are_an_error() {
    let mut toy = random(&config(60, 2, 32), spec(Linear, 3, Shared), 3);
    let norm = toy.decoder.norm.weight;
    toy.change(|params| params.data_mut(norm).fill(f32::NAN));
    let vocabulary = Vocabulary::bytes();
    let outcome = generate(&mut toy.target(1), &vocabulary, &[1, 2], &settings(2, 5, &[]), &mut |_| {
        ControlFlow::Continue(())
    });
    assert!(matches!(outcome, Err(Error::NotFinite { position: 1 })));
}

#[test]
fn measuring_takes_turns_over_all_ways() {
    let toy = reciter("abcdefghijklmnopqrst");
    let settings = MeasureSettings {
        decoding: DecodeSettings { max_new_tokens: 41, ..DecodeSettings::default() },
        draft_lengths: vec![1, 4],
        repeats: 2,
        ..MeasureSettings::default()
    };
    let mut last = (0, 0);
    let measured = measure(&mut toy.target(1), &[vec![97], vec![98, 99]], &settings, &mut |done, all| {
        last = (done, all)
    })
    .unwrap();
    assert_eq!(last, (16, 16));
    assert_eq!((measured.prompts, measured.repeats), (2, 2));
    assert_eq!(measured.bare.statistics.committed_tokens, 4 * 40);
    assert_eq!(measured.plain.statistics.committed_tokens, 4 * 40);
    let lengths: Vec<usize> = measured.drafted.iter().map(|drafted| drafted.draft_length).collect();
    assert_eq!(lengths, [1, 4]);
    assert_eq!(measured.drafted[1].speed.statistics.tokens_per_forward(), Some(5.0));
    assert_eq!(measured.plain.speedup.median, 1.0);
    for spread in
        [&measured.bare.tokens_per_s, &measured.drafted[0].round_cost, &measured.drafted[1].speed.speedup]
    {
        assert!(0.0 < spread.lowest && spread.lowest <= spread.median && spread.median <= spread.highest);
    }
    for bad in [
        MeasureSettings { repeats: 0, ..settings.clone() },
        MeasureSettings { draft_lengths: vec![5], ..settings.clone() },
    ] {
        assert!(measure(&mut toy.target(1), &[vec![97]], &bad, &mut |_, _| {}).is_err());
    }
    assert!(measure(&mut toy.target(1), &[], &settings, &mut |_, _| {}).is_err());
}
