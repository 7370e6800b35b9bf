// The event table: all events, however many, with those on the screen only in the page.
import { useMemo, useState } from 'preact/hooks';
import * as api from '../../api/client';
import { count, duration, exactMoment, utc } from '../../base/format';
import { useAsk } from '../../base/hooks';
import { href } from '../../base/route';
import { Waiting } from '../../components/basics';
import { Json } from '../../components/Json';
import { VirtualRows } from '../../components/VirtualRows';
import type { Model } from './model';

const ROW = 28;
const BAD = /Failed|TimedOut|Aborted/;

function EventBody({ id, event }: { id: string; event: number }) {
  const { value, error } = useAsk(() => api.event(id, event), event);
  if (!value) return <Waiting error={error} />;
  return <Json value={value.events[0] ?? {}} label={`event ${event}`} />;
}

interface Props {
  model: Model;
  selected: number | null;
  onSelect: (event: number) => void;
  onState: (event: number) => void;
}

export function Events({ model, selected, onSelect, onState }: Props) {
  const { events, names, id } = model.trace;
  const [find, setFind] = useState('');
  const [bad, setBad] = useState(false);
  const rows = useMemo(() => {
    const wanted = find.trim().toLowerCase();
    const all: number[] = [];
    for (let n = 0; n < events.id.length; n += 1) {
      const type = names[events.type[n] ?? 0] ?? '';
      if (bad && !BAD.test(type)) continue;
      if (wanted) {
        const visit = model.visits[events.visit[n] ?? -1];
        if (!type.toLowerCase().includes(wanted) && !visit?.name.toLowerCase().includes(wanted)) continue;
      }
      all.push(n);
    }
    return all;
  }, [model, find, bad]);
  const reveal = selected === null ? null : rows.findIndex((n) => events.id[n] === selected);
  const at = selected === null ? -1 : events.id.indexOf(selected);
  const visit = at < 0 ? undefined : model.visits[events.visit[at] ?? -1];
  return (
    <div class="events">
      <div class="filters">
        <input
          type="search"
          placeholder="Type or state…"
          aria-label="Type or state"
          value={find}
          onInput={(e) => setFind(e.currentTarget.value)}
        />
        <label>
          <input type="checkbox" checked={bad} onChange={(e) => setBad(e.currentTarget.checked)} /> failures only
        </label>
        <span class="quiet">
          {count(rows.length)} of {count(events.id.length)} events
        </span>
      </div>
      <div class="split">
        <VirtualRows
          count={rows.length}
          rowHeight={ROW}
          height={560}
          label="Events"
          reveal={reveal}
          header={
            <div class="event head" aria-hidden="true">
              <span>#</span>
              <span>Type</span>
              <span>State</span>
              <span>After start</span>
            </div>
          }
          row={(index, style) => {
            const n = rows[index] ?? 0;
            const type = names[events.type[n] ?? 0] ?? '';
            const number = events.id[n] ?? 0;
            const when = events.at[n] ?? 0;
            const row = model.visits[events.visit[n] ?? -1];
            return (
              <button
                key={number}
                type="button"
                class={`event ${BAD.test(type) ? 'bad' : ''}`}
                aria-pressed={number === selected}
                style={style}
                onClick={() => onSelect(number)}
              >
                <span>{number}</span>
                <span>{type}</span>
                <span>
                  {row ? row.name : ''}
                  {row && row.iteration >= 0 ? <span class="quiet"> [{row.iteration}]</span> : null}
                </span>
                <span title={`${exactMoment(when)}\n${utc(when)}`}>{duration(when - model.trace.startedAt)}</span>
              </button>
            );
          }}
        />
        {selected !== null ? (
          <section class="event-body" aria-label={`Event ${selected}`}>
            <p>
              <b>Event {selected}</b>{' '}
              {at >= 0 && (events.previous[at] ?? 0) > 0 ? (
                <a href={href(['executions', id, 'events'], { event: events.previous[at] })}>← after {events.previous[at]}</a>
              ) : null}{' '}
              {visit ? (
                <button type="button" class="plain" onClick={() => onState(visit.event)}>
                  state {visit.name}
                </button>
              ) : null}
            </p>
            <EventBody id={id} event={selected} />
          </section>
        ) : null}
      </div>
    </div>
  );
}
