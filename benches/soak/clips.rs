//! Short clips in ten containers, made by ffmpeg and kept beside the build; each a second long, with sound.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::lots::folder;

/// The name's end of each, and what ffmpeg is told.
pub const KINDS: &[(&str, &str)] = &[
    ("mp4", "-c:v libx264 -preset veryfast -pix_fmt yuv420p -c:a aac -movflags +faststart"),
    ("mov", "-c:v mjpeg -q:v 5 -pix_fmt yuvj420p -c:a pcm_s16le"),
    ("mkv", "-c:v libx264 -preset veryfast -pix_fmt yuv420p -c:a libvorbis -ac 2"),
    ("webm", "-c:v libvpx -b:v 300k -c:a libopus"),
    ("avi", "-c:v mpeg4 -q:v 4 -c:a libmp3lame"),
    ("ts", "-c:v libx264 -preset veryfast -pix_fmt yuv420p -c:a mp2"),
    ("mxf", "-c:v mpeg2video -q:v 4 -c:a pcm_s16le -ar 48000"),
    ("flv", "-c:v flv -q:v 4 -c:a libmp3lame -ar 44100"),
    ("mpg", "-c:v mpeg2video -q:v 4 -c:a mp2"),
    ("wmv", "-c:v wmv2 -q:v 4 -c:a wmav2"),
];

fn path(kind: &str) -> PathBuf {
    folder().join("clips").join(format!("clip.{kind}"))
}

/// Makes those that are not there yet.
pub fn make_all() {
    fs::create_dir_all(folder().join("clips")).unwrap();
    for (kind, arguments) in KINDS {
        let (path, part) = (path(kind), folder().join("clips").join(format!("part.{kind}")));
        if path.exists() {
            continue;
        }
        let made = Command::new("ffmpeg")
            .args(["-v", "error", "-y", "-f", "lavfi", "-i", "testsrc2=size=160x90:rate=25"])
            .args(["-f", "lavfi", "-i", "sine=frequency=440:sample_rate=48000", "-t", "1"])
            .args(arguments.split_whitespace())
            .args(["-fflags", "+bitexact", "-flags:v", "+bitexact", "-flags:a", "+bitexact"])
            .arg(&part)
            .status()
            .expect("ffmpeg makes the clips");
        assert!(made.success(), "ffmpeg does not make a clip of the kind {kind}");
        fs::rename(part, path).unwrap();
    }
}

pub fn read(kind: &str) -> Vec<u8> {
    fs::read(path(kind)).unwrap()
}

/// An MP4 clip that is like no other: with a box that players skip.
pub fn unlike(mark: &str) -> Vec<u8> {
    let mut bytes = read("mp4");
    let length = u32::try_from(mark.len() + 8).unwrap();
    bytes.extend(length.to_be_bytes());
    bytes.extend(b"free");
    bytes.extend(mark.as_bytes());
    bytes
}
