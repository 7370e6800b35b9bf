// One state tried out: TestState, with its data on the way. A mocked result keeps it from doing anything.
import { useState } from 'preact/hooks';
import * as api from '../../api/client';
import type { Tried } from '../../api/types';
import { parsed } from '../../base/format';
import { useAction } from '../../base/hooks';
import { Notice } from '../../components/basics';
import { Json } from '../../components/Json';
import { InputEditor } from '../execution/Actions';
import { Failed } from '../execution/StatePanel';

export function TryState({ definition, names, selected }: { definition: string; names: string[]; selected: string | null }) {
  const [name, setName] = useState(selected ?? names[0] ?? '');
  const [input, setInput] = useState('{}');
  const [mock, setMock] = useState('');
  const [tried, setTried] = useState<Tried | null>(null);
  const [busy, error, act] = useAction();
  const submit = (e: Event) => {
    e.preventDefault();
    setTried(null);
    void act(async () => {
      const asked: Record<string, unknown> = { definition, stateName: name, input };
      if (mock.trim()) asked.mock = { result: mock, fieldValidationMode: 'NONE' };
      setTried(await api.testState(asked));
    });
  };
  return (
    <div class="try-out">
      <form onSubmit={submit}>
        <label>
          State{' '}
          <select value={name} onChange={(e) => setName(e.currentTarget.value)}>
            {names.map((n) => (
              <option key={n}>{n}</option>
            ))}
          </select>
        </label>
        <InputEditor text={input} set={setInput} />
        <label class="input-editor">
          Mocked result (JSON) <small>without one, a Task is really carried out; media stages need one</small>
          <textarea rows={4} spellcheck={false} value={mock} onInput={(e) => setMock(e.currentTarget.value)} />
        </label>
        <button class="primary" disabled={busy}>
          Try it
        </button>
        <Notice error={error} />
      </form>
      {tried ? (
        <section aria-label="Outcome">
          <h2>
            <span class={`badge ${tried.status === 'SUCCEEDED' ? 'SUCCEEDED' : tried.status === 'FAILED' ? 'FAILED' : 'CAUGHT'}`}>
              {tried.status.toLowerCase().replace('_', ' ')}
            </span>
            {tried.nextState ? <small> next: {tried.nextState}</small> : null}
          </h2>
          <Failed error={tried.error} cause={tried.cause} />
          {tried.output !== undefined ? (
            <>
              <h4>Output</h4>
              <Json text={tried.output} label="output" />
            </>
          ) : null}
          {Object.entries(tried.inspectionData ?? {}).map(([key, value]) => (
            <div key={key}>
              <h4>{key}</h4>
              <Json value={typeof value === 'string' ? parsed(value) : value} label={key} />
            </div>
          ))}
        </section>
      ) : null}
    </div>
  );
}
