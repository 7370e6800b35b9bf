// Drag a file onto the page, or pick one that lies on a share; choose a workflow and its input; start.
import { useEffect, useRef, useState } from 'preact/hooks';
import type { Upload } from 'tus-js-client';
import * as api from '../../api/client';
import type { Share } from '../../api/types';
import { useMay } from '../../base/feed';
import { bytes, duration, exactMoment } from '../../base/format';
import { useAction, useAsk, useTitle } from '../../base/hooks';
import { go, href } from '../../base/route';
import { Notice, Waiting } from '../../components/basics';
import { InputEditor } from '../execution/Actions';

/** What a request carries: a cut-off one loses no more than this. */
const CHUNK = 16 * 1024 * 1024;

interface Going {
  file: File;
  sent: number;
  began: number;
  state: 'going' | 'paused' | 'done' | 'failed';
  error: string | null;
  upload: Upload | null;
  key: string;
}

function useUploads(share: string) {
  const [all, setAll] = useState<Going[]>([]);
  const set = (file: File, change: Partial<Going>) =>
    setAll((old) => old.map((g) => (g.file === file ? { ...g, ...change } : g)));
  const add = async (files: File[]) => {
    const { Upload: Tus } = await import('tus-js-client');
    for (const file of files) {
      const upload = new Tus(file, {
        endpoint: new URL('api/v1/uploads', location.href).href,
        chunkSize: CHUNK,
        retryDelays: [0, 1000, 3000, 5000, 10_000, 20_000, 60_000],
        metadata: { filename: file.name, share },
        removeFingerprintOnSuccess: true,
        onProgress: (sent) => set(file, { sent, state: 'going', error: null }),
        onAfterResponse: (_, response) => {
          const key = response.getHeader('x-conveyor-key');
          if (key) set(file, { key: decodeURIComponent(key) });
        },
        onSuccess: () => set(file, { state: 'done', sent: file.size }),
        onError: (e) => {
          const said = 'originalResponse' in e ? e.originalResponse?.getBody() : null;
          let error = e.message;
          try {
            error = (JSON.parse(said ?? '') as { error?: string }).error ?? error;
          } catch {
            // The library's own words.
          }
          set(file, { state: 'failed', error });
        },
        // A rejected start is not asked again; a lost connection is.
        onShouldRetry: (e) => {
          const status = e.originalResponse?.getStatus() ?? 0;
          return status === 0 || status === 409 || status >= 500;
        },
      });
      setAll((old) => [...old, { file, sent: 0, began: Date.now(), state: 'going', error: null, upload, key: file.name }]);
      // Whoever closed the page in the middle goes on from there.
      const before = await upload.findPreviousUploads();
      if (before[0]) upload.resumeFromPreviousUpload(before[0]);
      upload.start();
    }
  };
  return { all, add, set };
}

function Row({ going, share, onPick }: { going: Going; share: Share | undefined; onPick: () => void }) {
  const { file, sent, state, upload } = going;
  const rate = sent / Math.max(1, (Date.now() - going.began) / 1000);
  return (
    <li class="card pad upload">
      <b>{going.key}</b>{' '}
      <span class="quiet">
        {bytes(sent)} of {bytes(file.size)}
        {state === 'going' && sent > 0 ? ` · ${bytes(rate)}/s · ${duration(((file.size - sent) / Math.max(1, rate)) * 1000)} left` : ''}
      </span>
      <progress max={file.size || 1} value={state === 'done' ? file.size || 1 : sent} aria-label={`${file.name} uploaded`} />
      {state === 'going' ? (
        <button type="button" onClick={() => void upload?.abort()}>
          Pause
        </button>
      ) : null}
      {state === 'done' ? (
        share?.watched ? (
          <span class="good-line">
            It has landed. The watch of ‘{share.name}’ starts ‘{share.watched}’ for it by itself. <a href={href(['executions'])}>Executions</a>
          </span>
        ) : (
          <button type="button" onClick={onPick}>
            Choose a workflow for it…
          </button>
        )
      ) : null}
      {state === 'failed' ? (
        <button type="button" onClick={() => upload?.start()}>
          Try again
        </button>
      ) : null}
      <Notice error={going.error} />
    </li>
  );
}

function Browse({ share, onPick }: { share: string; onPick: (key: string) => void }) {
  const [under, setUnder] = useState('');
  useEffect(() => setUnder(''), [share]);
  const { value, error } = useAsk(() => api.files(share, under), `${share} ${under}`);
  const parts = under.split('/').filter(Boolean);
  return (
    <section class="card pad" aria-label={`Files of ${share}`}>
      <p class="crumbs">
        <button type="button" class="plain" onClick={() => setUnder('')}>
          {share}
        </button>
        {parts.map((part, n) => (
          <span key={n}>
            {' / '}
            <button type="button" class="plain" onClick={() => setUnder(parts.slice(0, n + 1).join('/'))}>
              {part}
            </button>
          </span>
        ))}
      </p>
      {!value ? <Waiting error={error} /> : null}
      <ul class="file-list">
        {value?.files.map((f) => (
          <li key={f.key}>
            <button type="button" class="plain" onClick={() => (f.folder ? setUnder(f.key) : onPick(f.key))}>
              {f.folder ? '📁 ' : ''}
              {f.name}
            </button>
            <small>
              {f.bytes !== null ? bytes(f.bytes) : ''} {f.modifiedAt ? exactMoment(f.modifiedAt) : ''}
            </small>
          </li>
        ))}
      </ul>
      {value?.files.length === 0 ? <p class="quiet">There is nothing here.</p> : null}
      {value?.more ? <p class="quiet">There is more; only the first files are shown.</p> : null}
    </section>
  );
}

function StartWith({ share, file }: { share: string; file: string }) {
  const { value } = useAsk(api.machines, 'machines');
  const [machine, setMachine] = useState('main');
  const [text, setText] = useState('');
  const [busy, error, act] = useAction();
  useEffect(() => setText(JSON.stringify({ bucket: share, key: file }, null, 2)), [share, file]);
  const submit = (e: Event) => {
    e.preventDefault();
    void act(async () => {
      const { id } = await api.start(machine, JSON.parse(text) as unknown);
      go(['executions', id]);
    });
  };
  return (
    <form onSubmit={submit} class="card pad" aria-label="Start">
      <h2>Start with {file}</h2>
      <label>
        Workflow{' '}
        <select value={machine} onChange={(e) => setMachine(e.currentTarget.value)}>
          {value?.machines.map((m) => (
            <option key={m.name}>{m.name}</option>
          ))}
        </select>
      </label>
      <InputEditor text={text} set={setText} />
      <Notice error={error} />
      <button class="primary" disabled={busy}>
        Start
      </button>
    </form>
  );
}

export function UploadPage() {
  useTitle('Upload');
  const { value, error } = useAsk(api.shares, 'shares');
  const [share, setShare] = useState('');
  const [over, setOver] = useState(false);
  const [picked, setPicked] = useState<string | null>(null);
  const input = useRef<HTMLInputElement>(null);
  const may = useMay('operator');
  const names = value?.shares.filter((s) => s.reachable) ?? [];
  const chosen = share || names.find((s) => s.watched)?.name || names[0]?.name || '';
  const { all, add } = useUploads(chosen);
  if (!may) return <p class="empty">Uploading needs the role operator.</p>;
  if (!value) return <Waiting error={error} />;
  if (names.length === 0) return <p class="empty">No share can be reached, so there is nowhere to upload to.</p>;
  const current = names.find((s) => s.name === chosen);
  const dropped = (e: DragEvent) => {
    e.preventDefault();
    setOver(false);
    void add([...(e.dataTransfer?.files ?? [])]);
  };
  return (
    <>
      <h1>Upload and start</h1>
      <label>
        Share{' '}
        <select
          value={chosen}
          onChange={(e) => {
            setShare(e.currentTarget.value);
            setPicked(null);
          }}
        >
          {names.map((s) => (
            <option key={s.name} value={s.name}>
              {s.name}
              {s.watched ? ` (watched: starts ${s.watched})` : ''}
              {s.fileSystem ? `, ${bytes(s.fileSystem.free)} free` : ''}
            </option>
          ))}
        </select>
      </label>
      <div
        class={`drop ${over ? 'over' : ''}`}
        onDragOver={(e) => {
          e.preventDefault();
          setOver(true);
        }}
        onDragLeave={() => setOver(false)}
        onDrop={dropped}
      >
        <p>Drop files here. They go straight to the share, and go on where they were if the connection is lost.</p>
        <button type="button" onClick={() => input.current?.click()}>
          Choose files…
        </button>
        <input
          ref={input}
          type="file"
          multiple
          aria-label="Files to upload"
          class="visually-hidden"
          tabIndex={-1}
          onChange={(e) => {
            void add([...(e.currentTarget.files ?? [])]);
            e.currentTarget.value = '';
          }}
        />
      </div>
      <ul class="plain-list">
        {all.map((going, n) => (
          <Row key={n} going={going} share={current} onPick={() => setPicked(going.key)} />
        ))}
      </ul>
      <h2>Or a file that is there</h2>
      <div class="two-columns">
        <Browse share={chosen} onPick={setPicked} />
        {picked ? <StartWith share={chosen} file={picked} /> : <p class="quiet">Pick a file to start a workflow with it.</p>}
      </div>
    </>
  );
}
