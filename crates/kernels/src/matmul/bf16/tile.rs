//! The inner loop: 8 rows by 48 columns of sums, which stay in registers.

/// Rows of a tile.
pub(super) const ROWS: usize = 8;

/// Columns of a tile: three registers.
pub(super) const COLUMNS: usize = 48;

/// `c[rows, columns] (+)= a b` over `pairs` pairs of terms.
///
/// `a` holds [`super::LEFT_PANEL`] words for each pair of terms, of which the first [`ROWS`] are used, `b` [`COLUMNS`] words.
///
/// # Safety
///
/// The machine has AVX-512 F and BF16; `a` and `b` can be read as far as said, `b` at the beginning of a cache line, and `c` be
/// written, `stride` values from row to row.
#[allow(unsafe_code)]
#[target_feature(enable = "avx512f,avx512bf16")]
pub(super) unsafe fn multiply(
    pairs: usize,
    a: *const u32,
    b: *const u32,
    c: *mut f32,
    stride: usize,
    rows: usize,
    columns: usize,
    add: bool,
) {
    use std::arch::x86_64::{
        __m512bh, __m512i, _mm512_add_ps, _mm512_dpbf16_ps, _mm512_load_si512, _mm512_mask_storeu_ps,
        _mm512_maskz_loadu_ps, _mm512_set1_epi32, _mm512_setzero_ps, _mm512_setzero_si512,
    };
    use std::mem::transmute;

    const LANES: usize = 16;
    let mut sums = [[_mm512_setzero_ps(); COLUMNS / LANES]; ROWS];
    // SAFETY: the caller's promise.
    unsafe {
        for pair in 0..pairs {
            let (a, b) = (a.add(pair * super::LEFT_PANEL), b.add(pair * COLUMNS));
            let mut columns = [transmute::<__m512i, __m512bh>(_mm512_setzero_si512()); COLUMNS / LANES];
            for (part, words) in columns.iter_mut().enumerate() {
                *words = transmute::<__m512i, __m512bh>(_mm512_load_si512(b.add(part * LANES).cast()));
            }
            for (row, sums) in sums.iter_mut().enumerate() {
                let a = _mm512_set1_epi32(a.add(row).cast::<i32>().read());
                let a = transmute::<__m512i, __m512bh>(a);
                for (sum, b) in sums.iter_mut().zip(columns) {
                    *sum = _mm512_dpbf16_ps(*sum, a, b);
                }
            }
        }
        for (row, sums) in sums.iter().enumerate().take(rows) {
            for (part, &sum) in sums.iter().enumerate() {
                let first = part * LANES;
                if first >= columns {
                    break;
                }
                let mask = u16::MAX >> (LANES - (columns - first).min(LANES));
                let to = c.add(row * stride + first);
                let sum = match add {
                    true => _mm512_add_ps(_mm512_maskz_loadu_ps(mask, to), sum),
                    false => sum,
                };
                _mm512_mask_storeu_ps(to, mask, sum);
            }
        }
    }
}
