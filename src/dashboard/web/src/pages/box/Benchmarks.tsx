// Benchmark runs of this box, newest first, and how each measure went over the runs.
import { useMemo } from 'preact/hooks';
import * as api from '../../api/client';
import { useAsk } from '../../base/hooks';
import { Moment } from '../../components/basics';
import { Json } from '../../components/Json';
import { Plot } from '../../components/Plot';

interface Run {
  at: number | null;
  whole: Record<string, unknown>;
  /** Every number of the run by its place. */
  measures: Map<string, number>;
}

const WANTED = /fps|mib|mb_?s|bytes_per|seconds|ms$|per_second|sessions|speed/i;

function numbers(value: unknown, place: string, found: Map<string, number>): void {
  if (typeof value === 'number') {
    if (WANTED.test(place)) found.set(place, value);
    return;
  }
  if (value === null || typeof value !== 'object') return;
  if (Array.isArray(value)) {
    value.forEach((inner: unknown, n) => {
      const named = inner as { name?: unknown; label?: unknown };
      numbers(inner, `${place} ${String(named?.name ?? named?.label ?? n)}`.trim(), found);
    });
    return;
  }
  Object.entries(value).forEach(([key, inner]) => numbers(inner, `${place} ${key}`.trim(), found));
}

function runsOf(answer: unknown): Run[] {
  const listed = Array.isArray(answer) ? answer : (Object.values((answer ?? {}) as object).find(Array.isArray) as unknown[] | undefined);
  return (listed ?? []).map((run) => {
    const whole = run as Record<string, unknown>;
    const measures = new Map<string, number>();
    numbers(whole, '', measures);
    const at = whole.at ?? whole.startedAt ?? whole.started_at ?? whole.began_at;
    const time = typeof at === 'number' ? at : typeof at === 'string' ? Date.parse(at) : NaN;
    return { at: Number.isFinite(time) ? time : null, whole, measures };
  });
}

export function Benchmarks() {
  const { value, error } = useAsk(api.benchmarks, 'benchmarks');
  const runs = useMemo(() => runsOf(value), [value]);
  const plots = useMemo(() => {
    const old = runs.slice().sort((a, b) => (a.at ?? 0) - (b.at ?? 0));
    const names = [...new Set(old.flatMap((r) => [...r.measures.keys()]))];
    return names
      .map((name) => ({ name, values: old.map((r) => r.measures.get(name) ?? null) }))
      .filter((p) => p.values.filter((v) => v !== null).length > 1)
      .slice(0, 24);
  }, [runs]);
  const x = useMemo(() => runs.map((_, n) => n + 1), [runs]);
  if (!value && error) return <p class="empty">No benchmark was run on this box, or this release keeps none. Run <code>conveyor bench</code>.</p>;
  if (!value) return <p class="empty">Loading…</p>;
  if (runs.length === 0) return <p class="empty">No benchmark was run on this box yet. Run <code>conveyor bench</code>.</p>;
  return (
    <>
      <div class="plots">
        {plots.map((p) => (
          <Plot key={p.name} title={p.name} x={x} xLabel={(n) => `run ${n}`} unit="" series={[{ label: p.name, values: p.values }]} height={140} />
        ))}
      </div>
      <ul class="plain-list">
        {runs.map((run, n) => (
          <li key={n} class="card pad">
            <h2>{run.at ? <Moment at={run.at} /> : `Run ${runs.length - n}`}</h2>
            <Json value={run.whole} label="benchmark" />
          </li>
        ))}
      </ul>
    </>
  );
}
