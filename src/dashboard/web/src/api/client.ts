// The box's REST routes as functions.
import type * as t from './types';

/** What the box answered instead of what was asked for. */
export class Refused extends Error {
  constructor(
    readonly status: number,
    message: string,
  ) {
    super(message);
  }
}

let signedOut: () => void = () => undefined;
/** Who is told that the box asks for a sign-in. */
export const onSignedOut = (call: () => void): void => void (signedOut = call);

async function ask<T>(path: string, init?: RequestInit): Promise<T> {
  let response: Response;
  try {
    response = await fetch(`api/v1/${path}`, { credentials: 'same-origin', ...init });
  } catch {
    throw new Refused(0, 'The appliance does not answer. Is it running, and is this device still on its network?');
  }
  const text = await response.text();
  if (!response.ok) {
    if (response.status === 401 && path !== 'session') signedOut();
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

const send = <T>(method: string, path: string, body: unknown = {}): Promise<T> =>
  ask<T>(path, { method, headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) });
const post = <T>(path: string, body: unknown = {}): Promise<T> => send<T>('POST', path, body);
const in_ = encodeURIComponent;

export const session = (): Promise<t.Session> => ask('session');
export const signIn = (user: string, password: string): Promise<t.Session> => post('session', { user, password });
export const signOut = (): Promise<unknown> => ask('session', { method: 'DELETE' });

export interface Filter {
  status: string;
  machine: string;
  q: string;
  error: string;
  from: string;
  until: string;
  order: string;
  nested: boolean;
}

/** The most rows that the box gives at once. */
const ROWS_MAX = 500;

export function executions(filter: Partial<Filter>, next: string | null, limit = 50): Promise<t.Page> {
  const query = new URLSearchParams();
  const put = (key: string, value: string | undefined) => {
    if (value) query.set(key, value);
  };
  const time = (text: string | undefined) => (text ? String(new Date(text).getTime()) : '');
  put('status', filter.status);
  put('machine', filter.machine);
  put('q', filter.q);
  put('error', filter.error);
  put('from', time(filter.from));
  put('until', time(filter.until));
  put('order', filter.order);
  if (filter.nested) query.set('nested', 'true');
  if (next) query.set('next', next);
  query.set('limit', String(Math.min(limit, ROWS_MAX)));
  return ask<t.Page>(`executions?${query}`);
}

export const overview = (since: number): Promise<t.Overview> => ask(`overview?since=${since}`);
export const execution = (id: string): Promise<t.Detail> => ask(`executions/${in_(id)}?states=false`);
export const trace = (id: string): Promise<t.Trace> => ask(`executions/${in_(id)}/trace`);
export const visit = (id: string, event: number): Promise<t.Visit> => ask(`executions/${in_(id)}/states/${event}`);
export const definitionOf = (id: string): Promise<t.Definition> => ask(`executions/${in_(id)}/definition`);
export const event = (id: string, number: number): Promise<{ events: Record<string, unknown>[] }> =>
  ask(`executions/${in_(id)}/history?from=${number}&limit=1`);
export const stop = (id: string, cause: string): Promise<unknown> =>
  post(`executions/${in_(id)}/stop`, { error: 'Stopped', cause: cause || 'Stopped on the dashboard' });
export const redrive = (id: string): Promise<unknown> => post(`executions/${in_(id)}/redrive`);
export const start = (machine: string, input: unknown, name?: string, qualifier?: string): Promise<{ id: string }> =>
  post('executions', { machine, input, name: name || null, qualifier: qualifier || null });

export interface Outcomes {
  outcomes: { id: string; error: string | null }[];
  failed: number;
}
export const stopAll = (ids: string[]): Promise<Outcomes> => post('executions/stop', { ids });
export const redriveAll = (ids: string[]): Promise<Outcomes> => post('executions/redrive', { ids });

export const machines = (): Promise<{ machines: t.MachineBrief[] }> => ask('machines');
export const machine = (name: string): Promise<t.Machine> => ask(`machines/${in_(name)}`);
export const revision = (name: string, number: number): Promise<t.Definition> =>
  ask(`machines/${in_(name)}/revisions/${number}`);
export const createMachine = (name: string, definition: string, express: boolean): Promise<t.Machine> =>
  post('machines', { name, definition, express });
export const saveMachine = (name: string, definition: string, basedOn: number, publish: string): Promise<t.Machine> =>
  send('PUT', `machines/${in_(name)}`, { definition, based_on: basedOn, publish });
export const putAlias = (
  name: string,
  alias: string,
  routes: { version: number; weight: number }[],
): Promise<unknown> => send('PUT', `machines/${in_(name)}/aliases/${in_(alias)}`, { routes });
export const deleteAlias = (name: string, alias: string): Promise<unknown> =>
  ask(`machines/${in_(name)}/aliases/${in_(alias)}`, { method: 'DELETE' });
export const validate = (definition: string, express: boolean): Promise<{ problems: t.Problem[] }> =>
  post('validate', { definition, express });
export const testState = (asked: Record<string, unknown>): Promise<t.Tried> => post('test-state', asked);

export const approvals = (): Promise<{ approvals: t.Approval[] }> => ask('approvals');
export const approve = (id: string, comment: string): Promise<unknown> =>
  post(`approvals/${in_(id)}/approve`, { comment: comment || null });
export const reject = (id: string, reason: string): Promise<unknown> => post(`approvals/${in_(id)}/reject`, { reason });

export const shares = (): Promise<{ shares: t.Share[] }> => ask('shares');
export const files = (share: string, under: string): Promise<{ files: t.ShareFile[]; more: boolean }> =>
  ask(`shares/${in_(share)}/files?under=${in_(under)}`);
export const devices = (): Promise<t.Devices> => ask('devices');
export const lanes = (): Promise<{ lanes: t.Lane[] }> => ask('lanes');
export const work = (): Promise<t.Work> => ask('work');
export const schedules = (): Promise<{ schedules: t.ScheduleShown[] }> => ask('schedules');
export const alarms = (): Promise<{ alarms: t.Alarm[] }> => ask('alarms');
export const notifications = (): Promise<t.Notifications> => ask('notifications');
export const settings = (): Promise<Record<string, unknown>> => ask('settings');
export const audit = (next: string | null): Promise<{ entries: t.AuditEntry[]; next: string | null }> =>
  ask(`audit?limit=100${next ? `&next=${in_(next)}` : ''}`);
export const benchmarks = (): Promise<{ runs: t.BenchmarkRun[] }> => ask('benchmarks');
export const benchmark = (id: string): Promise<t.BenchmarkReport> => ask(`benchmarks/${in_(id)}`);
export const express = (): Promise<t.ExpressBoard> => ask('express');
export const stopExpress = (id: string): Promise<unknown> =>
  post(`express/${in_(id)}/stop`, { error: 'Stopped', cause: 'Stopped on the dashboard' });

/** A text file of a share. */
export async function text(url: string): Promise<string> {
  const response = await fetch(url, { credentials: 'same-origin' });
  if (!response.ok) throw new Refused(response.status, `${response.status} ${response.statusText}`);
  return response.text();
}
