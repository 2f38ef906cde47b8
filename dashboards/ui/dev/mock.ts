// Answers /api/v1 in the dev server from the made-up system, so that the page can be worked on without a dashboard.
// `npm run dev:mock`, then open /login#token=dev. `/login#token=wrong` shows the failure.
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Plugin } from 'vite';
import * as answers from './answers.ts';
import { live } from './world.ts';

const BODY_LIMIT = 64 * 1024;

async function body(request: IncomingMessage): Promise<Record<string, unknown>> {
  let text = '';
  for await (const chunk of request) {
    text += String(chunk);
    if (text.length > BODY_LIMIT) throw new Error('body too large');
  }
  return text ? (JSON.parse(text) as Record<string, unknown>) : {};
}

function send(response: ServerResponse, value: unknown, status = 200): void {
  response.statusCode = status;
  response.setHeader('content-type', status < 400 ? 'application/json' : 'application/problem+json');
  response.end(JSON.stringify(value));
}
const problem = (response: ServerResponse, status: number, title: string, detail: string, reason: string) =>
  send(response, { type: 'about:blank', title, status, detail, reason, request_id: '01981f70-0000-7000-8000-00000000dead' }, status);

function stream(request: IncomingMessage, response: ServerResponse, q: string): void {
  response.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-store' });
  let from = Date.now();
  const timer = setInterval(() => {
    live();
    const to = Date.now();
    const page = answers.search({ from, to, q }, 200, null);
    from = to;
    for (const row of page.rows.reverse()) response.write(`event: row\ndata: ${JSON.stringify(row)}\n\n`);
    response.write(`event: status\ndata: ${JSON.stringify({ per_second: page.matched * 2, shown_1_in: 1, dropped: 0 })}\n\n`);
  }, 500);
  request.on('close', () => clearInterval(timer));
}

async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
  const url = new URL(request.url ?? '/', 'http://mock');
  const path = url.pathname.replace(/^\/api\/v1/, '');
  const sent = request.method === 'POST' ? await body(request) : {};
  const get = (name: string) => sent[name] ?? url.searchParams.get(name);
  const to = Number(get('to') ?? Date.now());
  const ask = { from: Number(get('from') ?? to - 3_600_000), to, q: String(get('q') ?? '') };
  const me = { csrf: 'mock', expires_ms: Date.now() + 3_600_000, user: { name: 'mara', role: 'operator' } };

  if (path === '/auth/login') {
    if (sent.token === 'wrong') return problem(response, 401, 'Unauthorized', 'the token was used or has expired', 'session');
    response.setHeader('set-cookie', 'tollgate_session=mock; Path=/; HttpOnly; SameSite=Strict');
    return send(response, me);
  }
  if (!request.headers.cookie?.includes('tollgate_session=mock')) return problem(response, 401, 'Unauthorized', 'no session', 'session');
  if (path === '/auth/session') return send(response, me);
  if (path === '/auth/logout') {
    response.setHeader('set-cookie', 'tollgate_session=; Path=/; Max-Age=0');
    response.statusCode = 204;
    response.end();
    return;
  }
  if (path === '/status') {
    return send(response, { ingest_lag_ms: 400, records_lost_1h: 0, records_dropped: {}, epoch: 412, proxies: { total: 5, on_epoch: 5 }, first_record_ms: Date.now() - 7_200_000, now_ms: Date.now(), retention: { raw_days: 7 }, version: '0.1.0' });
  }
  if (path === '/overview') return send(response, answers.overview(ask));
  if (path === '/series') return send(response, answers.strip(ask, Number(get('steps') ?? 120)));
  if (path === '/services') return send(response, { services: answers.serviceList(ask) });
  if (path.startsWith('/services/')) {
    const found = answers.service(decodeURIComponent(path.slice(10)), ask);
    return found ? send(response, found) : problem(response, 404, 'Not Found', 'no such service in this range', 'not_found');
  }
  if (path === '/requests/search') return send(response, answers.search(ask, Number(get('limit') ?? 100), (sent.cursor as string | null) ?? null));
  if (path === '/requests/facets') return send(response, { facets: answers.facets(ask) });
  if (path === '/requests/histogram') return send(response, answers.histogram(ask, Number(get('steps') ?? 120)));
  if (path.startsWith('/requests/')) {
    const found = answers.detail(path.slice(10));
    return found ? send(response, found) : problem(response, 404, 'Not Found', 'no such request', 'not_found');
  }
  if (path === '/suggest') return send(response, { suggestions: answers.suggest(ask, String(get('prefix') ?? '')) });
  if (path === '/live/requests') return stream(request, response, ask.q);
  return problem(response, 404, 'Not Found', path, 'not_found');
}

export function mockApi(): Plugin {
  const attach = (server: { middlewares: { use(path: string, handler: (req: IncomingMessage, res: ServerResponse) => void): unknown } }) => {
    server.middlewares.use('/api/v1', (request, response) => {
      request.url = `/api/v1${request.url ?? ''}`;
      answer(request, response).catch((error: unknown) => problem(response, 500, 'Internal Server Error', String(error), 'internal'));
    });
  };
  return {
    name: 'tollgate-mock-api',
    configureServer: attach,
    // The built page is looked at under the policy it will be served with; the dev server needs inline styles for its reloads.
    configurePreviewServer(server) {
      server.middlewares.use((_request, response, next) => {
        response.setHeader('content-security-policy', "default-src 'self'");
        next();
      });
      attach(server);
    },
  };
}
