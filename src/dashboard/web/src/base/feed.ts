// The one live stream of the page, and who listens to it.
import { createContext } from 'preact';
import { useContext, useEffect, useMemo, useRef, useState } from 'preact/hooks';
import { follow, type Live } from '../api/live';
import type { Session } from '../api/types';

export interface Feed {
  subscribe(listener: Partial<Live>): () => void;
}

export const FeedContext = createContext<Feed>({ subscribe: () => () => undefined });
export const useFeed = (): Feed => useContext(FeedContext);

export const SessionContext = createContext<Session>({ user: null, role: null, canSignOut: false });
const RANKS = ['viewer', 'operator', 'admin'];
/** Whether the person at the page may do what needs that role. The box checks it again. */
export function useMay(role: 'operator' | 'admin'): boolean {
  const session = useContext(SessionContext);
  return RANKS.indexOf(session.role ?? '') >= RANKS.indexOf(role);
}

export function useStream(open: boolean): [Feed, boolean] {
  const listeners = useRef(new Set<Partial<Live>>());
  const [connected, setConnected] = useState(true);
  useEffect(() => {
    if (!open) return;
    const each = (call: (l: Partial<Live>) => void) => listeners.current.forEach(call);
    return follow({
      changed: (c) => each((l) => l.changed?.(c)),
      moved: (m) => each((l) => l.moved?.(m)),
      resync: () => each((l) => l.resync?.()),
      connected: setConnected,
    });
  }, [open]);
  const feed = useMemo<Feed>(
    () => ({
      subscribe(listener) {
        listeners.current.add(listener);
        return () => listeners.current.delete(listener);
      },
    }),
    [],
  );
  return [feed, connected];
}
