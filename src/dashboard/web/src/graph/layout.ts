// A definition as boxes and arrows. Parallel and Map states hold graphs of their own, which are laid out first and then
// stand in the outer one as boxes of their size. The layout itself is dagre's.
import dagre from '@dagrejs/dagre';

interface Transition {
  to: string;
  label: string;
  kind: 'next' | 'choice' | 'catch';
}

interface Asl {
  StartAt?: string;
  States?: Record<string, AslState>;
}

export interface AslState {
  Type?: string;
  Next?: string;
  End?: boolean;
  Default?: string;
  Resource?: string;
  Choices?: Record<string, unknown>[];
  Catch?: { ErrorEquals?: string[]; Next?: string }[];
  Retry?: unknown[];
  Branches?: Asl[];
  ItemProcessor?: Asl;
  Iterator?: Asl;
}

export interface Box {
  /** The state's name; starts and ends have one that no state has. */
  id: string;
  kind: string;
  label: string;
  detail: string;
  x: number;
  y: number;
  width: number;
  height: number;
  /** It holds others: `true` while they are shown. */
  open: boolean | null;
  depth: number;
}

export interface Arrow {
  from: string;
  to: string;
  label: string;
  kind: 'next' | 'choice' | 'catch';
  points: { x: number; y: number }[];
}

export interface Layout {
  boxes: Box[];
  arrows: Arrow[];
  width: number;
  height: number;
}

const PAD = 14;
const HEAD = 30;
const BOX_HEIGHT = 46;

/** States inside a state, if it holds any. */
export function insides(state: AslState): Asl[] {
  if (state.Type === 'Parallel') return state.Branches ?? [];
  if (state.Type === 'Map') return [state.ItemProcessor ?? state.Iterator ?? {}];
  return [];
}

/** Every state of a definition by name, nested ones included. */
export function allStates(definition: Asl, found: Record<string, AslState> = {}): Record<string, AslState> {
  for (const [name, state] of Object.entries(definition.States ?? {})) {
    if (!state || typeof state !== 'object') continue;
    found[name] = state;
    insides(state).forEach((inner) => allStates(inner, found));
  }
  return found;
}

function transitions(state: AslState): Transition[] {
  const all: Transition[] = [];
  for (const choice of state.Choices ?? []) {
    if (typeof choice?.Next === 'string') all.push({ to: choice.Next, label: condition(choice), kind: 'choice' });
  }
  if (state.Default) all.push({ to: state.Default, label: 'otherwise', kind: 'choice' });
  if (state.Next) all.push({ to: state.Next, label: '', kind: 'next' });
  for (const caught of state.Catch ?? []) {
    if (caught?.Next) all.push({ to: caught.Next, label: (caught.ErrorEquals ?? []).join(', '), kind: 'catch' });
  }
  return all;
}

const COMPARISONS: [RegExp, string][] = [
  [/GreaterThanEquals/, '≥'],
  [/LessThanEquals/, '≤'],
  [/GreaterThan/, '>'],
  [/LessThan/, '<'],
  [/Equals/, '='],
  [/Matches/, 'like'],
];

/** A choice's rule in a few characters. */
function condition(rule: Record<string, unknown>): string {
  if (typeof rule.Condition === 'string') return rule.Condition.replace(/^{%\s*|\s*%}$/g, '');
  const listed = (key: string, word: string) =>
    Array.isArray(rule[key]) ? (rule[key] as Record<string, unknown>[]).map(condition).join(` ${word} `) : '';
  if (rule.And) return listed('And', 'and');
  if (rule.Or) return listed('Or', 'or');
  if (rule.Not) return `not ${condition(rule.Not as Record<string, unknown>)}`;
  const variable = String(rule.Variable ?? '').replace(/^\$\./, '');
  for (const [key, value] of Object.entries(rule)) {
    if (key.startsWith('Is')) return `${variable} is ${value === false ? 'not ' : ''}${key.slice(2).toLowerCase()}`;
    const sign = COMPARISONS.find(([pattern]) => pattern.test(key))?.[1];
    if (sign) return `${variable} ${sign} ${typeof value === 'string' ? value : JSON.stringify(value)}`;
  }
  return variable;
}

const shorten = (text: string, chars: number) => (text.length > chars ? `${text.slice(0, chars - 1)}…` : text);

/** Lays out a definition; states whose names are in `closed` keep what they hold to themselves. */
export function layout(definition: Asl, closed: ReadonlySet<string>): Layout {
  return within(definition, closed, '', 0);
}

function within(asl: Asl, closed: ReadonlySet<string>, prefix: string, depth: number): Layout {
  const states = Object.entries(asl.States ?? {}).filter(([, s]) => s && typeof s === 'object');
  const names = new Set(states.map(([name]) => name));
  const graph = new dagre.graphlib.Graph({ multigraph: true });
  graph.setGraph({ rankdir: 'TB', nodesep: 26, ranksep: 38, edgesep: 14, marginx: 6, marginy: 6 });
  graph.setDefaultEdgeLabel(() => ({}));
  const [start, end] = [`${prefix}/start`, `${prefix}/end`];
  const inner = new Map<string, { parts: Layout[]; state: AslState }>();
  const sizes = new Map<string, Box>();
  const put = (box: Box) => {
    sizes.set(box.id, box);
    graph.setNode(box.id, { width: box.width, height: box.height });
  };
  const point = (id: string, kind: string): Box => ({
    id, kind, label: kind, detail: '', x: 0, y: 0, width: 16, height: 16, open: null, depth,
  });
  if (asl.StartAt && names.has(asl.StartAt)) {
    put(point(start, 'start'));
    graph.setEdge(start, asl.StartAt, {}, 'start');
  }
  for (const [name, state] of states) {
    const held = insides(state);
    const isOpen = held.length > 0 && !closed.has(name);
    const label = shorten(name, 34);
    const detail = detailOf(state);
    let width = Math.max(116, Math.min(290, Math.max(label.length * 7.8, detail.length * 6.4) + 62));
    let height = BOX_HEIGHT;
    if (isOpen) {
      const parts = held.map((part, n) => within(part, closed, `${name}/${n}`, depth + 1));
      inner.set(name, { parts, state });
      width = Math.max(width, parts.reduce((sum, p) => sum + p.width + PAD, PAD));
      height = HEAD + Math.max(...parts.map((p) => p.height), 20) + PAD;
    }
    put({ id: name, kind: state.Type ?? '?', label, detail, x: 0, y: 0, width, height, open: held.length ? isOpen : null, depth });
  }
  let ends = false;
  for (const [name, state] of states) {
    transitions(state).forEach((t, n) => {
      if (!names.has(t.to)) return;
      const label = shorten(t.label, 30);
      graph.setEdge(name, t.to, { label, width: label.length * 5.6, height: label ? 14 : 0, labelpos: 'c', kind: t.kind }, `${t.kind}${n}`);
    });
    if (state.End || state.Type === 'Succeed') {
      ends = true;
      graph.setEdge(name, end, { kind: 'next' }, 'end');
    }
  }
  if (ends) put(point(end, 'end'));
  dagre.layout(graph);
  const boxes: Box[] = [];
  const arrows: Arrow[] = [];
  for (const id of graph.nodes()) {
    const [box, at] = [sizes.get(id), graph.node(id)];
    if (!box || !at) continue;
    const placed = { ...box, x: at.x - box.width / 2, y: at.y - box.height / 2 };
    boxes.push(placed);
    let x = placed.x + PAD;
    for (const part of inner.get(id)?.parts ?? []) {
      const [dx, dy] = [x, placed.y + HEAD];
      boxes.push(...part.boxes.map((b) => ({ ...b, x: b.x + dx, y: b.y + dy })));
      arrows.push(...part.arrows.map((a) => ({ ...a, points: a.points.map((p) => ({ x: p.x + dx, y: p.y + dy })) })));
      x += part.width + PAD;
    }
  }
  for (const e of graph.edges()) {
    const edge = graph.edge(e) as { points: { x: number; y: number }[]; label?: string; kind?: Arrow['kind'] };
    arrows.push({ from: e.v, to: e.w, label: edge.label ?? '', kind: edge.kind ?? 'next', points: edge.points });
  }
  const { width = 40, height = 40 } = graph.graph() as { width?: number; height?: number };
  return { boxes, arrows, width: Number.isFinite(width) ? width : 40, height: Number.isFinite(height) ? height : 40 };
}

function detailOf(state: AslState): string {
  if (state.Type === 'Task' && state.Resource) {
    return shorten(state.Resource.replace(/^arn:[^:]*:states:::/, '').replace(/^arn:[^:]*:[^:]*:[^:]*:[^:]*:/, ''), 38);
  }
  return state.Type ?? '';
}
