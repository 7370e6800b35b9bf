// The media of an execution: to play, to compare with the source, to judge, to read, to download.
import { useMemo, useRef, useState } from 'preact/hooks';
import * as api from '../../api/client';
import type { Detail, Output } from '../../api/types';
import { bytes, clock } from '../../base/format';
import { useAsk } from '../../base/hooks';
import { Notice } from '../../components/basics';
import { Json } from '../../components/Json';
import { HlsPlayer } from './HlsPlayer';
import { Quality } from './Quality';

type Served = Output & { url: string };

interface Labels {
  durationSeconds?: number;
  shots?: { start: number; end: number; kind?: string }[];
  black?: { start: number; end: number }[];
  still?: { start: number; end: number }[];
}

interface Transcript {
  text?: string;
  cues?: { start: number; end: number; text: string }[];
  speech?: { start: number; end: number }[];
  silence?: { start: number; end: number }[];
  limits?: string;
}

function useJson<T>(output: Served | undefined): T | null {
  return useAsk(output ? () => api.text(output.url).then((t) => JSON.parse(t) as T) : null, output?.url).value;
}

/** Two players that go together: play, pause, seek and speed of the first are the other's. */
function together(leader: HTMLVideoElement, follower: HTMLVideoElement): void {
  const near = () => {
    if (Math.abs(follower.currentTime - leader.currentTime) > 0.08) follower.currentTime = leader.currentTime;
  };
  leader.onplay = () => void follower.play().catch(() => undefined);
  leader.onpause = () => {
    follower.pause();
    near();
  };
  leader.onseeked = near;
  leader.ontimeupdate = near;
  leader.onratechange = () => {
    follower.playbackRate = leader.playbackRate;
  };
}

function Tracks({ labels, transcript, onPick }: { labels: Labels | null; transcript: Transcript | null; onPick: (s: number) => void }) {
  const end = labels?.durationSeconds ?? Math.max(0, ...(labels?.shots ?? []).map((s) => s.end));
  const rows = [
    { name: 'Shots', spans: (labels?.shots ?? []).map((s) => ({ ...s, text: s.kind ?? 'shot' })) },
    { name: 'Black', spans: (labels?.black ?? []).map((s) => ({ ...s, text: 'black' })) },
    { name: 'Still', spans: (labels?.still ?? []).map((s) => ({ ...s, text: 'still' })) },
    { name: 'Speech', spans: (transcript?.speech ?? []).map((s) => ({ ...s, text: 'speech' })) },
    { name: 'Silence', spans: (transcript?.silence ?? []).map((s) => ({ ...s, text: 'silence' })) },
    { name: 'Captions', spans: (transcript?.cues ?? []).map((s) => ({ ...s })) },
  ].filter((row) => row.spans.length > 0);
  if (rows.length === 0 || !(end > 0)) return null;
  return (
    <section aria-label="Labels over time">
      <h2>Labels</h2>
      <div class="tracks">
        {rows.map((row) => (
          <div key={row.name} class="track">
            <span>{row.name}</span>
            <div class="track-line">
              {row.spans.slice(0, 600).map((s, n) => (
                <button
                  key={n}
                  type="button"
                  class={`mark ${row.name.toLowerCase()} ${n % 2 ? 'odd' : ''}`}
                  style={{ left: `${(s.start / end) * 100}%`, width: `max(3px, ${((s.end - s.start) / end) * 100}%)` }}
                  title={`${clock(s.start)}–${clock(s.end)} ${s.text}`}
                  aria-label={`${row.name} ${clock(s.start)} to ${clock(s.end)}: ${s.text}`}
                  onClick={() => onPick(s.start)}
                />
              ))}
            </div>
          </div>
        ))}
      </div>
    </section>
  );
}

function Reading({ title, output }: { title: string; output: Served }) {
  const { value, error } = useAsk(() => api.text(output.url), output.url);
  if (value === null) return <Notice error={error} />;
  return (
    <details open={output.name.endsWith('.md')}>
      <summary>{title}</summary>
      {output.name.endsWith('.json') ? <Json text={value} label={title} /> : <pre class="reading" tabIndex={0}>{value}</pre>}
    </details>
  );
}

function Transcribed({ transcript, onPick }: { transcript: Transcript; onPick: (s: number) => void }) {
  const cues = transcript.cues ?? [];
  return (
    <section aria-label="Transcript">
      <h2>Transcript</h2>
      {cues.length === 0 ? <p class="quiet">{transcript.text || transcript.limits || 'The file carries no captions.'}</p> : null}
      <ol class="cues">
        {cues.map((cue, n) => (
          <li key={n}>
            <button type="button" class="plain" onClick={() => onPick(cue.start)}>
              {clock(cue.start)}
            </button>{' '}
            {cue.text}
          </li>
        ))}
      </ol>
    </section>
  );
}

export function MediaView({ detail }: { detail: Detail }) {
  // What lay in staging was moved to its place, so what has no address any more is only named below.
  const served = useMemo(() => detail.outputs.filter((o): o is Served => o.url !== null), [detail.outputs]);
  const masters = served.filter((o) => o.kind === 'hls');
  // The first playlist names the others; what stands behind it are its renditions.
  const playlists = useMemo(() => masters.slice(masters.length > 1 ? 1 : 0), [served]);
  const play = [
    ...masters.slice(0, 1),
    ...served.filter((o) => o.kind === 'video' || o.kind === 'audio'),
    ...masters.slice(1),
  ];
  const [chosen, setChosen] = useState<string | null>(play[0]?.uri ?? null);
  const [compare, setCompare] = useState(false);
  const [error, setError] = useState<string | null>(null);
  const [sourceError, setSourceError] = useState(false);
  const video = useRef<HTMLVideoElement | null>(null);
  const other = useRef<HTMLVideoElement | null>(null);
  const current = play.find((o) => o.uri === chosen) ?? null;
  // The source moves to the archive once all is done.
  const sourceName = detail.file;
  const archived = served.find((o) => o.kind === 'video' && o.name === sourceName && !o.uri.startsWith(detail.source ?? '\0'));
  const sourceUrl = archived?.url ?? detail.sourceUrl;
  const named = (name: string) => served.find((o) => o.name === name);
  const labels = useJson<Labels>(named('labels.json'));
  const transcript = useJson<Transcript>(named('transcript.json'));
  const images = served.filter((o) => o.kind === 'image');
  const pick = (seconds: number) => {
    if (video.current) video.current.currentTime = seconds;
    else setChosen(play[0]?.uri ?? null);
  };
  const choose = (uri: string) => {
    setError(null);
    setChosen(uri === chosen ? null : uri);
  };
  const follow = () => {
    if (video.current && other.current) {
      together(video.current, other.current);
      other.current.currentTime = video.current.currentTime;
    }
  };
  return (
    <div class="media">
      {play.length > 0 ? (
        <div class="chips" role="group" aria-label="Play">
          {play.map((o) => (
            <button key={o.uri} type="button" aria-pressed={o.uri === chosen} onClick={() => choose(o.uri)}>
              ▸ {o.kind === 'hls' ? 'HLS' : o.kind === 'audio' ? 'Audio' : 'MP4'} {o.name}
            </button>
          ))}
          {sourceUrl && current ? (
            <label>
              <input type="checkbox" checked={compare} onChange={(e) => setCompare(e.currentTarget.checked)} /> beside the source
            </label>
          ) : null}
        </div>
      ) : null}
      {current ? (
        <div class={compare ? 'players two' : 'players'}>
          <figure class="player">
            {current.kind === 'hls' ? (
              <HlsPlayer key={current.uri} url={current.url} video={video} onError={setError} />
            ) : (
              <video key={current.uri} ref={video} src={current.url} controls playsInline
                onError={() => setError(`This browser does not play ${current.name}`)} />
            )}
            <figcaption>{current.name}</figcaption>
          </figure>
          {compare && sourceUrl ? (
            <figure class="player">
              <video ref={other} src={sourceUrl} muted playsInline preload="auto" onLoadedMetadata={follow}
                onError={() => setSourceError(true)} />
              <figcaption>
                {sourceError
                  ? `The source cannot be shown: it was moved, or this browser does not play ${sourceName ?? 'it'}.`
                  : `Source: ${sourceName ?? ''}`}
              </figcaption>
            </figure>
          ) : null}
        </div>
      ) : null}
      <Notice error={error} />
      {images.length > 0 ? (
        <div class="thumbs" role="group" aria-label="Thumbnails">
          {images.map((o) => (
            <a key={o.uri} href={o.url} target="_blank" rel="noopener">
              <img src={o.url} alt={o.name} loading="lazy" />
            </a>
          ))}
        </div>
      ) : null}
      <Tracks labels={labels} transcript={transcript} onPick={pick} />
      {named('quality.json') || playlists.length > 0 ? (
        <Quality report={named('quality.json')} playlists={playlists} onPick={pick} />
      ) : null}
      {transcript ? <Transcribed transcript={transcript} onPick={pick} /> : null}
      {named('brief.md') ? (
        <section aria-label="Brief">
          <h2>Brief</h2>
          <Reading title="brief.md" output={named('brief.md') as Served} />
        </section>
      ) : null}
      {served
        .filter((o) => o.kind === 'text' && !['brief.md'].includes(o.name))
        .map((o) => (
          <TextFile key={o.uri} output={o} />
        ))}
      <details class="files" open={played(play)}>
        <summary>{detail.outputs.length} files</summary>
        <ul>
          {detail.outputs.map((o) => (
            <li key={o.uri}>
              {o.url ? (
                <a href={o.url} download={o.name}>
                  {o.uri}
                </a>
              ) : (
                <code>{o.uri}</code>
              )}
              {o.bytes !== null ? <span class="quiet"> {bytes(o.bytes)}</span> : null}
            </li>
          ))}
        </ul>
      </details>
    </div>
  );
}

/** Where there is nothing to play, what there is to download is open. */
const played = (play: Served[]): boolean => play.length === 0;

/** A text file that is read when somebody opens it. */
function TextFile({ output }: { output: Served }) {
  const [open, setOpen] = useState(false);
  return open ? (
    <details open>
      <summary>{output.name}</summary>
      <Reading title={output.name} output={output} />
    </details>
  ) : (
    <details onToggle={(e) => setOpen(e.currentTarget.open)}>
      <summary>{output.name}</summary>
    </details>
  );
}
