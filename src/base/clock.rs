//! Time, as a value and as a seam: everything above asks a [`Clock`], and tests hand in a simulated one.

use std::fmt;
use std::sync::LazyLock;

use nix::time::{ClockId, clock_gettime};

/// Milliseconds since the Unix epoch, UTC. AWS timestamps have this resolution.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub i64);

impl Timestamp {
    pub const MAX: Timestamp = Timestamp(i64::MAX);

    /// This moment plus a number of milliseconds; saturates instead of wrapping.
    pub fn plus_ms(self, ms: i64) -> Timestamp {
        Timestamp(self.0.saturating_add(ms))
    }

    /// Milliseconds from `earlier` to this moment; negative where it lies before.
    pub fn since_ms(self, earlier: Timestamp) -> i64 {
        self.0.saturating_sub(earlier.0)
    }

    /// Seconds since the epoch with a fraction, as AWS JSON 1.0 writes timestamps.
    pub fn as_seconds(self) -> f64 {
        self.0 as f64 / 1000.0
    }
}

/// RFC 3339 in UTC with milliseconds, as the context object writes it: `2026-01-31T09:30:00.123Z`.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_millisecond(self.0) {
            Ok(t) => write!(f, "{}", t.strftime("%Y-%m-%dT%H:%M:%S.%3fZ")),
            Err(_) => write!(f, "{}ms", self.0),
        }
    }
}

/// Added to a moment of the wall clock, it marks a timer's due time as one of that clock. No moment of either clock comes
/// near it: it lies millions of years ahead.
const BY_WALL_MS: i64 = 1 << 60;

impl Timestamp {
    /// The same moment as a timer's due time by the wall clock. Behind all due times by the box's own time.
    pub fn by_wall(self) -> Timestamp {
        Timestamp(self.0.clamp(-(BY_WALL_MS >> 2), BY_WALL_MS >> 2) + BY_WALL_MS)
    }

    /// Whether a timer's due time is one of the wall clock.
    pub fn is_by_wall(self) -> bool {
        self.0 >= BY_WALL_MS >> 1
    }

    /// The moment of a timer's due time, by whichever clock it goes.
    pub fn moment(self) -> Timestamp {
        if self.is_by_wall() { Timestamp(self.0 - BY_WALL_MS) } else { self }
    }
}

/// Where the time comes from.
pub trait Clock: Send + Sync + 'static {
    /// The wall clock. Somebody may set it, back as well.
    fn now(&self) -> Timestamp;

    /// What goes on evenly whatever becomes of the wall clock. Of a clock that nobody sets it is the same.
    fn running(&self) -> Running {
        Running { boot: 0, ms: self.now().0 }
    }
}

/// A reading of a clock that nobody sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Running {
    /// Readings compare only where this is the same.
    pub boot: u128,
    /// Milliseconds, those included in which the machine was suspended.
    pub ms: i64,
}

/// The machine's own clocks.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp(jiff::Timestamp::now().as_millisecond())
    }

    fn running(&self) -> Running {
        let time = clock_gettime(ClockId::CLOCK_BOOTTIME).or_else(|_| clock_gettime(ClockId::CLOCK_MONOTONIC));
        // Every Linux has these clocks.
        let ms = time.map_or(0, |time| time.tv_sec().saturating_mul(1_000) + time.tv_nsec() / 1_000_000);
        Running { boot: *BOOT, ms }
    }
}

/// Another one after each start of the machine. Where the kernel does not say, one of this process alone.
static BOOT: LazyLock<u128> = LazyLock::new(|| {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok();
    let id = id.and_then(|text| uuid::Uuid::parse_str(text.trim()).ok());
    id.unwrap_or_else(uuid::Uuid::new_v4).as_u128()
});
