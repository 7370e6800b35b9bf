// The states of an execution in the order they were entered, each with its duration, input, output, error and tries.
import { useState } from 'preact/hooks';
import type * as api from './api';
import { Nested } from './detail';
import { copyText, duration, exactMoment, pretty, statusWord } from './format';
import type { Feed } from './main';

/** Nested executions opened inside each other; deeper ones are links. */
const NESTED_DEPTH_MAX = 4;

/** JSON as text, never as markup: what stands in a file's name or metadata stays text. */
export function Json({ text, open = false }: { text: string; open?: boolean }) {
  const [copied, setCopied] = useState(false);
  const shown = pretty(text);
  const lines = shown.split('\n').length;
  const copy = () =>
    copyText(shown).then(
      () => setCopied(true),
      () => undefined,
    );
  return (
    <div class="json">
      <button type="button" class="copy" onClick={copy} aria-label="Copy">
        {copied ? 'copied' : 'copy'}
      </button>
      {lines > 14 && !open ? (
        <details>
          <summary>
            {lines} lines <code>{text.slice(0, 80)}</code>
          </summary>
          <pre>{shown}</pre>
        </details>
      ) : (
        <pre>{shown}</pre>
      )}
    </div>
  );
}

function Attempts({ attempts }: { attempts: api.Attempt[] }) {
  return (
    <ol class="attempts">
      {attempts.map((a, n) => (
        <li key={n} class={a.status}>
          <p>
            <b>Attempt {n + 1}</b> <span class={`badge ${a.status}`}>{statusWord(a.status)}</span>{' '}
            <span class="quiet">
              {exactMoment(a.startedAt)}
              {a.endedAt !== null ? ` · ${duration(a.endedAt - a.startedAt)}` : ''}
            </span>
          </p>
          {a.error || a.cause ? (
            <>
              <p class="error-name">{a.error ?? 'no error name'}</p>
              {a.cause ? <pre class="cause">{pretty(a.cause)}</pre> : null}
            </>
          ) : null}
          {a.parameters !== undefined ? (
            <details>
              <summary>
                what <code>{a.resource}</code> was asked
              </summary>
              <Json text={a.parameters} open />
            </details>
          ) : null}
        </li>
      ))}
    </ol>
  );
}

function Visit({ visit, feed, depth, now }: { visit: api.StateVisit; feed: Feed; depth: number; now: number }) {
  const failed = Boolean(visit.error) || visit.status === 'FAILED';
  const [open, setOpen] = useState(failed);
  const retries = visit.attempts.length - 1;
  return (
    <li class={`visit ${visit.status}`} style={{ '--depth': visit.depth }}>
      <details open={open} onToggle={(e) => setOpen(e.currentTarget.open)}>
        <summary>
          <span class="dot" aria-hidden="true" />
          <span class="name">
            {visit.name}
            {visit.iteration !== null ? <span class="quiet"> [{visit.iteration}]</span> : null}
          </span>
          <span class="type">{visit.type}</span>
          <span class={`badge ${visit.status}`}>{statusWord(visit.status)}</span>
          {retries > 0 ? <span class="retries">{retries === 1 ? '1 retry' : `${retries} retries`}</span> : null}
          <span class="took">{duration((visit.exitedAt ?? now) - visit.enteredAt)}</span>
          {visit.error ? <span class="error-name inline">{visit.error}</span> : null}
        </summary>
        {open ? (
          <div class="body">
            <p class="quiet">entered {exactMoment(visit.enteredAt)} (event {visit.event})</p>
            {visit.error || visit.cause ? (
              <>
                <h4>Error</h4>
                <p class="error-name">{visit.error ?? 'no error name'}</p>
                {visit.cause ? <pre class="cause">{pretty(visit.cause)}</pre> : null}
              </>
            ) : null}
            {visit.children.map((child) =>
              depth < NESTED_DEPTH_MAX ? (
                <Nested key={child} id={child} feed={feed} depth={depth + 1} />
              ) : (
                <p key={child}>
                  <a href={`#/executions/${encodeURIComponent(child)}`}>nested execution</a>
                </p>
              ),
            )}
            <h4>Input</h4>
            <Json text={visit.input} />
            {visit.output !== undefined ? (
              <>
                <h4>Output</h4>
                <Json text={visit.output} />
              </>
            ) : null}
            {visit.attempts.length > 0 ? (
              <>
                <h4>Attempts</h4>
                <Attempts attempts={visit.attempts} />
              </>
            ) : null}
          </div>
        ) : null}
      </details>
    </li>
  );
}

export function States(props: { detail: api.Detail; feed: Feed; depth: number; now: number }) {
  const { detail, feed, depth, now } = props;
  if (detail.states.length === 0) return <p class="quiet">No state was entered.</p>;
  return (
    <>
      <ol class="states">
        {detail.states.map((visit) => (
          <Visit key={visit.event} visit={visit} feed={feed} depth={depth} now={now} />
        ))}
      </ol>
      {detail.statesLeftOut > 0 ? (
        <p class="quiet">{detail.statesLeftOut} more are in the history and not shown here.</p>
      ) : null}
    </>
  );
}
