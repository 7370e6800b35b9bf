//! What is in this box: processors, memory, shares, GPUs, and the encoders and decoders in them.
//!
//! A crate of its own on the lowest floor. It says what the kernel and the driver say: what cannot be read is absent, or
//! stands there with the reason why.
//!
//! ```text
//!   Drivers ── libcuda ──── Cuda ─── Context ─── Frame (device memory)
//!      │                                │            │
//!      ├────── libnvidia-encode ─ Nvenc ┴─ Encoder ──┴─ Session ── packets
//!      ├────── libnvcuvid ─────── Nvdec: what it decodes
//!      └────── libnvidia-ml ───── NVML: temperature, power, clocks, load
//! ```
//!
//! Must never: guess, know a job or a workflow, or change a setting of what it looks at. Holds: the program links
//! against none of the four libraries; a box without them, with old ones, or with a GPU that is gone still has an
//! inventory; whatever a driver returns is taken as a number and checked before it becomes an enumeration.

pub mod bench;
mod cuda;
mod drivers;
mod energy;
mod fault;
mod gpu;
mod host;
mod inventory;
mod link;
mod load;
mod nvdec;
mod nvenc;
mod nvml;
mod probed;
mod share;

pub use cuda::{Context, Cuda, CudaDevice, Frame, PixelFormat};
pub use drivers::{DriverReport, Drivers, Library};
pub use energy::EnergyMeter;
pub use fault::{CudaFault, Fault, FaultKind, NvencFault, NvencStatus};
pub use gpu::{Decoding, Encoding, Gpu, PciAddress, SessionRoom};
pub use host::{Cpu, Memory, NumaNode};
pub use inventory::{Ask, Inventory};
pub use load::{CpuTime, HostLoad, Temperature};
pub use nvdec::{DecodeCaps, Nvdec};
pub use nvenc::{Codec, CodecCaps, Encoder, Nvenc, Packet, Picture, Preset, Rate, Session, SessionSettings, Tuning};
pub use nvml::{Clocks, Health, OpenSession};
pub use probed::Probed;
pub use share::{FileSystem, Share};
