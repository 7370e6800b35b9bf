// Lines over time, drawn by uPlot, which comes when the first plot is shown.
import { useEffect, useRef } from 'preact/hooks';
import type uPlot from 'uplot';

export interface Series {
  label: string;
  values: (number | null)[];
}

interface Props {
  title: string;
  /** Of the x axis; a clock's by default. */
  x: number[];
  xLabel?: (x: number) => string;
  /** The x axis has whole numbers only. */
  whole?: boolean;
  unit: string;
  series: Series[];
  height?: number;
  onPick?: (x: number) => void;
}

/** Steps of an axis of whole numbers, such as seconds, which its labels tell apart. */
const WHOLE = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 18_000];
// Told apart in both schemes, and by people who do not tell red from green.
const COLOURS = ['#2f7ed8', '#d97706', '#0d9488', '#a855f7', '#db2777', '#65a30d'];

export function Plot({ title, x, xLabel, whole, unit, series, height = 180, onPick }: Props) {
  const place = useRef<HTMLDivElement>(null);
  const pick = useRef(onPick);
  pick.current = onPick;
  useEffect(() => {
    const element = place.current;
    if (!element) return;
    let plot: uPlot | null = null;
    let gone = false;
    const ink = getComputedStyle(document.documentElement);
    const [quiet, line] = [ink.getPropertyValue('--plot-ink'), ink.getPropertyValue('--plot-line')];
    const resized = new ResizeObserver(() => plot?.setSize({ width: element.clientWidth, height }));
    void Promise.all([import('uplot'), import('uplot/dist/uPlot.min.css')]).then(([{ default: UPlot }]) => {
      if (gone) return;
      const axis = { stroke: quiet, grid: { stroke: line, width: 1 }, ticks: { stroke: line, width: 1 } };
      const options: uPlot.Options = {
        width: element.clientWidth,
        height,
        scales: { x: { time: false } },
        axes: [
          {
            ...axis,
            ...(xLabel || whole ? { incrs: WHOLE } : {}),
            ...(xLabel ? { values: (_: uPlot, all: number[]) => all.map(xLabel) } : {}),
          },
          { ...axis, size: 64 },
        ],
        series: [
          { label: 'at', ...(xLabel ? { value: (_: uPlot, v: number | null) => (v === null ? '' : xLabel(v)) } : {}) },
          ...series.map((s, n) => ({ label: s.label, stroke: COLOURS[n % COLOURS.length], width: 1.5, spanGaps: true })),
        ],
      };
      plot = new UPlot(options, [x, ...series.map((s) => s.values)] as uPlot.AlignedData, element);
      plot.over.addEventListener('click', () => {
        const at = plot?.cursor.idx;
        if (at !== null && at !== undefined) pick.current?.(x[at] ?? 0);
      });
      resized.observe(element);
    });
    return () => {
      gone = true;
      resized.disconnect();
      plot?.destroy();
    };
  }, [x, series, unit, height]);
  const facts = series.map((s) => {
    const known = s.values.filter((v): v is number => v !== null);
    return known.length ? `${s.label} from ${Math.min(...known)} to ${Math.max(...known)} ${unit}` : `${s.label}: nothing`;
  });
  return (
    <figure class="plot">
      <figcaption>
        {title} {unit ? <small>in {unit}</small> : null}
      </figcaption>
      <div ref={place} role="img" aria-label={`${title}: ${facts.join('; ')}`} />
    </figure>
  );
}
