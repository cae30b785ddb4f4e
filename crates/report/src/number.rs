//! Numbers as a reader wants them: three significant digits, thousands separated, a real minus, units kept on the line.

/// Shown in place of a value that does not exist.
pub const MISSING: &str = "–";

/// Keeps a number and its unit on one line.
const NO_BREAK: char = '\u{a0}';

/// About three significant digits: `0.0123`, `1.70`, `12.3`, `1,234`, `4.20M`, `1.2×10⁻⁷`.
pub fn number(value: f64) -> String {
    let size = value.abs();
    if !value.is_finite() {
        return MISSING.to_string();
    }
    if size == 0.0 {
        return "0".to_string();
    }
    if !(1e-4..1e12).contains(&size) {
        return scientific(value);
    }
    for (unit, suffix) in [(1e9, "B"), (1e6, "M")] {
        if size >= unit {
            return fixed(value / unit, significant_decimals(size / unit)) + suffix;
        }
    }
    fixed(value, significant_decimals(size))
}

/// A value with a given number of decimals: `fixed(-1234.5, 1)` is `−1,234.5`.
pub fn fixed(value: f64, decimals: usize) -> String {
    if !value.is_finite() {
        return MISSING.to_string();
    }
    let plain = format!("{:.*}", decimals, value.abs());
    let (whole, fraction) = plain.split_once('.').unwrap_or((&plain, ""));
    // A value that rounds to nothing has no sign.
    let sign = if value < 0.0 && plain.contains(|c: char| ('1'..='9').contains(&c)) { "−" } else { "" };
    let point = if fraction.is_empty() { "" } else { "." };
    format!("{sign}{}{point}{fraction}", separated(whole))
}

/// A count with separated thousands: `1,234,567`.
pub fn count(value: u64) -> String {
    separated(&value.to_string())
}

/// A share of one as per cent with one decimal: `percent(0.934)` is `93.4 %`.
pub fn percent(share: f64) -> String {
    if !share.is_finite() {
        return MISSING.to_string();
    }
    format!("{}{NO_BREAK}%", fixed(share * 100.0, 1))
}

/// A ratio with its sign: `times(1.7)` is `1.70×`.
pub fn times(ratio: f64) -> String {
    if !ratio.is_finite() {
        return MISSING.to_string();
    }
    format!("{}×", fixed(ratio, 2))
}

/// A size in bytes, in powers of 1000: `4.20 MB`.
pub fn bytes(size: u64) -> String {
    let value = size as f64;
    for (unit, name) in [(1e9, "GB"), (1e6, "MB"), (1e3, "kB")] {
        if value >= unit {
            return format!("{}{NO_BREAK}{name}", fixed(value / unit, significant_decimals(value / unit)));
        }
    }
    format!("{size}{NO_BREAK}bytes")
}

/// A length of time: `0.42 s`, `12.3 s`, `3 min 12 s`, `2 h 05 min`.
pub fn duration(seconds: f64) -> String {
    if !seconds.is_finite() || seconds < 0.0 {
        return MISSING.to_string();
    }
    if seconds < 60.0 {
        return format!("{}{NO_BREAK}s", fixed(seconds, significant_decimals(seconds).min(2)));
    }
    let whole = seconds.round() as u64;
    if whole < 3600 {
        return format!("{}{NO_BREAK}min {}{NO_BREAK}s", whole / 60, whole % 60);
    }
    format!("{}{NO_BREAK}h {:02}{NO_BREAK}min", whole / 3600, whole % 3600 / 60)
}

/// `1 prompt`, `2 prompts`: a count with its noun.
pub fn counted(value: u64, noun: &str) -> String {
    let ending = if value == 1 { "" } else { "s" };
    format!("{}{NO_BREAK}{noun}{ending}", count(value))
}

/// Decimals that give three significant digits.
fn significant_decimals(size: f64) -> usize {
    if size == 0.0 {
        return 0;
    }
    (2.0 - size.log10().floor()).clamp(0.0, 6.0) as usize
}

fn scientific(value: f64) -> String {
    let plain = format!("{value:.1e}");
    let (mantissa, exponent) = plain.split_once('e').unwrap_or((&plain, "0"));
    let raised: String = exponent
        .chars()
        .map(|digit| match digit {
            '-' => '⁻',
            _ => digit.to_digit(10).and_then(|d| "⁰¹²³⁴⁵⁶⁷⁸⁹".chars().nth(d as usize)).unwrap_or(digit),
        })
        .collect();
    format!("{}×10{raised}", mantissa.replace('-', "−"))
}

/// Groups of three digits, divided by commas.
fn separated(digits: &str) -> String {
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_significant_digits() {
        for (value, shown) in [
            (0.0, "0"),
            (1.7, "1.70"),
            (12.34, "12.3"),
            (123.4, "123"),
            (1234.4, "1,234"),
            (999_999.0, "999,999"),
            (4_200_000.0, "4.20M"),
            (0.01234, "0.0123"),
            (-0.5, "−0.500"),
            (1.2e-7, "1.2×10⁻⁷"),
            (-3e15, "−3.0×10¹⁵"),
        ] {
            assert_eq!(number(value), shown);
        }
        assert_eq!(number(f64::NAN), MISSING);
        assert_eq!(number(f64::INFINITY), MISSING);
    }

    #[test]
    fn units() {
        assert_eq!(percent(0.9344), "93.4\u{a0}%");
        assert_eq!(times(1.699), "1.70×");
        assert_eq!(bytes(4_200_000), "4.20\u{a0}MB");
        assert_eq!(bytes(12), "12\u{a0}bytes");
        assert_eq!(duration(192.0), "3\u{a0}min 12\u{a0}s");
        assert_eq!(duration(7500.0), "2\u{a0}h 05\u{a0}min");
        assert_eq!(duration(0.42), "0.42\u{a0}s");
        assert_eq!(counted(1, "prompt"), "1\u{a0}prompt");
        assert_eq!(counted(1200, "prompt"), "1,200\u{a0}prompts");
    }

    #[test]
    fn what_rounds_to_nothing_has_no_sign() {
        assert_eq!(fixed(-0.001, 2), "0.00");
        assert_eq!(fixed(-1234.56, 1), "−1,234.6");
    }
}
