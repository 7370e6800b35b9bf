// Plays HLS through hls.js, which comes from this box when somebody opens a player; Safari plays it itself.
import type Hls from 'hls.js';
import type { Ref } from 'preact';
import { useEffect, useRef, useState } from 'preact/hooks';

interface Rendition {
  index: number;
  label: string;
}

interface Props {
  url: string;
  video: Ref<HTMLVideoElement> & { current: HTMLVideoElement | null };
  onError: (error: string) => void;
}

export function HlsPlayer({ url, video, onError }: Props) {
  const player = useRef<Hls | null>(null);
  const [renditions, setRenditions] = useState<Rendition[]>([]);
  const [chosen, setChosen] = useState(-1);
  const [playing, setPlaying] = useState(0);
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
        if (data.fatal) onError(`${data.details}: ${data.error?.message ?? data.type}`);
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
    <>
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
    </>
  );
}
