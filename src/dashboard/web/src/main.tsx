// The frame: which page is shown, and the one live stream that feeds it. Pages live behind the hash, so that a
// reload or a bookmark needs nothing from the server.
import { render } from 'preact';
import { useEffect, useMemo, useRef, useState } from 'preact/hooks';
import * as api from './api';
import { DetailPage } from './detail';
import { ListPage } from './list';
import './style.css';

export interface Feed {
  subscribe(listener: Partial<api.Live>): () => void;
}

function useFeed(): [Feed, boolean] {
  const listeners = useRef(new Set<Partial<api.Live>>());
  const [connected, setConnected] = useState(true);
  useEffect(() => {
    const each = (call: (l: Partial<api.Live>) => void) => listeners.current.forEach(call);
    return api.follow({
      changed: (c) => each((l) => l.changed?.(c)),
      moved: (m) => each((l) => l.moved?.(m)),
      resync: () => each((l) => l.resync?.()),
      connected: setConnected,
    });
  }, []);
  const feed = useMemo<Feed>(
    () => ({
      subscribe(listener) {
        listeners.current.add(listener);
        return () => listeners.current.delete(listener);
      },
    }),
    [],
  );
  return [feed, connected];
}

function useRoute(): string | null {
  const read = () => /^#\/executions\/(.+)$/.exec(location.hash)?.[1] ?? null;
  const [id, setId] = useState(read);
  useEffect(() => {
    const changed = () => {
      setId(read());
      window.scrollTo(0, 0);
    };
    addEventListener('hashchange', changed);
    return () => removeEventListener('hashchange', changed);
  }, []);
  try {
    return id === null ? null : decodeURIComponent(id);
  } catch {
    // A link that was cut in the middle of an escape: the box says that there is no such execution.
    return id;
  }
}

/** Loads now, every five seconds, and whenever the feed says to look again; the answer ends it. */
function everySoOften(feed: Feed, load: () => void): () => void {
  load();
  const timer = setInterval(load, 5000);
  const leave = feed.subscribe({ resync: load });
  return () => {
    clearInterval(timer);
    leave();
  };
}

function Lanes({ feed }: { feed: Feed }) {
  const [lanes, setLanes] = useState<api.Lane[]>([]);
  useEffect(() => {
    const load = () => api.lanes().then((r) => setLanes(r.lanes), () => undefined);
    return everySoOften(feed, load);
  }, [feed]);
  return (
    <ul class="lanes" aria-label="Lanes of this box">
      {lanes.map((lane) => (
        <li key={lane.name} title={`${lane.name}: ${lane.busy} of ${lane.capacity} busy, ${lane.waiting} waiting`}>
          <span>{lane.name}</span>
          <meter min={0} max={Math.max(1, lane.capacity)} value={lane.busy} />
          <span>
            {lane.busy}/{lane.capacity}
            {lane.waiting > 0 ? ` +${lane.waiting}` : ''}
          </span>
        </li>
      ))}
    </ul>
  );
}

/** What keeps dropped files from starting: a share that is away, a folder that cannot be read. */
function Troubles({ feed }: { feed: Feed }) {
  const [watches, setWatches] = useState<api.Watch[]>([]);
  const [shares, setShares] = useState<api.Share[]>([]);
  useEffect(() => {
    const load = () => {
      api.watches().then((r) => setWatches(r.watches), () => undefined);
      api.shares().then((r) => setShares(r.shares), () => undefined);
    };
    return everySoOften(feed, load);
  }, [feed]);
  const away = new Set(watches.filter((w) => w.away !== null).map((w) => w.share));
  const lines = [
    ...watches.flatMap((w) => [
      ...(w.away === null ? [] : [`The share ‘${w.share}’ is away: ${w.away}. Nothing is lost; it is tried again.`]),
      ...w.troubles,
    ]),
    ...shares
      .filter((s) => !s.reachable && !away.has(s.name))
      .map((s) => `The share ‘${s.name}’ is away: ${s.path} is not there. Mount or make it.`),
  ];
  const waiting = watches.filter((w) => w.waiting > 0 && w.away === null);
  return (
    <>
      {lines.length > 0 ? (
        <ul class="troubles" role="alert">
          {lines.map((line) => (
            <li key={line}>{line}</li>
          ))}
        </ul>
      ) : null}
      {waiting.map((w) => (
        <p key={w.share} class="quiet queue">
          {w.waiting} {w.waiting === 1 ? 'file waits' : 'files wait'} on ‘{w.share}’
          {w.inFlight > 0 ? `, ${w.inFlight} under way` : ''}
        </p>
      ))}
    </>
  );
}

function App() {
  const [feed, connected] = useFeed();
  const id = useRoute();
  return (
    <>
      <header class="bar">
        <a class="brand" href="#/">
          <img src="./favicon.svg" alt="" width="24" height="24" /> Conveyor
        </a>
        <Lanes feed={feed} />
        <span class={connected ? 'link on' : 'link off'} role="status">
          {connected ? 'live' : 'reconnecting…'}
        </span>
      </header>
      <main>
        <Troubles feed={feed} />
        {id === null ? <ListPage feed={feed} /> : <DetailPage key={id} id={id} feed={feed} />}
      </main>
    </>
  );
}

const root = document.getElementById('app');
if (root) render(<App />, root);
