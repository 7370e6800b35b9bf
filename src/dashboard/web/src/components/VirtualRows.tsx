// A long list of rows of one height: only those on the screen are in the page.
import type { ComponentChildren, JSX } from 'preact';
import { useEffect, useLayoutEffect, useRef, useState } from 'preact/hooks';

const SPARE = 12;

interface Props {
  count: number;
  rowHeight: number;
  height: number;
  label: string;
  /** Brought into view when it changes. */
  reveal?: number | null;
  header?: ComponentChildren;
  row: (index: number, style: JSX.CSSProperties) => ComponentChildren;
}

export function VirtualRows({ count, rowHeight, height, label, reveal, header, row }: Props) {
  const box = useRef<HTMLDivElement>(null);
  const [top, setTop] = useState(0);
  const frame = useRef(0);
  const scrolled = () => {
    cancelAnimationFrame(frame.current);
    frame.current = requestAnimationFrame(() => setTop(box.current?.scrollTop ?? 0));
  };
  useEffect(() => () => cancelAnimationFrame(frame.current), []);
  useLayoutEffect(() => {
    const element = box.current;
    if (reveal === null || reveal === undefined || reveal < 0 || !element) return;
    const at = reveal * rowHeight;
    if (at < element.scrollTop || at > element.scrollTop + height - rowHeight * 2) {
      element.scrollTop = Math.max(0, at - height / 2);
      setTop(element.scrollTop);
    }
  }, [reveal, rowHeight, height]);
  const first = Math.max(0, Math.floor(top / rowHeight) - SPARE);
  const last = Math.min(count, Math.ceil((top + height) / rowHeight) + SPARE);
  const rows: ComponentChildren[] = [];
  for (let at = first; at < last; at += 1) {
    rows.push(row(at, { position: 'absolute', top: `${at * rowHeight}px`, height: `${rowHeight}px`, left: 0, right: 0 }));
  }
  return (
    <div class="virtual">
      {header}
      <div
        ref={box}
        class="virtual-box"
        style={{ maxHeight: `${height}px` }}
        onScroll={scrolled}
        role="region"
        aria-label={label}
        tabIndex={0}
      >
        <div style={{ position: 'relative', height: `${count * rowHeight}px` }}>{rows}</div>
      </div>
    </div>
  );
}
