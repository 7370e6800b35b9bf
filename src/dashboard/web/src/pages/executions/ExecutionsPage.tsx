// Every execution: search, filter, sort, page, and stop or continue several at once. Rows change in place.
import { useCallback, useEffect, useMemo, useRef, useState } from 'preact/hooks';
import * as api from '../../api/client';
import type { Summary } from '../../api/types';
import { useMay } from '../../base/feed';
import { clock, count, duration, plural, statusWord } from '../../base/format';
import { useAction, useAsk, useChanges, useLive, useNow, useTitle } from '../../base/hooks';
import { href, replace, toExecution, type Route } from '../../base/route';
import { Badge, Bar, Lazy, Moment, Notice, Tabs, Thumb } from '../../components/basics';

const STATUSES = ['RUNNING', 'SUCCEEDED', 'FAILED', 'TIMED_OUT', 'ABORTED'];
/** Rows that a search looks at before it asks whether to go on. */
const LOOK_MAX = 2_000_000;

const EMPTY: api.Filter = { status: '', machine: '', q: '', error: '', from: '', until: '', order: '', nested: false };

function filterOf(query: URLSearchParams): api.Filter {
  const text = (key: string) => query.get(key) ?? '';
  return {
    status: text('status'),
    machine: text('machine'),
    q: text('q'),
    error: text('error'),
    from: text('from'),
    until: text('until'),
    order: text('order'),
    nested: text('nested') === 'true',
  };
}

function Filters({ filter, set }: { filter: api.Filter; set: (change: Partial<api.Filter>) => void }) {
  const { value } = useAsk(api.machines, 'machines');
  const [more, setMore] = useState(Boolean(filter.error || filter.from || filter.until || filter.nested || filter.order));
  return (
    <form class="filters" onSubmit={(e) => e.preventDefault()} role="search" aria-label="Executions">
      <input
        type="search"
        placeholder="File or execution name…"
        aria-label="File name"
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
        {[...new Set([...(value?.machines.map((m) => m.name) ?? []), ...(filter.machine ? [filter.machine] : [])])].map((m) => (
          <option key={m} value={m}>
            {m}
          </option>
        ))}
      </select>
      <button type="button" aria-expanded={more} onClick={() => setMore(!more)}>
        More
      </button>
      {more ? (
        <div class="filters-more">
          <label>
            Error{' '}
            <input value={filter.error} placeholder="Media.Truncated" onInput={(e) => set({ error: e.currentTarget.value })} />
          </label>
          <label>
            From{' '}
            <input type="datetime-local" value={filter.from} onChange={(e) => set({ from: e.currentTarget.value })} />
          </label>
          <label>
            Until{' '}
            <input type="datetime-local" value={filter.until} onChange={(e) => set({ until: e.currentTarget.value })} />
          </label>
          <label>
            Order{' '}
            <select value={filter.order} onChange={(e) => set({ order: e.currentTarget.value })}>
              <option value="">newest first</option>
              <option value="oldest">oldest first</option>
            </select>
          </label>
          <label>
            <input type="checkbox" checked={filter.nested} onChange={(e) => set({ nested: e.currentTarget.checked })} /> nested
            too
          </label>
        </div>
      ) : null}
    </form>
  );
}

interface RowProps {
  row: Summary;
  now: number;
  chosen: boolean;
  choose: ((yes: boolean) => void) | null;
}

function Row({ row, now, chosen, choose }: RowProps) {
  const running = row.stoppedAt === null;
  return (
    <li class={`row ${row.status}`}>
      {choose ? (
        <input
          type="checkbox"
          aria-label={`Choose ${row.file ?? row.name}`}
          checked={chosen}
          onChange={(e) => choose(e.currentTarget.checked)}
        />
      ) : null}
      <a href={toExecution(row.id)}>
        <Thumb url={row.thumbnail} />
        <span class="file">
          <strong>{row.file ?? row.name}</strong>
          <small>
            {row.machine}
            {row.mediaMs ? ` · ${clock(row.mediaMs / 1000)}` : ''}
            {row.parent ? ' · nested' : ''}
          </small>
        </span>
        <Badge status={row.status} />
        <span class="when">
          <Moment at={row.startedAt} />
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

function useRows(filter: api.Filter) {
  const [rows, setRows] = useState<Summary[] | null>(null);
  const [next, setNext] = useState<string | null>(null);
  const [looked, setLooked] = useState(0);
  const [searching, setSearching] = useState(false);
  const [error, setError] = useState<string | null>(null);
  const asked = useRef(0);
  /** Rows on the screen: what somebody has unfolded stays when the list is read anew. */
  const shown = useRef(0);
  const key = JSON.stringify(filter);

  const read = useCallback(
    async (from: string | null, before: Summary[], limit: number) => {
      const mine = ++asked.current;
      let [all, at, seen] = [before, from, 0];
      setSearching(true);
      try {
        // A rare name is looked for on and on, so that one question finds one row among many.
        do {
          const page = await api.executions(filter, at, limit);
          // A slow answer to an older question must not overwrite a newer one.
          if (mine !== asked.current) return;
          all = [...all, ...page.executions];
          at = page.next;
          seen += page.looked;
          setLooked(seen);
        } while (at !== null && all.length === before.length && seen < LOOK_MAX);
        setRows(all);
        setNext(at);
        shown.current = all.length;
        setError(null);
      } catch (e) {
        if (mine === asked.current) setError((e as Error).message);
      } finally {
        if (mine === asked.current) setSearching(false);
      }
    },
    [key],
  );
  const load = useCallback(() => void read(null, [], Math.max(50, shown.current)), [read]);
  useEffect(() => {
    shown.current = 0;
    const typing = setTimeout(load, filter.q || filter.error ? 200 : 0);
    return () => clearTimeout(typing);
  }, [load]);
  const more = () => void read(next, rows ?? [], 50);
  useChanges(() => true, load, 600);
  useLive({
    moved: ({ id, root, progress }) =>
      setRows((old) => old && old.map((row) => (row.id === root || row.id === id ? { ...row, progress } : row))),
  });
  return { rows, next, looked, searching, error, more, load };
}

function Bulk({ ids, rows, done }: { ids: string[]; rows: Summary[]; done: () => void }) {
  const [busy, error, act] = useAction();
  const [said, setSaid] = useState<string | null>(null);
  const chosen = rows.filter((row) => ids.includes(row.id));
  const running = chosen.filter((row) => row.stoppedAt === null).map((row) => row.id);
  const redrivable = chosen.filter((row) => row.redrivable).map((row) => row.id);
  const run = (what: string, call: (ids: string[]) => Promise<api.Outcomes>, which: string[]) =>
    void act(async () => {
      const { outcomes, failed } = await call(which);
      const first = outcomes.find((o) => o.error)?.error;
      setSaid(`${plural(which.length - failed, 'execution')} ${what}${failed ? `; ${failed} not: ${first}` : ''}`);
      done();
    });
  return (
    <div class="bulk" role="group" aria-label="Chosen executions">
      <b>{plural(ids.length, 'execution')} chosen</b>
      <button
        type="button"
        disabled={busy || redrivable.length === 0}
        onClick={() => run('continued', api.redriveAll, redrivable)}
      >
        Continue {redrivable.length} from where they failed
      </button>
      <button
        type="button"
        disabled={busy || running.length === 0}
        onClick={() => {
          if (confirm(`Stop ${plural(running.length, 'execution')}? What runs for them is ended at once.`)) {
            run('stopped', api.stopAll, running);
          }
        }}
      >
        Stop {running.length}
      </button>
      <button type="button" class="plain" onClick={done}>
        Choose none
      </button>
      {said ? <span role="status">{said}</span> : null}
      <Notice error={error} />
    </div>
  );
}

const toExpress = href(['executions'], { kind: 'express' });

/** Standard executions, or the board of express ones, which are kept in memory only. */
export function ExecutionsPage({ route }: { route: Route }) {
  const express = route.query.get('kind') === 'express';
  return (
    <>
      <h1 class="visually-hidden">Executions</h1>
      <Tabs
        label="Kinds of executions"
        current={express ? 'express' : 'standard'}
        tabs={[
          { key: 'standard', label: 'Standard', href: href(['executions']) },
          { key: 'express', label: 'Express', href: toExpress },
        ]}
      />
      {express ? (
        <Lazy key="express" load={async () => (await import('./ExpressBoard')).ExpressBoard} with={{}} />
      ) : (
        <Standard route={route} />
      )}
    </>
  );
}

function Standard({ route }: { route: Route }) {
  useTitle('Executions');
  const filter = useMemo(() => filterOf(route.query), [route.query.toString()]);
  const { rows, next, looked, searching, error, more, load } = useRows(filter);
  const [chosen, setChosen] = useState<string[]>([]);
  const may = useMay('operator');
  const now = useNow(rows?.some((r) => r.stoppedAt === null) ?? false);
  const set = (change: Partial<api.Filter>) => replace(['executions'], { ...filter, ...change });
  const filtered = JSON.stringify(filter) !== JSON.stringify(EMPTY);
  const choose = (id: string) => (yes: boolean) =>
    setChosen((old) => (yes ? [...old, id] : old.filter((other) => other !== id)));
  return (
    <>
      <Filters filter={filter} set={set} />
      <Notice error={error} />
      {chosen.length > 0 ? (
        <Bulk
          ids={chosen}
          rows={rows ?? []}
          done={() => {
            setChosen([]);
            load();
          }}
        />
      ) : null}
      {may && rows && rows.length > 0 ? (
        <label class="choose-all">
          <input
            type="checkbox"
            checked={chosen.length === rows.length}
            onChange={(e) => setChosen(e.currentTarget.checked ? rows.map((row) => row.id) : [])}
          />{' '}
          choose all {rows.length} shown
        </label>
      ) : null}
      {rows === null && !error ? <p class="empty">Loading…</p> : null}
      {rows?.length === 0 && !searching ? (
        <p class="empty">
          {filtered
            ? next
              ? `Nothing among the ${count(looked)} newest matches these filters.`
              : 'Nothing matches these filters.'
            : 'Nothing has run yet. Drop a video file on a watched share.'}
        </p>
      ) : null}
      <ul class="rows" aria-busy={searching}>
        {rows?.map((row) => (
          <Row key={row.id} row={row} now={now} chosen={chosen.includes(row.id)} choose={may ? choose(row.id) : null} />
        ))}
      </ul>
      {searching && looked > 5000 ? <p class="quiet">Searching… {count(looked)} looked at</p> : null}
      {next ? (
        <button class="more" type="button" onClick={more} disabled={searching}>
          {rows?.length === 0 ? 'Search on' : filter.order === 'oldest' ? 'Newer executions' : 'Older executions'}
        </button>
      ) : null}
    </>
  );
}
