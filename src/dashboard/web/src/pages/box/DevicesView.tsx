// Devices: load and temperature over the last minutes, and what each can do.
import { useEffect, useMemo, useState } from 'preact/hooks';
import * as api from '../../api/client';
import type { Devices, Health } from '../../api/types';
import { bytes, duration, plural } from '../../base/format';
import { useFresh } from '../../base/hooks';
import { Waiting } from '../../components/basics';
import { Json } from '../../components/Json';
import { Plot } from '../../components/Plot';
import { known, why } from '../overview/OverviewPage';

/** Readings that are kept on the page: ten minutes of them. */
const KEPT = 200;

interface Reading {
  at: number;
  load: Record<string, number | null>;
  heat: Record<string, number | null>;
}

function readingOf(devices: Devices): Reading {
  const load: Reading['load'] = { CPU: devices.now.cpu_percent };
  const heat: Reading['heat'] = {};
  devices.now.temperatures.forEach((t) => (heat[t.name] = t.celsius));
  devices.gpus.forEach((gpu) => {
    const name = gpu.name ?? `GPU ${gpu.index}`;
    const health = known<Health>(gpu.health);
    load[name] = health?.gpu_load_percent ?? null;
    heat[name] = health?.temperature_celsius ?? null;
  });
  return { at: Date.now(), load, heat };
}

function Over({ title, unit, readings, pick }: { title: string; unit: string; readings: Reading[]; pick: 'load' | 'heat' }) {
  const drawn = useMemo(() => {
    const names = [...new Set(readings.flatMap((r) => Object.keys(r[pick])))];
    const last = readings[readings.length - 1]?.at ?? 0;
    return {
      x: readings.map((r) => (r.at - last) / 1000),
      series: names.map((label) => ({
        label,
        values: readings.map((r) => {
          const value = r[pick][label];
          return typeof value === 'number' ? Math.round(value * 10) / 10 : null;
        }),
      })),
    };
  }, [readings, pick]);
  if (readings.length < 3 || drawn.series.every((s) => s.values.every((v) => v === null))) return null;
  return <Plot title={title} x={drawn.x} xLabel={(s) => (s === 0 ? 'now' : `−${duration(-s * 1000)}`)} unit={unit} series={drawn.series} />;
}

export function DevicesView() {
  const { value, error } = useFresh(api.devices, 'devices', 3_000);
  const [readings, setReadings] = useState<Reading[]>([]);
  useEffect(() => {
    if (value) setReadings((old) => [...old, readingOf(value)].slice(-KEPT));
  }, [value]);
  if (!value) return <Waiting error={error} />;
  const { now, cpu, driver } = value;
  return (
    <>
      <div class="plots">
        <Over title="Load" unit="%" readings={readings} pick="load" />
        <Over title="Temperature" unit="°C" readings={readings} pick="heat" />
      </div>
      <section class="card pad">
        <h2>Host</h2>
        <dl class="pairs">
          <dt>Processor</dt>
          <dd>
            {cpu.model ?? 'does not name itself'}, {plural(cpu.cores, 'core')} usable of {cpu.online}
          </dd>
          <dt>Load</dt>
          <dd>
            {now.cpu_percent === null ? 'being measured' : `${now.cpu_percent.toFixed(0)} %`}
            {now.load_average ? ` · load average ${now.load_average.map((l) => l.toFixed(2)).join(', ')}` : ''}
          </dd>
          <dt>Memory</dt>
          <dd>
            {now.memory.total && now.memory.available
              ? `${bytes(now.memory.available)} available of ${bytes(now.memory.total)}`
              : 'the kernel does not say'}
          </dd>
          <dt>Temperature</dt>
          <dd>
            {now.temperatures.length > 0
              ? now.temperatures.map((t) => `${t.name} ${t.celsius.toFixed(0)} °C`).join(', ')
              : 'the kernel shows no sensor'}
          </dd>
          <dt>Driver</dt>
          <dd>{driver.version ? `NVIDIA ${driver.version}` : 'no NVIDIA driver answers on this machine'}</dd>
        </dl>
        {driver.version ? null : (
          <details>
            <summary>What is missing</summary>
            <ul>
              {driver.libraries.map((l) => (
                <li key={l.name}>{why(l.usable) || l.name}</li>
              ))}
            </ul>
          </details>
        )}
      </section>
      {value.gpus.map((gpu) => {
        const health = known<Health>(gpu.health);
        return (
          <section key={gpu.index} class="card pad">
            <h2>{gpu.name ?? `GPU ${gpu.index}`}</h2>
            {gpu.fault ? <p class="notice">{gpu.fault}</p> : null}
            <dl class="pairs">
              <dt>Now</dt>
              <dd>
                {health
                  ? [
                      health.gpu_load_percent !== null ? `load ${health.gpu_load_percent} %` : '',
                      health.temperature_celsius !== null ? `${health.temperature_celsius} °C` : '',
                      health.power_watts !== null ? `${health.power_watts.toFixed(0)} W` : '',
                      health.memory_used !== null ? `${bytes(health.memory_used)} used` : '',
                    ]
                      .filter(Boolean)
                      .join(' · ')
                  : why(gpu.health)}
              </dd>
              <dt>Memory</dt>
              <dd>{gpu.memory ? bytes(gpu.memory) : ''}</dd>
              <dt>Encodes</dt>
              <dd>{known(gpu.nvenc) ? plural(known(gpu.nvenc)?.engines ?? 0, 'NVENC engine') : why(gpu.nvenc)}</dd>
              <dt>Decodes</dt>
              <dd>{known(gpu.nvdec) ? plural(known(gpu.nvdec)?.engines ?? 0, 'NVDEC engine') : why(gpu.nvdec)}</dd>
              <dt>UUID</dt>
              <dd>
                <code>{gpu.uuid}</code>
              </dd>
            </dl>
            <details>
              <summary>Everything that it says</summary>
              <Json value={gpu} label="GPU" />
            </details>
          </section>
        );
      })}
      {value.gpus.length === 0 ? <p class="quiet">No GPU that a driver shows: all work runs on the processor.</p> : null}
    </>
  );
}
