// The quality report: what was checked, and likeness, loudness and bitrate over time.
import { useEffect, useMemo, useState } from 'preact/hooks';
import type { Output } from '../../api/types';
import { text } from '../../api/client';
import { clock } from '../../base/format';
import { useAsk } from '../../base/hooks';
import { Table, Waiting } from '../../components/basics';
import { Plot, type Series } from '../../components/Plot';
import { bitrate, type Bitrate } from './bitrate';

interface Judged {
  uri: string;
  score: number;
  psnr?: number;
  ssim?: number;
  loudnessLufs?: number;
  truePeakDbtp?: number;
  width?: number;
  height?: number;
  series?: { stepSeconds: number; psnr: (number | null)[]; ssim: (number | null)[]; loudnessLufs: (number | null)[] };
}

export interface QualityReport {
  score?: number;
  passed?: boolean;
  summary?: string;
  checks?: { name: string; output: string; passed: boolean; critical: boolean; value: unknown; limit: unknown; message: string }[];
  outputs?: Judged[];
}

const file = (uri: string) => decodeURIComponent(uri.split('/').pop() ?? uri);

function over(outputs: Judged[], pick: (j: Judged) => (number | null)[] | undefined): { x: number[]; series: Series[] } {
  const all = outputs.filter((o) => (pick(o)?.length ?? 0) > 1);
  const step = Math.max(1, ...all.map((o) => o.series?.stepSeconds ?? 1));
  const length = Math.max(0, ...all.map((o) => pick(o)?.length ?? 0));
  return {
    x: Array.from({ length }, (_, n) => n * step),
    series: all.map((o) => ({
      label: file(o.uri),
      values: Array.from({ length }, (_, n) => pick(o)?.[n] ?? null),
    })),
  };
}

function Bitrates({ playlists, onPick }: { playlists: Output[]; onPick: (seconds: number) => void }) {
  const [read, setRead] = useState<{ name: string; rate: Bitrate }[]>([]);
  useEffect(() => {
    let gone = false;
    void Promise.all(
      playlists.map((p) => bitrate(p.url ?? '').then((rate) => ({ name: p.name, rate }), () => null)),
    ).then((all) => {
      if (!gone) setRead(all.filter((r): r is { name: string; rate: Bitrate } => r !== null && r.rate.at.length > 1));
    });
    return () => {
      gone = true;
    };
  }, [playlists]);
  const drawn = useMemo(() => {
    const longest = read.reduce<number[]>((best, r) => (r.rate.at.length > best.length ? r.rate.at : best), []);
    return {
      x: longest,
      series: read.map((r) => ({ label: file(r.name), values: longest.map((_, n) => r.rate.kbits[n] ?? null) })),
    };
  }, [read]);
  if (drawn.x.length < 2) return null;
  return <Plot title="Bitrate of the HLS renditions" x={drawn.x} xLabel={clock} unit="kbit/s" series={drawn.series} onPick={onPick} />;
}

interface Props {
  report: Output | undefined;
  playlists: Output[];
  onPick: (seconds: number) => void;
}

export function Quality({ report, playlists, onPick }: Props) {
  const { value, error } = useAsk(report?.url ? () => text(report.url ?? '').then((t) => JSON.parse(t) as QualityReport) : null, report?.url);
  const plots = useMemo(() => {
    const outputs = value?.outputs ?? [];
    return [
      { title: 'PSNR against the source', unit: 'dB', ...over(outputs, (o) => o.series?.psnr) },
      { title: 'SSIM against the source', unit: '', ...over(outputs, (o) => o.series?.ssim) },
      { title: 'Loudness', unit: 'LUFS', ...over(outputs, (o) => o.series?.loudnessLufs) },
    ].filter((p) => p.series.length > 0 && p.x.length > 1);
  }, [value]);
  const failed = (value?.checks ?? []).filter((c) => !c.passed);
  return (
    <section aria-label="Quality">
      <h2>Quality</h2>
      {report && !value ? <Waiting error={error} /> : null}
      {value ? (
        <>
          <p>
            <span class={`badge ${value.passed ? 'SUCCEEDED' : 'FAILED'}`}>{value.passed ? 'passed' : 'not passed'}</span>{' '}
            {value.summary}
          </p>
          {failed.length > 0 ? (
            <ul class="brief-list">
              {failed.map((c, n) => (
                <li key={n}>
                  <b>{c.name}</b> {c.critical ? <span class="bad">critical</span> : null} {c.message} <small>{file(c.output)}</small>
                </li>
              ))}
            </ul>
          ) : null}
          <Table head={['Output', 'Score', 'Size', 'PSNR', 'SSIM', 'Loudness', 'True peak']}>
            {(value.outputs ?? []).filter((o) => o.psnr !== undefined || o.loudnessLufs !== undefined).map((o) => (
              <tr key={o.uri}>
                <td>{file(o.uri)}</td>
                <td>{o.score.toFixed(2)}</td>
                <td>{o.width ? `${o.width}×${o.height}` : ''}</td>
                <td>{o.psnr !== undefined ? `${o.psnr.toFixed(1)} dB` : ''}</td>
                <td>{o.ssim?.toFixed(4)}</td>
                <td>{o.loudnessLufs !== undefined ? `${o.loudnessLufs} LUFS` : ''}</td>
                <td>{o.truePeakDbtp !== undefined ? `${o.truePeakDbtp} dBTP` : ''}</td>
              </tr>
            ))}
          </Table>
        </>
      ) : null}
      <div class="plots">
        {plots.map((p) => (
          <Plot key={p.title} title={p.title} x={p.x} xLabel={clock} unit={p.unit} series={p.series} onPick={onPick} />
        ))}
        <Bitrates playlists={playlists} onPick={onPick} />
      </div>
    </section>
  );
}
