// What the dashboard would answer about the made-up system. Every sum comes from the same records, so figures on a page agree.
import type { Facet, Overview, RequestDetail, RequestRow, SearchPage, Series, ServiceDetail, ServiceRow, Totals } from '../src/lib/api/types.ts';
import { KEYS, parse, shortKey, type Term } from '../src/lib/filter/terms.ts';
import { clock } from '../src/lib/time/range.ts';
import { idOf, live, records, STORY, type Made } from './world.ts';

const OUTCOMES = ['passed', 'denied', 'limited', 'failed'] as const;

function field(r: Made, key: string): string | number {
  switch (key === 'enduser.id' ? 'caller' : shortKey(key)) {
    case 'status': return r.status;
    case 'outcome': return r.outcome;
    case 'reason': return r.reason;
    case 'caller': return r.caller;
    case 'source': return r.outcome === 'passed' ? 'ingress' : '';
    case 'dest': return r.dest;
    case 'route': return r.route;
    case 'path': return r.path;
    case 'method': return r.method;
    case 'version': return r.version;
    case 'token': return r.token;
    case 'dur': return r.ms;
    default: return '';
  }
}
function number(text: string): number {
  const m = /^(\d+(?:\.\d+)?)(us|µs|ms|s)?$/.exec(text);
  return m ? Number(m[1]) * (m[2] === 's' ? 1000 : m[2] === 'us' || m[2] === 'µs' ? 0.001 : 1) : Number.NaN;
}
function one(r: Made, t: Term): boolean {
  if (!t.key) return [r.path, r.caller, r.reason, r.dest, idOf(r)].some((v) => v.includes(t.values[0] ?? ''));
  const is = field(r, t.key);
  if (t.operator === '=') return t.values.some((v) => (/^\dxx$/.test(v) ? String(is)[0] === v[0] : String(is) === v));
  const want = number(t.values[0] ?? '');
  const has = Number(is);
  return t.operator === '>' ? has > want : t.operator === '>=' ? has >= want : t.operator === '<' ? has < want : has <= want;
}
export const problemOf = (t: Term): string | null => (t.key && !KEYS[t.key] && !t.key.includes('.') ? `no attribute is called ${t.key}` : null);
const takes = (q: string) => {
  const terms = parse(q);
  return (r: Made) => terms.every((t) => one(r, t) !== t.negated);
};
export interface Ask {
  from: number;
  to: number;
  q: string;
}
function inRange({ from, to }: { from: number; to: number }): Made[] {
  live();
  let lo = 0;
  let hi = records.length;
  while (lo < hi) {
    const mid = (lo + hi) >> 1;
    if (records[mid]!.at < from) lo = mid + 1;
    else hi = mid;
  }
  const out: Made[] = [];
  for (let i = lo; i < records.length && records[i]!.at < to; i += 1) out.push(records[i]!);
  return out;
}
function series(all: Made[], { from, to }: Ask, steps: number, match: ((r: Made) => boolean) | null): Series {
  const step = Math.ceil((to - from) / steps / 1000) * 1000;
  const n = Math.ceil((to - from) / step);
  const empty = () => new Array<number>(n).fill(0);
  const out = { from, step_ms: step, passed: empty(), denied: empty(), limited: empty(), failed: empty(), unmatched: match ? empty() : null, lost: empty() };
  for (const r of all) {
    const i = Math.floor((r.at - from) / step);
    if (match && !match(r)) out.unmatched![i]! += 1;
    else out[r.outcome][i]! += 1;
  }
  return out;
}
const quantile = (sorted: number[], q: number) => (sorted.length === 0 ? null : sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * q))]!);
const sortedMs = (of: Made[]) => of.filter((r) => r.outcome === 'passed').map((r) => r.ms).sort((a, b) => a - b);
const count = (of: Made[], outcome: string) => of.reduce((n, r) => n + (r.outcome === outcome ? 1 : 0), 0);
const stoppedIn = (of: Made[]) => of.length - count(of, 'passed');

function totals(of: Made[], seconds: number): Totals {
  const ms = sortedMs(of);
  return { requests: of.length, passed: count(of, 'passed'), denied: count(of, 'denied'), limited: count(of, 'limited'), failed: count(of, 'failed'), per_second: of.length / seconds, duration_p50_ms: quantile(ms, 0.5), duration_p95_ms: quantile(ms, 0.95), duration_p99_ms: quantile(ms, 0.99), decision_p99_ms: of.length ? 0.92 : null, not_enforced_s: 0 };
}
function services(of: Made[], ask: Ask): ServiceRow[] {
  const seconds = (ask.to - ask.from) / 1000;
  return ['policies', 'quotes', 'payments'].map((name): ServiceRow => {
    const mine = of.filter((r) => r.dest === name);
    const s = series(mine, ask, 24, null);
    return { name, namespace: 'insurance', versions: [...new Set(mine.map((r) => r.version).filter(Boolean))].sort(), requests: mine.length, per_second: mine.length / seconds, p99_ms: quantile(sortedMs(mine), 0.99), failed_percent: mine.length ? (count(mine, 'failed') / mine.length) * 100 : 0, stopped: stoppedIn(mine), spark: { passed: s.passed, denied: s.denied, limited: s.limited, failed: s.failed } };
  }).filter((s) => s.requests > 0);
}
function tally(of: Made[], key: string): [string, number][] {
  const sums = new Map<string, number>();
  for (const r of of) {
    const v = String(field(r, key));
    if (v) sums.set(v, (sums.get(v) ?? 0) + 1);
  }
  return [...sums].sort((a, b) => b[1] - a[1]);
}

export function overview(ask: Ask): Overview {
  const match = takes(ask.q);
  const of = inRange(ask).filter(match);
  const span = ask.to - ask.from;
  const before = inRange({ from: ask.from - span, to: ask.from }).filter(match);
  const changes: Overview['changes'] = (
    [
      [STORY.epoch, 'Policy epoch 412', 'policy-reader lost POST. By ilse, “least privilege”.', 'policy'],
      [STORY.canary, 'policies 1.1 takes 10 %', 'Canary, 1 endpoint of 3.', 'deploy'],
      [STORY.cut, 'outsider limited to 1 request/s', 'By mara, from the incident.', 'policy'],
    ] as const
  ).filter(([at]) => at >= ask.from && at <= ask.to).map(([at_ms, title, detail, kind], i) => ({ at_ms, letter: 'ABC'[i]!, title, detail, kind }));
  const probes = of.filter((r) => r.caller === 'outsider').length;
  const findings: Overview['findings'] = of.length === 0 ? [] : [
    { kind: 'denied', title: 'outsider probed 6 routes in 5 minutes.', detail: `${probes.toLocaleString('en')} denied, none passed.`, when: `${clock(STORY.probe)}–${clock(STORY.probe + 300_000)}`, link: '/requests?q=caller:outsider' },
    { kind: 'slow', title: 'policies 1.1 is slower than 1.0.', detail: 'p99 47 ms against 22 ms since it took 10 % of traffic.', when: `since ${clock(STORY.canary)}`, link: '/services/policies' },
    { kind: 'plaintext', title: 'legacy-batch reaches policies without encryption.', detail: `${of.filter((r) => r.caller === 'legacy-batch').length} requests through the permissive port 9080.`, when: 'all hour', link: '/requests?q=caller:legacy-batch' },
  ];
  return {
    range: { from: ask.from, to: ask.to },
    verdict: { text: of.length === 0 ? 'No request was recorded in this range.' : 'Nothing is failing now. Three things need a look.', level: 'look' },
    findings,
    totals: totals(of, span / 1000),
    previous: totals(before, span / 1000),
    series: series(of, ask, 120, null),
    services: services(of, ask),
    reasons: tally(of.filter((r) => r.outcome !== 'passed'), 'reason').map(([reason, n]) => {
      const mine = of.filter((r) => r.reason === reason);
      return { reason, outcome: mine[0]!.outcome, count: n, mostly: tally(mine, 'caller')[0]?.[0] ?? 'no token' };
    }),
    changes,
  };
}
export const strip = (ask: Ask, steps: number): Series => series(inRange(ask).filter(takes(ask.q)), ask, steps, null);
export const histogram = (ask: Ask, steps: number): Series => series(inRange(ask), ask, steps, ask.q ? takes(ask.q) : null);

export function row(r: Made): RequestRow {
  const time = new Date(r.at).toISOString();
  return { id: idOf(r), key: `1:${r.seq}`, time, time_ns: `${Math.floor(r.at * 1000)}000`, outcome: r.outcome, status: r.status, method: r.method, path: r.path, caller: r.caller || 'no token', dest: r.dest, source: 'ingress', route: r.route, reason: r.reason, duration_ms: r.ms, reporter: 'gateway', version: r.version, subject: r.caller, trace_id: '4bf92f3577b34da6a3ce929d0e0e4736' };
}
export function search(ask: Ask, limit: number, cursor: string | null): SearchPage {
  const all = inRange(ask);
  const of = all.filter(takes(ask.q)).reverse();
  const at = Number(cursor ?? 0);
  const terms = of.length > 0 ? [] : parse(ask.q).map((t) => ({ term: t.raw, count: all.filter((r) => one(r, t) !== t.negated).length, error: problemOf(t) }));
  return { rows: of.slice(at, at + limit).map(row), next_cursor: at + limit < of.length ? String(at + limit) : null, matched: of.length, total: all.length, scanned: all.length, took_ms: 11, terms };
}
export function facets(ask: Ask): Facet[] {
  const of = inRange(ask).filter(takes(ask.q));
  const stop = of.some((r) => r.outcome !== 'passed') ? of : of;
  return (
    [['@outcome', 'outcome', 'Outcome'], ['tollgate.reason', 'reason', 'Reason'], ['@caller', 'caller', 'Caller'], ['http.route', 'route', 'Route'], ['@dest', 'dest', 'Service']] as const
  ).map(([name, key, label]) => {
    const values = tally(stop, key);
    return { field: name, key, label, values: values.slice(0, 10).map(([value, n]) => ({ value, count: n, outcome: null })), other: values.slice(10).reduce((n, [, c]) => n + c, 0) };
  });
}
export function detail(id: string): RequestDetail | null {
  const r = records.findLast((x) => idOf(x) === id);
  if (!r) return null;
  const sentence = {
    scope_missing: `${r.caller} may not ${r.method} ${r.path}: the token has no scope policies:read`,
    role_missing: `${r.caller} may not ${r.method} ${r.path}: the caller has no role policy-reader`,
    token_expired: `${r.caller} may not ${r.method} ${r.path}: the token has expired`,
    token_absent: `an unknown caller may not ${r.method} ${r.path}: there is no token`,
    rule_deny: `${r.caller} may not ${r.method} ${r.path}: rule payments-closed denies it`,
    limit_exceeded: `${r.caller} was over the limit quotes-create, 5 a minute`,
    upstream_status: `${r.method} ${r.path} by ${r.caller}: quotes answered 502`,
  }[r.reason] ?? `${r.caller} could ${r.method} ${r.path}`;
  const us = Math.round(r.ms * 1000);
  const stopped = r.outcome === 'denied' ? 'authorize' : r.outcome === 'limited' ? 'limit' : r.outcome === 'failed' ? 'upstream' : null;
  const order = ['accept', 'route', 'authorize', 'limit', 'upstream'];
  const parts = r.outcome === 'denied' ? [38, 9, us - 47] : r.outcome === 'limited' ? [38, 9, 310, us - 357] : [38, 9, 320, 64, Math.max(20, us - 431)];
  const make = (groups: [string, Record<string, unknown>][]) => groups.map(([title, values]) => ({ title, attributes: Object.entries(values).map(([key, value]) => ({ key, value: value as never })) }));
  const w = row(r);
  return {
    id,
    records: [
      {
        key: w.key, service: 'ingress', reporter: 'gateway', time: w.time, time_ns: w.time_ns, outcome: r.outcome, status: r.status, duration_ms: r.ms, headline: sentence,
        body: `${r.method} ${r.path} ${r.status} ${r.reason} ${r.caller || '-'} -> ${r.dest} ${r.ms.toFixed(2)} ms`, trace_id: w.trace_id, span_id: '00f067aa0ba902b7', stopped_at: stopped,
        stages: order.map((name, i) => (parts[i] === undefined ? { name, us: null, outcome: 'not_reached' } : { name, us: parts[i]!, outcome: name === 'authorize' ? (r.outcome === 'denied' ? 'deny' : 'allow') : null })),
        groups: make([
          ['Decision', { 'tollgate.authz.decision': r.outcome === 'denied' ? 'deny' : 'allow', 'tollgate.reason': r.reason, ...(r.missing.length ? { 'tollgate.authz.missing': r.missing } : {}), ...(r.outcome === 'denied' ? { 'tollgate.authz.explanation': r.missing.length ? `role policy-reader: scope needs ${r.missing.map((m) => m.replace(/^scope:/, '')).join(', ')}, token has openid, profile` : `no permission of insurance/${r.dest} speaks of ${r.method} ${r.path}` } : {}), 'security_rule.name': r.outcome === 'denied' ? 'default-deny' : 'policy-reader.read', 'security_rule.ruleset.name': 'insurance', 'tollgate.authz.epoch': 412, 'tollgate.authz.cached': false, 'tollgate.authz.decision_id': '01981f6e-7c0a-7d41-b0f5-9e2f6c01aa31' }],
          ['Token', { 'tollgate.token.state': r.token, 'tollgate.token.issuer': 'https://issuer.tollgate.demo', 'tollgate.token.scopes': ['openid', 'profile'], 'tollgate.token.client_id': 'web-portal', 'tollgate.token.audience': ['insurance'], 'tollgate.token.kid': 'demo-2026-11', 'tollgate.token.alg': 'EdDSA', 'tollgate.token.age_s': 1140 }],
          ['Caller', { 'enduser.id': r.caller, 'user.roles': ['policy-reader'], 'client.address': '198.51.100.24', 'user_agent.original': 'web-portal/4.2 (Node 24)', 'tollgate.source.principal': 'spiffe://tollgate.demo/ns/insurance/sa/ingress', 'tollgate.connection_security_policy': 'mutual_tls' }],
          ['Request', { 'http.request.method': r.method, 'url.scheme': 'http', 'url.path': r.path, 'http.route': r.route, 'server.address': `${r.dest}.insurance`, 'http.response.status_code': r.status, 'tollgate.response.flags': r.outcome === 'denied' ? 'UAEX' : r.outcome === 'limited' ? 'RL' : '', 'tollgate.request.id': id }],
        ]),
      },
    ],
  };
}
export function service(name: string, ask: Ask): ServiceDetail | null {
  const of = inRange(ask).filter(takes(ask.q)).filter((r) => r.dest === name);
  if (of.length === 0) return null;
  const seconds = (ask.to - ask.from) / 1000;
  const steps = 60;
  const step = Math.ceil((ask.to - ask.from) / steps / 1000) * 1000;
  const bucket = (mine: Made[], q: number) => {
    const b = Array.from({ length: Math.ceil((ask.to - ask.from) / step) }, () => [] as number[]);
    for (const r of mine) if (r.outcome === 'passed') b[Math.floor((r.at - ask.from) / step)]!.push(r.ms);
    return b.map((v) => quantile(v.sort((x, y) => x - y), q));
  };
  const versions = tally(of, 'version').map(([v]) => v).sort();
  const whole = count(of, 'passed');
  const peers = tally(of, 'caller').map(([who]) => {
    const mine = of.filter((r) => r.caller === who);
    return { name: who, requests: mine.length, per_second: count(mine, 'passed') / seconds, p95_ms: quantile(sortedMs(mine), 0.95), stopped: stoppedIn(mine), outcome: mine.find((r) => r.outcome !== 'passed')?.outcome ?? null, security: who === 'legacy-batch' ? ('none' as const) : who === 'outsider' || who === 'web-portal' ? ('unknown' as const) : ('mutual_tls' as const) };
  });
  return {
    name, namespace: 'insurance', range: ask,
    verdict: versions.length > 1 ? { text: `${name} answers, but 1.1 is 25 ms slower at p99.`, detail: `Since ${clock(STORY.canary)}, over ${of.filter((r) => r.version === '1.1').length.toLocaleString('en')} requests.`, level: 'look' } : { text: `${name} answers.`, detail: `${of.length.toLocaleString('en')} requests, ${count(of, 'failed')} failed.`, level: 'quiet' },
    series: series(of, ask, 120, null),
    duration: { from: ask.from, step_ms: step, p50: bucket(of, 0.5), p95: bucket(of, 0.95), p99: bucket(of, 0.99) },
    by_version: versions.map((v) => ({ version: v, p99: bucket(of.filter((r) => r.version === v), 0.99) })),
    versions: versions.map((v, i) => {
      const mine = of.filter((r) => r.version === v);
      const ms = sortedMs(mine);
      return { version: v, endpoints: i === 0 ? 2 : 1, share_percent: (ms.length / whole) * 100, requests: mine.length, failed: count(mine, 'failed'), p50_ms: quantile(ms, 0.5), p95_ms: quantile(ms, 0.95), p99_ms: quantile(ms, 0.99), slowest_route: 'GET /policies/{id}' };
    }),
    callers: peers,
    callees: name === 'policies' ? [{ name: 'payments', requests: 36, per_second: 0, p95_ms: null, stopped: 36, outcome: 'denied', security: 'mutual_tls' }] : [],
    routes: tally(of, 'route').map(([route]) => {
      const mine = of.filter((r) => r.route === route);
      return { method: mine[0]!.method, route, requests: mine.length, per_second: mine.length / seconds, p99_ms: quantile(sortedMs(mine), 0.99), stopped: stoppedIn(mine), rules: ['insurance/reader-reads → policy-reader.read'] };
    }),
    state: [{ label: 'Endpoints', value: '3 of 3 healthy, 0 ejected' }, { label: 'Breaker', value: 'closed, never opened' }, { label: 'Encryption', value: 'permissive, 1 plaintext caller' }, { label: 'Policy', value: 'enforced, epoch 412' }],
  };
}
export const serviceList = (ask: Ask): ServiceRow[] => services(inRange(ask).filter(takes(ask.q)), ask);
export function suggest(range: { from: number; to: number }, prefix: string): { token: string; meaning: string; count: number | null }[] {
  const of = inRange(range);
  const plain = prefix.replace(/^-/, '');
  const sign = prefix.startsWith('-') ? '-' : '';
  const colon = plain.indexOf(':');
  if (colon < 0 && plain) {
    return Object.entries(KEYS).filter(([k]) => k.startsWith(plain)).map(([k, v]) => ({ token: `${sign}${k}:`, meaning: v.meaning, count: null }));
  }
  const key = colon < 0 ? '' : plain.slice(0, colon);
  if (key) return tally(of, key).filter(([v]) => v.startsWith(plain.slice(colon + 1))).slice(0, 8).map(([v, n]) => ({ token: `${sign}${key}:${v}`, meaning: KEYS[key]?.meaning ?? '', count: n }));
  return ['status:>=400', 'reason:scope_missing', 'caller:outsider', 'dest:policies', 'dur:>200ms', '-route:/healthz'].map((token) => ({ token, meaning: KEYS[token.replace(/^-/, '').split(':')[0]!]!.meaning, count: of.filter(takes(token)).length }));
}
