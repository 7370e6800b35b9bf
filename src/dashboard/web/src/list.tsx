// The list of executions: what runs now, what ended and how. Rows change in place as events come in.
import { useCallback, useEffect, useRef, useState } from 'preact/hooks';
import * as api from './api';
import { duration, exactMoment, moment, statusWord } from './format';
import type { Feed } from './main';

const STATUSES = ['RUNNING', 'SUCCEEDED', 'FAILED', 'TIMED_OUT', 'ABORTED'];

export function Badge({ status }: { status: string }) {
  return <span class={`badge ${status}`}>{statusWord(status)}</span>;
}

export function Bar({ progress }: { progress: api.Progress }) {
  const percent = Math.round(Math.min(1, Math.max(0, progress.fraction)) * 100);
  const facts = [
    `${percent} %`,
    progress.fps ? `${progress.fps.toFixed(0)} fps` : '',
    progress.speed ? `${progress.speed.toFixed(1)}×` : '',
    progress.leftMs ? `${duration(progress.leftMs)} left` : '',
  ].filter(Boolean);
  return (
    <div class="progress">
      <div class="what">
        {progress.state}
        {progress.doing ? ` · ${progress.doing}` : ''}
      </div>
      <progress max={100} value={percent} aria-label={`${progress.state} ${percent} percent`} />
      <div class="facts">{facts.join(' · ')}</div>
    </div>
  );
}

/** The present moment, once a second while something runs. */
export function useNow(running: boolean): number {
  const [now, setNow] = useState(Date.now());
  useEffect(() => {
    if (!running) return;
    const timer = setInterval(() => setNow(Date.now()), 1000);
    return () => clearInterval(timer);
  }, [running]);
  return now;
}

/** A picture, or the sign that there is none: what was named may have been moved or cleared away since. */
function Thumb({ url }: { url: string | null }) {
  const [broken, setBroken] = useState(false);
  useEffect(() => setBroken(false), [url]);
  return (
    <span class="thumb">
      {url && !broken ? (
        <img src={url} alt="" loading="lazy" onError={() => setBroken(true)} />
      ) : (
        <span aria-hidden="true">▸</span>
      )}
    </span>
  );
}

function Row({ row, now }: { row: api.Summary; now: number }) {
  const running = row.stoppedAt === null;
  return (
    <li class={`row ${row.status}`}>
      <a href={`#/executions/${encodeURIComponent(row.id)}`}>
        <Thumb url={row.thumbnail} />
        <span class="file">
          <strong>{row.file ?? row.name}</strong>
          <small>
            {row.machine}
            {row.parent ? ' · nested' : ''}
          </small>
        </span>
        <Badge status={row.status} />
        <span class="when" title={exactMoment(row.startedAt)}>
          {moment(row.startedAt)}
        </span>
        <span class="took">{duration((row.stoppedAt ?? now) - row.startedAt)}</span>
        <span class="rest">
          {running && row.progress ? <Bar progress={row.progress} /> : null}
          {row.error ? (
            <span class="error">
              <b>{row.error}</b> {row.cause}
            </span>
          ) : null}
        </span>
      </a>
    </li>
  );
}

export function ListPage({ feed }: { feed: Feed }) {
  const [filter, setFilter] = useState<api.Filter>({ status: '', machine: '', q: '', nested: false });
  const [rows, setRows] = useState<api.Summary[] | null>(null);
  const [next, setNext] = useState<string | null>(null);
  const [error, setError] = useState<string | null>(null);
  const [machines, setMachines] = useState<string[]>([]);
  const asked = useRef(0);
  /** Rows on the screen: what somebody has unfolded stays when the list is read anew. */
  const shown = useRef(0);

  const load = useCallback(async () => {
    const mine = ++asked.current;
    try {
      const page = await api.executions(filter, null, shown.current);
      // A slow answer to an older question must not overwrite a newer one.
      if (mine !== asked.current) return;
      setRows(page.executions);
      setNext(page.next);
      setError(null);
    } catch (e) {
      if (mine === asked.current) setError((e as Error).message);
    }
  }, [filter]);

  useEffect(() => {
    document.title = 'Conveyor';
    api.machines().then((r) => setMachines(r.machines.map((m) => m.name)), () => undefined);
  }, []);

  useEffect(() => {
    shown.current = 0;
    const typing = setTimeout(load, filter.q ? 200 : 0);
    return () => clearTimeout(typing);
  }, [load]);

  useEffect(() => {
    // A burst of changes (a thousand files dropped at once) is one reload.
    let waiting: ReturnType<typeof setTimeout> | undefined;
    const soon = () => {
      waiting ??= setTimeout(() => {
        waiting = undefined;
        void load();
      }, 400);
    };
    const leave = feed.subscribe({
      changed: soon,
      resync: soon,
      moved: ({ id, root, progress }) =>
        setRows((old) => old && old.map((row) => (row.id === root || row.id === id ? { ...row, progress } : row))),
    });
    return () => {
      clearTimeout(waiting);
      leave();
    };
  }, [feed, load]);

  const more = async () => {
    if (!next) return;
    try {
      const page = await api.executions(filter, next);
      setRows((old) => {
        const rows = [...(old ?? []), ...page.executions];
        shown.current = rows.length;
        return rows;
      });
      setNext(page.next);
    } catch (e) {
      setError((e as Error).message);
    }
  };

  const now = useNow(rows?.some((r) => r.stoppedAt === null) ?? false);
  const set = (change: Partial<api.Filter>) => setFilter((old) => ({ ...old, ...change }));
  const filtered = Boolean(filter.status || filter.machine || filter.q);
  return (
    <>
      <form class="filters" onSubmit={(e) => e.preventDefault()} role="search">
        <input
          type="search"
          placeholder="File name begins with…"
          aria-label="File name begins with"
          value={filter.q}
          onInput={(e) => set({ q: e.currentTarget.value })}
        />
        <select aria-label="Status" value={filter.status} onChange={(e) => set({ status: e.currentTarget.value })}>
          <option value="">every status</option>
          {STATUSES.map((s) => (
            <option key={s} value={s}>
              {statusWord(s)}
            </option>
          ))}
        </select>
        <select aria-label="Workflow" value={filter.machine} onChange={(e) => set({ machine: e.currentTarget.value })}>
          <option value="">every workflow</option>
          {machines.map((m) => (
            <option key={m} value={m}>
              {m}
            </option>
          ))}
        </select>
        <label>
          <input type="checkbox" checked={filter.nested} onChange={(e) => set({ nested: e.currentTarget.checked })} />{' '}
          nested too
        </label>
      </form>
      {error ? (
        <p class="notice" role="alert">
          {error}
        </p>
      ) : null}
      {rows === null && !error ? <p class="empty">Loading…</p> : null}
      {rows?.length === 0 ? (
        <p class="empty">
          {filtered ? 'Nothing matches these filters.' : 'Nothing has run yet. Drop a video file on a watched share.'}
        </p>
      ) : null}
      <ul class="rows">{rows?.map((row) => <Row key={row.id} row={row} now={now} />)}</ul>
      {next ? (
        <button class="more" type="button" onClick={more}>
          Older executions
        </button>
      ) : null}
    </>
  );
}
