// Workflows: the list, and one of them.
import { useState } from 'preact/hooks';
import * as api from '../../api/client';
import { useMay } from '../../base/feed';
import { count } from '../../base/format';
import { useAction, useFresh, useTitle } from '../../base/hooks';
import { go, href } from '../../base/route';
import { Dialog, Moment, Notice, Table, Waiting } from '../../components/basics';
import { WorkflowPage } from './WorkflowPage';

const FIRST = `{
  "Comment": "A new workflow",
  "StartAt": "First",
  "States": {
    "First": { "Type": "Pass", "End": true }
  }
}
`;

function Create({ onClose }: { onClose: () => void }) {
  const [name, setName] = useState('');
  const [express, setExpress] = useState(false);
  const [busy, error, act] = useAction();
  const submit = (e: Event) => {
    e.preventDefault();
    void act(() => api.createMachine(name, FIRST, express)).then((ok) => {
      if (ok) go(['workflows', name, 'edit']);
    });
  };
  return (
    <Dialog title="New workflow" onClose={onClose}>
      <form onSubmit={submit}>
        <label>
          Name
          <input required maxLength={80} value={name} onInput={(e) => setName(e.currentTarget.value)} />
        </label>
        <label>
          <input type="checkbox" checked={express} onChange={(e) => setExpress(e.currentTarget.checked)} /> Express: short, many, at
          least once
        </label>
        <Notice error={error} />
        <button class="primary" disabled={busy}>
          Create and edit
        </button>
      </form>
    </Dialog>
  );
}

function List() {
  useTitle('Workflows');
  const { value, error } = useFresh(api.machines, 'machines', 10_000, true);
  const [creating, setCreating] = useState(false);
  const may = useMay('admin');
  if (!value) return <Waiting error={error} />;
  const total = (m: (typeof value.machines)[number], status: 'RUNNING' | 'SUCCEEDED') => m.executions[status] ?? 0;
  return (
    <>
      <h1>
        Workflows{' '}
        {may ? (
          <button type="button" onClick={() => setCreating(true)}>
            New…
          </button>
        ) : null}
      </h1>
      <Table
        head={['Name', 'Type', { number: 'Running' }, { number: 'Done' }, { number: 'Failed' }, { number: 'Versions' }, 'Changed']}
      >
        {value.machines.map((m) => {
          const failed = (m.executions.FAILED ?? 0) + (m.executions.TIMED_OUT ?? 0);
          const toList = (status: string) => href(['executions'], { machine: m.name, status, nested: true });
          return (
            <tr key={m.name}>
              <td>
                <a href={href(['workflows', m.name])}>{m.name}</a>
              </td>
              <td>{m.type.toLowerCase()}</td>
              <td class="number">
                <a href={toList('RUNNING')}>{count(total(m, 'RUNNING'))}</a>
              </td>
              <td class="number">
                <a href={toList('SUCCEEDED')}>{count(total(m, 'SUCCEEDED'))}</a>
              </td>
              <td class="number">
                <a href={toList('FAILED')}>{count(failed)}</a>
              </td>
              <td class="number">{m.versions}</td>
              <td>
                <Moment at={m.updatedAt} />
              </td>
            </tr>
          );
        })}
      </Table>
      {creating ? <Create onClose={() => setCreating(false)} /> : null}
    </>
  );
}

export function WorkflowsPage({ name, tab, query }: { name: string | null; tab: string; query: URLSearchParams }) {
  return name === null ? <List /> : <WorkflowPage name={name} tab={tab} query={query} />;
}
