// Numbers and times as the page writes them: thousands by comma, three significant digits at most, UTC.

/** A hair's breadth between a value and its unit, that does not break over a line. */
export const THIN = '\u00a0';

export function count(n: number): string {
  return Math.round(n).toLocaleString('en');
}

/** Three significant digits at most; trailing zeros say nothing and go. */
export function short(n: number): string {
  if (!Number.isFinite(n)) return '–';
  if (n === 0) return '0';
  const size = Math.abs(n);
  if (size >= 99.95) return count(n);
  if (size < 0.005) return '<0.01';
  const digits = size >= 0.995 ? 1 : 2;
  return n.toFixed(digits).replace(/\.?0+$/, '');
}

/** In a column of durations the decimals stay, so that the points stand under each other. */
export function column(ms: number): string {
  if (ms >= 99.95) return count(ms);
  return ms.toFixed(ms >= 9.995 ? 1 : 2);
}

/** A share of a whole in percent: two decimals, because 99.99 and 100 are not the same promise. */
export function percent(part: number, whole: number): string {
  if (whole === 0) return '–';
  const value = (part / whole) * 100;
  if (value === 100 || value === 0) return String(value);
  // Never round to a promise that does not hold.
  const kept = Math.min(99.99, Math.max(0.01, value));
  return kept.toFixed(2);
}

export function rate(n: number): string {
  return short(n);
}

/** Milliseconds in the unit a person would choose. */
export function span(ms: number): { value: string; unit: string } {
  if (ms < 0.1 && ms > 0) return { value: short(ms * 1000), unit: 'µs' };
  if (ms < 10_000) return { value: short(ms), unit: 'ms' };
  if (ms < 120_000) return { value: short(ms / 1000), unit: 's' };
  if (ms < 7_200_000) return { value: short(ms / 60_000), unit: 'min' };
  return { value: short(ms / 3_600_000), unit: 'h' };
}

export function spanText(ms: number): string {
  const { value, unit } = span(ms);
  return `${value}${THIN}${unit}`;
}

/** Microseconds of a stage. */
export function micros(us: number): string {
  return us >= 10_000 ? `${short(us / 1000)}${THIN}ms` : `${count(us)}${THIN}µs`;
}

/** `02:31:07.482` out of an RFC 3339 time or nanoseconds in a string. */
export function wireClock(time: string): string {
  const at = time.indexOf('T');
  if (at < 0) return time;
  const [whole, rest = ''] = time.slice(at + 1).replace(/Z|[+-]\d\d:\d\d$/, '').split('.');
  return `${whole}.${rest.slice(0, 3).padEnd(3, '0')}`;
}

const WORDS = ['no', 'one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight', 'nine', 'ten', 'eleven', 'twelve'];

export function inWords(n: number): string {
  return WORDS[n] ?? count(n);
}

export function plural(n: number, one: string, many = `${one}s`): string {
  return `${count(n)} ${n === 1 ? one : many}`;
}

/** Breaks a dotted name where a reader would, without changing what is copied. */
export function pieces(name: string): string[] {
  return name.split(/(?<=[._/:])/);
}

/** An attribute's value as it came: text bare, everything else as JSON. */
export function wire(value: unknown): string {
  if (typeof value === 'string') return value;
  if (Array.isArray(value) && value.every((v) => typeof v === 'string' || typeof v === 'number')) return value.join(' ');
  return JSON.stringify(value) ?? '';
}
