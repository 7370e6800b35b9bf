//! What a session is to make: codec, size, rate, pictures' order; and how that is told to NVENC.

use std::mem::MaybeUninit;
use std::ptr::addr_of_mut;

use nvidia_video_codec_sdk::sys::nvEncodeAPI as sys;
use serde::Serialize;
use sys::{GUID, NV_ENC_PARAMS_RC_MODE, NV_ENC_TUNING_INFO};

use super::caps::Codec;
use super::library::Encoder;
use crate::cuda::PixelFormat;
use crate::fault::Fault;

/// From the fastest to the best.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Preset {
    P1,
    P2,
    P3,
    P4,
    P5,
    P6,
    P7,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tuning {
    HighQuality,
    LowLatency,
    UltraLowLatency,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rate {
    /// The same quantiser for every picture: 0 to 51 (255 for AV1).
    ConstantQuantiser(u32),
    /// As good as `quality` (1 to 51) asks, no more than `max_bits_per_second`.
    ConstantQuality {
        quality: u8,
        max_bits_per_second: u32,
    },
    Variable {
        bits_per_second: u32,
        max_bits_per_second: u32,
    },
    Constant {
        bits_per_second: u32,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionSettings {
    pub codec: Codec,
    pub preset: Preset,
    pub tuning: Tuning,
    pub format: PixelFormat,
    pub width: u32,
    pub height: u32,
    /// Numerator and denominator.
    pub frames_per_second: (u32, u32),
    pub rate: Rate,
    /// Pictures from one keyframe to the next.
    pub gop: u32,
    pub b_frames: u32,
}

impl Preset {
    pub const ALL: [Preset; 7] = [Preset::P1, Preset::P2, Preset::P3, Preset::P4, Preset::P5, Preset::P6, Preset::P7];

    pub(super) fn guid(self) -> GUID {
        match self {
            Preset::P1 => sys::NV_ENC_PRESET_P1_GUID,
            Preset::P2 => sys::NV_ENC_PRESET_P2_GUID,
            Preset::P3 => sys::NV_ENC_PRESET_P3_GUID,
            Preset::P4 => sys::NV_ENC_PRESET_P4_GUID,
            Preset::P5 => sys::NV_ENC_PRESET_P5_GUID,
            Preset::P6 => sys::NV_ENC_PRESET_P6_GUID,
            Preset::P7 => sys::NV_ENC_PRESET_P7_GUID,
        }
    }
}

impl Tuning {
    fn listed(self) -> NV_ENC_TUNING_INFO {
        match self {
            Tuning::HighQuality => NV_ENC_TUNING_INFO::NV_ENC_TUNING_INFO_HIGH_QUALITY,
            Tuning::LowLatency => NV_ENC_TUNING_INFO::NV_ENC_TUNING_INFO_LOW_LATENCY,
            Tuning::UltraLowLatency => NV_ENC_TUNING_INFO::NV_ENC_TUNING_INFO_ULTRA_LOW_LATENCY,
        }
    }
}

impl SessionSettings {
    /// What the encoder would refuse anyway, said in the words of the settings.
    pub(super) fn check(&self, encoder: &Encoder) -> Result<(), Fault> {
        let codec = self.codec;
        let refuse = |what: String| Err(Fault::Misuse(what));
        if self.gop == 0 || self.frames_per_second.0 == 0 || self.frames_per_second.1 == 0 {
            return refuse("neither the keyframe distance nor the frame rate may be 0".to_owned());
        }
        if !encoder.codecs()?.contains(&codec) {
            return refuse(format!("this GPU's encoder makes no {codec}"));
        }
        let caps = encoder.capabilities(codec)?;
        let (width, height) = (self.width, self.height);
        if width > caps.width_max || height > caps.height_max || width < caps.width_min || height < caps.height_min {
            return refuse(format!(
                "{codec} of {width}x{height}: this GPU's encoder takes {}x{} to {}x{}",
                caps.width_min, caps.height_min, caps.width_max, caps.height_max
            ));
        }
        if self.b_frames >= self.gop {
            return refuse(format!("{} B-frames do not fit between keyframes {} apart", self.b_frames, self.gop));
        }
        if self.b_frames > caps.b_frames_max {
            return refuse(format!("{codec} with {} B-frames: it makes at most {}", self.b_frames, caps.b_frames_max));
        }
        if self.format == PixelFormat::P010 && !caps.ten_bit {
            return refuse(format!("{codec} of ten bits: this GPU's encoder makes eight only"));
        }
        Ok(())
    }

    /// The driver's own configuration of the preset, changed where the settings say so.
    pub(super) fn config(&self, encoder: &Encoder) -> Result<Box<MaybeUninit<sys::NV_ENC_PRESET_CONFIG>>, Fault> {
        let mut config = Box::new(MaybeUninit::<sys::NV_ENC_PRESET_CONFIG>::zeroed());
        let at = config.as_mut_ptr();
        // SAFETY: the memory is there and zeroed; only numbers are written, through pointers, so that no reference to
        // a structure is made whose enumerations the driver is still to fill in.
        let status = unsafe {
            addr_of_mut!((*at).version).write(sys::NV_ENC_PRESET_CONFIG_VER);
            addr_of_mut!((*at).presetCfg.version).write(sys::NV_ENC_CONFIG_VER);
            let (codec, preset) = (self.codec.guid(), self.preset.guid());
            (encoder.functions().preset_config)(encoder.raw, codec, preset, self.tuning.listed(), at)
        };
        encoder.check("NvEncGetEncodePresetConfigEx", status)?;
        // SAFETY: the configuration is whole and belongs to this function; `config` keeps it where it is.
        unsafe {
            let at = addr_of_mut!((*at).presetCfg);
            addr_of_mut!((*at).gopLength).write(self.gop);
            addr_of_mut!((*at).frameIntervalP).write(i32::try_from(self.b_frames).unwrap_or(0) + 1);
            self.rate.write(addr_of_mut!((*at).rcParams));
            self.write_codec(at);
        }
        Ok(config)
    }

    /// Profile, depth and the distance of keyframes, which each codec keeps in a place of its own.
    ///
    /// # Safety
    ///
    /// `at` points to a whole configuration that the driver filled in for this codec.
    unsafe fn write_codec(&self, at: *mut sys::NV_ENC_CONFIG) {
        let ten_bit = self.format == PixelFormat::P010;
        // SAFETY: the caller's promise; the union's member is the one of the codec that the driver filled in, speaking
        // the bindings' version, so that it may be borrowed for the setters of its bit fields.
        unsafe {
            let codec = addr_of_mut!((*at).encodeCodecConfig);
            match self.codec {
                Codec::H264 => {
                    addr_of_mut!((*at).profileGUID).write(sys::NV_ENC_H264_PROFILE_HIGH_GUID);
                    addr_of_mut!((*codec).h264Config.idrPeriod).write(self.gop);
                }
                Codec::Hevc => {
                    let profile =
                        if ten_bit { sys::NV_ENC_HEVC_PROFILE_MAIN10_GUID } else { sys::NV_ENC_HEVC_PROFILE_MAIN_GUID };
                    addr_of_mut!((*at).profileGUID).write(profile);
                    addr_of_mut!((*codec).hevcConfig.idrPeriod).write(self.gop);
                    (*codec).hevcConfig.set_pixelBitDepthMinus8(if ten_bit { 2 } else { 0 });
                }
                Codec::Av1 => {
                    addr_of_mut!((*at).profileGUID).write(sys::NV_ENC_AV1_PROFILE_MAIN_GUID);
                    addr_of_mut!((*codec).av1Config.idrPeriod).write(self.gop);
                    let depth = if ten_bit { 2 } else { 0 };
                    (*codec).av1Config.set_chromaFormatIDC(1);
                    (*codec).av1Config.set_inputPixelBitDepthMinus8(depth);
                    (*codec).av1Config.set_pixelBitDepthMinus8(depth);
                }
            }
        }
    }

    pub(super) fn parameters(&self, config: *mut sys::NV_ENC_CONFIG) -> sys::NV_ENC_INITIALIZE_PARAMS {
        sys::NV_ENC_INITIALIZE_PARAMS {
            version: sys::NV_ENC_INITIALIZE_PARAMS_VER,
            encodeGUID: self.codec.guid(),
            presetGUID: self.preset.guid(),
            tuningInfo: self.tuning.listed(),
            encodeWidth: self.width,
            encodeHeight: self.height,
            darWidth: self.width,
            darHeight: self.height,
            frameRateNum: self.frames_per_second.0,
            frameRateDen: self.frames_per_second.1,
            enablePTD: 1,
            encodeConfig: config,
            ..Default::default()
        }
    }
}

impl Rate {
    /// # Safety
    ///
    /// `at` points to whole rate control parameters.
    unsafe fn write(self, at: *mut sys::NV_ENC_RC_PARAMS) {
        let (mode, average, most) = match self {
            Rate::ConstantQuantiser(_) => (NV_ENC_PARAMS_RC_MODE::NV_ENC_PARAMS_RC_CONSTQP, 0, 0),
            Rate::ConstantQuality { max_bits_per_second, .. } => {
                (NV_ENC_PARAMS_RC_MODE::NV_ENC_PARAMS_RC_VBR, 0, max_bits_per_second)
            }
            Rate::Variable { bits_per_second, max_bits_per_second } => {
                (NV_ENC_PARAMS_RC_MODE::NV_ENC_PARAMS_RC_VBR, bits_per_second, max_bits_per_second)
            }
            Rate::Constant { bits_per_second } => {
                (NV_ENC_PARAMS_RC_MODE::NV_ENC_PARAMS_RC_CBR, bits_per_second, bits_per_second)
            }
        };
        // SAFETY: the caller's promise; each write is to one field.
        unsafe {
            addr_of_mut!((*at).rateControlMode).write(mode);
            addr_of_mut!((*at).averageBitRate).write(average);
            addr_of_mut!((*at).maxBitRate).write(most);
            match self {
                Rate::ConstantQuantiser(qp) => {
                    let qp = sys::NV_ENC_QP { qpInterP: qp, qpInterB: qp, qpIntra: qp };
                    addr_of_mut!((*at).constQP).write(qp);
                }
                Rate::ConstantQuality { quality, .. } => addr_of_mut!((*at).targetQuality).write(quality),
                Rate::Variable { .. } | Rate::Constant { .. } => {}
            }
        }
    }
}
