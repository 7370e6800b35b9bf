// The box itself: devices, lanes, benchmarks, schedules, alarms, notifications, settings, and who did what.
import { useState } from 'preact/hooks';
import * as api from '../../api/client';
import type { AuditEntry } from '../../api/types';
import { useMay } from '../../base/feed';
import { duration, statusWord } from '../../base/format';
import { useAction, useAsk, useFresh, useNow, useTitle } from '../../base/hooks';
import { href, toExecution } from '../../base/route';
import { Moment, Notice, Table, Tabs, Waiting } from '../../components/basics';
import { Json } from '../../components/Json';
import { Benchmarks } from './Benchmarks';
import { DevicesView } from './DevicesView';

function Lanes() {
  const { value, error } = useFresh(api.work, 'work', 3_000, true);
  const now = useNow(true);
  if (!value) return <Waiting error={error} />;
  return (
    <>
      <Table head={['Lane', 'Busy', { number: 'Waiting' }]}>
        {value.lanes.map((lane) => (
          <tr key={lane.name}>
            <td>
              {lane.name} {lane.device ? <small>{lane.device}</small> : null}
              {lane.state && lane.state !== 'open' ? (
                <p class="notice small">
                  {lane.state}
                  {lane.why ? `: ${lane.why}` : ''}
                </p>
              ) : null}
            </td>
            <td>
              <meter min={0} max={Math.max(1, lane.capacity)} value={lane.busy} aria-label={`${lane.name} busy`} /> {lane.busy} of{' '}
              {lane.capacity}
            </td>
            <td class="number">{lane.waiting}</td>
          </tr>
        ))}
      </Table>
      <h2>Leases</h2>
      {value.working.length === 0 ? <p class="quiet">Nothing holds a lane now.</p> : null}
      <Table head={['File', 'State', 'Resource', 'Lane', 'For', 'Progress']} hidden={value.working.length === 0}>
        {value.working.map((w, n) => (
          <tr key={n}>
            <td>
              <a href={toExecution(w.root ?? w.execution)}>{w.file ?? w.execution.slice(0, 13)}</a>
            </td>
            <td>{w.state}</td>
            <td>
              <code>{w.resource.replace(/^arn:aws:states:::/, '')}</code>
            </td>
            <td>{w.lane || 'none needed'}</td>
            <td>{duration(now - w.startedAt)}</td>
            <td>
              {Math.round(w.progress.fraction * 100)} % {w.progress.fps ? `· ${w.progress.fps.toFixed(0)} fps` : ''}{' '}
              {w.progress.doing ?? ''}
            </td>
          </tr>
        ))}
      </Table>
    </>
  );
}

function Schedules() {
  const { value, error } = useFresh(api.schedules, 'schedules', 30_000);
  if (!value) return <Waiting error={error} />;
  return (
    <Table head={['Schedule', 'Rule', 'Workflow', 'Last', 'Next', 'Missed runs']}>
      {value.schedules.map((s) => (
        <tr key={s.name}>
          <td>
            {s.name} {s.enabled ? '' : <small>(off)</small>}
          </td>
          <td>
            <code>{s.rule}</code> {s.timezone ? <small>{s.timezone}</small> : null}
          </td>
          <td>
            <a href={href(['workflows', s.workflow])}>{s.workflow}</a>
          </td>
          <td>{s.lastAt ? <Moment at={s.lastAt} /> : 'never'}</td>
          <td>{s.nextAt ? <Moment at={s.nextAt} /> : ''}</td>
          <td>{s.missed === 'skip' ? 'skipped' : 'run once, late'}</td>
        </tr>
      ))}
    </Table>
  );
}

function Alarms() {
  const { value, error } = useFresh(api.alarms, 'alarms', 10_000);
  if (!value) return <Waiting error={error} />;
  if (value.alarms.length === 0) return <p class="empty">No alarm was ever raised.</p>;
  return (
    <ul class="plain-list">
      {value.alarms.map((a) => (
        <li key={a.name} class={`card pad alarm ${a.raised ? 'raised' : ''}`}>
          <p>
            <span class={`badge ${a.raised ? 'FAILED' : 'SUCCEEDED'}`}>{a.raised ? 'raised' : 'cleared'}</span> <b>{a.name}</b>{' '}
            <small>
              since <Moment at={a.since} />
            </small>
          </p>
          <p>{a.reason}</p>
          <details>
            <summary>History</summary>
            <ul>
              {a.history.map((h, n) => (
                <li key={n}>
                  <Moment at={h.at} /> {h.raised ? 'raised' : 'cleared'} <span class="quiet">{h.reason}</span>
                </li>
              ))}
            </ul>
          </details>
        </li>
      ))}
    </ul>
  );
}

function NotificationsView() {
  const { value, error } = useFresh(api.notifications, 'notifications', 8_000);
  if (!value) return <Waiting error={error} />;
  return (
    <>
      <h2>Not delivered yet</h2>
      {value.waiting.length === 0 ? <p class="quiet">None.</p> : null}
      <ul class="plain-list">
        {value.waiting.map((n) => (
          <li key={n.number} class="card pad">
            <b>{n.event ?? 'notification'}</b> to the {n.target} <small>made <Moment at={n.createdAt} /></small>
            {n.attempts > 0 ? (
              <p class="notice">
                {n.attempts} attempts failed, the last with: {n.error}. Next try <Moment at={n.nextAt} />.
              </p>
            ) : null}
            <details>
              <summary>What it says</summary>
              <Json text={n.body} label="notification" />
            </details>
          </li>
        ))}
      </ul>
      <h2>Delivered lately</h2>
      {value.delivered.length === 0 ? <p class="quiet">None yet.</p> : null}
      <ul class="plain-list">
        {value.delivered.map((n, at) => (
          <li key={at} class="card pad">
            <b>{n.event ?? 'notification'}</b> to the {n.target} <Moment at={n.deliveredAt} />{' '}
            {n.attempts > 1 ? <small>at the {n.attempts}. attempt</small> : null}
            <details>
              <summary>What it said</summary>
              <Json text={n.body} label="notification" />
            </details>
          </li>
        ))}
      </ul>
    </>
  );
}

function Audit() {
  const { value, error } = useAsk(() => api.audit(null), 'audit');
  const [more, setMore] = useState<AuditEntry[]>([]);
  const [next, setNext] = useState<string | null | undefined>(undefined);
  const [busy, failed, act] = useAction();
  if (!value) return <Waiting error={error} />;
  const at = next === undefined ? value.next : next;
  const load = () =>
    void act(async () => {
      const page = await api.audit(at);
      setMore((old) => [...old, ...page.entries]);
      setNext(page.next);
    });
  const rows = [...value.entries, ...more];
  return (
    <>
      <p class="quiet">Every change made here or through AWS's API, but for starts and task reports, which stand in the executions.</p>
      {rows.length === 0 ? <p class="empty">Nobody changed anything yet.</p> : null}
      <Table head={['When', 'Who', 'What', 'To', 'Outcome']} hidden={rows.length === 0}>
        {rows.map((d, n) => (
          <tr key={n}>
            <td>
              <Moment at={d.at} />
            </td>
            <td>
              {d.who} <small>{d.role}</small>
            </td>
            <td>
              <code>{d.what}</code> <small>{d.api}</small>
            </td>
            <td class="long">{d.to}</td>
            <td>{d.status < 300 ? 'done' : <span class="bad">refused ({d.status})</span>}</td>
          </tr>
        ))}
      </Table>
      <Notice error={failed} />
      {at ? (
        <button type="button" class="more" disabled={busy} onClick={load}>
          Earlier
        </button>
      ) : null}
    </>
  );
}

function Settings() {
  const { value, error } = useAsk(api.settings, 'settings');
  if (!value) return <Waiting error={error} />;
  return (
    <>
      <p class="quiet">In force since the box started; secrets are left out. They are changed in the configuration file.</p>
      <Json value={value} label="settings" />
      <p>
        <a href="api/v1/openapi.json">OpenAPI document of the API</a>
      </p>
    </>
  );
}

const VIEWS = ['devices', 'lanes', 'benchmarks', 'schedules', 'alarms', 'notifications', 'settings', 'audit'] as const;

export function BoxPage({ tab }: { tab: string }) {
  const isAdmin = useMay('admin');
  const current = tab || 'devices';
  useTitle(`Box: ${current}`);
  return (
    <>
      <h1>Box</h1>
      <Tabs
        label="Parts of the box"
        current={current}
        tabs={VIEWS.map((key) => ({
          key,
          label: key === 'audit' ? 'Audit log' : statusWord(key).replace(/^./, (c) => c.toUpperCase()),
          href: href(['box', key]),
          hidden: key === 'audit' && !isAdmin,
        }))}
      />
      {current === 'devices' ? <DevicesView /> : null}
      {current === 'lanes' ? <Lanes /> : null}
      {current === 'benchmarks' ? <Benchmarks /> : null}
      {current === 'schedules' ? <Schedules /> : null}
      {current === 'alarms' ? <Alarms /> : null}
      {current === 'notifications' ? <NotificationsView /> : null}
      {current === 'settings' ? <Settings /> : null}
      {current === 'audit' && isAdmin ? <Audit /> : null}
    </>
  );
}
