// What a person can do with an execution: stop it, continue it, start it again with other input.
import { useState } from 'preact/hooks';
import * as api from '../../api/client';
import type { Detail } from '../../api/types';
import { useMay } from '../../base/feed';
import { pretty } from '../../base/format';
import { useAction } from '../../base/hooks';
import { go, href } from '../../base/route';
import { Dialog, Notice } from '../../components/basics';

/** Input to edit, checked while one types. */
export function InputEditor({ text, set }: { text: string; set: (text: string) => void }) {
  let wrong: string | null = null;
  try {
    JSON.parse(text);
  } catch (e) {
    wrong = (e as Error).message;
  }
  return (
    <label class="input-editor">
      Input (JSON)
      <textarea
        rows={Math.min(24, Math.max(6, text.split('\n').length + 1))}
        spellcheck={false}
        aria-invalid={wrong !== null}
        value={text}
        onInput={(e) => set(e.currentTarget.value)}
      />
      <span class={wrong ? 'notice small' : 'quiet small'}>{wrong ?? 'valid JSON'}</span>
    </label>
  );
}

function StartAgain({ detail, onClose }: { detail: Detail; onClose: () => void }) {
  const [text, setText] = useState(pretty(detail.input));
  const [name, setName] = useState('');
  const [busy, error, act] = useAction();
  const submit = (e: Event) => {
    e.preventDefault();
    void act(async () => {
      const { id } = await api.start(detail.machine, JSON.parse(text) as unknown, name);
      onClose();
      go(['executions', id]);
    });
  };
  return (
    <Dialog title={`Start ${detail.machine} again`} onClose={onClose} wide>
      <form onSubmit={submit}>
        <label>
          Name <small>(the box makes one up)</small>
          <input value={name} maxLength={80} onInput={(e) => setName(e.currentTarget.value)} />
        </label>
        <InputEditor text={text} set={setText} />
        <Notice error={error} />
        <button class="primary" disabled={busy}>
          Start
        </button>
      </form>
    </Dialog>
  );
}

function Stop({ detail, onClose, done }: { detail: Detail; onClose: () => void; done: () => void }) {
  const [cause, setCause] = useState('');
  const [busy, error, act] = useAction();
  const submit = (e: Event) => {
    e.preventDefault();
    void act(() => api.stop(detail.id, cause)).then((ok) => {
      if (ok) {
        onClose();
        done();
      }
    });
  };
  return (
    <Dialog title={`Stop ${detail.file ?? detail.name}?`} onClose={onClose}>
      <form onSubmit={submit}>
        <p>What runs for it is ended at once, also what it started.</p>
        <label>
          Why <small>(stands in its history)</small>
          <input value={cause} onInput={(e) => setCause(e.currentTarget.value)} />
        </label>
        <Notice error={error} />
        <button class="primary danger" disabled={busy}>
          Stop it
        </button>
      </form>
    </Dialog>
  );
}

export function Actions({ detail, reload }: { detail: Detail; reload: () => void }) {
  const [busy, error, act] = useAction();
  const [asking, setAsking] = useState<'stop' | 'again' | null>(null);
  const may = useMay('operator');
  return (
    <div class="actions">
      {may && detail.redrivable ? (
        <button
          type="button"
          class="primary"
          disabled={busy}
          onClick={() => void act(() => api.redrive(detail.id)).then(reload)}
        >
          Continue from the failed state
        </button>
      ) : null}
      {may && detail.status === 'RUNNING' ? (
        <button type="button" onClick={() => setAsking('stop')}>
          Stop
        </button>
      ) : null}
      {may && detail.parent === null ? (
        <button type="button" onClick={() => setAsking('again')}>
          Start again…
        </button>
      ) : null}
      <a class="button" href={href(['workflows', detail.machine])}>
        Workflow
      </a>
      <Notice error={error} />
      {asking === 'stop' ? <Stop detail={detail} onClose={() => setAsking(null)} done={reload} /> : null}
      {asking === 'again' ? <StartAgain detail={detail} onClose={() => setAsking(null)} /> : null}
    </div>
  );
}
