//! Clients that hang up while the box works for them, in every way that a client does.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

/// How a client leaves, and when, counted from the request's last byte.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Way {
    /// Its end of the connection is closed after a while.
    Closes(Duration),
    /// With the request's last byte.
    ClosesAtOnce,
    /// In the middle of the request, which so never was made.
    BreaksOff(Duration),
    /// The connection is reset (RST) after a while, as when a machine goes down or a process is killed.
    Resets(Duration),
}

impl Way {
    /// The moments go through 0.2 to 3 ms, in which most requests are somewhere between read and answered; or, where
    /// answers take longer as on a busy machine, through that time and half as much again.
    fn of(n: usize, answered_after: Duration) -> Way {
        let (first, last) = (Duration::from_micros(200), Duration::from_millis(3).max(answered_after * 3 / 2));
        let after = first + (last - first) * ((n * 619) % 2_800) as u32 / 2_800;
        match n % 8 {
            1 => Way::ClosesAtOnce,
            4 => Way::BreaksOff(after),
            2 | 6 => Way::Resets(after),
            _ => Way::Closes(after),
        }
    }
}

/// Makes a request and hangs up: the `n`th way, so that many requests are broken off in every way at every moment until
/// the answer would have come.
pub async fn hang_up(address: SocketAddr, request: &[u8], n: usize, answered_after: Duration) {
    let way = Way::of(n, answered_after);
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let (sent, after) = match way {
        Way::ClosesAtOnce => (request, None),
        Way::BreaksOff(after) => (&request[..request.len() / 2], Some(after)),
        Way::Closes(after) | Way::Resets(after) => (request, Some(after)),
    };
    stream.write_all(sent).await.unwrap();
    if let Some(after) = after {
        // The runtime's own timer knows whole milliseconds only.
        tokio::task::spawn_blocking(move || std::thread::sleep(after)).await.unwrap();
    }
    if matches!(way, Way::Resets(_)) {
        stream.set_zero_linger().unwrap();
    }
}
