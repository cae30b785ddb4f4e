//! Which instruction set the kernels use, found once at run time.
//!
//! `SAKIYOMI_ISA=avx512|avx2|neon|portable` forces one, so that tests can walk every path that the machine has.
//! A forced set that the machine lacks is refused: the kernels fall back to what was detected.

use std::sync::OnceLock;

/// An instruction set for which the kernels have code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Isa {
    /// Plain Rust, for any machine.
    Portable,
    /// 128-bit vectors on 64-bit ARM.
    Neon,
    /// 256-bit vectors with fused multiply-add.
    Avx2,
    /// 512-bit vectors (F, BW, DQ, VL).
    Avx512,
}

impl Isa {
    /// The name that `SAKIYOMI_ISA` takes.
    pub fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::Neon => "neon",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
        }
    }

    /// Whether this machine can run code of this set.
    pub fn available(self) -> bool {
        match self {
            Self::Portable => true,
            Self::Neon => cfg!(target_arch = "aarch64"),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => {
                Self::Avx2.available()
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
            }
            #[cfg(not(target_arch = "x86_64"))]
            Self::Avx2 | Self::Avx512 => false,
        }
    }

    /// Every set that this machine can run, plainest first.
    pub fn all_available() -> Vec<Self> {
        [Self::Portable, Self::Neon, Self::Avx2, Self::Avx512]
            .into_iter()
            .filter(|isa| isa.available())
            .collect()
    }
}

/// The set that the kernels use in this process.
pub fn isa() -> Isa {
    static ISA: OnceLock<Isa> = OnceLock::new();
    *ISA.get_or_init(|| {
        let available = Isa::all_available();
        let forced = std::env::var("SAKIYOMI_ISA").ok();
        let chosen = available.iter().copied().find(|isa| Some(isa.name()) == forced.as_deref());
        chosen.unwrap_or_else(|| available.last().copied().unwrap_or(Isa::Portable))
    })
}

/// Compiles one `#[inline(always)]` body for every instruction set and picks among them at run time.
///
/// `multiversion! { /// doc \n pub fn name(a: &[f32], b: f32) -> f32 = body; }` defines `name`, which calls `body`
/// compiled with the features of [`isa`]. The body is plain safe Rust; the compiler vectorises it.
macro_rules! multiversion {
    ($($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? = $body:path;)*) => {$(
        $(#[$meta])*
        #[allow(unsafe_code)]
        $vis fn $name($($arg: $ty),*) $(-> $ret)? {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,fma")]
                fn with_avx512($($arg: $ty),*) $(-> $ret)? {
                    $body($($arg),*)
                }
                #[target_feature(enable = "avx2,fma")]
                fn with_avx2($($arg: $ty),*) $(-> $ret)? {
                    $body($($arg),*)
                }
                match $crate::cpu::isa() {
                    // SAFETY: `isa` returns a set only after detecting its features on this machine.
                    $crate::cpu::Isa::Avx512 => return unsafe { with_avx512($($arg),*) },
                    // SAFETY: as above.
                    $crate::cpu::Isa::Avx2 => return unsafe { with_avx2($($arg),*) },
                    _ => {}
                }
            }
            $body($($arg),*)
        }
    )*};
}
pub(crate) use multiversion;
