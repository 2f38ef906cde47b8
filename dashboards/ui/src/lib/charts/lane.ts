// The stage lane: one request's way through a proxy as bars on the line, up to the gate that stopped it.
//
// Pure. Widths are to scale, but a stage that took anything at all keeps a few pixels, and names never run into each other.
import type { Outcome, Stage } from '../api/types';

export interface Bar {
  name: string;
  us: number;
  x: number;
  width: number;
  /** The longest is dark, what came before it pale: the eye goes to where the time went. */
  weight: 'pale' | 'middle' | 'dark';
}
export interface Label {
  words: string;
  x: number;
  end: boolean;
}
export interface Lane {
  bars: Bar[];
  labels: Label[];
  /** Where the line ends: at the gate, or at the far end when nothing stopped it. */
  gate: number | null;
  end: number;
  missed: string[];
}

const LEAST = 3;
const BETWEEN = 1;
const CHARACTER = 6.35;

export function lane(stages: Stage[], stoppedAt: string | null, outcome: Outcome, width: number): Lane {
  const missed = stages.filter((s) => s.outcome === 'not_reached').map((s) => s.name);
  const reached = stages.filter((s) => s.outcome !== 'not_reached' && s.us != null && s.us >= 0);
  const stopped = outcome !== 'passed' && stoppedAt !== null;
  const room = stopped && missed.length > 0 ? Math.round(width * 0.62) : width - (stopped ? 14 : 0);
  const total = reached.reduce((sum, s) => sum + (s.us ?? 0), 0);
  const spare = Math.max(0, room + BETWEEN - reached.length * (LEAST + BETWEEN));
  const longest = Math.max(0, ...reached.map((s) => s.us ?? 0));

  let x = 0;
  const bars = reached.map((s, i): Bar => {
    const us = s.us ?? 0;
    const wide = LEAST + (total > 0 ? (us / total) * spare : spare / Math.max(1, reached.length));
    const bar: Bar = { name: s.name, us, x, width: wide, weight: us === longest ? 'dark' : i === 0 ? 'pale' : 'middle' };
    x += wide + BETWEEN;
    return bar;
  });
  const end = bars.length > 0 ? x - BETWEEN : 0;

  // Names stand at the start of their bar when there is room; the longest stands at its own end, as the words lead up to the gate.
  const labels: Label[] = [];
  const dark = bars.findIndex((b) => b.weight === 'dark');
  const last = bars[dark];
  const unit = (us: number) => (us >= 10_000 ? `${Math.round(us / 1000)} ms` : `${us} µs`);
  const lead = last ? `${last.name} ${unit(last.us)}` : '';
  let limit = last ? last.x + last.width - lead.length * CHARACTER - 8 : room;
  let free = 0;
  bars.forEach((b, i) => {
    if (i >= dark) return;
    const words = `${b.name} ${b.us >= 10_000 ? unit(b.us) : b.us}`;
    const at = Math.max(b.x, free);
    if (at + words.length * CHARACTER > limit) return;
    labels.push({ words, x: at, end: false });
    free = at + words.length * CHARACTER + 9;
  });
  if (last) {
    const at = last.x + last.width;
    if (at - lead.length * CHARACTER >= 0) labels.push({ words: lead, x: at, end: true });
    else labels.push({ words: lead, x: 0, end: false });
    free = at + 9;
  }
  limit = stopped && missed.length > 0 ? room : width;
  bars.forEach((b, i) => {
    if (i <= dark) return;
    const words = `${b.name} ${b.us >= 10_000 ? unit(b.us) : b.us}`;
    const at = Math.max(b.x, free);
    if (at + words.length * CHARACTER > limit) return;
    labels.push({ words, x: at, end: false });
    free = at + words.length * CHARACTER + 9;
  });
  return { bars, labels, gate: stopped ? end + 3 : null, end, missed };
}
