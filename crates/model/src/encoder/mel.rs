//! From a wave to features: windowed spectra, mel filters, cepstra. In f64: logarithms of near-silence magnify rounding.

use realfft::RealFftPlanner;

/// How a wave is cut and its spectra are taken.
pub(super) struct Spectra {
    /// Samples of a frame.
    pub(super) length: usize,
    /// Samples from one frame to the next.
    pub(super) step: usize,
    /// Points of the transform, at least `length`.
    pub(super) points: usize,
    /// Squared magnitudes.
    pub(super) power: bool,
}

impl Spectra {
    /// Magnitudes of `frames` frames, `[frames, points / 2 + 1]`, under a periodic Hann window. Samples beyond the end are zero.
    pub(super) fn of(&self, samples: &[f32], frames: usize) -> Vec<f64> {
        let transform = RealFftPlanner::<f64>::new().plan_fft_forward(self.points);
        let window: Vec<f64> = (0..self.length)
            .map(|n| 0.5 - 0.5 * (std::f64::consts::TAU * n as f64 / self.length as f64).cos())
            .collect();
        let (mut input, mut output) = (transform.make_input_vec(), transform.make_output_vec());
        let mut spectra = Vec::with_capacity(frames * output.len());
        for frame in 0..frames {
            input.fill(0.0);
            let from = samples.get(frame * self.step..).unwrap_or(&[]);
            for ((value, window), sample) in input.iter_mut().zip(&window).zip(from) {
                *value = window * f64::from(*sample);
            }
            transform.process(&mut input, &mut output).expect("buffers made by the transform itself");
            spectra.extend(output.iter().map(|bin| if self.power { bin.norm_sqr() } else { bin.norm() }));
        }
        spectra
    }
}

/// Triangular filters, `[filters, bins]`.
pub(super) struct Filters {
    bins: usize,
    weights: Vec<f64>,
}

impl Filters {
    /// Filters whose corners lie evenly between `lower` and `upper` Hz on the scale `to_mel`, whose triangles are straight on the
    /// scale `ruler`, and whose heights `height` gives from their two ends in Hz.
    pub(super) fn new(
        filters: usize,
        bins: usize,
        bin_hz: f64,
        corners_hz: &[f64],
        ruler: impl Fn(f64) -> f64,
        height: impl Fn(f64, f64) -> f64,
    ) -> Self {
        let mut weights = Vec::with_capacity(filters * bins);
        for corner in corners_hz.windows(3).take(filters) {
            let [low, middle, high] = [corner[0], corner[1], corner[2]].map(&ruler);
            for bin in 0..bins {
                let at = ruler(bin as f64 * bin_hz);
                let side = ((at - low) / (middle - low)).min((high - at) / (high - middle));
                weights.push(side.max(0.0) * height(corner[0], corner[2]));
            }
        }
        Self { bins, weights }
    }

    /// Energies `[frames, filters]` of spectra `[frames, more bins]`.
    pub(super) fn apply(&self, spectra: &[f64], row: usize) -> Vec<f64> {
        let filter =
            |spectrum: &[f64], weights: &[f64]| weights.iter().zip(spectrum).map(|(w, x)| w * x).sum();
        spectra
            .chunks_exact(row)
            .flat_map(|spectrum| {
                self.weights.chunks_exact(self.bins).map(move |weights| filter(spectrum, weights))
            })
            .collect()
    }
}

/// `1127 ln(1 + f / 700)`
pub(super) fn to_mel(hz: f64) -> f64 {
    1127.0 * (hz / 700.0).ln_1p()
}

fn from_mel(mel: f64) -> f64 {
    700.0 * (mel / 1127.0).exp_m1()
}

/// Slaney's scale: straight below 1000 Hz, logarithmic above.
fn to_slaney(hz: f64) -> f64 {
    if hz < 1000.0 { hz * 3.0 / 200.0 } else { 15.0 + (hz / 1000.0).ln() * 27.0 / 6.4f64.ln() }
}

fn from_slaney(mel: f64) -> f64 {
    if mel < 15.0 { mel * 200.0 / 3.0 } else { 1000.0 * ((mel - 15.0) * 6.4f64.ln() / 27.0).exp() }
}

/// `count` corners in Hz, even on the mel scale.
pub(super) fn mel_corners(count: usize, lower: f64, upper: f64) -> Vec<f64> {
    even(count, to_mel(lower), to_mel(upper)).map(from_mel).collect()
}

/// `count` corners in Hz, even on Slaney's scale.
pub(super) fn slaney_corners(count: usize, lower: f64, upper: f64) -> Vec<f64> {
    even(count, to_slaney(lower), to_slaney(upper)).map(from_slaney).collect()
}

fn even(count: usize, low: f64, high: f64) -> impl Iterator<Item = f64> {
    (0..count).map(move |i| low + (high - low) * i as f64 / (count - 1) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tone_lies_in_its_bin() {
        let spectra = Spectra { length: 400, step: 160, points: 400, power: true };
        let tone: Vec<f32> =
            (0..1600).map(|n| (std::f32::consts::TAU * 1000.0 * n as f32 / 16_000.0).sin()).collect();
        for frame in spectra.of(&tone, 8).chunks(201) {
            let loudest = (0..201).max_by(|a, b| frame[*a].total_cmp(&frame[*b])).unwrap();
            assert_eq!(loudest, 25);
            // Half of the window's sum, squared.
            assert!((frame[25] - 10_000.0).abs() < 1.0, "{}", frame[25]);
        }
    }

    #[test]
    fn scales_go_back_and_filters_overlap_to_one() {
        for hz in [0.0, 440.0, 1000.0, 7600.0] {
            assert!(
                (from_mel(to_mel(hz)) - hz).abs() < 1e-6 && (from_slaney(to_slaney(hz)) - hz).abs() < 1e-6
            );
        }
        let corners = mel_corners(12, 0.0, 8000.0);
        let filters = Filters::new(10, 201, 40.0, &corners, to_mel, |_, _| 1.0);
        for bin in 0..201 {
            let hz = bin as f64 * 40.0;
            let sum: f64 = (0..10).map(|filter| filters.weights[filter * 201 + bin]).sum();
            if hz > corners[1] && hz < corners[10] {
                assert!((sum - 1.0).abs() < 1e-9, "{hz} Hz: {sum}");
            }
        }
    }
}
