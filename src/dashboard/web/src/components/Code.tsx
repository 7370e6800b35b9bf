// A definition as it was written, with line numbers and one state of it marked.
import { useEffect, useMemo, useRef } from 'preact/hooks';

/** The lines that a state's name and body take, counted from 0: found by its key's place and its braces. */
export function linesOf(text: string, name: string | null): [number, number] | null {
  if (name === null) return null;
  const key = JSON.stringify(name);
  for (let from = text.indexOf(key); from >= 0; from = text.indexOf(key, from + 1)) {
    const rest = /^\s*:\s*\{/.exec(text.slice(from + key.length));
    if (!rest) continue;
    let [depth, quoted] = [0, false];
    for (let at = from + key.length; at < text.length; at += 1) {
      const c = text[at];
      if (quoted) {
        if (c === '\\') at += 1;
        else if (c === '"') quoted = false;
      } else if (c === '"') quoted = true;
      else if (c === '{') depth += 1;
      else if (c === '}' && --depth === 0) {
        const line = (place: number) => text.slice(0, place).split('\n').length - 1;
        return [line(from), line(at)];
      }
    }
  }
  return null;
}

export function Code({ text, marked, label }: { text: string; marked: string | null; label: string }) {
  const lines = useMemo(() => text.split('\n'), [text]);
  const range = useMemo(() => linesOf(text, marked), [text, marked]);
  const box = useRef<HTMLDivElement>(null);
  useEffect(() => {
    if (range) box.current?.querySelector('.marked')?.scrollIntoView({ block: 'nearest' });
  }, [range]);
  return (
    <div class="code" ref={box} tabIndex={0} role="region" aria-label={label}>
      <pre>
        {lines.map((line, n) => (
          <span key={n} class={range && n >= range[0] && n <= range[1] ? 'code-line marked' : 'code-line'}>
            <span class="number" aria-hidden="true">
              {n + 1}
            </span>
            {line}
            {'\n'}
          </span>
        ))}
      </pre>
    </div>
  );
}
