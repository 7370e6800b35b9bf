// The box's REST doors as types, and the one stream of live events. Times are milliseconds since the epoch.

export type Status = 'RUNNING' | 'SUCCEEDED' | 'FAILED' | 'TIMED_OUT' | 'ABORTED' | 'PENDING_REDRIVE';

export interface Progress {
  /** The execution that reports it: a nested one, when the row's own only waits for it. */
  execution: string;
  workflow: string;
  state: string;
  fraction: number;
  fps?: number;
  speed?: number;
  doing?: string;
  leftMs?: number;
}

export interface Summary {
  id: string;
  arn: string;
  name: string;
  machine: string;
  status: Status;
  file: string | null;
  startedAt: number;
  stoppedAt: number | null;
  error?: string;
  cause?: string;
  parent: string | null;
  progress: Progress | null;
  thumbnail: string | null;
  redrivable: boolean;
}

export interface Attempt {
  startedAt: number;
  endedAt: number | null;
  status: string;
  resource: string;
  parameters?: string;
  output?: string;
  error?: string;
  cause?: string;
}

export interface StateVisit {
  event: number;
  name: string;
  type: string;
  status: string;
  depth: number;
  iteration: number | null;
  enteredAt: number;
  exitedAt: number | null;
  input: string;
  output?: string;
  error?: string;
  cause?: string;
  attempts: Attempt[];
  children: string[];
}

export interface Failure {
  execution: string;
  workflow: string;
  state: string | null;
  type: string | null;
  at: number;
  input: string | null;
  error: string | null;
  cause: string | null;
}

export interface Output {
  uri: string;
  url: string | null;
  kind: 'hls' | 'video' | 'audio' | 'image' | 'text' | 'other';
  name: string;
  bytes: number | null;
}

export interface Detail extends Summary {
  input: string;
  output: string | null;
  states: StateVisit[];
  statesLeftOut: number;
  failure: Failure | null;
  outputs: Output[];
  redriveCount: number;
}

export interface Page {
  executions: Summary[];
  next: string | null;
}

export interface Lane {
  name: string;
  capacity: number;
  busy: number;
  waiting: number;
}

/** What the box answered instead of what was asked for. */
export class Refused extends Error {
  constructor(
    readonly status: number,
    message: string,
  ) {
    super(message);
  }
}

async function ask<T>(path: string, init?: RequestInit): Promise<T> {
  let response: Response;
  try {
    response = await fetch(`api/v1/${path}`, { credentials: 'same-origin', ...init });
  } catch {
    throw new Refused(0, 'The appliance does not answer. Is it running, and is this device still on its network?');
  }
  const text = await response.text();
  if (!response.ok) {
    let message = `${response.status} ${response.statusText}`;
    try {
      message = (JSON.parse(text) as { error?: string }).error ?? message;
    } catch {
      // The status line says what there is to say.
    }
    throw new Refused(response.status, message);
  }
  return JSON.parse(text) as T;
}

const post = <T>(path: string, body: unknown): Promise<T> =>
  ask<T>(path, { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) });

export interface Filter {
  status: string;
  machine: string;
  q: string;
  nested: boolean;
}

/** The most rows that the box gives at once. */
const ROWS_MAX = 500;

export function executions(filter: Filter, next: string | null, atLeast = 0): Promise<Page> {
  const query = new URLSearchParams();
  if (filter.status) query.set('status', filter.status);
  if (filter.machine) query.set('machine', filter.machine);
  if (filter.q) query.set('q', filter.q);
  if (filter.nested) query.set('nested', 'true');
  if (next) query.set('next', next);
  if (atLeast > 50) query.set('limit', String(Math.min(atLeast, ROWS_MAX)));
  return ask<Page>(`executions?${query}`);
}

export const execution = (id: string): Promise<Detail> => ask<Detail>(`executions/${encodeURIComponent(id)}`);
export const machines = (): Promise<{ machines: { name: string }[] }> => ask('machines');
export interface Watch {
  share: string;
  away: string | null;
  waiting: number;
  inFlight: number;
  troubles: string[];
}

export interface Share {
  name: string;
  path: string | null;
  reachable: boolean;
}

export const shares = (): Promise<{ shares: Share[] }> => ask('shares');
export const watches = (): Promise<{ watches: Watch[] }> => ask('watches');
export const lanes = (): Promise<{ lanes: Lane[] }> => ask('lanes');
export const stop = (id: string): Promise<unknown> =>
  post(`executions/${encodeURIComponent(id)}/stop`, { error: 'Stopped', cause: 'Stopped on the dashboard' });
export const redrive = (id: string): Promise<unknown> => post(`executions/${encodeURIComponent(id)}/redrive`, {});

/** Starts the same workflow with the same input once more. */
export const rerun = (of: Detail): Promise<{ id: string }> =>
  post('executions', { machine: of.machine, input: JSON.parse(of.input) as unknown });

export interface Change {
  id: string;
  root: string;
  status: Status;
}

export interface Moved {
  id: string;
  root: string;
  progress: Progress;
}

export interface Live {
  changed(change: Change): void;
  moved(moved: Moved): void;
  /** The stream was away: whatever is on the screen may be old. */
  resync(): void;
  connected(yes: boolean): void;
}

/** How soon a stream is asked for again that the box, or something between, has refused. */
const AGAIN_MS = 5000;

/** Follows the box until the returned function is called. */
export function follow(live: Live): () => void {
  let lost = false;
  let again: ReturnType<typeof setTimeout> | undefined;
  let source: EventSource;
  const open = () => {
    source = new EventSource('api/v1/events');
    source.onopen = () => {
      live.connected(true);
      if (lost) live.resync();
      lost = false;
    };
    source.onerror = () => {
      lost = true;
      live.connected(false);
      // The browser reconnects by itself, but not after an answer such as 429 or a proxy's 502.
      if (source.readyState === EventSource.CLOSED) again = setTimeout(open, AGAIN_MS);
    };
    source.addEventListener('execution', (e) => live.changed(JSON.parse((e as MessageEvent<string>).data) as Change));
    source.addEventListener('progress', (e) => live.moved(JSON.parse((e as MessageEvent<string>).data) as Moved));
    source.addEventListener('resync', () => live.resync());
  };
  open();
  return () => {
    clearTimeout(again);
    source.close();
  };
}
