// The answers of /api/v1 (see /api/v1/openapi.json). Times are milliseconds since the epoch.

export type Status = 'RUNNING' | 'SUCCEEDED' | 'FAILED' | 'TIMED_OUT' | 'ABORTED' | 'PENDING_REDRIVE';
export type Role = 'viewer' | 'operator' | 'admin';

export interface Session {
  user: string | null;
  role: Role | null;
  canSignOut: boolean;
}

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
  lane?: string;
}

export interface Summary {
  id: string;
  arn: string;
  name: string;
  machine: string;
  revision: number;
  status: Status;
  file: string | null;
  source: string | null;
  sourceUrl: string | null;
  startedAt: number;
  stoppedAt: number | null;
  error?: string;
  cause?: string;
  parent: string | null;
  progress: Progress | null;
  thumbnail: string | null;
  mediaMs: number | null;
  events: number;
  redrivable: boolean;
}

export interface Attempt {
  startedAt: number;
  endedAt: number | null;
  status: string;
  resource: string;
  parameters?: string;
  result?: string;
  error?: string;
  cause?: string;
}

/** One visit to a state, with everything about it. */
export interface Visit {
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
  assigned?: [string, string][];
  variables: Record<string, unknown>;
  parentEvent: number | null;
  lane: string | null;
  flow: {
    points: Record<string, unknown>;
    exact: boolean;
    next: string | null;
    retryIndex: number | null;
    catchIndex: number | null;
  } | null;
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
  failure: Failure | null;
  outputs: Output[];
  redriveCount: number;
  /** Who did what to it through the API, the oldest first. */
  doneBy: { at: number; who: string; role: string; api: string; what: string }[];
}

/** A whole execution in columns; numbers under `type`, `name` and `status` lead into `names`. */
export interface Trace {
  id: string;
  status: Status;
  startedAt: number;
  stoppedAt: number | null;
  names: string[];
  working: { state: string; lane: string; startedAt: number }[];
  events: { id: number[]; previous: number[]; at: number[]; type: number[]; visit: number[] };
  visits: {
    event: number[];
    name: number[];
    type: number[];
    status: number[];
    error: number[];
    parent: number[];
    line: number[];
    iteration: number[];
    enteredAt: number[];
    exitedAt: number[];
    tries: Record<string, [number, number | null, number][]>;
    children: Record<string, string[]>;
  };
}

export interface Page {
  executions: Summary[];
  next: string | null;
  looked: number;
}

export interface Lane {
  name: string;
  capacity: number;
  busy: number;
  waiting: number;
  /** `open`, or why it takes nothing now. */
  state?: string;
  why?: string;
  device?: string;
}

export interface Watch {
  share: string;
  away: string | null;
  waiting: number;
  inFlight: number;
  problems: string[];
}

export interface FileSystem {
  kind: string;
  source: string;
  network: boolean;
  read_only: boolean;
  total: number;
  free: number;
}

export interface Share {
  name: string;
  path: string;
  reachable: boolean;
  why: string | null;
  served: boolean;
  watched: string | null;
  fileSystem: FileSystem | null;
}

export interface ShareFile {
  name: string;
  key: string;
  folder: boolean;
  bytes: number | null;
  modifiedAt: number | null;
  url: string | null;
}

export interface Alarm {
  name: string;
  raised: boolean;
  reason: string;
  since: number;
  history: { at: number; raised: boolean; reason: string }[];
}

export interface Overview {
  now: number;
  running: Summary[];
  runningMore: boolean;
  runningAll: number;
  today: { since: number; done: number[]; failed: number[]; atLeast: boolean; failures: Summary[] };
  landings: { share: string; at: number; file: string }[];
  alarms: Alarm[];
  /** Parts of the appliance that are down or failed within the last minute; each has an alarm, too. */
  parts: { name: string; running: boolean; failures: number; failedAt: number; what: string }[];
  watches: Watch[];
  approvals: number;
  notificationsWaiting: number;
  lanes: Lane[];
}

export interface Problem {
  code: string;
  message: string;
  pointer: string;
  line: number;
  column: number;
  severity: 'error' | 'warning';
}

export interface Definition {
  machine: string;
  revision: number;
  definition: string;
  createdAt: number;
  problems: Problem[];
}

export interface MachineBrief {
  name: string;
  arn: string;
  revision: number;
  type: 'STANDARD' | 'EXPRESS';
  versions: number;
  createdAt: number;
  updatedAt: number;
  executions: Partial<Record<Status, number>>;
}

export interface Machine extends MachineBrief {
  definition: string;
  problems: Problem[];
  roleArn: string;
  tags: { key: string; value: string }[];
  publishedVersions: { version: number; revision: number; description: string; createdAt: number }[];
  aliases: { name: string; description: string; updatedAt: number; routes: { version: number; weight: number }[] }[];
}

export interface Tried {
  status: string;
  output?: string;
  nextState?: string;
  error?: string;
  cause?: string;
  inspectionData?: Record<string, unknown>;
}

export interface Approval {
  id: string;
  title: string;
  question: string | null;
  asked: Record<string, unknown>;
  since: number;
  execution: string;
  root: string;
  workflow: string;
  state: string;
  file: string | null;
  media: Output[];
}

/** What hardware answers: a value, or why there is none. */
export type Told<T> = T | { absent: string } | { unknown: string };

export interface Health {
  temperature_celsius: number | null;
  power_watts: number | null;
  power_limit_watts: number | null;
  gpu_load_percent: number | null;
  encoder_load_percent?: number | null;
  decoder_load_percent?: number | null;
  memory_used: number | null;
}

export interface Devices {
  cpu: { model: string | null; cores: number; online: number };
  memory: { total: number | null; available: number | null };
  driver: { version: string | null; libraries: { name: string; usable: Told<unknown> }[] };
  gpus: {
    index: number;
    uuid: string | null;
    name: string | null;
    memory: number | null;
    fault: string | null;
    nvenc: Told<{ engines: number | null }>;
    nvdec: Told<{ engines: number | null }>;
    health: Told<Health>;
  }[];
  now: {
    cpu_percent: number | null;
    load_average: [number, number, number] | null;
    temperatures: { name: string; celsius: number }[];
    memory: { total: number | null; available: number | null };
  };
}

export interface Work {
  working: {
    execution: string;
    root: string | null;
    file: string | null;
    state: string;
    resource: string;
    lane: string;
    startedAt: number;
    progress: { fraction: number; fps?: number; speed?: number; doing?: string };
  }[];
  lanes: Lane[];
}

export interface ScheduleShown {
  name: string;
  rule: string;
  workflow: string;
  timezone: string | null;
  enabled: boolean;
  missed: 'run-once' | 'skip';
  lastAt?: number | null;
  nextAt: number | null;
}

export interface Notifications {
  waiting: {
    number: number;
    target: string;
    event: string | null;
    body: string;
    createdAt: number;
    attempts: number;
    nextAt: number;
    error: string;
  }[];
  delivered: { target: string; event: string | null; body: string; attempts: number; createdAt: number; deliveredAt: number }[];
}

export interface BenchmarkRun {
  id: string;
  startedAt: number;
  tookSeconds: number;
  mode: string;
  version: string;
  disturbed: string[];
  capacity: { ladders: number; sentence: string } | null;
}

export interface BenchmarkReport {
  id: string;
  took_seconds: number;
  disturbed: string[];
  capacity?: { sentence: string; limited_by: string; bounds: [string, number][] };
  sections: {
    kind: string;
    says: string[];
    rows: {
      key: string;
      name: string;
      figures: { name: string; unit: string; better: string; median: number; spread: number; samples: number[] }[];
    }[];
    curves: { key: string; title: string; x: string; y: string; points: [number, number][] }[];
  }[];
}

export interface ExpressBoard {
  running: {
    id: string;
    arn: string;
    machine: string;
    name: string;
    startedAt: number;
    sync: boolean;
    startedBy: string | null;
  }[];
  runningTotal: number;
  ended: {
    arn: string;
    machine: string;
    name: string;
    status: Status;
    startedAt: number;
    stoppedAt: number;
    events: number;
    error: string | null;
    cause: string | null;
    startedBy: string | null;
    stoppedBy: string | null;
  }[];
  machines: Record<string, { started: number; succeeded: number; failed: number; timedOut: number; aborted: number }>;
}

export interface AuditEntry {
  at: number;
  who: string;
  role: Role;
  api: string;
  what: string;
  to: string;
  status: number;
}
