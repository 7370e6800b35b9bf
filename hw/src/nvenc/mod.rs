//! NVENC: a GPU's encoders, through a safe session.
//!
//! ```text
//!   Nvenc ──open(context)──> Encoder ──configure(settings)──> Session ──encode(frame)…──drain──> dropped
//!   (the library)            (capabilities)                   (packets go to a closure)
//! ```
//!
//! The structures and their versions are those of `nvidia-video-codec-sdk`; its safe layer is not used (link.rs says
//! why). Statuses, picture types and formats that the driver writes are read as numbers.

mod caps;
mod library;
mod session;
mod settings;

pub use caps::{Codec, CodecCaps};
pub use library::{Encoder, Nvenc};
pub use session::{Packet, Picture, Session};
pub use settings::{Preset, Rate, SessionSettings, Tuning};

pub(crate) use library::{CREATE_INSTANCE, EntryCreate, EntryVersion, LIBRARY, MAX_SUPPORTED_VERSION};
