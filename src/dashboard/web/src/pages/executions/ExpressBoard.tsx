// Express executions: what runs, what ended lately. They live in memory, so there is no page of one of them; what they
// did goes to the log that their state machine names.
import { useState } from 'preact/hooks';
import * as api from '../../api/client';
import { useMay } from '../../base/feed';
import { count, duration } from '../../base/format';
import { useAction, useFresh, useNow, useTitle } from '../../base/hooks';
import { href } from '../../base/route';
import { Badge, Moment, Notice, Table, Waiting } from '../../components/basics';

export function ExpressBoard() {
  useTitle('Express executions');
  const { value, error, reload } = useFresh(api.express, 'express', 3_000);
  const [failed, setFailed] = useState(false);
  const [busy, refused, act] = useAction();
  const may = useMay('operator');
  const now = useNow(true);
  if (!value) return <Waiting error={error} />;
  const ended = value.ended.filter((e) => !failed || e.status !== 'SUCCEEDED');
  return (
    <>
      <Notice error={refused} />
      <Table
        head={['Workflow, since the box started', { number: 'Started' }, { number: 'Done' }, { number: 'Failed' }, { number: 'Timed out' }, { number: 'Stopped' }]}
        hidden={Object.keys(value.machines).length === 0}
      >
        {Object.entries(value.machines).map(([name, c]) => (
          <tr key={name}>
            <td>
              <a href={href(['workflows', name])}>{name}</a>
            </td>
            <td class="number">{count(c.started)}</td>
            <td class="number">{count(c.succeeded)}</td>
            <td class="number">{count(c.failed)}</td>
            <td class="number">{count(c.timedOut)}</td>
            <td class="number">{count(c.aborted)}</td>
          </tr>
        ))}
      </Table>
      <h2>Running now {count(value.runningTotal)}</h2>
      {value.running.length === 0 ? <p class="quiet">None.</p> : null}
      <ul class="plain-list">
        {value.running.map((e) => (
          <li key={e.id} class="card pad">
            <b>{e.machine}</b> {e.name} <small>{duration(now - e.startedAt)}{by('started', e.startedBy)}{e.sync ? ' · somebody waits for it' : ''}</small>{' '}
            {may ? (
              <button type="button" disabled={busy} onClick={() => void act(() => api.stopExpress(e.id)).then(reload)}>
                Stop
              </button>
            ) : null}
          </li>
        ))}
      </ul>
      <h2>Ended lately</h2>
      <label>
        <input type="checkbox" checked={failed} onChange={(e) => setFailed(e.currentTarget.checked)} /> only what did not succeed
      </label>
      {ended.length === 0 ? <p class="quiet">None.</p> : null}
      <Table head={['Workflow', 'Name', 'Status', 'Started', 'Took', 'Error']} hidden={ended.length === 0}>
        {ended.map((e) => (
          <tr key={e.arn}>
            <td>{e.machine}</td>
            <td class="long">{e.name}</td>
            <td>
              <Badge status={e.status} />
            </td>
            <td>
              <Moment at={e.startedAt} />
            </td>
            <td>{duration(e.stoppedAt - e.startedAt)}</td>
            <td class="long">
              {e.error ? <span class="error-name">{e.error}</span> : null} <small>{e.cause}</small>
              <small>{by('started', e.startedBy)}{by('stopped', e.stoppedBy)}</small>
            </td>
          </tr>
        ))}
      </Table>
    </>
  );
}

/** Whose doing it was; of what nobody did by hand, nothing. */
function by(what: string, who: string | null): string {
  return who ? ` · ${what} by ${who}` : '';
}
