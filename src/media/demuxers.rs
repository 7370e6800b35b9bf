//! What may take a file apart: demultiplexers from a list, and nothing that opens anything but the bytes that it is given.
//!
//! GStreamer picks elements by what a file's first bytes look like, and among them are readers of playlists and manifests,
//! which fetch what these name. A file is itself only: a playlist is refused as what it is (`container`), and what would
//! follow it is not picked in the first place.

use gstreamer as gst;
use gstreamer::prelude::*;

/// They read one file and nothing else. Of libav's, which are many, those whose formats people of media bring.
const ALLOWED: &[&str] = &[
    "aiffparse",
    "apedemux",
    "asfdemux",
    "auparse",
    "avdemux_gxf",
    "avdemux_nsv",
    "avdemux_nut",
    "avdemux_pva",
    "avidemux",
    "dvdemux",
    "flvdemux",
    "id3demux",
    "ivfparse",
    "matroskademux",
    "mpegpsdemux",
    "mxfdemux",
    "oggdemux",
    "qtdemux",
    "rmdemux",
    "tsdemux",
    "wavparse",
    "y4mdec",
];

/// Takes the ranks of all others, so that they are never picked.
pub fn restrict() {
    let registry = gst::Registry::get();
    for feature in registry.features(gst::ElementFactory::static_type()) {
        if feature.downcast_ref::<gst::ElementFactory>().is_some_and(is_foreign) {
            feature.set_rank(gst::Rank::NONE);
        }
    }
}

fn is_foreign(factory: &gst::ElementFactory) -> bool {
    use gst::ElementFactoryType as Type;
    let opens = [Type::DEMUXER, Type::DEPAYLOADER, Type::DECRYPTOR, Type::SRC];
    opens.into_iter().any(|kind| factory.has_type(kind)) && !ALLOWED.contains(&factory.name().as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_follows_a_playlist_is_never_picked() {
        crate::init().unwrap();
        let rank = |name: &str| gst::ElementFactory::find(name).map_or(gst::Rank::NONE, |factory| factory.rank());
        for name in ["hlsdemux", "hlsdemux2", "dashdemux", "dashdemux2", "mssdemux", "mssdemux2", "sdpdemux", "rtspsrc"]
        {
            assert_eq!(rank(name), gst::Rank::NONE, "{name}");
        }
        for name in ["souphttpsrc", "filesrc", "giosrc", "avdemux_gif", "rtph264depay", "multipartdemux"] {
            assert_eq!(rank(name), gst::Rank::NONE, "{name}");
        }
        assert!(rank("qtdemux") > gst::Rank::NONE && rank("h264parse") > gst::Rank::NONE);
    }
}
