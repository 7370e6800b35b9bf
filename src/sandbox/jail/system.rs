//! What of the system a worker may read, each with its reason; nothing else of it is there. All of it is read-only.

/// Files and folders; what a box lacks is left out. A link is made anew as a link.
pub const READ: &[(&str, &str)] = &[
    ("/lib", "the C library and others, where they are not below /usr"),
    ("/lib64", "the loader, under the name that programs have for it"),
    ("/usr/lib", "libraries and GStreamer's plug-ins"),
    ("/usr/lib64", "the same on other distributions"),
    ("/usr/local/lib", "libraries that the owner built"),
    ("/etc/ld.so.cache", "where the loader finds libraries"),
    ("/etc/alternatives", "Debian's links from one library to another"),
    ("/usr/share/gstreamer-1.0", "presets of encoders"),
    ("/etc/fonts", "how captions are drawn"),
    ("/usr/share/fontconfig", "the same"),
    ("/usr/share/fonts", "the letters themselves"),
    ("/usr/local/share/fonts", "letters that the owner installed"),
    ("/var/cache/fontconfig", "an index of the letters, which takes seconds to make"),
    ("/etc/localtime", "the zone of times that are written into files"),
    ("/usr/share/zoneinfo", "the zones"),
    ("/sys/devices/system/cpu", "how many processors there are, and which share a cache"),
    ("/sys/devices/system/node", "which memory is near which of them"),
];

/// Devices without anything behind them.
pub const DEVICES: &[&str] = &["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"];
