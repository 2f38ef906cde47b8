// The live tail: rows as the server sends them, newest first, held in a bounded list. Paused, new ones wait and are counted.
import { api } from '../api/client';
import type { LiveStatus, RequestRow, Series } from '../api/types';

const MOST_ROWS = 1_000;
/** Rows are shown in beats, so that a busy system does not redraw the table for each. */
const BEAT_MS = 250;
/** The strip of a live tail: one second a step. */
const SECONDS = 120;

function flat(): Series {
  const zeros = () => new Array<number>(SECONDS).fill(0);
  const to = Math.ceil(Date.now() / 1000) * 1000;
  return { from: to - SECONDS * 1000, step_ms: 1000, passed: zeros(), denied: zeros(), limited: zeros(), failed: zeros() };
}

export class Live {
  rows = $state.raw<RequestRow[]>([]);
  status = $state.raw<LiveStatus | null>(null);
  waiting = $state(0);
  /** By hand. */
  paused = $state(false);
  /** While the pointer is over the rows: a row must not move away under it. */
  hovered = $state(false);
  /** The stream is not there just now; the browser tries again by itself. */
  broken = $state(false);
  /** The last two minutes, a second a step. */
  series = $state.raw<Series>(flat());
  #counts = flat();
  #source: EventSource | null = null;
  #held: RequestRow[] = [];
  #timer: ReturnType<typeof setInterval> | undefined;

  start(q: string): void {
    this.stop();
    this.rows = [];
    this.status = null;
    this.paused = false;
    this.#counts = flat();
    this.series = this.#counts;
    const source = api.live(q);
    this.#source = source;
    source.addEventListener('row', (e) => {
      const row = JSON.parse(e.data) as RequestRow;
      this.#held.push(row);
      this.#count(row);
      if (this.#held.length > MOST_ROWS) this.#held.shift();
    });
    source.addEventListener('status', (e) => (this.status = JSON.parse(e.data) as LiveStatus));
    source.onopen = () => (this.broken = false);
    source.onerror = () => (this.broken = true);
    this.#timer = setInterval(() => this.#beat(), BEAT_MS);
  }

  #count(row: RequestRow): void {
    this.#advance();
    const at = Math.floor((Date.parse(row.time) - this.#counts.from) / 1000);
    // Of a sampled tail each row stands for several.
    if (at >= 0 && at < SECONDS) this.#counts[row.outcome][at]! += this.status?.shown_1_in ?? 1;
  }

  /** Moves the window on by whole seconds. */
  #advance(): void {
    const by = Math.min(SECONDS, Math.floor((Date.now() - this.#counts.from) / 1000) - SECONDS + 1);
    if (by <= 0) return;
    const on = (values: number[]) => [...values.slice(by), ...new Array<number>(by).fill(0)];
    const c = this.#counts;
    this.#counts = { from: c.from + by * 1000, step_ms: 1000, passed: on(c.passed), denied: on(c.denied), limited: on(c.limited), failed: on(c.failed) };
  }

  #beat(): void {
    this.#advance();
    this.series = { ...this.#counts };
    if (this.paused || this.hovered) this.waiting = this.#held.length;
    else this.#show();
  }

  #show(): void {
    this.waiting = 0;
    if (this.#held.length === 0) return;
    const fresh = this.#held.reverse();
    this.#held = [];
    const seen = new Set(fresh.map((r) => r.key));
    this.rows = [...fresh, ...this.rows.filter((r) => !seen.has(r.key))].slice(0, MOST_ROWS);
  }

  pause(on: boolean): void {
    this.paused = on;
    if (!on) this.#show();
  }

  stop(): void {
    this.#source?.close();
    this.#source = null;
    this.#held = [];
    this.waiting = 0;
    this.hovered = false;
    clearInterval(this.#timer);
    this.broken = false;
  }
}
