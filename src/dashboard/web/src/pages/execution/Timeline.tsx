// When each state was entered and left, its attempts, and what it waited for.
import { useMemo, useState } from 'preact/hooks';
import { duration, exactMoment, statusWord, utc } from '../../base/format';
import { VirtualRows } from '../../components/VirtualRows';
import type { Model, VisitRow } from './model';

interface Props {
  model: Model;
  now: number;
  selected: number | null;
  onSelect: (event: number) => void;
}

const ROW = 30;

function Ticks({ span }: { span: number }) {
  const parts = [0, 0.25, 0.5, 0.75, 1];
  return (
    <div class="ticks" aria-hidden="true">
      {parts.map((part) => (
        <span key={part} style={{ left: `${part * 100}%` }} class={part === 1 ? 'last' : ''}>
          {duration(span * part)}
        </span>
      ))}
    </div>
  );
}

export function Timeline({ model, now, selected, onSelect }: Props) {
  const { trace } = model;
  const begin = trace.startedAt;
  const end = Math.max(trace.stoppedAt ?? now, begin + 1);
  const [folded, setFolded] = useState<ReadonlySet<number>>(() => {
    // Hundreds of iterations would bury the rest: their Map begins closed.
    const inside = new Map<number, number>();
    model.visits.forEach((row) => inside.set(row.parent, (inside.get(row.parent) ?? 0) + 1));
    return new Set(model.visits.filter((row) => (inside.get(row.at) ?? 0) > 60).map((row) => row.at));
  });
  const holds = useMemo(() => new Set(model.visits.map((row) => row.parent)), [model]);
  const rows = useMemo(() => {
    const hidden = new Set<number>();
    // In the order of a walk: what stands in a state follows it.
    const children = new Map<number, VisitRow[]>();
    for (const row of model.visits) {
      if (folded.has(row.parent) || hidden.has(row.parent)) {
        hidden.add(row.at);
        continue;
      }
      const siblings = children.get(row.parent);
      if (siblings) siblings.push(row);
      else children.set(row.parent, [row]);
    }
    const walked: VisitRow[] = [];
    const walk = (parent: number) => {
      const inner = children.get(parent) ?? [];
      if (parent >= 0) inner.sort((a, b) => a.iteration - b.iteration || a.event - b.event);
      inner.forEach((row) => {
        walked.push(row);
        walk(row.at);
      });
    };
    walk(-1);
    return walked;
  }, [model, folded]);
  const place = (from: number, to: number) => ({
    left: `${((from - begin) / (end - begin)) * 100}%`,
    width: `max(2px, ${((to - from) / (end - begin)) * 100}%)`,
  });
  // Behind the bar where there is room, else before it, else on it.
  const beside = (from: number, to: number) => {
    const [start, stop] = [from, to].map((at) => ((at - begin) / (end - begin)) * 100) as [number, number];
    if (stop <= 88) return { left: `${stop}%` };
    if (start >= 12) return { right: `${100 - start}%`, paddingRight: '5px' };
    return { left: '6px', background: 'var(--card)', borderRadius: '3px', paddingRight: '5px' };
  };
  const fold = (at: number) =>
    setFolded((old) => {
      const next = new Set(old);
      if (!next.delete(at)) next.add(at);
      return next;
    });
  const reveal = selected === null ? null : rows.findIndex((row) => row.event === selected);
  return (
    <div class="timeline">
      <VirtualRows
        count={rows.length}
        rowHeight={ROW}
        height={Math.min(620, Math.max(120, rows.length * ROW + 4))}
        label="Timeline"
        reveal={reveal}
        header={
          <div class="line head">
            <span class="quiet">State</span>
            <Ticks span={end - begin} />
          </div>
        }
        row={(index, style) => {
          const row = rows[index];
          if (!row) return null;
          const until = row.exitedAt ?? end;
          const took = duration(until - row.enteredAt);
          return (
            <div key={row.at} class={`line ${row.status} ${row.event === selected ? 'selected' : ''}`} style={style}>
              <span class="label" style={{ paddingLeft: `${row.depth * 14}px` }}>
                {holds.has(row.at) ? (
                  <button
                    type="button"
                    class="plain"
                    aria-label={`${folded.has(row.at) ? 'Open' : 'Close'} ${row.name}`}
                    aria-expanded={!folded.has(row.at)}
                    onClick={() => fold(row.at)}
                  >
                    {folded.has(row.at) ? '▸' : '▾'}
                  </button>
                ) : null}
                <button type="button" class="plain name" onClick={() => onSelect(row.event)}>
                  {row.name}
                  {row.iteration >= 0 ? <span class="quiet"> [{row.iteration}]</span> : null}
                </button>
              </span>
              <span
                class="lane-line"
                title={`${row.name}: ${statusWord(row.status)}, ${took}\n${exactMoment(row.enteredAt)}\n${utc(row.enteredAt)}`}
                onClick={() => onSelect(row.event)}
              >
                <span class={`span ${row.type === 'Wait' ? 'waits' : ''}`} style={place(row.enteredAt, until)} />
                {row.tries.map((t, n) => (
                  <span
                    key={n}
                    class={`try ${t.status}`}
                    style={place(t.startedAt, t.endedAt ?? end)}
                    title={`attempt ${n + 1}: ${statusWord(t.status)}, ${duration((t.endedAt ?? end) - t.startedAt)}`}
                  />
                ))}
                <span class="took" style={beside(row.enteredAt, until)}>
                  {took}
                </span>
              </span>
            </div>
          );
        }}
      />
    </div>
  );
}
