// Where we are: pages live behind the hash, so that a reload or a bookmark needs nothing from the server, and every
// state, event and filter has a link of its own.
import { useEffect, useState } from 'preact/hooks';

export interface Route {
  path: string[];
  query: URLSearchParams;
}

function read(): Route {
  const [path = '', query = ''] = location.hash.replace(/^#\/?/, '').split('?', 2);
  const parts = path.split('/').filter(Boolean).map((part) => {
    try {
      return decodeURIComponent(part);
    } catch {
      // A link that was cut in the middle of an escape: the box says that there is no such thing.
      return part;
    }
  });
  return { path: parts, query: new URLSearchParams(query) };
}

export function useRoute(): Route {
  const [route, setRoute] = useState(read);
  useEffect(() => {
    const changed = () => setRoute(read());
    addEventListener('hashchange', changed);
    return () => removeEventListener('hashchange', changed);
  }, []);
  return route;
}

type Query = Record<string, string | number | boolean | null | undefined>;

export function href(path: (string | number)[], query: Query = {}): string {
  const search = new URLSearchParams();
  for (const [key, value] of Object.entries(query)) {
    if (value !== null && value !== undefined && value !== '' && value !== false) search.set(key, String(value));
  }
  const text = search.toString();
  return `#/${path.map((part) => encodeURIComponent(part)).join('/')}${text ? `?${text}` : ''}`;
}

export function go(path: (string | number)[], query: Query = {}): void {
  location.hash = href(path, query);
}

/** Changes the address without a step back being needed to leave the page. */
export function replace(path: (string | number)[], query: Query = {}): void {
  history.replaceState(null, '', href(path, query));
  dispatchEvent(new HashChangeEvent('hashchange'));
}

export const toExecution = (id: string): string => href(['executions', id]);
