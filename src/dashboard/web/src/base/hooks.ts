// What pages share: asking the box, asking again, and the present moment.
import { useCallback, useEffect, useRef, useState } from 'preact/hooks';
import type { Live } from '../api/live';
import { useFeed } from './feed';

export interface Asked<T> {
  value: T | null;
  error: string | null;
  reload: () => void;
}

/** Asks once and whenever `key` changes or `reload` is called. A slow old answer never overwrites a newer one. */
export function useAsk<T>(ask: (() => Promise<T>) | null, key: unknown): Asked<T> {
  const [value, setValue] = useState<T | null>(null);
  const [error, setError] = useState<string | null>(null);
  const number = useRef(0);
  const latest = useRef(ask);
  latest.current = ask;
  const load = useCallback(() => {
    const mine = ++number.current;
    latest.current?.().then(
      (answer) => {
        if (mine !== number.current) return;
        setValue(answer);
        setError(null);
      },
      (e: Error) => {
        if (mine === number.current) setError(e.message);
      },
    );
  }, []);
  const before = useRef(key);
  useEffect(() => {
    if (before.current !== key) setValue(null);
    before.current = key;
    load();
  }, [key, load]);
  return { value, error, reload: load };
}

/** The same, and again every so often while somebody looks, and whenever the box says that something happened. */
export function useFresh<T>(ask: () => Promise<T>, key: unknown, everyMs: number, onChange = false): Asked<T> {
  const asked = useAsk(ask, key);
  const { reload } = asked;
  useEffect(() => {
    const timer = setInterval(() => {
      if (!document.hidden) reload();
    }, everyMs);
    const shown = () => {
      if (!document.hidden) reload();
    };
    document.addEventListener('visibilitychange', shown);
    return () => {
      clearInterval(timer);
      document.removeEventListener('visibilitychange', shown);
    };
  }, [everyMs, reload]);
  useChanges(onChange ? () => true : () => false, reload, 1000);
  return asked;
}

/** Calls `act` soon after a change that matters, at most once in `withinMs`, and after the stream was lost. */
export function useChanges(matters: (id: string, root: string) => boolean, act: () => void, withinMs: number): void {
  const feed = useFeed();
  const latest = useRef({ matters, act });
  latest.current = { matters, act };
  useEffect(() => {
    let waiting: ReturnType<typeof setTimeout> | undefined;
    const soon = () => {
      waiting ??= setTimeout(() => {
        waiting = undefined;
        latest.current.act();
      }, withinMs);
    };
    const leave = feed.subscribe({
      changed: (c) => {
        if (latest.current.matters(c.id, c.root)) soon();
      },
      resync: soon,
    });
    return () => {
      clearTimeout(waiting);
      leave();
    };
  }, [feed, withinMs]);
}

export function useLive(listener: Partial<Live>): void {
  const feed = useFeed();
  const latest = useRef(listener);
  latest.current = listener;
  useEffect(
    () => feed.subscribe({ moved: (m) => latest.current.moved?.(m), changed: (c) => latest.current.changed?.(c) }),
    [feed],
  );
}

/** The present moment, once a second while something runs. */
export function useNow(running: boolean): number {
  const [now, setNow] = useState(Date.now());
  useEffect(() => {
    if (!running) return;
    const timer = setInterval(() => setNow(Date.now()), 1000);
    return () => clearInterval(timer);
  }, [running]);
  return now;
}

export function useTitle(title: string): void {
  useEffect(() => {
    document.title = title ? `${title} · Conveyor` : 'Conveyor';
  }, [title]);
}

/** An action with its error: buttons are off while it runs, and what the box refuses is said. */
export function useAction(): [boolean, string | null, (work: () => Promise<unknown>) => Promise<boolean>] {
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState<string | null>(null);
  const act = useCallback(async (work: () => Promise<unknown>) => {
    setBusy(true);
    setError(null);
    try {
      await work();
      return true;
    } catch (e) {
      setError((e as Error).message);
      return false;
    } finally {
      setBusy(false);
    }
  }, []);
  return [busy, error, act];
}
