// Benchmark runs of this box: what it carries, each figure then and now, how it grows, and how it went over the runs.
import { useEffect, useMemo, useState } from 'preact/hooks';
import * as api from '../../api/client';
import type { BenchmarkReport, BenchmarkRun } from '../../api/types';
import { duration, exactMoment } from '../../base/format';
import { useAsk } from '../../base/hooks';
import { Moment, Notice, Table, Waiting } from '../../components/basics';
import { Plot } from '../../components/Plot';

/** Runs whose reports are read for the plots over the runs. */
const RUNS_READ = 12;
const PLOTS_MAX = 8;

/** As the report in the terminal names its parts. */
const TITLES: Record<string, string> = {
  raw: 'Raw engines',
  graphs: 'Media graphs',
  cpu: 'Encoders and decoders on cores',
  shares: 'Shares',
  store: 'Store',
};

const short = (n: number): string => (Math.abs(n) >= 100 ? n.toFixed(0) : Math.abs(n) >= 1 ? n.toFixed(1) : n.toPrecision(3));

type Figures = Map<string, { median: number; unit: string; better: string; label: string }>;

function figuresOf(report: BenchmarkReport | undefined): Figures {
  const found: Figures = new Map();
  report?.sections.forEach((section) =>
    section.rows.forEach((row) =>
      row.figures.forEach((f) =>
        found.set(`${section.kind}/${row.key} ${f.name}`, {
          median: f.median,
          unit: f.unit,
          better: f.better,
          label: `${row.name}: ${f.name}`,
        }),
      ),
    ),
  );
  return found;
}

/** How a figure changed, as a sentence; a change within the spread is none. */
function Change({ now, then, better, spread }: { now: number; then: number | undefined; better: string; spread: number }) {
  if (then === undefined || then === 0) return <span class="quiet">new</span>;
  const percent = (now / then - 1) * 100;
  if (Math.abs(percent) < Math.max(3, spread * 100)) return <span class="quiet">the same</span>;
  const good = percent > 0 === (better === 'higher');
  return (
    <span class={good ? 'good' : 'bad'}>
      {percent > 0 ? '+' : '−'}
      {Math.abs(percent).toFixed(0)} % {good ? 'better' : 'worse'}
    </span>
  );
}

function Sections({ report, before }: { report: BenchmarkReport; before: BenchmarkReport | undefined }) {
  const old = useMemo(() => figuresOf(before), [before]);
  return (
    <>
      {report.sections.map((section) => (
        <section key={section.kind} aria-label={TITLES[section.kind] ?? section.kind}>
          <h2>{TITLES[section.kind] ?? section.kind}</h2>
          {section.says.map((line) => (
            <p key={line} class="quiet small">
              {line}
            </p>
          ))}
          <Table
            head={['What', 'Figure', { number: 'Median' }, { number: 'Spread' }, ...(before ? [{ number: 'Compared run' }, 'Change'] : [])]}
            hidden={section.rows.length === 0}
          >
            {section.rows.flatMap((row) =>
              row.figures.map((f, n) => {
                const then = old.get(`${section.kind}/${row.key} ${f.name}`);
                return (
                  <tr key={`${row.key} ${f.name}`}>
                    <td>{n === 0 ? row.name : ''}</td>
                    <td>{f.name}</td>
                    <td class="number">
                      {short(f.median)} {f.unit}
                    </td>
                    <td class="number">{f.samples.length > 1 ? `${(f.spread * 100).toFixed(0)} %` : 'once'}</td>
                    {before ? <td class="number">{then ? `${short(then.median)} ${f.unit}` : ''}</td> : null}
                    {before ? (
                      <td>
                        <Change now={f.median} then={then?.median} better={f.better} spread={f.spread} />
                      </td>
                    ) : null}
                  </tr>
                );
              }),
            )}
          </Table>
          <div class="plots">
            {section.curves.map((curve) => (
              <Grows key={curve.key} curve={curve} />
            ))}
          </div>
        </section>
      ))}
    </>
  );
}

function Grows({ curve }: { curve: BenchmarkReport['sections'][number]['curves'][number] }) {
  const drawn = useMemo(
    () => ({ x: curve.points.map((p) => p[0]), series: [{ label: curve.y, values: curve.points.map((p) => p[1]) }] }),
    [curve],
  );
  if (drawn.x.length < 2) return null;
  return <Plot title={`${curve.title}, by ${curve.x}`} x={drawn.x} whole unit="" series={drawn.series} />;
}

function Trends({ runs, reports }: { runs: BenchmarkRun[]; reports: Map<string, BenchmarkReport> }) {
  const plots = useMemo(() => {
    const old = runs.filter((r) => reports.has(r.id)).reverse();
    const all = old.map((r) => figuresOf(reports.get(r.id)));
    const names = [...new Set(all.flatMap((figures) => [...figures.keys()]))];
    return names
      .map((name) => ({
        name,
        label: all.find((f) => f.has(name))?.get(name)?.label ?? name,
        unit: all.find((f) => f.has(name))?.get(name)?.unit ?? '',
        x: old.map((_, n) => n),
        xLabel: (n: number) => (Number.isInteger(n) ? exactMoment(old[n]?.startedAt ?? 0).replace(/:\d\d [^:]*$/, '') : ''),
        series: [{ label: name.split(' ').pop() ?? name, values: all.map((f) => f.get(name)?.median ?? null) }],
      }))
      .filter((p) => (p.series[0]?.values.filter((v) => v !== null).length ?? 0) > 1)
      .slice(0, PLOTS_MAX);
  }, [runs, reports]);
  if (plots.length === 0) return null;
  return (
    <section aria-label="Over the runs">
      <h2>Over the runs</h2>
      <div class="plots">
        {plots.map((p) => (
          <Plot key={p.name} title={p.label} x={p.x} xLabel={p.xLabel} unit={p.unit} series={p.series} height={150} />
        ))}
      </div>
    </section>
  );
}

export function Benchmarks() {
  const { value, error } = useAsk(api.benchmarks, 'benchmarks');
  const runs = value?.runs ?? [];
  const [chosen, setChosen] = useState('');
  const [other, setOther] = useState('');
  const [reports, setReports] = useState<Map<string, BenchmarkReport>>(new Map());
  const [failed, setFailed] = useState<string | null>(null);
  useEffect(() => {
    runs.slice(0, RUNS_READ).forEach((run) =>
      api.benchmark(run.id).then(
        (report) => setReports((old) => new Map(old).set(run.id, report)),
        (e: Error) => setFailed(e.message),
      ),
    );
  }, [value]);
  if (!value) return <Waiting error={error} />;
  if (runs.length === 0) {
    return (
      <p class="empty">
        No benchmark was run on this box yet. Run <code>conveyor bench</code>; its figures set what lanes carry and how long jobs
        are said to take.
      </p>
    );
  }
  const run = runs.find((r) => r.id === chosen) ?? runs[0];
  const before = runs.find((r) => r.id === other) ?? runs[runs.indexOf(run as BenchmarkRun) + 1];
  const report = run && reports.get(run.id);
  const option = (r: BenchmarkRun) => (
    <option key={r.id} value={r.id}>
      {exactMoment(r.startedAt)} ({r.mode})
    </option>
  );
  return (
    <>
      <div class="filters">
        <label>
          Run{' '}
          <select value={run?.id} onChange={(e) => setChosen(e.currentTarget.value)}>
            {runs.map(option)}
          </select>
        </label>
        {runs.length > 1 ? (
          <label>
            compared with{' '}
            <select value={before?.id ?? ''} onChange={(e) => setOther(e.currentTarget.value)}>
              {runs.filter((r) => r !== run).map(option)}
            </select>
          </label>
        ) : null}
      </div>
      <Notice error={failed} />
      {run ? (
        <section class="card pad">
          <p>
            <Moment at={run.startedAt} /> · {run.mode} · took {duration(run.tookSeconds * 1000)} · conveyor {run.version}
          </p>
          {run.capacity ? <p>{run.capacity.sentence}</p> : null}
          {run.disturbed.length > 0 ? <p class="notice">The figures are lower than the box can: {run.disturbed.join('; ')}</p> : null}
        </section>
      ) : null}
      <Trends runs={runs} reports={reports} />
      {report ? <Sections report={report} before={before && reports.get(before.id)} /> : <Waiting error={failed} />}
    </>
  );
}
