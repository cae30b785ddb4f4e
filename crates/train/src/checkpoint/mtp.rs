//! `mtp.json`: which heads, or registers, stand beside a model.

use std::path::Path;

use model::DecoderConfig;
use objective::{HeadsSpec, RegistersSpec};
use serde::{Deserialize, Serialize};
use tensor::Params;

use crate::error::{Error, Result};

/// The file's name.
pub(crate) const FILE: &str = "mtp.json";

/// Version of the file. It grows when a field changes its meaning or goes.
const FORMAT: u32 = 1;

/// What stands in the file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Mtp {
    format: u32,
    kind: Kind,
    /// Of heads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hidden: Option<Hidden>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    heads: Option<HeadsSpec>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    registers: Option<RegistersSpec>,
    /// [`digest`] of the weights that the heads were trained on; null: not to be checked.
    pub(crate) trunk: Option<String>,
}

/// Which objective made the heads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    /// Parallel heads.
    Heads,
    /// Registers.
    Registers,
}

/// Which state of the model feeds the heads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Hidden {
    /// The residual stream before the final norm; the norm comes after the head.
    PreNorm,
}

/// What stands beside a model, with its settings.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Added {
    /// Parallel heads.
    Heads(HeadsSpec),
    /// Registers.
    Registers(RegistersSpec),
}

impl Mtp {
    /// What the file in `folder` says that there is.
    pub(crate) fn added(&self, folder: &Path) -> Result<Added> {
        let missing = |what: &str| Error::Json {
            file: folder.join(FILE),
            reason: format!("names {what} and does not say which"),
        };
        match self.kind {
            Kind::Heads => self.heads.clone().map(Added::Heads).ok_or_else(|| missing("heads")),
            Kind::Registers => {
                self.registers.clone().map(Added::Registers).ok_or_else(|| missing("registers"))
            }
        }
    }
}

/// The file in `folder`, if there is one.
pub(crate) fn read(folder: &Path) -> Result<Option<Mtp>> {
    /// The version is looked at first: a later one may have other fields.
    #[derive(Deserialize)]
    struct Version {
        format: u32,
    }
    let file = folder.join(FILE);
    if !model::checkpoint::present(&file)? {
        return Ok(None);
    }
    let text = fs_err::read(&file)?;
    let refuse = |reason: String| Error::Json { file: file.clone(), reason };
    let version: Version = serde_json::from_slice(&text).map_err(|error| refuse(error.to_string()))?;
    if version.format != FORMAT {
        return Err(refuse(format!("format {} is not known here (only {FORMAT})", version.format)));
    }
    serde_json::from_slice(&text).map(Some).map_err(|error| refuse(error.to_string()))
}

/// Writes the file into `folder`.
pub(crate) fn write(folder: &Path, added: Added, trunk: String) -> Result<()> {
    let (format, trunk) = (FORMAT, Some(trunk));
    let mtp = match added {
        Added::Heads(heads) => Mtp {
            format,
            kind: Kind::Heads,
            hidden: Some(Hidden::PreNorm),
            heads: Some(heads),
            registers: None,
            trunk,
        },
        Added::Registers(registers) => Mtp {
            format,
            kind: Kind::Registers,
            hidden: None,
            heads: None,
            registers: Some(registers),
            trunk,
        },
    };
    let mut text = serde_json::to_vec_pretty(&mtp).map_err(std::io::Error::from)?;
    text.push(b'\n');
    Ok(model::checkpoint::write_file(&folder.join(FILE), &text)?)
}

/// 16 hexadecimal digits that change when a weight of the model does. Guards against accidents, not against forgers.
pub(crate) fn digest(params: &Params, config: &DecoderConfig) -> String {
    let mut state: u64 = 0;
    // The mixing step of Firefox's hash: one rotation, one exclusive or, one product for each value.
    let mut mix = |word: u64| state = (state.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95);
    for spec in config.tensors() {
        spec.name.bytes().for_each(|byte| mix(u64::from(byte)));
        let Some(id) = params.find(&spec.name) else { continue };
        params.data(id).iter().for_each(|value| mix(u64::from(value.to_bits())));
    }
    format!("{state:016x}")
}
