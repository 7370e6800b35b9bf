// One execution: what failed first, then its states in order, then what came out.
import { useCallback, useEffect, useState } from 'preact/hooks';
import * as api from './api';
import { duration, exactMoment, moment, pretty } from './format';
import { Badge, Bar, useNow } from './list';
import type { Feed } from './main';
import { Outputs } from './outputs';
import { Json, States } from './states';

function useExecution(id: string, feed: Feed): [api.Detail | null, string | null, () => void] {
  const [detail, setDetail] = useState<api.Detail | null>(null);
  const [error, setError] = useState<string | null>(null);
  const load = useCallback(() => {
    api.execution(id).then(
      (d) => {
        setDetail(d);
        setError(null);
      },
      (e: Error) => setError(e.message),
    );
  }, [id]);
  useEffect(load, [load]);
  useEffect(() => {
    let waiting: ReturnType<typeof setTimeout> | undefined;
    const soon = () => {
      waiting ??= setTimeout(() => {
        waiting = undefined;
        load();
      }, 300);
    };
    const leave = feed.subscribe({
      changed: (c) => {
        if (c.id === id || c.root === id) soon();
      },
      moved: (m) => {
        if (m.id === id || m.root === id) setDetail((old) => old && { ...old, progress: m.progress });
      },
      resync: soon,
    });
    return () => {
      clearTimeout(waiting);
      leave();
    };
  }, [id, feed, load]);
  return [detail, error, load];
}

function FailureCard({ failure, id }: { failure: api.Failure; id: string }) {
  return (
    <section class="failure" aria-label="What failed">
      <h2>
        {failure.state ? (
          <>
            <span class="quiet">{failure.type}</span> {failure.state} failed
          </>
        ) : (
          'The execution failed'
        )}
      </h2>
      <p class="quiet">
        {exactMoment(failure.at)}
        {failure.execution !== id ? (
          <>
            {' · in '}
            <a href={`#/executions/${encodeURIComponent(failure.execution)}`}>{failure.workflow}</a>
          </>
        ) : null}
      </p>
      <dl>
        <dt>Error</dt>
        <dd class="error-name">{failure.error ?? 'none given'}</dd>
        {failure.cause ? (
          <>
            <dt>Cause</dt>
            <dd>
              <pre class="cause">{pretty(failure.cause)}</pre>
            </dd>
          </>
        ) : null}
        {failure.input !== null ? (
          <>
            <dt>Input</dt>
            <dd>
              <Json text={failure.input} open />
            </dd>
          </>
        ) : null}
      </dl>
    </section>
  );
}

function Actions({ detail, reload }: { detail: api.Detail; reload: () => void }) {
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState<string | null>(null);
  const act = async (call: (id: string) => Promise<unknown>) => {
    setBusy(true);
    setError(null);
    try {
      await call(detail.id);
      reload();
    } catch (e) {
      setError((e as Error).message);
    } finally {
      setBusy(false);
    }
  };
  const again = () =>
    void act(async () => {
      const { id } = await api.rerun(detail);
      location.hash = `#/executions/${encodeURIComponent(id)}`;
    });
  return (
    <div class="actions">
      {detail.status === 'RUNNING' ? (
        <button
          type="button"
          disabled={busy}
          onClick={() => {
            if (confirm(`Stop ${detail.file ?? detail.name}? What runs for it is ended at once.`)) void act(api.stop);
          }}
        >
          Stop
        </button>
      ) : null}
      {detail.redrivable ? (
        <button type="button" class="primary" disabled={busy} onClick={() => void act(api.redrive)}>
          Continue from the failed state
        </button>
      ) : null}
      {detail.stoppedAt !== null && detail.status !== 'SUCCEEDED' && detail.parent === null ? (
        <button type="button" disabled={busy} onClick={again}>
          Run again from the start
        </button>
      ) : null}
      {error ? (
        <span class="notice" role="alert">
          {error}
        </span>
      ) : null}
    </div>
  );
}

/** A nested execution, inside the state that started it. */
export function Nested({ id, feed, depth }: { id: string; feed: Feed; depth: number }) {
  const [detail, error] = useExecution(id, feed);
  const now = useNow(detail?.status === 'RUNNING');
  if (error) return <p class="notice">{error}</p>;
  if (!detail) return <p class="quiet">Loading…</p>;
  return (
    <div class="nested">
      <p>
        <Badge status={detail.status} /> <a href={`#/executions/${encodeURIComponent(id)}`}>{detail.machine}</a>{' '}
        <span class="quiet">
          {moment(detail.startedAt)} · {duration((detail.stoppedAt ?? now) - detail.startedAt)}
        </span>
      </p>
      {detail.stoppedAt === null && detail.progress ? <Bar progress={detail.progress} /> : null}
      <States detail={detail} feed={feed} depth={depth} now={now} />
    </div>
  );
}

export function DetailPage({ id, feed }: { id: string; feed: Feed }) {
  const [detail, error, reload] = useExecution(id, feed);
  const now = useNow(detail?.stoppedAt === null);
  useEffect(() => {
    if (detail) document.title = `${detail.file ?? detail.name} · Conveyor`;
  }, [detail]);
  if (!detail) {
    return error ? (
      <p class="notice" role="alert">
        {error}
      </p>
    ) : (
      <p class="empty">Loading…</p>
    );
  }
  return (
    <article class="detail">
      <p class="crumbs">
        <a href="#/">Executions</a>
        {detail.parent ? (
          <>
            {' / '}
            <a href={`#/executions/${encodeURIComponent(detail.parent)}`}>parent</a>
          </>
        ) : null}
      </p>
      <h1>{detail.file ?? detail.name}</h1>
      <p class="facts">
        <Badge status={detail.status} /> <span>{detail.machine}</span>
        <span title={exactMoment(detail.startedAt)}>started {moment(detail.startedAt)}</span>
        <span>{duration((detail.stoppedAt ?? now) - detail.startedAt)}</span>
        {detail.redriveCount > 0 ? <span>continued {detail.redriveCount}×</span> : null}
      </p>
      <Actions detail={detail} reload={reload} />
      {error ? (
        <p class="notice" role="alert">
          {error}
        </p>
      ) : null}
      {detail.stoppedAt === null && detail.progress ? <Bar progress={detail.progress} /> : null}
      {detail.failure ? <FailureCard failure={detail.failure} id={detail.id} /> : null}
      <Outputs outputs={detail.outputs} />
      <section aria-label="States">
        <h2>States</h2>
        <States detail={detail} feed={feed} depth={0} now={now} />
      </section>
      <section aria-label="Input and output">
        <h2>Input and output</h2>
        <h3>Input</h3>
        <Json text={detail.input} />
        {detail.output !== null ? (
          <>
            <h3>Output</h3>
            <Json text={detail.output} />
          </>
        ) : null}
        <p class="quiet arn">{detail.arn}</p>
      </section>
    </article>
  );
}
