//! A file is itself only: what names files or addresses instead of holding pictures is refused as what it is, and nothing
//! that it names is opened.

use serde_json::json;

use super::House;

/// Everything that names a file or an address instead of holding pictures, under names of media.
#[test]
fn a_file_is_itself_only() {
    let house = House::new();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let url = format!("http://{}/film.ts", listener.local_addr().unwrap());
    std::fs::create_dir(house.path("other")).unwrap();
    let film = "-f lavfi -i testsrc2=size=320x180:rate=25:duration=3 -c:v libx264 -preset ultrafast";
    house.clip("../other/film.ts", film);
    let file = format!("file://{}", house.path("other/film.ts").display());
    let boxed = |kind: &str, body: &[u8]| [&(body.len() as u32 + 8).to_be_bytes(), kind.as_bytes(), body].concat();
    let reference = |to: &str| {
        let named =
            [&[0, 0, 0, 0], b"url ".as_slice(), &(to.len() as u32 + 1).to_be_bytes(), to.as_bytes(), b"\0"].concat();
        let moov = boxed("moov", &boxed("rmra", &boxed("rmda", &boxed("rdrf", &named))));
        [boxed("ftyp", b"qt  \0\0\0\0qt  "), moov].concat()
    };
    let mut contents: Vec<Vec<u8>> = Vec::new();
    for to in [url.as_str(), file.as_str(), "../other/film.ts"] {
        for before in ["", "\u{feff}", "\x7f", "\n\0\x01 "] {
            for text in [
                format!("#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:4\n#EXTINF:3,\n{to}\n#EXT-X-ENDLIST\n"),
                format!("#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1000\n{to}\n"),
                format!(
                    "<?xml version=\"1.0\"?><MPD xmlns=\"urn:mpeg:dash:schema:mpd:2011\" type=\"static\" mediaPresentationDuration=\"PT3S\" profiles=\"urn:mpeg:dash:profile:isoff-main:2011\"><Period><AdaptationSet mimeType=\"video/mp2t\"><Representation id=\"1\" bandwidth=\"1000\"><BaseURL>{to}</BaseURL></Representation></AdaptationSet></Period></MPD>"
                ),
                format!(
                    "<SmoothStreamingMedia MajorVersion=\"2\" MinorVersion=\"0\" Duration=\"30000000\"><StreamIndex Type=\"video\" Url=\"{to}\" Chunks=\"1\"><QualityLevel Index=\"0\" Bitrate=\"1000\" FourCC=\"H264\"/><c d=\"30000000\"/></StreamIndex></SmoothStreamingMedia>"
                ),
                format!(
                    "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nu={to}\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=video 5004 RTP/AVP 33\r\n"
                ),
                format!("[playlist]\nFile1={to}\nNumberOfEntries=1\n"),
                format!("FILE \"{to}\" WAVE\n  TRACK 01 AUDIO\n    INDEX 01 00:00:00\n"),
                format!("<asx version=\"3\"><entry><ref href=\"{to}\"/></entry></asx>"),
                format!("ffconcat version 1.0\nfile '{to}'\n"),
                format!("RTSPtext\r\n{to}\r\n"),
                format!("{to}\n"),
            ] {
                contents.push(format!("{before}{text}").into_bytes());
            }
        }
        contents.push(reference(to));
    }
    for (number, content) in contents.iter().enumerate() {
        for suffix in ["mp4", "mov", "mkv", "ts", "mxf"] {
            let name = format!("film{number}.{suffix}");
            std::fs::write(house.path("in").join(&name), content).unwrap();
            let stages =
                if number % 12 == 0 { &["sanitize", "probe", "labels", "transcript"][..] } else { &["sanitize"] };
            for stage in stages {
                let error = house.run(stage, json!({ "input": format!("s3://in/{name}") })).unwrap_err();
                let start = String::from_utf8_lossy(&content[..content.len().min(60)]).into_owned();
                assert_eq!(error.error, "Media.NotMedia", "{stage} {name}: {error}: {start}");
            }
        }
    }
    assert!(listener.accept().is_err(), "somebody followed a file to its address");
}
