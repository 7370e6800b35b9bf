// The frame: navigation, the live sign, who is signed in, and which page is shown.
import { useCallback, useEffect, useState } from 'preact/hooks';
import * as api from './api/client';
import type { Session } from './api/types';
import { FeedContext, SessionContext, useStream } from './base/feed';
import { href, useRoute, type Route } from './base/route';
import { Lazy, Notice } from './components/basics';
import { SignInPage } from './pages/signin/SignInPage';
import { OverviewPage } from './pages/overview/OverviewPage';
import { ExecutionsPage } from './pages/executions/ExecutionsPage';

const PAGES = [
  { key: '', label: 'Overview' },
  { key: 'executions', label: 'Executions' },
  { key: 'approvals', label: 'To do' },
  { key: 'workflows', label: 'Workflows' },
  { key: 'upload', label: 'Upload' },
  { key: 'box', label: 'Box' },
];

function Page({ route }: { route: Route }) {
  const [page = '', id, tab = ''] = route.path;
  switch (page) {
    case '':
      return <OverviewPage />;
    case 'executions':
      if (id === undefined) return <ExecutionsPage route={route} />;
      return (
        <Lazy
          key={id}
          load={async () => (await import('./pages/execution/ExecutionPage')).ExecutionPage}
          with={{ id, tab, query: route.query }}
        />
      );
    case 'approvals':
      return <Lazy key="approvals" load={async () => (await import('./pages/approvals/ApprovalsPage')).ApprovalsPage} with={{}} />;
    case 'workflows':
      return (
        <Lazy
          key={`workflows/${id ?? ''}`}
          load={async () => (await import('./pages/workflows/WorkflowsPage')).WorkflowsPage}
          with={{ name: id ?? null, tab, query: route.query }}
        />
      );
    case 'upload':
      return <Lazy key="upload" load={async () => (await import('./pages/upload/UploadPage')).UploadPage} with={{}} />;
    case 'box':
      return <Lazy key="box" load={async () => (await import('./pages/box/BoxPage')).BoxPage} with={{ tab: id ?? '' }} />;
    default:
      return (
        <p class="empty">
          There is no such page. <a href="#/">Overview</a>
        </p>
      );
  }
}

function Who({ session, onOut }: { session: Session; onOut: () => void }) {
  if (!session.canSignOut) return null;
  return (
    <span class="who">
      {session.user} <small>({session.role})</small>{' '}
      <button type="button" class="plain" onClick={() => void api.signOut().then(onOut, onOut)}>
        Sign out
      </button>
    </span>
  );
}

/** How many things wait for a person: shown beside the page that lists them. */
function useTodo(signedIn: boolean): number {
  const [todo, setTodo] = useState(0);
  useEffect(() => {
    if (!signedIn) return;
    const load = () => {
      if (!document.hidden) api.approvals().then((a) => setTodo(a.approvals.length), () => undefined);
    };
    load();
    const timer = setInterval(load, 20_000);
    return () => clearInterval(timer);
  }, [signedIn]);
  return todo;
}

export function App() {
  const route = useRoute();
  const [session, setSession] = useState<Session | null>(null);
  const [error, setError] = useState<string | null>(null);
  const signedIn = session?.user != null;
  const [feed, connected] = useStream(signedIn);
  const todo = useTodo(signedIn);
  const load = useCallback(() => {
    api.session().then(
      (s) => {
        setSession(s);
        setError(null);
      },
      (e: Error) => {
        setError(e.message);
        setTimeout(load, 3000);
      },
    );
  }, []);
  useEffect(() => {
    api.onSignedOut(() => setSession({ user: null, role: null, canSignOut: false }));
    load();
  }, [load]);
  const here = route.path[0] ?? '';
  const place = route.path.slice(0, 2).join('/');
  useEffect(() => window.scrollTo(0, 0), [place]);
  if (!session) return <main>{error ? <Notice error={`${error} Trying again.`} /> : null}</main>;
  if (!signedIn) return <SignInPage onIn={setSession} />;
  return (
    <SessionContext.Provider value={session}>
      <FeedContext.Provider value={feed}>
        <a class="skip" href="#main" onClick={(e) => {
          e.preventDefault();
          document.querySelector<HTMLElement>('main')?.focus();
        }}>
          To the page
        </a>
        <header class="bar">
          <a class="brand" href="#/">
            <img src="./favicon.svg" alt="" width="24" height="24" /> <span>Conveyor</span>
          </a>
          <nav aria-label="Pages">
            {PAGES.map((p) => (
              <a key={p.key} href={href(p.key ? [p.key] : [])} aria-current={p.key === here ? 'page' : undefined}>
                {p.label}
                {p.key === 'approvals' && todo > 0 ? <b class="todo"> {todo}</b> : null}
              </a>
            ))}
          </nav>
          <Who session={session} onOut={load} />
          <span class={connected ? 'link on' : 'link off'} role="status">
            {connected ? 'live' : 'reconnecting…'}
          </span>
        </header>
        {connected ? null : (
          <p class="lost" role="alert">
            The connection to the box is lost. What you see may be old; it is renewed by itself once the box answers.
          </p>
        )}
        <main id="main" tabIndex={-1}>
          <Page route={route} />
        </main>
      </FeedContext.Provider>
    </SessionContext.Provider>
  );
}
