// Bitrate over time, from what a media playlist says of its segments and how large they are on the share.
import { text } from '../../api/client';

/** Segments that are asked for their size; a longer film is sampled. */
const SEGMENTS_MAX = 240;
const AT_ONCE = 6;

export interface Bitrate {
  /** Seconds. */
  at: number[];
  kbits: (number | null)[];
}

/** `url`: a media playlist, not a master. */
export async function bitrate(url: string): Promise<Bitrate> {
  const segments: { at: number; seconds: number; url: string; bytes: number | null }[] = [];
  let [at, seconds, range] = [0, 0, null as number | null];
  for (const line of (await text(url)).split(/\r?\n/)) {
    const length = /^#EXTINF:([\d.]+)/.exec(line);
    const bytes = /^#EXT-X-BYTERANGE:(\d+)/.exec(line);
    if (length) seconds = Number(length[1]);
    else if (bytes) range = Number(bytes[1]);
    else if (line && !line.startsWith('#') && seconds > 0) {
      segments.push({ at, seconds, url: new URL(line, new URL(url, location.href)).href, bytes: range });
      at += seconds;
      [seconds, range] = [0, null];
    }
  }
  const step = Math.max(1, Math.ceil(segments.length / SEGMENTS_MAX));
  const wanted = segments.filter((_, n) => n % step === 0);
  const kbits: (number | null)[] = wanted.map(() => null);
  let next = 0;
  const work = async () => {
    while (next < wanted.length) {
      const mine = next;
      next += 1;
      const segment = wanted[mine];
      if (!segment) return;
      const size =
        segment.bytes ??
        (await fetch(segment.url, { method: 'HEAD', credentials: 'same-origin' }).then(
          (r) => (r.ok ? Number(r.headers.get('content-length')) : null),
          () => null,
        ));
      kbits[mine] = size ? Math.round((size * 8) / segment.seconds / 1000) : null;
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, work));
  return { at: wanted.map((s) => s.at), kbits };
}
