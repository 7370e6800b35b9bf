// Small things that stand on every page.
import type { ComponentChildren } from 'preact';
import { useEffect, useRef, useState } from 'preact/hooks';
import type { Progress } from '../api/types';
import { duration, exactMoment, moment, statusWord, utc } from '../base/format';

/** A status is a word and a sign besides its colour. */
export function Badge({ status }: { status: string }) {
  return <span class={`badge ${status}`}>{statusWord(status)}</span>;
}

/** A time where the viewer is; the exact one, and UTC, when one points at it. */
export function Moment({ at }: { at: number }) {
  return (
    <time dateTime={new Date(at).toISOString()} title={`${exactMoment(at)}\n${utc(at)}`}>
      {moment(at)}
    </time>
  );
}

export function Notice({ error }: { error: string | null }) {
  return error ? (
    <p class="notice" role="alert">
      {error}
    </p>
  ) : null;
}

interface TableProps {
  /** Names of the columns; one of numbers stands on the right. */
  head: (string | { number: string })[];
  hidden?: boolean;
  /** The rows. */
  children: ComponentChildren;
}

/** A table that scrolls by itself where it is wider than the screen, also by the keyboard. */
export function Table({ head, hidden = false, children }: TableProps) {
  return (
    <div class="table-scroll" tabIndex={0}>
      <table hidden={hidden}>
        <thead>
          <tr>
            {head.map((name) =>
              typeof name === 'string' ? (
                <th key={name}>{name}</th>
              ) : (
                <th key={name.number} class="number">
                  {name.number}
                </th>
              ),
            )}
          </tr>
        </thead>
        <tbody>{children}</tbody>
      </table>
    </div>
  );
}

/** Says that something is asked for, or why it did not come. */
export function Waiting({ error }: { error: string | null }) {
  return error ? <Notice error={error} /> : <p class="empty">Loading…</p>;
}

export function Bar({ progress }: { progress: Progress }) {
  const percent = Math.round(Math.min(1, Math.max(0, progress.fraction)) * 100);
  const facts = [
    `${percent} %`,
    progress.lane ?? '',
    progress.fps ? `${progress.fps.toFixed(0)} fps` : '',
    progress.speed ? `${progress.speed.toFixed(1)}× real time` : '',
    progress.leftMs ? `${duration(progress.leftMs)} left` : '',
  ].filter(Boolean);
  return (
    <div class="progress">
      <div class="what">
        {progress.state}
        {progress.doing ? ` · ${progress.doing}` : ''}
      </div>
      <progress max={100} value={percent} aria-label={`${progress.state} ${percent} percent`} />
      <div class="facts">{facts.join(' · ')}</div>
    </div>
  );
}

/** A picture, or the sign that there is none: what was named may have been moved or cleared away since. */
export function Thumb({ url }: { url: string | null }) {
  const [broken, setBroken] = useState(false);
  useEffect(() => setBroken(false), [url]);
  return (
    <span class="thumb">
      {url && !broken ? (
        <img src={url} alt="" loading="lazy" onError={() => setBroken(true)} />
      ) : (
        <span aria-hidden="true">▸</span>
      )}
    </span>
  );
}

export interface Tab {
  key: string;
  label: string;
  href: string;
  hidden?: boolean;
}

/** Links that look like tabs: each has an address. */
export function Tabs({ tabs, current, label }: { tabs: Tab[]; current: string; label: string }) {
  return (
    <nav class="tabs" aria-label={label}>
      {tabs
        .filter((tab) => !tab.hidden)
        .map((tab) => (
          <a key={tab.key} href={tab.href} aria-current={tab.key === current ? 'page' : undefined}>
            {tab.label}
          </a>
        ))}
    </nav>
  );
}

/** A question over the page. The browser keeps the focus inside and closes it on Escape. */
export function Dialog(props: { title: string; onClose: () => void; wide?: boolean; children: ComponentChildren }) {
  const dialog = useRef<HTMLDialogElement>(null);
  useEffect(() => dialog.current?.showModal(), []);
  return (
    <dialog ref={dialog} class={props.wide ? 'wide' : ''} aria-label={props.title} onClose={props.onClose}>
      <header>
        <h2>{props.title}</h2>
        <button type="button" class="plain" aria-label="Close" onClick={() => dialog.current?.close()}>
          ✕
        </button>
      </header>
      {props.children}
    </dialog>
  );
}

/** Loads a part of the program when it is first shown. */
export function Lazy<P extends object>(props: { load: () => Promise<(props: P) => unknown>; with: P }) {
  const [Part, setPart] = useState<((props: P) => unknown) | null>(null);
  const [error, setError] = useState<string | null>(null);
  useEffect(() => {
    let gone = false;
    props.load().then(
      (part) => {
        if (!gone) setPart(() => part);
      },
      () => {
        if (!gone) setError('This part of the page could not be loaded. Reload the page; the box may have been updated.');
      },
    );
    return () => {
      gone = true;
    };
  }, []);
  if (!Part) return <Waiting error={error} />;
  const Shown = Part as (props: P) => preact.JSX.Element;
  return <Shown {...props.with} />;
}
