// The moment the page is about. Relative ranges are resolved against it, and it moves only when the page asks again,
// so that the charts, the table and the facets of one look belong to the same range.
import { isRelative, resolve, type Range } from '../time/range';
import { where } from './url.svelte';

const EVERY_MS = 10_000;

let now = $state(Date.now());
let looks = $state(0);

export const clock = {
  get now() {
    return now;
  },
  /** How often somebody asked to look again; what holds still otherwise follows this. */
  get looks() {
    return looks;
  },
  get range(): Range {
    return resolve(where.time, now);
  },
};

/** The page's clock stands still for a fixed look; this moves it. */
export function refresh(): void {
  now = Date.now();
  looks += 1;
}

/** While the range ends now and the page can be seen, look again every ten seconds. */
export function keepFresh(): () => void {
  const timer = setInterval(() => {
    if (isRelative(where.time) && document.visibilityState === 'visible') now = Date.now();
  }, EVERY_MS);
  return () => clearInterval(timer);
}
