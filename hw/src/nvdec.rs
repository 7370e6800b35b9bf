//! NVDEC: what a GPU decodes. Capabilities only; decoding itself is GStreamer's.

use std::path::Path;
use std::sync::Arc;

use nvidia_video_codec_sdk::sys::cuviddec::{CUVIDDECODECAPS, cudaVideoChromaFormat, cudaVideoCodec};
use serde::Serialize;

use crate::cuda::Context;
use crate::drivers::{open, symbol};
use crate::fault::Fault;

pub(crate) const LIBRARY: &str = "libnvcuvid.so.1";

type GetDecoderCaps = unsafe extern "C" fn(*mut CUVIDDECODECAPS) -> u32;

const CODECS: &[(cudaVideoCodec, &str)] = &[
    (cudaVideoCodec::cudaVideoCodec_H264, "H.264"),
    (cudaVideoCodec::cudaVideoCodec_HEVC, "HEVC"),
    (cudaVideoCodec::cudaVideoCodec_AV1, "AV1"),
    (cudaVideoCodec::cudaVideoCodec_VP9, "VP9"),
    (cudaVideoCodec::cudaVideoCodec_VP8, "VP8"),
    (cudaVideoCodec::cudaVideoCodec_MPEG2, "MPEG-2"),
    (cudaVideoCodec::cudaVideoCodec_MPEG4, "MPEG-4"),
    (cudaVideoCodec::cudaVideoCodec_VC1, "VC-1"),
    (cudaVideoCodec::cudaVideoCodec_MPEG1, "MPEG-1"),
    (cudaVideoCodec::cudaVideoCodec_JPEG, "JPEG"),
];

const CHROMA: &[(cudaVideoChromaFormat, &str)] = &[
    (cudaVideoChromaFormat::cudaVideoChromaFormat_420, "4:2:0"),
    (cudaVideoChromaFormat::cudaVideoChromaFormat_422, "4:2:2"),
    (cudaVideoChromaFormat::cudaVideoChromaFormat_444, "4:4:4"),
    (cudaVideoChromaFormat::cudaVideoChromaFormat_Monochrome, "4:0:0"),
];

const BIT_DEPTHS: &[u32] = &[8, 10, 12];

/// libnvcuvid, opened.
pub struct Nvdec {
    caps: GetDecoderCaps,
}

/// One kind of stream that a GPU decodes.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DecodeCaps {
    pub codec: &'static str,
    pub chroma: &'static str,
    pub bit_depth: u32,
    pub width_max: u32,
    pub height_max: u32,
    /// Macroblocks of one picture: a limit beside that of the sides.
    pub macroblocks_max: u32,
    pub width_min: u32,
    pub height_min: u32,
    /// Decoder engines that share this work; drivers before 470 do not say.
    pub engines: Option<u32>,
}

impl Nvdec {
    pub(crate) fn open(folder: Option<&Path>) -> Result<Nvdec, Fault> {
        // SAFETY: the signature is that of cuviddec.h.
        let caps = unsafe { symbol::<GetDecoderCaps>(open(folder, LIBRARY)?, LIBRARY, "cuvidGetDecoderCaps")? };
        Ok(Nvdec { caps })
    }

    /// All kinds of streams that the device decodes; empty where it has no decoder.
    pub fn capabilities(&self, context: &Arc<Context>) -> Result<Vec<DecodeCaps>, Fault> {
        let _entered = context.enter()?;
        let mut found = Vec::new();
        for &(codec, codec_name) in CODECS {
            for &(chroma, chroma_name) in CHROMA {
                for &bit_depth in BIT_DEPTHS {
                    let mut caps = CUVIDDECODECAPS {
                        eCodecType: codec,
                        eChromaFormat: chroma,
                        nBitDepthMinus8: bit_depth - 8,
                        reserved1: [0; 3],
                        bIsSupported: 0,
                        nNumNVDECs: 0,
                        nOutputFormatMask: 0,
                        nMaxWidth: 0,
                        nMaxHeight: 0,
                        nMaxMBCount: 0,
                        nMinWidth: 0,
                        nMinHeight: 0,
                        bIsHistogramSupported: 0,
                        nCounterBitDepth: 0,
                        nMaxHistogramBins: 0,
                        reserved3: [0; 10],
                    };
                    // SAFETY: a context is current. The structure is the bindings' own, whole and initialised; the
                    // driver reads the first three fields and writes plain numbers into the others.
                    let status = unsafe { (self.caps)(&mut caps) };
                    context.check("cuvidGetDecoderCaps", status)?;
                    if caps.bIsSupported != 0 {
                        found.push(DecodeCaps {
                            codec: codec_name,
                            chroma: chroma_name,
                            bit_depth,
                            width_max: caps.nMaxWidth,
                            height_max: caps.nMaxHeight,
                            macroblocks_max: caps.nMaxMBCount,
                            width_min: caps.nMinWidth.into(),
                            height_min: caps.nMinHeight.into(),
                            engines: (caps.nNumNVDECs > 0).then_some(caps.nNumNVDECs.into()),
                        });
                    }
                }
            }
        }
        Ok(found)
    }
}
