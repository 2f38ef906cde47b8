// One answer of the server and its states. Data already shown stays while newer is on its way, and after a failure;
// nothing is said about loading for the first 150 ms.
import { untrack } from 'svelte';
import { Problem } from '../api/client';

const QUIET_MS = 150;

export class Load<T> {
  data = $state.raw<T | null>(null);
  problem = $state.raw<Problem | null>(null);
  /** When `data` arrived, in local milliseconds. */
  at = $state(0);
  /** An answer is on its way, and long enough to say so. */
  slow = $state(false);
  busy = $state(false);
  #abort: AbortController | null = null;
  #timer: ReturnType<typeof setTimeout> | undefined;

  /** Nothing shown yet, and nothing to say about it either until `slow`. */
  get empty() {
    return this.data === null && this.problem === null;
  }
  /** What is shown is older than what was asked for. */
  get stale() {
    return this.data !== null && (this.slow || this.problem !== null);
  }

  /** Asks, leaving out an earlier question that has not been answered. */
  async ask(question: (signal: AbortSignal) => Promise<T>): Promise<T | null> {
    return untrack(() => this.#ask(question));
  }

  async #ask(question: (signal: AbortSignal) => Promise<T>): Promise<T | null> {
    this.#abort?.abort();
    const mine = new AbortController();
    this.#abort = mine;
    this.busy = true;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => (this.slow = true), QUIET_MS);
    try {
      const data = await question(mine.signal);
      if (mine.signal.aborted) return null;
      this.data = data;
      this.problem = null;
      this.at = Date.now();
      this.#rest();
      return data;
    } catch (error) {
      if (mine.signal.aborted) return null;
      this.problem = error instanceof Problem ? error : new Problem(0, 'The page could not read the answer.', String(error), null);
      this.#rest();
      return null;
    }
  }

  #rest(): void {
    clearTimeout(this.#timer);
    this.slow = false;
    this.busy = false;
  }

  forget(): void {
    this.#abort?.abort();
    this.#rest();
    this.data = null;
    this.problem = null;
  }

  stop(): void {
    this.#abort?.abort();
    this.#rest();
  }
}
