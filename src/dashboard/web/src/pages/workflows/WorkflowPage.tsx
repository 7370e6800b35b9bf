// One workflow: its graph and definition, problems, versions and aliases, an editor with a live graph, one state tried.
import { useEffect, useMemo, useState } from 'preact/hooks';
import * as api from '../../api/client';
import type { Machine, Problem } from '../../api/types';
import { useMay } from '../../base/feed';
import { plural, pretty } from '../../base/format';
import { useAction, useAsk, useTitle } from '../../base/hooks';
import { go, href, replace } from '../../base/route';
import { Dialog, Lazy, Moment, Notice, Tabs, Waiting } from '../../components/basics';
import { Code } from '../../components/Code';
import { Graph } from '../../graph/Graph';
import { allStates } from '../../graph/layout';
import { InputEditor } from '../execution/Actions';
import { TryState } from './TryState';
import { Versions } from './Versions';

export function namesOf(definition: string): string[] {
  try {
    return Object.keys(allStates(JSON.parse(definition) as Parameters<typeof allStates>[0]));
  } catch {
    return [];
  }
}

/** The state that a problem's pointer leads into: the last name behind a `States`. */
function stateOf(pointer: string): string | null {
  const parts = pointer.split('/').map((p) => p.replace(/~1/g, '/').replace(/~0/g, '~'));
  const at = parts.lastIndexOf('States');
  return at >= 0 ? (parts[at + 1] ?? null) : null;
}

function Problems({ problems, onPick }: { problems: Problem[]; onPick?: (p: Problem) => void }) {
  if (problems.length === 0) return <p class="good-line">✓ Validation finds no problem.</p>;
  return (
    <ul class="problems" aria-label="Problems">
      {problems.map((p, n) => (
        <li key={n} class={p.severity}>
          <button type="button" class="plain" disabled={!onPick} onClick={() => onPick?.(p)}>
            {p.line}:{p.column}
          </button>{' '}
          <b>{p.severity}</b> {p.message} <code>{p.pointer || '/'}</code>
        </li>
      ))}
    </ul>
  );
}

function Edit({ machine, based, onSaved }: { machine: Machine; based: string; onSaved: () => void }) {
  // What a program wrote in one line nobody can edit.
  const [text, setText] = useState(based.includes('\n') ? based : pretty(based));
  const [problems, setProblems] = useState<Problem[]>([]);
  const [line, setLine] = useState<number | null>(null);
  const [note, setNote] = useState('');
  const [busy, error, act] = useAction();
  const express = machine.type === 'EXPRESS';
  useEffect(() => {
    const typing = setTimeout(() => {
      api.validate(text, express).then((r) => setProblems(r.problems), () => undefined);
    }, 350);
    return () => clearTimeout(typing);
  }, [text, express]);
  // Leaving with work that is not saved asks first.
  useEffect(() => {
    if (text === based) return;
    const ask = (e: BeforeUnloadEvent) => e.preventDefault();
    addEventListener('beforeunload', ask);
    return () => removeEventListener('beforeunload', ask);
  }, [text === based]);
  const errors = problems.filter((p) => p.severity === 'error').length;
  const wrong = useMemo(() => new Set(problems.map((p) => stateOf(p.pointer)).filter((s): s is string => s !== null)), [problems]);
  const lineOf = (name: string) => text.split('\n').findIndex((l) => l.includes(JSON.stringify(name))) + 1;
  const save = (e: Event) => {
    e.preventDefault();
    void act(() => api.saveMachine(machine.name, text, machine.revision, note || 'Saved on the dashboard')).then((ok) => {
      if (ok) onSaved();
    });
  };
  return (
    <form onSubmit={save}>
      <div class="edit">
        <Lazy
          load={async () => (await import('../../components/Editor')).Editor}
          with={{ text, onChange: setText, problems, line, label: `Definition of ${machine.name}` }}
        />
        <Graph definition={text} selected={null} wrong={wrong} onSelect={(name) => setLine(lineOf(name))} />
      </div>
      <Problems problems={problems} onPick={(p) => setLine(p.line)} />
      <div class="actions save">
        <label>
          What changed{' '}
          <input value={note} maxLength={256} placeholder="for the list of versions" onInput={(e) => setNote(e.currentTarget.value)} />
        </label>
        <button class="primary" disabled={busy || errors > 0 || text === machine.definition || (!machine.definition.includes('\n') && text === pretty(machine.definition))}>
          Save as a new version
        </button>
        <button type="button" onClick={() => setText(pretty(text))}>
          Format
        </button>
        {errors > 0 ? <span class="quiet">{plural(errors, 'error')} to mend first</span> : null}
      </div>
      <Notice error={error} />
      <p class="quiet small">Executions that run keep the revision that they began with.</p>
    </form>
  );
}

function Start({ machine, onClose }: { machine: Machine; onClose: () => void }) {
  const [text, setText] = useState('{\n  "bucket": "incoming",\n  "key": "clip.mp4"\n}');
  const [qualifier, setQualifier] = useState('');
  const [busy, error, act] = useAction();
  const submit = (e: Event) => {
    e.preventDefault();
    void act(async () => {
      const { id } = await api.start(machine.name, JSON.parse(text) as unknown, '', qualifier);
      go(['executions', id]);
    });
  };
  return (
    <Dialog title={`Start ${machine.name}`} onClose={onClose} wide>
      <form onSubmit={submit}>
        <label>
          Through{' '}
          <select value={qualifier} onChange={(e) => setQualifier(e.currentTarget.value)}>
            <option value="">the newest revision</option>
            {machine.aliases.map((a) => (
              <option key={a.name} value={a.name}>
                alias {a.name}
              </option>
            ))}
            {machine.publishedVersions.map((v) => (
              <option key={v.version} value={String(v.version)}>
                version {v.version}
              </option>
            ))}
          </select>
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

export function WorkflowPage({ name, tab, query }: { name: string; tab: string; query: URLSearchParams }) {
  const { value: machine, error, reload } = useAsk(() => api.machine(name), name);
  const [starting, setStarting] = useState(false);
  const isAdmin = useMay('admin');
  const isOperator = useMay('operator');
  const older = query.get('revision');
  const past = useAsk(older ? () => api.revision(name, Number(older)) : null, `${name} ${older ?? ''}`);
  useTitle(name);
  if (!machine) return <Waiting error={error} />;
  const selected = query.get('state');
  const shown = older ? (past.value?.definition ?? null) : machine.definition;
  const problems = older ? (past.value?.problems ?? []) : machine.problems;
  const current = tab || 'graph';
  const path = tab ? ['workflows', name, tab] : ['workflows', name];
  const to = (key: string) => href(key === 'graph' ? ['workflows', name] : ['workflows', name, key], { revision: older, state: selected });
  return (
    <article>
      <p class="crumbs">
        <a href="#/workflows">Workflows</a>
      </p>
      <h1>{name}</h1>
      <p class="facts">
        <span>{machine.type.toLowerCase()}</span>
        <span>revision {machine.revision}</span>
        <span>
          changed <Moment at={machine.updatedAt} />
        </span>
        <a href={href(['executions'], { machine: name, nested: true })}>executions</a>
      </p>
      <div class="actions">
        {isOperator ? (
          <button type="button" class="primary" onClick={() => setStarting(true)}>
            Start…
          </button>
        ) : null}
      </div>
      {older ? (
        <p class="lost">
          You look at revision {older}. <a href={href(path)}>To the newest</a>
        </p>
      ) : null}
      <Tabs
        label="Views"
        current={current}
        tabs={[
          { key: 'graph', label: 'Graph', href: to('graph') },
          { key: 'definition', label: 'Definition', href: to('definition') },
          { key: 'versions', label: 'Versions and aliases', href: to('versions') },
          { key: 'edit', label: 'Edit', href: to('edit'), hidden: !isAdmin },
          { key: 'try', label: 'Try a state', href: to('try'), hidden: !isOperator },
        ]}
      />
      {shown === null ? (
        <Waiting error={past.error} />
      ) : (
        <>
          {current === 'graph' ? (
            <div class={selected ? 'with-panel' : ''}>
              <div class="view">
                <Graph definition={shown} selected={selected} onSelect={(state) => replace(path, { state, revision: older })} />
                <Problems problems={problems} />
              </div>
              {selected ? (
                <aside class="state-panel" aria-label={`State ${selected}`}>
                  <header>
                    <h2>{selected}</h2>
                    <button type="button" class="plain" aria-label="Close the state" onClick={() => replace(path, { revision: older })}>
                      ✕
                    </button>
                  </header>
                  <Code text={pretty(shown)} marked={selected} label="Definition" />
                  {isOperator ? <a class="button" href={href(['workflows', name, 'try'], { state: selected })}>Try this state</a> : null}
                </aside>
              ) : null}
            </div>
          ) : null}
          {current === 'definition' ? (
            <>
              <Problems problems={problems} />
              <Code text={shown} marked={selected} label="Definition" />
            </>
          ) : null}
          {current === 'versions' ? <Versions machine={machine} reload={reload} /> : null}
          {current === 'edit' && isAdmin ? (
            <Edit
              key={`${machine.revision} ${older ?? ''}`}
              machine={machine}
              based={shown}
              onSaved={() => {
                reload();
                go(['workflows', name, 'versions']);
              }}
            />
          ) : null}
          {current === 'try' ? <TryState definition={shown} names={namesOf(shown)} selected={selected} /> : null}
        </>
      )}
      {starting ? <Start machine={machine} onClose={() => setStarting(false)} /> : null}
    </article>
  );
}
