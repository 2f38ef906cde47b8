// Where we are, as the URL says it: path, time range, filter and the open request. Nothing of this is kept anywhere else,
// so that a copied link shows what its sender saw.
import { DEFAULT, type Spec } from '../time/range';

export interface Place {
  path: string;
  params: URLSearchParams;
}

function read(): Place {
  return { path: location.pathname.replace(/(.)\/+$/, '$1'), params: new URLSearchParams(location.search) };
}

let place = $state.raw<Place>(read());
addEventListener('popstate', () => (place = read()));

// One derived value a parameter: what reads the filter is not run again because a request was opened.
const path = $derived(place.path);
const q = $derived(place.params.get('q') ?? '');
const from = $derived(place.params.get('from') ?? DEFAULT.from);
const to = $derived(place.params.get('to') ?? DEFAULT.to);
const drawer = $derived(place.params.get('drawer'));
const live = $derived(place.params.get('live') === '1');

/** Parameters that belong to one page and do not follow to the next. */
const LOCAL = ['drawer', 'live', 'palette', 'keys', 'time'];

export const where = {
  get path() {
    return path;
  },
  get q() {
    return q;
  },
  get time(): Spec {
    return { from, to };
  },
  get drawer() {
    return drawer;
  },
  get live() {
    return live;
  },
  param: (name: string) => place.params.get(name),
};

function text(params: URLSearchParams): string {
  // Colons and commas are legal in a query and read better bare.
  const out = params.toString().replaceAll('%3A', ':').replaceAll('%2C', ',').replaceAll('%2F', '/').replaceAll('%3E', '>').replaceAll('%3D', '=');
  return out ? `?${out}` : '';
}

/** A link to another page that keeps time, filter and theme. */
export function linkTo(target: string, change: Record<string, string | null> = {}): string {
  const params = new URLSearchParams(place.params);
  for (const name of LOCAL) params.delete(name);
  apply(params, change);
  return target + text(params);
}

/** A link to this page with something changed. */
export function linkHere(change: Record<string, string | null>): string {
  const params = new URLSearchParams(place.params);
  apply(params, change);
  return place.path + text(params);
}

function apply(params: URLSearchParams, change: Record<string, string | null>): void {
  for (const [name, value] of Object.entries(change)) {
    if (value === null || value === '') params.delete(name);
    else params.set(name, value);
  }
}

export function go(to: string, how: 'push' | 'replace' = 'push'): void {
  const target = new URL(to, location.origin);
  if (target.origin !== location.origin) return;
  const moved = target.pathname !== place.path;
  if (target.href !== location.href) history[how === 'push' ? 'pushState' : 'replaceState'](null, '', target);
  place = read();
  if (moved) scrollTo(0, 0);
}

export function change(values: Record<string, string | null>, how: 'push' | 'replace' = 'push'): void {
  go(linkHere(values), how);
}

export function setTime(spec: Spec): void {
  const usual = spec.from === DEFAULT.from && spec.to === DEFAULT.to;
  change({ from: usual ? null : spec.from, to: usual || spec.to === 'now' ? null : spec.to });
}

export function setFilter(text: string): void {
  change({ q: text });
}

/** Turns clicks on our own links into moves without a reload; everything else stays the browser's. */
export function followLinks(event: MouseEvent): void {
  if (event.defaultPrevented || event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
  const link = (event.target as Element | null)?.closest?.('a');
  if (!link || link.target || link.hasAttribute('download') || link.origin !== location.origin) return;
  // A bare fragment is a jump inside the page.
  if (link.getAttribute('href')?.startsWith('#')) return;
  event.preventDefault();
  go(link.href);
}
