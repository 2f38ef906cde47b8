// Time ranges as people write them (`-1h`, `now`, `2026-11-21 01:33`) and as the server takes them (milliseconds).
//
// Pure: `now` is always handed in. All times are UTC, as everything recorded is.

export interface Range {
  from: number;
  to: number;
}
/** As it stands in the URL. Relative ends stay relative, so that a shared "last hour" is the reader's last hour. */
export interface Spec {
  from: string;
  to: string;
}

export const DEFAULT: Spec = { from: '-1h', to: 'now' };

const UNIT: Record<string, number> = { s: 1_000, m: 60_000, min: 60_000, h: 3_600_000, d: 86_400_000, w: 604_800_000 };

export const RECENT: { spec: Spec; button: string; label: string }[] = [
  { spec: { from: '-5m', to: 'now' }, button: '5 min', label: 'Last 5 min' },
  { spec: { from: '-15m', to: 'now' }, button: '15 min', label: 'Last 15 min' },
  { spec: { from: '-1h', to: 'now' }, button: '1 h', label: 'Last hour' },
  { spec: { from: '-6h', to: 'now' }, button: '6 h', label: 'Last 6 h' },
  { spec: { from: '-1d', to: 'now' }, button: '1 d', label: 'Last day' },
  { spec: { from: '-2d', to: 'now' }, button: '2 d', label: 'Last 2 days' },
  { spec: { from: '-7d', to: 'now' }, button: '7 d', label: 'Last week' },
  { spec: { from: '-14d', to: 'now' }, button: '14 d', label: 'Last 2 weeks' },
];

/** One end of a range, or null when it cannot be read. */
export function moment(text: string, now: number): number | null {
  const t = text.trim();
  if (t === 'now') return now;
  const ago = /^(?:now)?-(\d+(?:\.\d+)?)\s*(s|min|m|h|d|w)$/.exec(t);
  if (ago) return now - Number(ago[1]) * UNIT[ago[2]!]!;
  if (/^\d{12,14}$/.test(t)) return Number(t);
  const clock = /^(\d{1,2}):(\d{2})(?::(\d{2}))?$/.exec(t);
  if (clock) {
    const day = Math.floor(now / 86_400_000) * 86_400_000;
    const at = day + (Number(clock[1]) * 3600 + Number(clock[2]) * 60 + Number(clock[3] ?? 0)) * 1000;
    // A time later than now is yesterday's: nobody asks for records of the future.
    return at > now + 60_000 ? at - 86_400_000 : at;
  }
  const date = /^(\d{4}-\d{2}-\d{2})(?:[ T](\d{2}:\d{2}(?::\d{2}(?:\.\d{1,3})?)?))?Z?$/.exec(t);
  if (date) {
    const at = Date.parse(`${date[1]}T${date[2] ? (date[2].length === 5 ? `${date[2]}:00` : date[2]) : '00:00:00'}Z`);
    return Number.isNaN(at) ? null : at;
  }
  return null;
}

export function isRelative(spec: Spec): boolean {
  return spec.to === 'now' && /^(?:now)?-/.test(spec.from);
}

/** The range in milliseconds. What cannot be read falls back to the default; ends the wrong way round are turned. */
export function resolve(spec: Spec, now: number): Range {
  const to = moment(spec.to, now) ?? now;
  const from = moment(spec.from, now) ?? to - 3_600_000;
  if (from === to) return { from: from - 60_000, to };
  return from < to ? { from, to } : { from: to, to: from };
}

const two = (n: number) => String(n).padStart(2, '0');

/** `2026-11-21T01:33:00Z`, with milliseconds only where there are some. */
export function write(ms: number): string {
  const iso = new Date(ms).toISOString();
  return iso.endsWith('.000Z') ? `${iso.slice(0, 19)}Z` : iso;
}

/** A range chosen by hand on a chart: whole seconds, unless it is shorter than a few of them. */
export function between(from: number, to: number): Spec {
  const round = to - from > 5_000 ? (ms: number) => Math.round(ms / 1000) * 1000 : Math.round;
  return { from: write(round(from)), to: write(round(to)) };
}

/** As the picker shows it: `2026-11-21 01:33:00`. */
export function human(ms: number): string {
  return new Date(ms).toISOString().slice(0, 19).replace('T', ' ');
}

export function clock(ms: number, seconds = false): string {
  const d = new Date(ms);
  const hm = `${two(d.getUTCHours())}:${two(d.getUTCMinutes())}`;
  return seconds ? `${hm}:${two(d.getUTCSeconds())}` : hm;
}

export function day(ms: number): string {
  return new Date(ms).toISOString().slice(5, 10);
}

/** What the button says. */
export function label(spec: Spec, now: number): string {
  const known = RECENT.find((r) => r.spec.from === spec.from.replace(/^now/, '') && spec.to === 'now');
  if (known) return known.label;
  if (isRelative(spec)) return `Last ${spec.from.replace(/^(?:now)?-/, '').replace(/(\d)(\D)/, '$1 $2')}`;
  const { from, to } = resolve(spec, now);
  const sameDay = day(from) === day(to);
  const today = sameDay && day(now) === day(to);
  const seconds = to - from < 600_000;
  const end = spec.to === 'now' ? 'now' : clock(to, seconds);
  if (today) return `${clock(from, seconds)}–${end}`;
  if (sameDay) return `${day(from)} ${clock(from, seconds)}–${end}`;
  return `${day(from)} ${clock(from)} – ${spec.to === 'now' ? 'now' : `${day(to)} ${clock(to)}`}`;
}

/** In a sentence: "in the last hour", "between 01:33 and 02:33". */
export function phrase(spec: Spec, now: number): string {
  if (isRelative(spec)) return `in the ${label(spec, now).toLowerCase()}`;
  const { from, to } = resolve(spec, now);
  if (day(from) !== day(to)) return `between ${day(from)} ${clock(from)} and ${day(to)} ${clock(to)}`;
  return `${day(to) === day(now) ? '' : `on ${day(to)} `}between ${clock(from)} and ${clock(to)}`;
}

/** The next wider recent range: what "search the last day" offers. */
export function wider(spec: Spec, now: number): { spec: Spec; label: string } | null {
  const { from } = resolve(spec, now);
  const steps = [RECENT[4]!, RECENT[6]!, RECENT[7]!];
  return steps.find((r) => moment(r.spec.from, now)! < from - 60_000) ?? null;
}

/** Twice as long around the same middle, never past now. */
export function widened({ from, to }: Range, now: number): Range {
  const half = (to - from) / 2;
  const end = Math.min(to + half, now);
  return { from: Math.round(end - (to - from) * 2), to: Math.round(end) };
}
