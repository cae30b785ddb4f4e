use super::*;

fn spec(d_min: usize, d_max: usize) -> RegistersSpec {
    RegistersSpec { d_min, d_max, ..RegistersSpec::default() }
}

/// Two documents in a row: 10 11 12 13 14 15 | 20 21 22, of which the first's first two tokens are a prompt.
fn batch() -> Batch {
    let mut batch = Batch::single(&[10, 11, 12, 13, 14, 15, 20, 21, 22], 4);
    for index in 6..9 {
        batch.segments[index] = 1;
        batch.positions[index] = index as u32 - 6;
        batch.first_visible[index] = 6;
    }
    batch.loss_mask[..2].fill(false);
    batch
}

fn seen(placed: &[Placed]) -> Vec<(u32, u32, u32)> {
    placed.iter().map(|p| (p.register.anchor, p.register.position, p.target)).collect()
}

/// METHODS test (d), by hand: behind token t with offset d stands position t + d - 1 and the target is token t + d; the first
/// register stands behind the last token of the prompt, and none looks into the next document.
#[test]
fn positions_and_targets_are_those_of_the_paper() {
    let placed = of_row(&spec(2, 2), &[2], 100, &batch(), 0);
    assert_eq!(seen(&placed), [(1, 2, 13), (2, 3, 14), (3, 4, 15), (6, 1, 22)]);
    let placed = of_row(&spec(1, 1), &[1], 100, &batch(), 0);
    assert_eq!(seen(&placed), [(1, 1, 12), (2, 2, 13), (3, 3, 14), (4, 4, 15), (6, 0, 21), (7, 1, 22)]);
    assert!(of_row(&spec(4, 4), &[4], 100, &batch(), 0).iter().all(|p| p.target == 15));
    // A model with 3 positions has none for the token before a target at position 4.
    assert_eq!(seen(&of_row(&spec(2, 2), &[2], 3, &batch(), 0)), [(1, 2, 13), (6, 1, 22)]);
}

#[test]
fn an_offset_is_drawn_for_a_sequence_or_for_a_register() {
    let batch = Batch::single(&(0..200).collect::<Vec<u32>>(), 4);
    let offsets = |spec: &RegistersSpec| -> Vec<u32> {
        of_row(spec, &spec.offsets(), 1000, &batch, 0).iter().map(|placed| placed.offset).collect()
    };
    let alike = offsets(&spec(1, 4));
    assert!(alike.iter().all(|&offset| offset == alike[0]) && alike.len() == 200 - alike[0] as usize);
    let each = offsets(&RegistersSpec { offsets: OffsetsPer::Register, ..spec(1, 4) });
    assert!((1..=4).all(|offset| each.iter().filter(|&&other| other == offset).count() > 30));
    // By the curriculum only the nearer ones are in use.
    let few =
        of_row(&RegistersSpec { offsets: OffsetsPer::Register, ..spec(1, 4) }, &[1, 2], 1000, &batch, 0);
    assert!(few.iter().all(|placed| placed.offset <= 2));
}

#[test]
fn sparse_registers_are_drawn_by_the_row_and_not_by_the_batch() {
    let sparse = RegistersSpec { density: 0.3, ..spec(2, 2) };
    let mut batch = Batch::single(&(0..102).collect::<Vec<u32>>(), 4);
    let of = |batch: &Batch| seen(&of_row(&sparse, &[2], 1000, batch, 0));
    let first = of(&batch);
    assert_eq!(first.len(), 30);
    assert_eq!(first, of(&batch));
    batch.draws[0] = 7;
    assert!(of(&batch) != first && of(&batch).len() == 30);
    let counted = RegistersSpec { count: 5, ..sparse.clone() };
    assert_eq!(of_row(&counted, &[2], 1000, &batch, 0).len(), 5);
}

#[test]
fn registers_behind_one_token_have_different_offsets() {
    let several = RegistersSpec { consecutive: 3, offsets: OffsetsPer::Register, ..spec(1, 3) };
    let batch = Batch::single(&[1, 2, 3, 4, 5, 6], 3);
    let placed = of_row(&several, &[1, 2, 3], 100, &batch, 0);
    let mut behind_first: Vec<u32> =
        placed.iter().filter(|p| p.register.anchor == 0).map(|p| p.offset).collect();
    behind_first.sort_unstable();
    assert_eq!(behind_first, [1, 2, 3]);
    assert_eq!(placed.len(), 3 + 3 + 3 + 2 + 1);
}

#[test]
fn registers_carry_tokens_of_their_document() {
    let mut batch = Batch::single(&(0..1002).collect::<Vec<u32>>(), 4);
    for index in 500..1002 {
        batch.segments[index] = 1;
        batch.positions[index] = index as u32 - 500;
        batch.first_visible[index.min(1000)] = 500;
    }
    let spec = RegistersSpec { decoys: 0.5, offsets: OffsetsPer::Register, ..spec(1, 3) };
    let placed = of_row(&spec, &[1, 2, 3], 2000, &batch, 0);
    let carrying: Vec<_> = placed.iter().filter(|placed| placed.carried.share > 0.0).collect();
    let part = |some: usize| some as f64 / carrying.len() as f64;
    assert!((carrying.len() as f64 / placed.len() as f64 - 0.5).abs() < 0.06);
    let whole = carrying.iter().filter(|placed| placed.carried.share == 1.0).count();
    assert!((part(whole) - 0.4).abs() < 0.08, "{whole}");
    let own = |placed: &&&Placed| placed.carried.token == placed.target - 1;
    let own = carrying.iter().filter(own).count();
    assert!((part(own) - 0.5).abs() < 0.08, "{own}");
    assert!(carrying.iter().all(|p| (p.carried.token < 500) == (p.register.anchor < 500)));
    // Nothing from behind the token, but for the register's own.
    let seen = |p: &&Placed| p.carried.token <= p.register.anchor || p.carried.token == p.target - 1;
    assert!(carrying.iter().all(seen));
    let without = of_row(&RegistersSpec { decoys: 0.0, ..spec }, &[1, 2, 3], 2000, &batch, 0);
    assert!(without.iter().all(|placed| placed.carried.share == 0.0));
    // They stand in the same places.
    let bare = |placed: &[Placed]| -> Vec<_> { placed.iter().map(|p| (p.register, p.target)).collect() };
    assert_eq!(bare(&placed), bare(&without));
}

#[test]
fn a_document_that_is_too_short_has_none() {
    assert!(of_row(&spec(3, 3), &[3], 100, &Batch::single(&[1, 2, 3], 4), 0).is_empty());
    assert!(of_row(&spec(1, 1), &[1], 100, &Batch::single(&[1], 4), 0).is_empty());
}

/// A class and an image of 3 rows of 4 cells, 10 to 21.
#[test]
fn in_an_image_offsets_go_down_and_to_the_right() {
    let mut batch = Batch::single(&[1, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21], 5);
    batch.loss_mask[0] = false;
    let grid = RegistersSpec { grid_width: 4, ..spec(1, 2) };
    // Right; down; down and to the right.
    assert_eq!((grid.offsets(), grid.largest_offset()), (vec![1, 4, 5], 5));
    assert_eq!(RegistersSpec { d_max: 3, ..grid.clone() }.offsets(), [1, 2, 4, 5, 6, 8, 9, 10]);
    let of = |spec: &RegistersSpec, offset| -> Vec<(u32, u32)> {
        let placed = of_row(spec, &[offset], 100, &batch, 0);
        assert!(placed.iter().all(|p| p.register.position == p.register.anchor + offset as u32 - 1));
        placed.iter().map(|p| (batch.tokens[p.register.anchor as usize], p.target)).collect()
    };
    let all = [(1, 14), (10, 15), (11, 16), (12, 17), (13, 18), (14, 19), (15, 20), (16, 21)];
    assert_eq!(of(&grid, 5), all);
    let dropping = RegistersSpec { row_end: RowEnd::Drop, ..grid };
    assert_eq!(of(&dropping, 5), [(10, 15), (11, 16), (12, 17), (14, 19), (15, 20), (16, 21)]);
    assert_eq!(
        of(&dropping, 4).len(),
        9,
        "straight down there is always a cell, also below the place before the image"
    );
    assert_eq!(of(&dropping, 1), [10, 11, 12, 14, 15, 16, 18, 19, 20].map(|cell| (cell, cell + 1)));
}

#[test]
fn grids_that_cannot_be_are_refused() {
    let refusal = |spec: RegistersSpec| spec.validate().unwrap_err().to_string();
    for (d_min, d_max, grid_width) in [(1, 1, 4), (1, 5, 4), (2, 3, 4), (1, 3, 100_000)] {
        let wrong = RegistersSpec { grid_width, ..spec(d_min, d_max) };
        assert!(refusal(wrong).contains("grid_width"), "{d_min} {d_max} {grid_width}");
    }
    assert!(refusal(RegistersSpec { grid_width: 1, ..spec(1, 4) }).contains("leave it out"));
}
