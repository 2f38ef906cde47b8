// The one place that talks to the server: JSON in and out, the session's CSRF header on every POST,
// and every failure as one `Problem` with words that can stand on a page.
import type { Facets, Overview, RequestDetail, SearchPage, Series, ServiceDetail, Services, Session, Status, Suggestions } from './types';

const BASE = '/api/v1';

export class Problem extends Error {
  constructor(
    /** 0 when nothing answered at all. */
    readonly status: number,
    readonly title: string,
    readonly detail: string,
    readonly requestId: string | null,
    /** The server's code for it, from its closed set. */
    readonly reason = '',
  ) {
    super(detail || title);
  }
}

let csrf = '';
let lost: () => void = () => {};

/** Called once, by the session: what to do when the server no longer knows us. */
export function onSignedOut(then: () => void): void {
  lost = then;
}

type Query = Record<string, string | number | undefined>;

function url(path: string, query: Query = {}): string {
  const params = new URLSearchParams();
  for (const [key, value] of Object.entries(query)) if (value !== undefined && value !== '') params.set(key, String(value));
  const text = params.toString();
  return `${BASE}${path}${text ? `?${text}` : ''}`;
}

async function problem(response: Response): Promise<Problem> {
  const body = (await response.json().catch(() => ({}))) as Record<string, unknown>;
  const text = (key: string) => (typeof body[key] === 'string' ? (body[key] as string) : '');
  return new Problem(
    response.status,
    text('title') || response.statusText || `status ${response.status}`,
    text('detail'),
    text('request_id') || response.headers.get('x-request-id'),
    text('reason'),
  );
}

async function call<T>(path: string, init: RequestInit = {}, quietly = false): Promise<T> {
  let response: Response;
  try {
    response = await fetch(path, { credentials: 'same-origin', ...init });
  } catch (cause) {
    if (init.signal?.aborted) throw cause;
    throw new Problem(0, 'The dashboard does not answer.', '', null);
  }
  if (response.status === 401 && !quietly) lost();
  if (!response.ok) throw await problem(response);
  if (response.status === 204) return undefined as T;
  return (await response.json()) as T;
}

const get = <T>(path: string, query: Query, signal?: AbortSignal) => call<T>(url(path, query), { signal });
const post = <T>(path: string, body: unknown, signal?: AbortSignal, quietly = false) =>
  call<T>(
    url(path),
    { method: 'POST', signal, headers: { 'content-type': 'application/json', 'x-csrf-token': csrf }, body: JSON.stringify(body) },
    quietly,
  );

export interface Ask {
  from: number;
  to: number;
  q: string;
}
const ranged = ({ from, to, q }: Ask) => ({ from: Math.round(from), to: Math.round(to), q });

function keep(session: Session): Session {
  csrf = session.csrf;
  return session;
}

export const api = {
  session: async (): Promise<Session> => keep(await call<Session>(url('/auth/session'), {}, true)),
  login: async (token: string): Promise<Session> => keep(await post<Session>('/auth/login', { token }, undefined, true)),
  logout: () => post<void>('/auth/logout', {}),

  status: (signal?: AbortSignal) => get<Status>('/status', {}, signal),
  overview: (ask: Ask, signal?: AbortSignal) => get<Overview>('/overview', ranged(ask), signal),
  series: (ask: Ask, steps: number, signal?: AbortSignal) => get<Series>('/series', { ...ranged(ask), steps }, signal),
  services: (ask: Ask, signal?: AbortSignal) => get<Services>('/services', ranged(ask), signal),
  service: (name: string, ask: Ask, signal?: AbortSignal) => get<ServiceDetail>(`/services/${encodeURIComponent(name)}`, ranged(ask), signal),

  search: (ask: Ask, limit: number, cursor: string | null, signal?: AbortSignal) =>
    post<SearchPage>('/requests/search', { ...ranged(ask), limit, cursor, order: 'newest' }, signal),
  facets: (ask: Ask, fields: string[] | null, signal?: AbortSignal) => post<Facets>('/requests/facets', { ...ranged(ask), fields }, signal),
  histogram: (ask: Ask, steps: number, signal?: AbortSignal) => post<Series>('/requests/histogram', { ...ranged(ask), steps }, signal),
  request: (id: string, signal?: AbortSignal) => get<RequestDetail>(`/requests/${encodeURIComponent(id)}`, {}, signal),
  suggest: (ask: Ask, prefix: string, signal?: AbortSignal) =>
    get<Suggestions>('/suggest', { from: Math.round(ask.from), to: Math.round(ask.to), prefix }, signal),

  /** Records as a file. A POST, so that a long filter fits; the answer is saved by the browser. */
  export: async (ask: Ask, kind: 'text/csv' | 'application/x-ndjson', limit: number): Promise<Blob> => {
    const response = await fetch(url('/requests/search'), {
      method: 'POST',
      credentials: 'same-origin',
      headers: { 'content-type': 'application/json', 'x-csrf-token': csrf, accept: kind },
      body: JSON.stringify({ ...ranged(ask), limit, cursor: null, order: 'newest' }),
    });
    if (!response.ok) throw await problem(response);
    return response.blob();
  },
  live: (q: string) => new EventSource(url('/live/requests', { q })),
};
