// What the columns of a trace say, as the views ask for it.
import type { Trace } from '../../api/types';
import type { StateFacts } from '../../graph/Graph';

export interface VisitRow {
  /** Its place among the visits. */
  at: number;
  event: number;
  name: string;
  type: string;
  status: string;
  error: string | null;
  parent: number;
  depth: number;
  iteration: number;
  enteredAt: number;
  /** The present moment while it is in the state. */
  exitedAt: number | null;
  tries: { startedAt: number; endedAt: number | null; status: string }[];
  children: string[];
}

export interface Model {
  trace: Trace;
  visits: VisitRow[];
  byName: Map<string, VisitRow[]>;
  facts: Map<string, StateFacts>;
  taken: Set<string>;
}

/** Branches of one Parallel whose first arrows are drawn as taken. */
const BRANCHES_MAX = 16;

/** Worst first: what a state's box shows where its visits went differently. */
const WORST = ['RUNNING', 'RETRYING', 'FAILED', 'TIMED_OUT', 'CAUGHT', 'ABORTED', 'SUCCEEDED'];

export function modelOf(trace: Trace): Model {
  const { visits: v, names } = trace;
  const rows: VisitRow[] = [];
  const byName = new Map<string, VisitRow[]>();
  const taken = new Set<string>();
  /** The last state on each line of control. */
  const before = new Map<number, string>();
  const firsts = new Map<number, VisitRow>();
  v.event.forEach((event, at) => {
    const parent = v.parent[at] ?? -1;
    const [line, name] = [v.line[at] ?? 0, names[v.name[at] ?? 0] ?? ''];
    const exited = v.exitedAt[at] ?? -1;
    const row: VisitRow = {
      at,
      event,
      name,
      type: names[v.type[at] ?? 0] ?? '',
      status: names[v.status[at] ?? 0] ?? '',
      error: (v.error[at] ?? -1) < 0 ? null : (names[v.error[at] ?? 0] ?? null),
      parent,
      depth: parent < 0 ? 0 : (rows[parent]?.depth ?? 0) + 1,
      iteration: v.iteration[at] ?? -1,
      enteredAt: v.enteredAt[at] ?? 0,
      exitedAt: exited < 0 ? null : exited,
      tries: (v.tries[at] ?? []).map(([startedAt, endedAt, status]) => ({ startedAt, endedAt, status: names[status] ?? '' })),
      children: v.children[at] ?? [],
    };
    rows.push(row);
    const same = byName.get(name);
    if (same) same.push(row);
    else byName.set(name, [row]);
    const last = before.get(line);
    if (last !== undefined) taken.add(`${last}\n${name}`);
    // Where a line begins: the arrow out of its start. The layout names starts after what holds them.
    else firsts.set(line, row);
    before.set(line, name);
  });
  const facts = new Map<string, StateFacts>();
  for (const [name, all] of byName) {
    const status = WORST.find((s) => all.some((row) => row.status === s)) ?? '';
    facts.set(name, {
      status,
      visits: all.length,
      running: all.filter((row) => row.exitedAt === null).length,
      failed: all.filter((row) => row.status === 'FAILED' || row.status === 'TIMED_OUT').length,
      retries: all.reduce((sum, row) => sum + Math.max(0, row.tries.length - 1), 0),
    });
  }
  // A branch's number is not in the history; no two branches begin with the same state, so all are named.
  for (const [line, first] of firsts) {
    const holder = first.parent >= 0 ? rows[first.parent]?.name : undefined;
    const last = before.get(line);
    for (let branch = 0; branch < (holder === undefined ? 1 : BRANCHES_MAX); branch += 1) {
      const inside = holder === undefined ? '' : `${holder}/${branch}`;
      taken.add(`${inside}/start\n${first.name}`);
      if (last !== undefined) taken.add(`${last}\n${inside}/end`);
    }
  }
  return { trace, visits: rows, byName, facts, taken };
}
