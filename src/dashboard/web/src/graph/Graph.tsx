// The graph of a state machine, with what happened in it when there is an execution to show.
import { useEffect, useMemo, useRef, useState } from 'preact/hooks';
import { plural } from '../base/format';
import { layout, type Arrow, type Box } from './layout';

/** What is known of one state: how often it was visited, and how that went. */
export interface StateFacts {
  status: string;
  visits: number;
  running: number;
  failed: number;
  retries: number;
}

interface Props {
  definition: string;
  facts?: Map<string, StateFacts>;
  /** Keys `from\nto` of the arrows that were taken. */
  taken?: ReadonlySet<string>;
  selected: string | null;
  onSelect: (name: string) => void;
  /** Names of states in which something is wrong. */
  wrong?: ReadonlySet<string>;
}

const SIGNS: Record<string, string> = {
  SUCCEEDED: '✓',
  FAILED: '✕',
  TIMED_OUT: '⏱',
  CAUGHT: '!',
  RUNNING: '●',
  RETRYING: '↻',
  ABORTED: '■',
};

/** A curve through the layout's points. */
function curve(points: Arrow['points']): string {
  const [first, ...rest] = points;
  if (!first) return '';
  let path = `M${first.x},${first.y}`;
  rest.forEach((p, n) => {
    const next = rest[n + 1];
    path += next ? ` Q${p.x},${p.y} ${(p.x + next.x) / 2},${(p.y + next.y) / 2}` : ` L${p.x},${p.y}`;
  });
  return path;
}

function ArrowLine({ arrow, taken }: { arrow: Arrow; taken: boolean }) {
  const middle = arrow.points[Math.floor(arrow.points.length / 2)];
  return (
    <g class={`arrow ${arrow.kind} ${taken ? 'taken' : ''}`}>
      <path d={curve(arrow.points)} marker-end={taken ? 'url(#tip-taken)' : 'url(#tip)'} />
      {arrow.label && middle ? (
        <text x={middle.x} y={middle.y} text-anchor="middle" dominant-baseline="central">
          <title>{arrow.label}</title>
          {arrow.label}
        </text>
      ) : null}
    </g>
  );
}

interface StateBoxProps {
  box: Box;
  facts: StateFacts | undefined;
  selected: boolean;
  wrong: boolean;
  onSelect: () => void;
  onFold: () => void;
}

function StateBox({ box, facts, selected, wrong, onSelect, onFold }: StateBoxProps) {
  const status = facts?.status ?? '';
  const keys = (e: KeyboardEvent) => {
    if (e.key === 'Enter' || e.key === ' ') {
      e.preventDefault();
      onSelect();
    }
    if (e.key === '+' || e.key === '-') onFold();
  };
  const notes = [
    facts && facts.visits > 1 ? `×${facts.visits}` : '',
    facts?.failed && facts.visits > 1 ? `${facts.failed} failed` : '',
    facts?.retries ? `↻${facts.retries}` : '',
  ].filter(Boolean);
  const said = [
    box.id,
    box.kind,
    status.toLowerCase().replace('_', ' '),
    facts && facts.visits > 1 ? plural(facts.visits, 'visit') : '',
    facts?.retries ? plural(facts.retries, 'retry', 'retries') : '',
    wrong ? 'has problems' : '',
  ].filter(Boolean);
  return (
    <g
      class={`state ${box.kind} ${status} ${selected ? 'selected' : ''} ${wrong ? 'wrong' : ''} ${box.open ? 'open' : ''}`}
      transform={`translate(${box.x},${box.y})`}
    >
      <g role="button" tabIndex={0} aria-pressed={selected} aria-label={said.join(', ')} onClick={onSelect} onKeyDown={keys}>
        <title>{box.id}</title>
        <rect class="body" width={box.width} height={box.height} rx={7} />
        <rect class="stripe" width={5} height={box.height - 10} x={5} y={5} rx={2.5} />
        <text class="name" x={18} y={box.open ? 20 : 19}>
          {box.label}
        </text>
        {box.open ? null : (
          <text class="detail" x={18} y={36}>
            {box.detail}
          </text>
        )}
        {SIGNS[status] ? (
          <text class="sign" x={box.width - 12} y={19} text-anchor="end">
            {SIGNS[status]}
          </text>
        ) : null}
        {notes.length > 0 ? (
          <text class="notes" x={box.width - 10 - (box.open === null ? 0 : 20)} y={box.open ? 20 : 36} text-anchor="end">
            {notes.join(' ')}
          </text>
        ) : null}
      </g>
      {box.open === null ? null : (
        <g
          class="fold"
          role="button"
          tabIndex={0}
          aria-label={`${box.open ? 'Close' : 'Open'} ${box.id}`}
          aria-expanded={box.open}
          transform={`translate(${box.width - (box.open && SIGNS[status] ? 40 : 24)},${box.open ? 7 : 26})`}
          onClick={onFold}
          onKeyDown={(e: KeyboardEvent) => {
            if (e.key === 'Enter' || e.key === ' ') {
              e.preventDefault();
              onFold();
            }
          }}
        >
          <rect width={16} height={16} rx={4} />
          <text x={8} y={12} text-anchor="middle">
            {box.open ? '−' : '+'}
          </text>
        </g>
      )}
    </g>
  );
}

export function Graph({ definition, facts, taken, selected, onSelect, wrong }: Props) {
  const [closed, setClosed] = useState<ReadonlySet<string>>(new Set());
  const [zoom, setZoom] = useState<number | null>(null);
  const place = useRef<HTMLDivElement>(null);
  const [room, setRoom] = useState(800);
  // What is being typed is not always a definition: the last one that was stays.
  const last = useRef<ReturnType<typeof layout> | null>(null);
  const drawn = useMemo(() => {
    try {
      last.current = layout(JSON.parse(definition) as Parameters<typeof layout>[0], closed);
    } catch {
      // Said by the validation.
    }
    return last.current;
  }, [definition, closed]);
  useEffect(() => {
    const element = place.current;
    if (!element) return;
    const resized = new ResizeObserver(() => setRoom(element.clientWidth));
    resized.observe(element);
    return () => resized.disconnect();
  }, []);
  if (!drawn) return <p class="empty">This is no definition yet.</p>;
  const scale = zoom ?? Math.max(0.45, Math.min(1, (room - 12) / drawn.width));
  const fold = (name: string) =>
    setClosed((old) => {
      const next = new Set(old);
      if (!next.delete(name)) next.add(name);
      return next;
    });
  const containers = drawn.boxes.filter((b) => b.open !== null);
  return (
    <div class="graph">
      <div class="graph-tools" role="group" aria-label="Graph">
        <button type="button" aria-label="Smaller" onClick={() => setZoom(Math.max(0.2, scale * 0.8))}>
          −
        </button>
        <button type="button" onClick={() => setZoom(null)}>
          fit
        </button>
        <button type="button" aria-label="Larger" onClick={() => setZoom(Math.min(2.5, scale * 1.25))}>
          +
        </button>
        {containers.length > 0 ? (
          <button
            type="button"
            onClick={() => setClosed(closed.size > 0 ? new Set() : new Set(containers.map((b) => b.id)))}
          >
            {closed.size > 0 ? 'open all' : 'close all'}
          </button>
        ) : null}
      </div>
      <div class="graph-place" ref={place} tabIndex={0} role="region" aria-label="Graph">
        <svg
          width={drawn.width * scale}
          height={drawn.height * scale}
          viewBox={`0 0 ${drawn.width} ${drawn.height}`}
          role="group"
          aria-label="State machine"
        >
          <defs>
            {['tip', 'tip-taken'].map((id) => (
              <marker key={id} id={id} viewBox="0 0 8 8" refX="7" refY="4" markerWidth="9" markerHeight="9" markerUnits="userSpaceOnUse" orient="auto">
                <path class={id} d="M0,0 L8,4 L0,8 z" />
              </marker>
            ))}
          </defs>
          {drawn.boxes
            .filter((b) => b.open)
            .sort((a, b) => a.depth - b.depth)
            .map((b) => (
              <rect key={b.id} class={`frame depth${b.depth % 2}`} x={b.x} y={b.y} width={b.width} height={b.height} rx={8} />
            ))}
          {drawn.boxes
            .slice()
            .sort((a, b) => a.depth - b.depth)
            .map((b) =>
              b.kind === 'start' || b.kind === 'end' ? (
                <g key={b.id} class={`point ${b.kind}`} aria-hidden="true">
                  <circle cx={b.x + 8} cy={b.y + 8} r={7} />
                </g>
              ) : (
                <StateBox
                  key={b.id}
                  box={b}
                  facts={facts?.get(b.id)}
                  selected={selected === b.id}
                  wrong={wrong?.has(b.id) ?? false}
                  onSelect={() => onSelect(b.id)}
                  onFold={() => fold(b.id)}
                />
              ),
            )}
          {drawn.arrows.map((a, n) => (
            <ArrowLine key={n} arrow={a} taken={taken?.has(`${a.from}\n${a.to}`) ?? false} />
          ))}
        </svg>
      </div>
    </div>
  );
}
