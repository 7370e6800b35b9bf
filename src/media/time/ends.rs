//! Where the sound of a graph ends, told by those who hear it to those who show pictures beside it.

use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

/// The end of all sounds of one graph. A picture that is the last may have to stand until then.
#[derive(Clone, Debug, Default)]
pub struct Ends(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    running: usize,
    end_ns: Option<u64>,
    stopped: bool,
}

impl Ends {
    /// One more sound is to be waited for.
    pub fn expect(&self) {
        self.0.state.lock().running += 1;
    }

    /// One sound has ended, at this running time; none where nothing of it was heard.
    pub fn ended(&self, end_ns: Option<u64>) {
        let mut state = self.0.state.lock();
        state.running = state.running.saturating_sub(1);
        state.end_ns = state.end_ns.max(end_ns);
        self.0.changed.notify_all();
    }

    /// The graph is taken down: nobody need wait any longer.
    pub fn stop(&self) {
        self.0.state.lock().stopped = true;
        self.0.changed.notify_all();
    }

    /// Waits until all sounds have ended, and says when the last of them does; none where there is none.
    ///
    /// Ends with the graph at the latest: a pipeline in which nothing moves is taken down by whoever runs it.
    pub fn wait(&self) -> Option<u64> {
        let mut state = self.0.state.lock();
        while state.running > 0 && !state.stopped {
            self.0.changed.wait(&mut state);
        }
        state.end_ns
    }
}
