// JSON to read: folded, searched, copied. Always text, never markup: what stands in a file's name or metadata stays text.
import { useMemo, useState } from 'preact/hooks';
import { bytes, copyText, parsed, plural, pretty } from '../base/format';

/** A larger text is shown when somebody asks for it. */
const SHOWN_CHARS_MAX = 200_000;
/** Entries of one array or object that are drawn at once. */
const ENTRIES_MAX = 100;
const OPEN_DEPTH = 2;
const LONG_TEXT = 400;

function Leaf({ value, find }: { value: unknown; find: string }) {
  const [whole, setWhole] = useState(false);
  const text = JSON.stringify(value) ?? 'null';
  const kind = value === null ? 'null' : typeof value;
  const shown = whole || text.length <= LONG_TEXT ? text : `${text.slice(0, LONG_TEXT)}…`;
  return (
    <span class={`j-${kind}${find && text.toLowerCase().includes(find) ? ' found' : ''}`}>
      {shown}
      {shown !== text ? (
        <button type="button" class="plain" onClick={() => setWhole(true)}>
          all {bytes(text.length)}
        </button>
      ) : null}
    </span>
  );
}

function holds(value: unknown, find: string): boolean {
  if (value !== null && typeof value === 'object') {
    return Object.entries(value).some(([key, inner]) => key.toLowerCase().includes(find) || holds(inner, find));
  }
  return (JSON.stringify(value) ?? '').toLowerCase().includes(find);
}

function Node({ name, value, depth, find }: { name: string | null; value: unknown; depth: number; find: string }) {
  const [open, setOpen] = useState(depth < OPEN_DEPTH);
  const [shown, setShown] = useState(ENTRIES_MAX);
  const key =
    name === null ? null : (
      <span class={`j-key${find && name.toLowerCase().includes(find) ? ' found' : ''}`}>{JSON.stringify(name)}: </span>
    );
  if (value === null || typeof value !== 'object') {
    return (
      <div class="j-line">
        {key}
        <Leaf value={value} find={find} />
      </div>
    );
  }
  const isArray = Array.isArray(value);
  const entries = isArray ? (value as unknown[]).map((v, n) => [String(n), v] as const) : Object.entries(value);
  if (entries.length === 0) {
    return (
      <div class="j-line">
        {key}
        {isArray ? '[]' : '{}'}
      </div>
    );
  }
  const isOpen = open || (find !== '' && holds(value, find));
  return (
    <div class="j-node">
      <button type="button" class="j-fold" aria-expanded={isOpen} onClick={() => setOpen(!isOpen)}>
        <span aria-hidden="true">{isOpen ? '▾' : '▸'}</span> {key}
        <span class="quiet">
          {isArray ? '[' : '{'}
          {isOpen ? '' : ` ${plural(entries.length, isArray ? 'item' : 'field')} ${isArray ? ']' : '}'}`}
        </span>
      </button>
      {isOpen ? (
        <div class="j-inner">
          {entries.slice(0, shown).map(([k, v]) => (
            <Node key={k} name={isArray ? null : k} value={v} depth={depth + 1} find={find} />
          ))}
          {entries.length > shown ? (
            <button type="button" class="plain" onClick={() => setShown(shown + ENTRIES_MAX * 5)}>
              {entries.length - shown} more
            </button>
          ) : null}
          <span class="quiet">{isArray ? ']' : '}'}</span>
        </div>
      ) : null}
    </div>
  );
}

/** `text` is JSON or not; `value` is what it says, where the caller has that already. */
export function Json({ text, value, label }: { text?: string; value?: unknown; label?: string }) {
  const source = text ?? JSON.stringify(value) ?? 'null';
  const [asked, setAsked] = useState(source.length <= SHOWN_CHARS_MAX);
  const [find, setFind] = useState('');
  const [copied, setCopied] = useState('');
  const read = useMemo(() => (asked ? parsed(source) : null), [asked, source]);
  if (!asked) {
    return (
      <button type="button" onClick={() => setAsked(true)}>
        Show {bytes(source.length)} of {label ?? 'JSON'}
      </button>
    );
  }
  const copy = () =>
    copyText(pretty(source)).then(
      () => setCopied('copied'),
      () => setCopied('not copied'),
    );
  const isTree = read !== null && typeof read === 'object';
  return (
    <div class="json">
      <div class="j-tools">
        {isTree && source.length > 300 ? (
          <input
            type="search"
            placeholder="Search"
            aria-label={`Search in ${label ?? 'this'}`}
            value={find}
            onInput={(e) => setFind(e.currentTarget.value)}
          />
        ) : null}
        <button type="button" class="copy" onClick={copy} aria-label={`Copy ${label ?? ''}`}>
          {copied || 'copy'}
        </button>
      </div>
      {isTree ? <Node name={null} value={read} depth={0} find={find.trim().toLowerCase()} /> : <pre tabIndex={0}>{pretty(source)}</pre>}
    </div>
  );
}
