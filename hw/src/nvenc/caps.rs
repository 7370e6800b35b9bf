//! What an encoder can do, codec by codec.

use nvidia_video_codec_sdk::sys::nvEncodeAPI as sys;
use serde::Serialize;
use sys::{GUID, NV_ENC_CAPS};

use super::library::Encoder;
use super::settings::Preset;
use crate::fault::Fault;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Codec {
    #[serde(rename = "H.264")]
    H264,
    #[serde(rename = "HEVC")]
    Hevc,
    #[serde(rename = "AV1")]
    Av1,
}

/// What an encoder can do with one codec.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CodecCaps {
    pub codec: Codec,
    pub profiles: Vec<&'static str>,
    pub presets: Vec<Preset>,
    pub width_max: u32,
    pub height_max: u32,
    pub width_min: u32,
    pub height_min: u32,
    /// B-frames in a row; 0 where it makes none.
    pub b_frames_max: u32,
    pub b_frames_as_reference: bool,
    pub ten_bit: bool,
    pub chroma_444: bool,
    pub lossless: bool,
    pub lookahead: bool,
    pub temporal_aq: bool,
    /// Whether the rate buffer's size can be set.
    pub custom_vbv: bool,
    /// Encoder engines that share this device's sessions.
    pub engines: u32,
    /// Macroblocks a second at the fastest preset, all engines together, where the driver says.
    pub macroblocks_per_second_max: Option<u32>,
}

const CODECS: &[(Codec, GUID)] = &[
    (Codec::H264, sys::NV_ENC_CODEC_H264_GUID),
    (Codec::Hevc, sys::NV_ENC_CODEC_HEVC_GUID),
    (Codec::Av1, sys::NV_ENC_CODEC_AV1_GUID),
];

/// Those of which the bindings know a name; "automatic" is no profile.
const PROFILES: &[(GUID, &str)] = &[
    (sys::NV_ENC_H264_PROFILE_BASELINE_GUID, "Baseline"),
    (sys::NV_ENC_H264_PROFILE_MAIN_GUID, "Main"),
    (sys::NV_ENC_H264_PROFILE_HIGH_GUID, "High"),
    (sys::NV_ENC_H264_PROFILE_HIGH_444_GUID, "High 4:4:4"),
    (sys::NV_ENC_H264_PROFILE_STEREO_GUID, "Stereo"),
    (sys::NV_ENC_H264_PROFILE_PROGRESSIVE_HIGH_GUID, "Progressive High"),
    (sys::NV_ENC_H264_PROFILE_CONSTRAINED_HIGH_GUID, "Constrained High"),
    (sys::NV_ENC_HEVC_PROFILE_MAIN_GUID, "Main"),
    (sys::NV_ENC_HEVC_PROFILE_MAIN10_GUID, "Main 10"),
    (sys::NV_ENC_HEVC_PROFILE_FREXT_GUID, "Range Extensions"),
    (sys::NV_ENC_AV1_PROFILE_MAIN_GUID, "Main"),
];

impl Codec {
    pub(super) fn guid(self) -> GUID {
        CODECS.iter().find(|(codec, _)| *codec == self).map_or_else(GUID::default, |(_, guid)| *guid)
    }

    pub fn name(self) -> &'static str {
        match self {
            Codec::H264 => "H.264",
            Codec::Hevc => "HEVC",
            Codec::Av1 => "AV1",
        }
    }
}

impl std::fmt::Display for Codec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl Encoder {
    /// The codecs that this encoder makes and this program knows.
    pub fn codecs(&self) -> Result<Vec<Codec>, Fault> {
        let f = self.functions();
        let guids = self.guids(
            ("NvEncGetEncodeGUIDCount", "NvEncGetEncodeGUIDs"),
            // SAFETY: the session is open; one number is written.
            |count| unsafe { (f.codec_count)(self.raw, count) },
            // SAFETY: the session is open; at most `length` identifiers and their number are written.
            |at, length, count| unsafe { (f.codecs)(self.raw, at, length, count) },
        )?;
        Ok(CODECS.iter().filter(|(_, guid)| guids.contains(guid)).map(|(codec, _)| *codec).collect())
    }

    pub fn capabilities(&self, codec: Codec) -> Result<CodecCaps, Fault> {
        let number = |cap| self.cap(codec, cap);
        let can = |cap| Ok::<bool, Fault>(self.cap(codec, cap)? != 0);
        let per_second = number(NV_ENC_CAPS::NV_ENC_CAPS_MB_PER_SEC_MAX)?;
        Ok(CodecCaps {
            codec,
            profiles: self.profiles(codec)?,
            presets: self.presets(codec)?,
            width_max: number(NV_ENC_CAPS::NV_ENC_CAPS_WIDTH_MAX)?,
            height_max: number(NV_ENC_CAPS::NV_ENC_CAPS_HEIGHT_MAX)?,
            width_min: number(NV_ENC_CAPS::NV_ENC_CAPS_WIDTH_MIN)?,
            height_min: number(NV_ENC_CAPS::NV_ENC_CAPS_HEIGHT_MIN)?,
            b_frames_max: number(NV_ENC_CAPS::NV_ENC_CAPS_NUM_MAX_BFRAMES)?,
            b_frames_as_reference: can(NV_ENC_CAPS::NV_ENC_CAPS_SUPPORT_BFRAME_REF_MODE)?,
            ten_bit: can(NV_ENC_CAPS::NV_ENC_CAPS_SUPPORT_10BIT_ENCODE)?,
            chroma_444: can(NV_ENC_CAPS::NV_ENC_CAPS_SUPPORT_YUV444_ENCODE)?,
            lossless: can(NV_ENC_CAPS::NV_ENC_CAPS_SUPPORT_LOSSLESS_ENCODE)?,
            lookahead: can(NV_ENC_CAPS::NV_ENC_CAPS_SUPPORT_LOOKAHEAD)?,
            temporal_aq: can(NV_ENC_CAPS::NV_ENC_CAPS_SUPPORT_TEMPORAL_AQ)?,
            custom_vbv: can(NV_ENC_CAPS::NV_ENC_CAPS_SUPPORT_CUSTOM_VBV_BUF_SIZE)?,
            engines: number(NV_ENC_CAPS::NV_ENC_CAPS_NUM_ENCODER_ENGINES)?,
            macroblocks_per_second_max: (per_second > 0).then_some(per_second),
        })
    }

    fn cap(&self, codec: Codec, cap: NV_ENC_CAPS) -> Result<u32, Fault> {
        let mut question =
            sys::NV_ENC_CAPS_PARAM { version: sys::NV_ENC_CAPS_PARAM_VER, capsToQuery: cap, reserved: [0; 62] };
        let mut value = 0;
        // SAFETY: the session is open, the question whole; one int is written.
        let status = unsafe { (self.functions().caps)(self.raw, codec.guid(), &mut question, &mut value) };
        self.check("NvEncGetEncodeCaps", status)?;
        Ok(u32::try_from(value).unwrap_or_default())
    }

    fn profiles(&self, codec: Codec) -> Result<Vec<&'static str>, Fault> {
        let f = self.functions();
        let guids = self.guids(
            ("NvEncGetEncodeProfileGUIDCount", "NvEncGetEncodeProfileGUIDs"),
            // SAFETY: as for the codecs.
            |count| unsafe { (f.profile_count)(self.raw, codec.guid(), count) },
            // SAFETY: as for the codecs.
            |at, length, count| unsafe { (f.profiles)(self.raw, codec.guid(), at, length, count) },
        )?;
        Ok(PROFILES.iter().filter(|(guid, _)| guids.contains(guid)).map(|(_, name)| *name).collect())
    }

    fn presets(&self, codec: Codec) -> Result<Vec<Preset>, Fault> {
        let f = self.functions();
        let guids = self.guids(
            ("NvEncGetEncodePresetCount", "NvEncGetEncodePresetGUIDs"),
            // SAFETY: as for the codecs.
            |count| unsafe { (f.preset_count)(self.raw, codec.guid(), count) },
            // SAFETY: as for the codecs.
            |at, length, count| unsafe { (f.presets)(self.raw, codec.guid(), at, length, count) },
        )?;
        Ok(Preset::ALL.into_iter().filter(|preset| guids.contains(&preset.guid())).collect())
    }

    /// A list that the driver first counts and then writes.
    fn guids(
        &self,
        calls: (&'static str, &'static str),
        count: impl Fn(*mut u32) -> u32,
        list: impl Fn(*mut GUID, u32, *mut u32) -> u32,
    ) -> Result<Vec<GUID>, Fault> {
        let mut length = 0;
        self.check(calls.0, count(&mut length))?;
        // No driver lists more; a number that is nonsense must not become an allocation.
        let length = length.min(256);
        let mut guids = vec![GUID::default(); length as usize];
        let mut written = 0;
        self.check(calls.1, list(guids.as_mut_ptr(), length, &mut written))?;
        guids.truncate(written as usize);
        Ok(guids)
    }
}
