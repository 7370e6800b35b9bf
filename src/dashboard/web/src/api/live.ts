// The one stream of live events.
import type { Progress, Status } from './types';

export interface Change {
  id: string;
  root: string;
  status: Status;
}

export interface Moved {
  id: string;
  root: string;
  progress: Progress;
}

export interface Live {
  changed(change: Change): void;
  moved(moved: Moved): void;
  /** The stream was away: whatever is on the screen may be old. */
  resync(): void;
  connected(yes: boolean): void;
}

/** How soon a stream is asked for again that the box, or something between, has refused. */
const AGAIN_MS = 5000;

/** Follows the box until the returned function is called. */
export function follow(live: Live): () => void {
  let lost = false;
  let again: ReturnType<typeof setTimeout> | undefined;
  let source: EventSource;
  const open = () => {
    source = new EventSource('api/v1/events');
    source.onopen = () => {
      live.connected(true);
      if (lost) live.resync();
      lost = false;
    };
    source.onerror = () => {
      lost = true;
      live.connected(false);
      // The browser reconnects by itself, but not after an answer such as 429 or a proxy's 502.
      if (source.readyState === EventSource.CLOSED) again = setTimeout(open, AGAIN_MS);
    };
    source.addEventListener('execution', (e) => live.changed(JSON.parse((e as MessageEvent<string>).data) as Change));
    source.addEventListener('progress', (e) => live.moved(JSON.parse((e as MessageEvent<string>).data) as Moved));
    source.addEventListener('resync', () => live.resync());
  };
  open();
  return () => {
    clearTimeout(again);
    source.close();
  };
}
