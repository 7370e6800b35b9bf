// The box at a glance: what needs a person, what runs, what ended today, lanes, shares, devices.
import { useMemo, useState } from 'preact/hooks';
import * as api from '../../api/client';
import type { Devices, Health, Overview, Share, Summary, Told } from '../../api/types';
import { ago, bytes, count, duration, moment, plural } from '../../base/format';
import { useFresh, useLive, useNow, useTitle } from '../../base/hooks';
import { href, toExecution } from '../../base/route';
import { Bar, Moment, Thumb, Waiting } from '../../components/basics';

function midnight(): number {
  const now = new Date();
  return new Date(now.getFullYear(), now.getMonth(), now.getDate()).getTime();
}

export function known<T>(told: Told<T>): T | null {
  const told_ = told as { absent?: string; unknown?: string };
  return told_ && (typeof told_.absent === 'string' || typeof told_.unknown === 'string') ? null : (told as T);
}

export function why<T>(told: Told<T>): string {
  const told_ = told as { absent?: string; unknown?: string };
  return told_.absent ?? told_.unknown ?? '';
}

function Needs({ seen }: { seen: Overview }) {
  const lines = [
    ...seen.alarms.map((a) => ({ key: a.name, text: `${a.name}: ${a.reason}`, to: href(['box', 'alarms']) })),
    ...(seen.approvals > 0
      ? [{ key: 'approvals', text: `${plural(seen.approvals, 'decision waits', 'decisions wait')} for you`, to: href(['approvals']) }]
      : []),
  ];
  if (lines.length === 0) return null;
  return (
    <ul class="attention" aria-label="Needs attention">
      {lines.map((line) => (
        <li key={line.key}>
          <a href={line.to}>{line.text}</a>
        </li>
      ))}
    </ul>
  );
}

function Running({ rows, more, now }: { rows: Summary[]; more: boolean; now: number }) {
  return (
    <section aria-labelledby="running">
      <h2 id="running">
        Running now <span class="quiet">{rows.length}{more ? ' and more' : ''}</span>
      </h2>
      {rows.length === 0 ? <p class="quiet card pad">Nothing runs. Drop a video file on a watched share, or upload one.</p> : null}
      <ul class="rows">
        {rows.map((row) => (
          <li key={row.id} class={`run ${row.status}`}>
            <a href={toExecution(row.id)}>
              <Thumb url={row.thumbnail} />
              <span class="file">
                <strong>{row.file ?? row.name}</strong>
                <small>
                  {row.machine} · {duration(now - row.startedAt)}
                </small>
              </span>
              <span class="rest">
                {row.progress ? <Bar progress={row.progress} /> : <small>waits; no stage works for it now</small>}
              </span>
            </a>
          </li>
        ))}
      </ul>
    </section>
  );
}

/** Done and failed by hour, as bars with their numbers in words. */
function Today({ today }: { today: Overview['today'] }) {
  const sum = (all: number[]) => all.reduce((a, b) => a + b, 0);
  const [done, failed] = [sum(today.done), sum(today.failed)];
  const high = Math.max(1, ...today.done.map((n, i) => n + (today.failed[i] ?? 0)));
  const hours = today.done.length;
  return (
    <section class="card pad" aria-label="Today">
      <h2>Today</h2>
      <p class="figures">
        <a href={href(['executions'], { status: 'SUCCEEDED' })}>
          <b class="good">{today.atLeast ? '≥ ' : ''}{count(done)}</b> done
        </a>
        <a href={href(['executions'], { status: 'FAILED' })}>
          <b class={failed ? 'bad' : ''}>{today.atLeast ? '≥ ' : ''}{count(failed)}</b> failed
        </a>
      </p>
      <svg class="hours" viewBox={`0 0 ${hours * 10} 40`} preserveAspectRatio="none" role="img"
        aria-label={`${done} done and ${failed} failed since ${moment(today.since)}`}>
        {today.done.map((n, i) => {
          const bad = today.failed[i] ?? 0;
          const [h, hb] = [(n / high) * 38, (bad / high) * 38];
          return (
            <g key={i}>
              <title>{`${new Date(today.since + i * 3600000).getHours()} h: ${n} done, ${bad} failed`}</title>
              <rect x={i * 10 + 1} y={40 - h} width={8} height={h} class="fill-good" />
              <rect x={i * 10 + 1} y={40 - h - hb} width={8} height={hb} class="fill-bad" />
              <rect x={i * 10} y={0} width={10} height={40} class="fill-none" />
            </g>
          );
        })}
      </svg>
      {today.failures.length > 0 ? (
        <ul class="brief-list">
          {today.failures.map((row) => (
            <li key={row.id}>
              <a href={toExecution(row.id)}>
                <b>{row.file ?? row.name}</b> <span class="error-name">{row.error ?? row.status}</span>
              </a>{' '}
              <small>
                {row.machine} · <Moment at={row.startedAt} />
              </small>
            </li>
          ))}
        </ul>
      ) : null}
    </section>
  );
}

function Lanes({ lanes }: { lanes: Overview['lanes'] }) {
  return (
    <section class="card pad" aria-label="Lanes">
      <h2>
        Lanes <a href={href(['box', 'lanes'])}>details</a>
      </h2>
      <ul class="gauges">
        {lanes.map((lane) => (
          <li key={lane.name}>
            <span>{lane.name}</span>
            <meter min={0} max={Math.max(1, lane.capacity)} value={lane.busy} aria-label={`${lane.name} busy`} />
            <span>
              {lane.busy} of {lane.capacity}
              {lane.state && lane.state !== 'open' ? <b class="bad"> · {lane.state}</b> : null}
              {lane.waiting > 0 ? <b> · {plural(lane.waiting, 'waits', 'wait')}</b> : null}
            </span>
          </li>
        ))}
      </ul>
    </section>
  );
}

function Shares({ shares, seen }: { shares: Share[]; seen: Overview }) {
  return (
    <section class="card pad" aria-label="Shares">
      <h2>Shares</h2>
      {shares.length === 0 ? <p class="quiet">No share is configured.</p> : null}
      <ul class="gauges">
        {shares.map((share) => {
          const disk = share.fileSystem;
          const landed = seen.landings.find((l) => l.share === share.name);
          const watch = seen.watches.find((w) => w.share === share.name);
          return (
            <li key={share.name} title={share.path}>
              <span>
                {share.name} {share.watched ? <small>→ {share.watched}</small> : null}
              </span>
              {disk && share.reachable ? (
                <meter min={0} max={disk.total || 1} value={disk.total - disk.free} low={disk.total * 0.85} high={disk.total * 0.95}
                  aria-label={`${share.name} used`} />
              ) : (
                <span />
              )}
              <span>
                {share.reachable && disk ? `${bytes(disk.free)} free` : <b class="bad">unreachable{share.why ? `: ${share.why}` : ''}</b>}
                {watch && watch.waiting > 0 ? <small> · {plural(watch.waiting, 'file waits', 'files wait')}</small> : null}
                {landed ? <small> · last landing {ago(landed.at)}</small> : null}
              </span>
            </li>
          );
        })}
      </ul>
    </section>
  );
}

function DevicesCard({ devices }: { devices: Devices }) {
  const { now } = devices;
  const used = now.memory.total && now.memory.available ? now.memory.total - now.memory.available : null;
  return (
    <section class="card pad" aria-label="Devices">
      <h2>
        Devices <a href={href(['box', 'devices'])}>details</a>
      </h2>
      <ul class="gauges">
        <li title={devices.cpu.model ?? ''}>
          <span>CPU</span>
          <meter min={0} max={100} value={now.cpu_percent ?? 0} aria-label="CPU load" />
          <span>
            {now.cpu_percent === null ? '…' : `${now.cpu_percent.toFixed(0)} %`} <small>of {plural(devices.cpu.cores, 'core')}</small>
            {now.temperatures[0] ? <small> · {Math.max(...now.temperatures.map((t) => t.celsius)).toFixed(0)} °C</small> : null}
          </span>
        </li>
        {used !== null ? (
          <li>
            <span>Memory</span>
            <meter min={0} max={now.memory.total ?? 1} value={used} aria-label="Memory used" />
            <span>
              {bytes(used)} <small>of {bytes(now.memory.total ?? 0)}</small>
            </span>
          </li>
        ) : null}
        {devices.gpus.map((gpu) => {
          const health = known<Health>(gpu.health);
          return (
            <li key={gpu.index}>
              <span>{gpu.name ?? `GPU ${gpu.index}`}</span>
              <meter min={0} max={100} value={health?.gpu_load_percent ?? 0} aria-label={`GPU ${gpu.index} load`} />
              <span>
                {gpu.fault ? <b class="bad">{gpu.fault}</b> : health ? (
                  `${health.gpu_load_percent ?? '?'} % · ${health.temperature_celsius ?? '?'} °C`
                ) : (
                  <small>{why(gpu.health)}</small>
                )}
              </span>
            </li>
          );
        })}
      </ul>
      {devices.gpus.length === 0 ? (
        <p class="quiet small">No GPU that a driver shows; everything runs on the CPU.</p>
      ) : null}
    </section>
  );
}

export function OverviewPage() {
  useTitle('');
  const [since] = useState(midnight);
  const { value: seen, error } = useFresh(() => api.overview(midnight()), since, 10_000, true);
  const { value: shares } = useFresh(api.shares, 'shares', 15_000);
  const { value: devices } = useFresh(api.devices, 'devices', 5_000);
  const [moved, setMoved] = useState<Record<string, Summary['progress']>>({});
  useLive({ moved: (m) => setMoved((old) => ({ ...old, [m.root]: m.progress })) });
  const rows = useMemo(
    () => (seen?.running ?? []).map((row) => ({ ...row, progress: row.progress ? (moved[row.id] ?? row.progress) : null }))
        // What moves stands before what waits.
        .sort((a, b) => Number(b.progress !== null) - Number(a.progress !== null)),
    [seen, moved],
  );
  const now = useNow(rows.length > 0);
  if (!seen) return <Waiting error={error} />;
  return (
    <>
      <h1 class="visually-hidden">Overview</h1>
      {error ? <p class="notice">{error}</p> : null}
      <Needs seen={seen} />
      <div class="overview">
        <Running rows={rows} more={seen.runningMore} now={now} />
        <div class="side">
          <Today today={seen.today} />
          <Lanes lanes={seen.lanes} />
          <Shares shares={shares?.shares ?? []} seen={seen} />
          {devices ? <DevicesCard devices={devices} /> : null}
        </div>
      </div>
      {seen.notificationsWaiting > 0 ? (
        <p class="quiet">
          <a href={href(['box', 'notifications'])}>{plural(seen.notificationsWaiting, 'notification waits', 'notifications wait')}</a> to be
          delivered.
        </p>
      ) : null}
    </>
  );
}
