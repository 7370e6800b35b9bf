// Versions and aliases: what was published when, which version an alias leads to, and the way back.
import { useState } from 'preact/hooks';
import * as api from '../../api/client';
import type { Machine } from '../../api/types';
import { useMay } from '../../base/feed';
import { useAction } from '../../base/hooks';
import { href } from '../../base/route';
import { Dialog, Moment, Notice, Table } from '../../components/basics';

type Alias = Machine['aliases'][number];

function AliasForm({ machine, alias, onClose, done }: { machine: Machine; alias: Alias | null; onClose: () => void; done: () => void }) {
  const newest = machine.publishedVersions[0]?.version ?? 1;
  const [name, setName] = useState(alias?.name ?? '');
  const [first, setFirst] = useState(alias?.routes[0]?.version ?? newest);
  const [second, setSecond] = useState(alias?.routes[1]?.version ?? 0);
  const [weight, setWeight] = useState(alias?.routes[0]?.weight ?? 100);
  const [busy, error, act] = useAction();
  const submit = (e: Event) => {
    e.preventDefault();
    const routes = second ? [{ version: first, weight }, { version: second, weight: 100 - weight }] : [{ version: first, weight: 100 }];
    void act(() => api.putAlias(machine.name, name, routes)).then((ok) => {
      if (ok) {
        onClose();
        done();
      }
    });
  };
  const versions = machine.publishedVersions.map((v) => (
    <option key={v.version} value={v.version}>
      version {v.version}
    </option>
  ));
  return (
    <Dialog title={alias ? `Alias ${alias.name}` : 'New alias'} onClose={onClose}>
      <form onSubmit={submit}>
        {alias ? null : (
          <label>
            Name
            <input required value={name} onInput={(e) => setName(e.currentTarget.value)} />
          </label>
        )}
        <label>
          Leads to{' '}
          <select value={first} onChange={(e) => setFirst(Number(e.currentTarget.value))}>
            {versions}
          </select>
        </label>
        <label>
          and to{' '}
          <select value={second} onChange={(e) => setSecond(Number(e.currentTarget.value))}>
            <option value={0}>no other</option>
            {versions}
          </select>
        </label>
        {second ? (
          <label>
            Version {first} gets {weight} %, version {second} gets {100 - weight} %
            <input type="range" min={0} max={100} value={weight} onInput={(e) => setWeight(Number(e.currentTarget.value))} />
          </label>
        ) : null}
        <Notice error={error} />
        <button class="primary" disabled={busy || (second !== 0 && second === first)}>
          Save
        </button>
      </form>
    </Dialog>
  );
}

export function Versions({ machine, reload }: { machine: Machine; reload: () => void }) {
  const [editing, setEditing] = useState<Alias | 'new' | null>(null);
  const [busy, error, act] = useAction();
  const may = useMay('admin');
  const back = (version: number, revision: number) => {
    if (!confirm(`Make version ${version} the newest revision of ${machine.name} again? Executions that run keep theirs.`)) return;
    void act(async () => {
      const { definition } = await api.revision(machine.name, revision);
      await api.saveMachine(machine.name, definition, machine.revision, `Back to version ${version}`);
    }).then(reload);
  };
  return (
    <>
      <Notice error={error} />
      <h2>
        Aliases{' '}
        {may && machine.publishedVersions.length > 0 ? (
          <button type="button" onClick={() => setEditing('new')}>
            New…
          </button>
        ) : null}
      </h2>
      {machine.aliases.length === 0 ? <p class="quiet">None. An alias leads callers to one version, or to two by weight.</p> : null}
      <ul class="brief-list">
        {machine.aliases.map((alias) => (
          <li key={alias.name}>
            <b>{alias.name}</b> → {alias.routes.map((r) => `version ${r.version} (${r.weight} %)`).join(', ')}{' '}
            <small>
              since <Moment at={alias.updatedAt} />
            </small>{' '}
            {may ? (
              <>
                <button type="button" onClick={() => setEditing(alias)}>
                  Change…
                </button>{' '}
                <button
                  type="button"
                  disabled={busy}
                  onClick={() => {
                    if (confirm(`Delete the alias ${alias.name}?`)) {
                      void act(() => api.deleteAlias(machine.name, alias.name)).then(reload);
                    }
                  }}
                >
                  Delete
                </button>
              </>
            ) : null}
          </li>
        ))}
      </ul>
      <h2>Versions</h2>
      {machine.publishedVersions.length === 0 ? <p class="quiet">None is published. Saving here publishes one.</p> : null}
      <Table head={['Version', 'Revision', 'What changed', 'Published', '']}>
        {machine.publishedVersions.map((v) => (
          <tr key={v.version}>
            <td>{v.version}</td>
            <td>
              {v.revision}
              {v.revision === machine.revision ? ' (newest)' : ''}
            </td>
            <td>{v.description}</td>
            <td>
              <Moment at={v.createdAt} />
            </td>
            <td>
              <a href={href(['workflows', machine.name, 'definition'], { revision: v.revision })}>look</a>{' '}
              {may && v.revision !== machine.revision ? (
                <button type="button" disabled={busy} onClick={() => back(v.version, v.revision)}>
                  Roll back to this
                </button>
              ) : null}
            </td>
          </tr>
        ))}
      </Table>
      {editing ? (
        <AliasForm machine={machine} alias={editing === 'new' ? null : editing} onClose={() => setEditing(null)} done={reload} />
      ) : null}
    </>
  );
}
