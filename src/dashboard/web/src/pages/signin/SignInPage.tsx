// Who are you? Shown where the box has credentials and the browser has no session.
import { useState } from 'preact/hooks';
import * as api from '../../api/client';
import type { Session } from '../../api/types';
import { useAction, useTitle } from '../../base/hooks';
import { Notice } from '../../components/basics';

export function SignInPage({ onIn }: { onIn: (session: Session) => void }) {
  const [user, setUser] = useState('');
  const [password, setPassword] = useState('');
  const [busy, error, act] = useAction();
  useTitle('Sign in');
  const submit = (e: Event) => {
    e.preventDefault();
    void act(async () => onIn(await api.signIn(user, password)));
  };
  return (
    <main class="sign-in">
      <form onSubmit={submit} class="card">
        <h1>
          <img src="./favicon.svg" alt="" width="28" height="28" /> Conveyor
        </h1>
        <label>
          User
          <input
            name="username"
            autocomplete="username"
            required
            autofocus
            value={user}
            onInput={(e) => setUser(e.currentTarget.value)}
          />
        </label>
        <label>
          Password
          <input
            name="password"
            type="password"
            autocomplete="current-password"
            required
            value={password}
            onInput={(e) => setPassword(e.currentTarget.value)}
          />
        </label>
        <Notice error={error} />
        <button class="primary" disabled={busy}>
          Sign in
        </button>
        <p class="quiet">Users are the [[credentials]] of the box's configuration.</p>
      </form>
    </main>
  );
}
