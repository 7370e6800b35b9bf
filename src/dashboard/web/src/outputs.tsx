// What came out: to play, to look at, to read, to download.
import { useEffect, useRef, useState } from 'preact/hooks';
import type Hls from 'hls.js';
import type { Output } from './api';
import { bytes } from './format';
import { Json } from './states';

interface Rendition {
  index: number;
  label: string;
}

/** Plays HLS through hls.js, which is fetched from this box only when somebody presses play; Safari plays it itself. */
function HlsPlayer({ url }: { url: string }) {
  const video = useRef<HTMLVideoElement>(null);
  const player = useRef<Hls | null>(null);
  const [renditions, setRenditions] = useState<Rendition[]>([]);
  const [chosen, setChosen] = useState(-1);
  const [playing, setPlaying] = useState(0);
  const [error, setError] = useState<string | null>(null);

  useEffect(() => {
    let gone = false;
    const element = video.current;
    if (!element) return;
    void import('hls.js').then(({ default: Player }) => {
      if (gone) return;
      if (!Player.isSupported()) {
        element.src = url;
        return;
      }
      const hls = new Player({ enableWorker: true });
      player.current = hls;
      hls.on(Player.Events.MANIFEST_PARSED, (_, data) =>
        setRenditions(
          data.levels.map((l, index) => ({
            index,
            label: `${l.height ? `${l.height}p` : `rendition ${index + 1}`} · ${(l.bitrate / 1e6).toFixed(1)} Mbit/s`,
          })),
        ),
      );
      hls.on(Player.Events.LEVEL_SWITCHED, (_, data) => setPlaying(data.level));
      hls.on(Player.Events.ERROR, (_, data) => {
        if (data.fatal) setError(`${data.details}: ${data.error?.message ?? data.type}`);
      });
      hls.loadSource(url);
      hls.attachMedia(element);
    });
    return () => {
      gone = true;
      player.current?.destroy();
      player.current = null;
    };
  }, [url]);

  const choose = (index: number) => {
    setChosen(index);
    if (player.current) player.current.nextLevel = index;
  };
  return (
    <div class="player">
      <video ref={video} controls playsInline data-hls={url} />
      {renditions.length > 1 ? (
        <label>
          Rendition{' '}
          <select value={chosen} onChange={(e) => choose(Number(e.currentTarget.value))}>
            <option value={-1}>automatic{renditions[playing] ? ` (${renditions[playing].label})` : ''}</option>
            {renditions.map((r) => (
              <option key={r.index} value={r.index}>
                {r.label}
              </option>
            ))}
          </select>
        </label>
      ) : null}
      {error ? (
        <p class="notice" role="alert">
          {error}
        </p>
      ) : null}
    </div>
  );
}

function TextFile({ url, name }: { url: string; name: string }) {
  const [text, setText] = useState<string | null>(null);
  const load = () => {
    if (text !== null) return;
    fetch(url, { credentials: 'same-origin' })
      .then((r) => (r.ok ? r.text() : Promise.reject(new Error(`${r.status} ${r.statusText}`))))
      .then(setText, (e: Error) => setText(`${name} could not be read: ${e.message}`));
  };
  return (
    <details
      onToggle={(e) => {
        if (e.currentTarget.open) load();
      }}
    >
      <summary>{name}</summary>
      {text === null ? <p class="quiet">Loading…</p> : name.endsWith('.json') ? <Json text={text} open /> : <pre>{text}</pre>}
    </details>
  );
}

type Playable = Output & { url: string };

export function Outputs({ outputs }: { outputs: Output[] }) {
  const [shown, setShown] = useState<string | null>(null);
  const served = outputs.filter((o): o is Playable => o.url !== null);
  if (outputs.length === 0) return null;
  const play = served.filter((o) => o.kind === 'hls' || o.kind === 'video');
  const images = served.filter((o) => o.kind === 'image');
  const texts = served.filter((o) => o.kind === 'text');
  const current = play.find((o) => o.uri === shown);
  return (
    <section aria-label="Outputs">
      <h2>Outputs</h2>
      {play.length > 0 ? (
        <div class="choices" role="group" aria-label="Play">
          {play.map((o) => (
            <button
              key={o.uri}
              type="button"
              aria-pressed={o.uri === shown}
              onClick={() => setShown(o.uri === shown ? null : o.uri)}
            >
              ▸ {o.kind === 'hls' ? 'HLS' : 'MP4'} {o.name}
            </button>
          ))}
        </div>
      ) : null}
      {current?.kind === 'hls' ? <HlsPlayer key={current.uri} url={current.url} /> : null}
      {current?.kind === 'video' ? (
        <div class="player">
          <video key={current.uri} src={current.url} controls playsInline />
        </div>
      ) : null}
      {images.length > 0 ? (
        <div class="thumbs">
          {images.map((o) => (
            <a key={o.uri} href={o.url} target="_blank" rel="noopener">
              <img src={o.url} alt={o.name} loading="lazy" />
            </a>
          ))}
        </div>
      ) : null}
      {texts.map((o) => (
        <TextFile key={o.uri} url={o.url} name={o.name} />
      ))}
      <details class="files">
        <summary>
          {outputs.length} {outputs.length === 1 ? 'file' : 'files'}
        </summary>
        <ul>
          {outputs.map((o) => (
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
    </section>
  );
}
