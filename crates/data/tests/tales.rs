//! The tales are the same everywhere, make sense, and do not repeat each other.

use sakiyomi_data::tales::{tales, tell};
use sakiyomi_data::{repeated_span_share, split};

#[test]
fn the_same_seed_tells_the_same_tales() {
    let text = tales(1, 200_000).concat();
    let checksum = text.bytes().fold(0u32, |sum, byte| sum.rotate_left(5) ^ u32::from(byte));
    assert_eq!(
        (text.len(), checksum),
        (200_098, 1_600_766_759),
        "reports of older versions compare with this corpus"
    );
    assert_eq!(tell(1, 0).text, tales(1, 1)[0]);
    assert_ne!(tales(2, 1), tales(1, 1));
    assert!(tales(1, 0).is_empty());
}

#[test]
fn as_many_tales_as_asked_for() {
    let tales = tales(3, 50_000);
    let all: usize = tales.iter().map(String::len).sum();
    assert!(all >= 50_000 && all - tales.last().unwrap().len() < 50_000);
}

#[test]
fn tales_are_plain_sentences_with_every_slot_filled() {
    for number in 0..3000 {
        let text = tell(5, number).text;
        assert!((300..1400).contains(&text.len()), "{} bytes: {text}", text.len());
        let allowed = |letter: char| letter.is_ascii_alphanumeric() || " \n.,:?!\"-".contains(letter);
        assert!(text.chars().all(allowed), "{text}");
        for paragraph in text.lines() {
            assert!(
                paragraph.starts_with(|letter: char| letter.is_ascii_uppercase() || letter == '"'),
                "{text}"
            );
            assert!(paragraph.ends_with(['.', '"', '!', '?']), "{text}");
        }
        for wrong in ["  ", " .", " ,", ". a", ". b", " a a", " a e", " an b"] {
            assert!(!text.contains(wrong), "{wrong:?} in {text}");
        }
    }
}

#[test]
fn sums_come_out_right() {
    let mut sums = 0;
    for number in 0..3000 {
        for part in tell(6, number).text.split(". ").collect::<Vec<_>>().windows(2) {
            let numbers: Vec<u32> = part
                .iter()
                .flat_map(|sentence| sentence.split(|letter: char| !letter.is_ascii_digit()))
                .filter_map(|digits| digits.parse().ok())
                .collect();
            if let [a, b, c] = numbers[..] {
                assert!(a + b == c || a * b == c || a.checked_sub(b) == Some(c), "{numbers:?} in {part:?}");
                sums += 1;
            }
        }
    }
    assert!(sums > 3000);
}

#[test]
fn held_out_tales_are_neither_repeated_nor_noise() {
    let tales = tales(7, 3_000_000);
    let (train, held_out) = split(tales.len(), 0.05, 7).unwrap();
    let texts = |indices: &[usize]| indices.iter().map(|&index| tales[index].as_str()).collect::<Vec<_>>();
    let repeated = repeated_span_share(&texts(&train), &texts(&held_out), 48);
    assert!(repeated <= 0.10, "{repeated} of the held-out stretches of 48 bytes stand in the training part");
    assert!(repeated_span_share(&texts(&train), &texts(&held_out), 12) > 0.5, "short stretches must recur");

    let bits: f64 = (0..tales.len() as u64).map(|number| tell(7, number).chosen_bits).sum();
    let bits_per_byte = bits / tales.iter().map(String::len).sum::<usize>() as f64;
    assert!((0.3..0.6).contains(&bits_per_byte), "{bits_per_byte} bits per byte");
}
