// Everything about one visit to a state: how it went, its data on the way, variables, attempts, its definition.
import { useState } from 'preact/hooks';
import * as api from '../../api/client';
import type { Attempt, Visit } from '../../api/types';
import { duration, parsed, pretty, plural } from '../../base/format';
import { useAsk } from '../../base/hooks';
import { href, toExecution } from '../../base/route';
import { Badge, Moment, Waiting } from '../../components/basics';
import { Json } from '../../components/Json';
import type { AslState } from '../../graph/layout';
import type { Model, VisitRow } from './model';

/** The points of the data flow in their order, as people call them. */
const POINTS: [string, string][] = [
  ['input', 'Input'],
  ['afterInputPath', 'after InputPath'],
  ['afterArguments', 'Arguments'],
  ['afterParameters', 'after Parameters'],
  ['afterItemsPath', 'after ItemsPath'],
  ['afterItemSelector', 'after ItemSelector'],
  ['result', 'Result'],
  ['afterResultSelector', 'after ResultSelector'],
  ['afterResultPath', 'after ResultPath'],
];

export function Failed({ error, cause }: { error?: string; cause?: string }) {
  if (!error && !cause) return null;
  return (
    <div class="failed">
      <p class="error-name">{error ?? 'no error name'}</p>
      {cause ? <pre class="cause" tabIndex={0}>{pretty(cause)}</pre> : null}
    </div>
  );
}

function Attempts({ attempts }: { attempts: Attempt[] }) {
  return (
    <ol class="attempts">
      {attempts.map((a, n) => (
        <li key={n}>
          <p>
            <b>Attempt {n + 1}</b> <Badge status={a.status} />{' '}
            <span class="quiet">
              <Moment at={a.startedAt} />
              {a.endedAt !== null ? ` · ${duration(a.endedAt - a.startedAt)}` : ''}
            </span>
          </p>
          <Failed error={a.error} cause={a.cause} />
          {a.parameters !== undefined ? (
            <details>
              <summary>
                what <code>{a.resource}</code> was asked
              </summary>
              <Json text={a.parameters} label="parameters" />
            </details>
          ) : null}
          {a.result !== undefined ? (
            <details>
              <summary>what it answered</summary>
              <Json text={a.result} label="result" />
            </details>
          ) : null}
        </li>
      ))}
    </ol>
  );
}

function Flow({ visit }: { visit: Visit }) {
  const flow = visit.flow;
  if (!flow) return <p class="quiet">The definition that this ran is gone, so its paths cannot be followed.</p>;
  const known = POINTS.filter(([key]) => flow.points[key] !== undefined).map(([key, label]) => ({ key, label, value: flow.points[key] }));
  const others = Object.entries(flow.points).filter(([key]) => !POINTS.some(([k]) => k === key) && key !== 'variables');
  return (
    <>
      {flow.exact ? null : (
        <p class="quiet">
          Computed again from the recorded input and result; it came out differently (a random number, the clock, or data
          that is not recorded), so read it as the way and not as the values.
        </p>
      )}
      <ol class="flow">
        {known.map(({ key, label, value }) => (
          <li key={key}>
            <h4>{label}</h4>
            <Json value={value} label={label} />
          </li>
        ))}
        {others.map(([key, value]) => (
          <li key={key}>
            <h4>{key}</h4>
            <Json value={value} label={key} />
          </li>
        ))}
        {visit.output !== undefined ? (
          <li>
            <h4>Output</h4>
            <Json text={visit.output} label="output" />
          </li>
        ) : null}
      </ol>
      {known.length === 0 && others.length === 0 ? <p class="quiet">The state passes its data on as it is.</p> : null}
    </>
  );
}

function Variables({ visit }: { visit: Visit }) {
  const assigned = Object.fromEntries((visit.assigned ?? []).map(([name, text]) => [name, parsed(text)]));
  const has = Object.keys(visit.variables).length > 0;
  return (
    <>
      <h4>It could read</h4>
      {has ? <Json value={visit.variables} label="variables" /> : <p class="quiet">No variable was set before it.</p>}
      <h4>It assigned</h4>
      {Object.keys(assigned).length > 0 ? <Json value={assigned} label="assigned" /> : <p class="quiet">Nothing.</p>}
    </>
  );
}

function Facts({ visit, now }: { visit: Visit; now: number }) {
  return (
    <dl class="pairs">
      <dt>Entered</dt>
      <dd>
        <Moment at={visit.enteredAt} /> <span class="quiet">event {visit.event}</span>
      </dd>
      <dt>{visit.exitedAt === null ? 'For' : 'Took'}</dt>
      <dd>{duration((visit.exitedAt ?? now) - visit.enteredAt)}</dd>
      {visit.attempts.length > 0 ? (
        <>
          <dt>Resource</dt>
          <dd>
            <code>{visit.attempts[visit.attempts.length - 1]?.resource}</code>
          </dd>
          <dt>Attempts</dt>
          <dd>{visit.attempts.length}</dd>
        </>
      ) : null}
      {visit.lane ? (
        <>
          <dt>Lane</dt>
          <dd>{visit.lane}</dd>
        </>
      ) : null}
      {visit.flow?.next ? (
        <>
          <dt>Next</dt>
          <dd>{visit.flow.next}</dd>
        </>
      ) : null}
      {visit.children.length > 0 ? (
        <>
          <dt>Started</dt>
          <dd>
            {visit.children.map((child, n) => (
              <a key={child} href={toExecution(child)} class="button">
                Open nested execution{visit.children.length > 1 ? ` ${n + 1}` : ''} →
              </a>
            ))}
          </dd>
        </>
      ) : null}
    </dl>
  );
}

function Chooser({ same, row, onSelect }: { same: VisitRow[]; row: VisitRow; onSelect: (event: number) => void }) {
  if (same.length < 2) return null;
  const at = same.findIndex((other) => other.event === row.event);
  const failed = same.filter((other) => ['FAILED', 'TIMED_OUT', 'CAUGHT'].includes(other.status));
  const to = (n: number) => onSelect(same[(n + same.length) % same.length]?.event ?? row.event);
  const nextFailed = failed.find((other) => other.event > row.event) ?? failed[0];
  return (
    <p class="chooser" role="group" aria-label="Visits">
      <button type="button" aria-label="Previous visit" onClick={() => to(at - 1)}>
        ‹
      </button>
      <span>
        visit {at + 1} of {same.length}
        {row.iteration >= 0 ? ` · iteration ${row.iteration}` : ''}
      </span>
      <button type="button" aria-label="Next visit" onClick={() => to(at + 1)}>
        ›
      </button>
      {nextFailed && same.length > failed.length ? (
        <button type="button" onClick={() => onSelect(nextFailed.event)}>
          {plural(failed.length, 'failure')}
        </button>
      ) : null}
    </p>
  );
}

interface Props {
  id: string;
  model: Model;
  row: VisitRow;
  state: AslState | undefined;
  now: number;
  onSelect: (event: number) => void;
  onClose: () => void;
}

const TABS = ['Data', 'Flow', 'Variables', 'Attempts', 'Definition'] as const;

export function StatePanel({ id, model, row, state, now, onSelect, onClose }: Props) {
  const [tab, setTab] = useState<(typeof TABS)[number]>('Data');
  // What it says changes with its status and its attempts.
  const key = `${id} ${row.event} ${row.status} ${row.tries.length}`;
  const { value: visit, error } = useAsk(() => api.visit(id, row.event), key);
  const shown = tab === 'Attempts' && row.tries.length === 0 ? 'Data' : tab;
  return (
    <aside class="state-panel" aria-label={`State ${row.name}`}>
      <header>
        <h2>{row.name}</h2>
        <button type="button" class="plain" aria-label="Close the state" onClick={onClose}>
          ✕
        </button>
      </header>
      <p>
        <span class="quiet">{row.type}</span> <Badge status={row.status} />
      </p>
      <Chooser same={model.byName.get(row.name) ?? []} row={row} onSelect={onSelect} />
      {!visit ? (
        <Waiting error={error} />
      ) : (
        <>
          <Facts visit={visit} now={now} />
          <Failed error={visit.error} cause={visit.cause} />
          <div class="chips" role="group" aria-label="What to show">
            {TABS.filter((t) => t !== 'Attempts' || visit.attempts.length > 0).map((t) => (
              <button key={t} type="button" aria-pressed={t === shown} onClick={() => setTab(t)}>
                {t}
              </button>
            ))}
          </div>
          {shown === 'Data' ? (
            <>
              <h4>Input</h4>
              <Json text={visit.input} label="input" />
              {visit.output !== undefined ? (
                <>
                  <h4>Output</h4>
                  <Json text={visit.output} label="output" />
                </>
              ) : null}
            </>
          ) : null}
          {shown === 'Flow' ? <Flow visit={visit} /> : null}
          {shown === 'Variables' ? <Variables visit={visit} /> : null}
          {shown === 'Attempts' ? <Attempts attempts={visit.attempts} /> : null}
          {shown === 'Definition' ? <Json value={state ?? {}} label="definition" /> : null}
          <p class="quiet small">
            <a href={href(['executions', id, 'events'], { event: row.event })}>its events</a> ·{' '}
            <a href={href(['executions', id], { state: row.event })}>link to this state</a>
          </p>
        </>
      )}
    </aside>
  );
}
