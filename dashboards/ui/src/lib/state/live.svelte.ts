// The live tail: rows as the server sends them, newest first, held in a bounded list. Paused, new ones wait and are counted.
import { api } from '../api/client';
import type { LiveStatus, RequestRow } from '../api/types';

const MOST_ROWS = 1_000;
/** Rows are shown in beats, so that a busy system does not redraw the table for each. */
const BEAT_MS = 250;

export class Live {
  rows = $state.raw<RequestRow[]>([]);
  status = $state.raw<LiveStatus | null>(null);
  waiting = $state(0);
  paused = $state(false);
  /** The stream is not there just now; the browser tries again by itself. */
  broken = $state(false);
  #source: EventSource | null = null;
  #held: RequestRow[] = [];
  #timer: ReturnType<typeof setInterval> | undefined;

  start(q: string): void {
    this.stop();
    this.rows = [];
    this.status = null;
    this.paused = false;
    const source = api.live(q);
    this.#source = source;
    source.addEventListener('row', (e) => {
      this.#held.push(JSON.parse(e.data) as RequestRow);
      if (this.#held.length > MOST_ROWS) this.#held.shift();
    });
    source.addEventListener('status', (e) => (this.status = JSON.parse(e.data) as LiveStatus));
    source.onopen = () => (this.broken = false);
    source.onerror = () => (this.broken = true);
    this.#timer = setInterval(() => this.#beat(), BEAT_MS);
  }

  #beat(): void {
    if (this.paused) this.waiting = this.#held.length;
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
    clearInterval(this.#timer);
    this.broken = false;
  }
}
