// One execution. What failed stands first; below it graph, timeline, events, media, data and definition, each with an
// address of its own, and beside them the state that was chosen.
import { useEffect, useMemo, useState } from 'preact/hooks';
import * as api from '../../api/client';
import type { Detail, Failure, Progress } from '../../api/types';
import { count, duration, exactMoment, pretty, utc } from '../../base/format';
import { useAsk, useChanges, useLive, useNow, useTitle } from '../../base/hooks';
import { href, replace, toExecution } from '../../base/route';
import { Badge, Bar, Lazy, Moment, Notice, Tabs, Waiting } from '../../components/basics';
import { Code } from '../../components/Code';
import { Json } from '../../components/Json';
import { allStates } from '../../graph/layout';
import { Graph } from '../../graph/Graph';
import { Actions } from './Actions';
import { Events } from './Events';
import { modelOf, type Model } from './model';
import { StatePanel } from './StatePanel';
import { Timeline } from './Timeline';

function FailureCard({ failure, id, onShow }: { failure: Failure; id: string; onShow: () => void }) {
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
        <span title={utc(failure.at)}>{exactMoment(failure.at)}</span>
        {failure.execution !== id ? (
          <>
            {' · in '}
            <a href={toExecution(failure.execution)}>{failure.workflow}</a>
          </>
        ) : failure.state ? (
          <>
            {' · '}
            <button type="button" class="plain" onClick={onShow}>
              show the state
            </button>
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
              <pre class="cause" tabIndex={0}>{pretty(failure.cause)}</pre>
            </dd>
          </>
        ) : null}
        {failure.input !== null ? (
          <>
            <dt>Input</dt>
            <dd>
              <Json text={failure.input} label="input of the failed state" />
            </dd>
          </>
        ) : null}
      </dl>
    </section>
  );
}

function Head({ detail, progress, reload, now }: { detail: Detail; progress: Progress | null; reload: () => void; now: number }) {
  return (
    <>
      <p class="crumbs">
        <a href="#/executions">Executions</a>
        {detail.parent ? (
          <>
            {' / '}
            <a href={toExecution(detail.parent)}>the execution that started it</a>
          </>
        ) : null}
      </p>
      <h1>{detail.file ?? detail.name}</h1>
      <p class="facts">
        <Badge status={detail.status} />{' '}
        <a href={href(['workflows', detail.machine])}>{detail.machine}</a>
        <span>
          started <Moment at={detail.startedAt} />
        </span>
        <span>{duration((detail.stoppedAt ?? now) - detail.startedAt)}</span>
        <span>{count(detail.events)} events</span>
        {detail.redriveCount > 0 ? <span>continued {detail.redriveCount}×</span> : null}
        {detail.doneBy.slice(0, DONE_BY_SHOWN).map((done, n) => (
          <span key={n} title={`${done.what}, ${exactMoment(done.at)}, as ${done.role}`}>
            {doneWord(done.what)} by {done.who}
          </span>
        ))}
      </p>
      <Actions detail={detail} reload={reload} />
      {detail.stoppedAt === null && progress ? <Bar progress={progress} /> : null}
    </>
  );
}

/** Whoever ends Tasks by tokens may have done so very often. */
const DONE_BY_SHOWN = 5;

function doneWord(what: string): string {
  if (/stop/i.test(what)) return 'stopped';
  if (/redrive/i.test(what)) return 'continued';
  if (/approve/.test(what)) return 'approved';
  if (/reject/.test(what)) return 'rejected';
  return /SendTask/.test(what) ? 'a Task was ended' : 'started';
}

function Data({ detail }: { detail: Detail }) {
  return (
    <section aria-label="Input and output">
      <h3>Input</h3>
      <Json text={detail.input} label="input" />
      {detail.output !== null ? (
        <>
          <h3>Output</h3>
          <Json text={detail.output} label="output" />
        </>
      ) : null}
      <p class="quiet arn">{detail.arn}</p>
    </section>
  );
}

function firstOfNote(model: Model, name: string): number | null {
  const all = model.byName.get(name) ?? [];
  const note = all.find((row) => row.exitedAt === null) ?? all.find((row) => row.error) ?? all[all.length - 1];
  return note?.event ?? null;
}

export function ExecutionPage({ id, tab, query }: { id: string; tab: string; query: URLSearchParams }) {
  const detail = useAsk(() => api.execution(id), id);
  const trace = useAsk(() => api.trace(id), id);
  const definition = useAsk(() => api.definitionOf(id), id);
  const d = detail.value;
  const running = d !== null && d.stoppedAt === null;
  const now = useNow(running);
  // A long history is read less often while it grows.
  const pause = (d?.events ?? 0) > 3000 ? 3000 : 400;
  const reload = () => {
    detail.reload();
    trace.reload();
  };
  useChanges((changed, root) => changed === id || root === id, reload, pause);
  const [moved, setMoved] = useState<Progress | null>(null);
  useLive({
    moved: (m) => {
      if (m.id === id || m.root === id) setMoved(m.progress);
    },
  });
  useEffect(() => setMoved(null), [d]);
  useTitle(d ? (d.file ?? d.name) : '');
  const model = useMemo(() => (trace.value ? modelOf(trace.value) : null), [trace.value]);
  const states = useMemo(() => {
    try {
      return allStates(JSON.parse(definition.value?.definition ?? '{}') as Parameters<typeof allStates>[0]);
    } catch {
      return {};
    }
  }, [definition.value]);
  const chosen = query.get('state') ? Number(query.get('state')) : null;
  const event = query.get('event') ? Number(query.get('event')) : null;
  const unvisited = query.get('name');
  const row = useMemo(() => model?.visits.find((v) => v.event === chosen), [model, chosen]);
  const path = tab ? ['executions', id, tab] : ['executions', id];
  const select = (state: number | null) => replace(path, { state, event: tab === 'events' ? event : null });
  const selectName = (name: string) => {
    const found = model && firstOfNote(model, name);
    if (found) select(found);
    else replace(path, { name });
  };
  if (!d) return <Waiting error={detail.error} />;
  const current = tab || 'graph';
  const media = d.outputs.some((o) => o.url !== null) || d.sourceUrl !== null;
  const to = (key: string) => href(key === 'graph' ? ['executions', id] : ['executions', id, key], { state: chosen });
  const marked = row?.name ?? unvisited;
  return (
    <article class="detail">
      <Head detail={d} progress={moved ?? d.progress} reload={reload} now={now} />
      <Notice error={detail.error ?? trace.error} />
      {d.failure ? <FailureCard failure={d.failure} id={d.id} onShow={() => selectName(d.failure?.state ?? '')} /> : null}
      <Tabs
        label="Views"
        current={current}
        tabs={[
          { key: 'graph', label: 'Graph', href: to('graph') },
          { key: 'timeline', label: 'Timeline', href: to('timeline') },
          { key: 'events', label: 'Events', href: to('events') },
          { key: 'media', label: 'Media', href: to('media'), hidden: !media },
          { key: 'data', label: 'Input and output', href: to('data') },
          { key: 'definition', label: 'Definition', href: to('definition') },
        ]}
      />
      <div class={row ? 'with-panel' : ''}>
        <div class="view">
          {current === 'graph' ? (
            definition.value ? (
              <Graph
                definition={definition.value.definition}
                facts={model?.facts}
                taken={model?.taken}
                selected={marked}
                onSelect={selectName}
              />
            ) : (
              <Waiting error={definition.error} />
            )
          ) : null}
          {current === 'timeline' ? (
            model ? <Timeline model={model} now={now} selected={chosen} onSelect={select} /> : <Waiting error={trace.error} />
          ) : null}
          {current === 'events' ? (
            model ? (
              <Events
                model={model}
                selected={event}
                onSelect={(n) => replace(path, { event: n, state: chosen })}
                onState={(n) => replace(path, { event, state: n })}
              />
            ) : (
              <Waiting error={trace.error} />
            )
          ) : null}
          {current === 'media' ? (
            <Lazy load={async () => (await import('../media/MediaView')).MediaView} with={{ detail: d }} />
          ) : null}
          {current === 'data' ? <Data detail={d} /> : null}
          {current === 'definition' ? (
            definition.value ? (
              <>
                <p class="quiet">
                  Revision {definition.value.revision} of {definition.value.machine}, as this execution runs it
                </p>
                <Code text={pretty(definition.value.definition)} marked={marked} label="Definition" />
              </>
            ) : (
              <Waiting error={definition.error} />
            )
          ) : null}
        </div>
        {row && model ? (
          <StatePanel
            key={row.event}
            id={id}
            model={model}
            row={row}
            state={states[row.name]}
            now={now}
            onSelect={select}
            onClose={() => select(null)}
          />
        ) : null}
      </div>
    </article>
  );
}
