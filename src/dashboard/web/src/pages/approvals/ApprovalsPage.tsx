// What waits for a person's decision: the media to judge, the question, approve, reject with a reason.
import { useRef, useState } from 'preact/hooks';
import * as api from '../../api/client';
import type { Approval } from '../../api/types';
import { useMay } from '../../base/feed';
import { ago } from '../../base/format';
import { useAction, useFresh, useTitle } from '../../base/hooks';
import { toExecution } from '../../base/route';
import { Moment, Notice, Waiting } from '../../components/basics';
import { Json } from '../../components/Json';
import { HlsPlayer } from '../media/HlsPlayer';

function Preview({ approval }: { approval: Approval }) {
  const served = approval.media.filter((m) => m.url !== null);
  const [shown, setShown] = useState(0);
  const [error, setError] = useState<string | null>(null);
  const video = useRef<HTMLVideoElement | null>(null);
  const media = served[shown];
  if (!media?.url) {
    const named = approval.media[0];
    return (
      <p class="no-media quiet">
        {named ? `${named.uri} cannot be shown here: its share is not served, or it is gone.` : 'No media is named.'}
      </p>
    );
  }
  return (
    <div class="player">
      {served.length > 1 ? (
        <div class="chips" role="group" aria-label="Media">
          {served.map((m, n) => (
            <button key={m.uri} type="button" aria-pressed={n === shown} onClick={() => setShown(n)}>
              {m.name}
            </button>
          ))}
        </div>
      ) : null}
      {media.kind === 'image' ? <img src={media.url} alt={media.name} /> : null}
      {media.kind === 'hls' ? <HlsPlayer key={media.uri} url={media.url} video={video} onError={setError} /> : null}
      {media.kind === 'video' || media.kind === 'audio' ? (
        <video key={media.uri} src={media.url} controls playsInline preload="metadata"
          onError={() => setError(`This browser does not play ${media.name}`)} />
      ) : null}
      {media.kind === 'text' || media.kind === 'other' ? (
        <a href={media.url} download={media.name}>
          {media.name}
        </a>
      ) : null}
      <Notice error={error} />
    </div>
  );
}

function Card({ approval, done }: { approval: Approval; done: (said: string) => void }) {
  const [rejecting, setRejecting] = useState(false);
  const [words, setWords] = useState('');
  const [busy, error, act] = useAction();
  const may = useMay('operator');
  const approve = () =>
    void act(() => api.approve(approval.id, words)).then((ok) => {
      if (ok) done(`${approval.title} was approved.`);
    });
  const reject = (e: Event) => {
    e.preventDefault();
    void act(() => api.reject(approval.id, words)).then((ok) => {
      if (ok) done(`${approval.title} was rejected.`);
    });
  };
  const { Title: _title, Question: _question, Media: _media, ...others } = approval.asked;
  return (
    <li class="card approval">
      <Preview approval={approval} />
      <div>
        <h2>{approval.title}</h2>
        {approval.question ? <p>{approval.question}</p> : null}
        <p class="quiet">
          <a href={toExecution(approval.execution)}>
            {approval.workflow} / {approval.state}
          </a>{' '}
          · waits since <Moment at={approval.since} /> ({ago(approval.since)})
        </p>
        {Object.keys(others).length > 0 ? <Json value={others} label="what was asked" /> : null}
        {may ? (
          <form onSubmit={reject}>
            <label>
              {rejecting ? 'Reason' : 'Comment'} <small>{rejecting ? '(whoever made the file reads it)' : '(if you like)'}</small>
              <textarea rows={2} value={words} required={rejecting} onInput={(e) => setWords(e.currentTarget.value)} />
            </label>
            <div class="actions">
              {rejecting ? (
                <>
                  <button class="primary danger" disabled={busy || !words.trim()}>
                    Reject
                  </button>
                  <button type="button" onClick={() => setRejecting(false)}>
                    Back
                  </button>
                </>
              ) : (
                <>
                  <button type="button" class="primary" disabled={busy} onClick={approve}>
                    Approve
                  </button>
                  <button type="button" disabled={busy} onClick={() => setRejecting(true)}>
                    Reject…
                  </button>
                </>
              )}
            </div>
          </form>
        ) : (
          <p class="quiet">Deciding needs the role operator.</p>
        )}
        <Notice error={error} />
      </div>
    </li>
  );
}

export function ApprovalsPage() {
  useTitle('To do');
  const { value, error, reload } = useFresh(api.approvals, 'approvals', 15_000, true);
  const [said, setSaid] = useState<string | null>(null);
  if (!value) return <Waiting error={error} />;
  return (
    <>
      <h1>To do</h1>
      {said ? (
        <p class="said" role="status">
          {said}
        </p>
      ) : null}
      {value.approvals.length === 0 ? (
        <p class="empty">
          Nothing waits for a decision. A workflow asks for one with the resource <code>conveyor:approve.waitForTaskToken</code>.
        </p>
      ) : null}
      <ul class="approvals">
        {value.approvals.map((approval) => (
          <Card
            key={approval.id}
            approval={approval}
            done={(words) => {
              setSaid(words);
              reload();
            }}
          />
        ))}
      </ul>
    </>
  );
}
