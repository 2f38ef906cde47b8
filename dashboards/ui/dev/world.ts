// A made-up system for development: the demo mesh under steady traffic, with one of everything that can go wrong.
// Seeded, so that a screenshot of today looks like one of tomorrow, and generated on demand up to now.
export interface Made {
  at: number;
  seq: number;
  outcome: 'passed' | 'denied' | 'limited' | 'failed';
  status: number;
  method: string;
  path: string;
  route: string;
  caller: string;
  dest: string;
  version: string;
  reason: string;
  ms: number;
  missing: string[];
  token: string;
}

const HOUR = 3_600_000;
const PER_SECOND = 20.5;

/** Small and even enough for fixtures: mulberry32. */
function random(seed: number): () => number {
  let a = seed;
  return () => {
    a = (a + 0x6d2b79f5) | 0;
    let t = Math.imul(a ^ (a >>> 15), 1 | a);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296;
  };
}

const next = random(20261121);
const pick = <T>(of: [T, number][]): T => {
  let n = next() * of.reduce((sum, [, weight]) => sum + weight, 0);
  for (const [value, weight] of of) if ((n -= weight) < 0) return value;
  return of[0]![0];
};
const policy = () => `/policies/POL-${1000 + Math.floor(next() * 1000)}`;
const slow = (typical: number) => typical * (0.6 + next() * 0.8) * (next() > 0.97 ? 3.2 : 1);

export const born = Date.now();
/** Moments of the story, before the start of the mock. */
export const STORY = { epoch: born - 46 * 60_000, canary: born - 31 * 60_000, bureau: born - 28 * 60_000, probe: born - 19 * 60_000, cut: born - 13 * 60_000, full: born - 40 * 60_000 };

export const records: Made[] = [];
let until = born - 2 * HOUR;

function passed(at: number): Made {
  const [method, route, dest, typical] = pick<[string, string, string, number]>([
    [['GET', '/policies/{id}', 'policies', 6], 66],
    [['POST', '/policies', 'policies', 14], 2],
    [['GET', '/quotes/{id}', 'quotes', 18], 8],
    [['POST', '/quotes', 'quotes', 46], 1],
    [['POST', '/payments', 'payments', 8], 0.6],
    [['GET', '/healthz', 'policies', 0.4], 1],
  ]);
  const canary = dest === 'policies' && at > STORY.canary && next() < 0.1;
  const path = route === '/policies/{id}' ? policy() : route === '/quotes/{id}' ? `/quotes/Q-${2000 + Math.floor(next() * 500)}` : route;
  const caller = method === 'POST' && dest === 'policies' ? 'editor' : dest === 'quotes' ? 'adjuster' : dest === 'payments' ? 'quotes' : pick([['reader', 62], ['editor', 18], ['adjuster', 14], ['legacy-batch', 1]]);
  return { at, seq: 0, outcome: 'passed', status: method === 'POST' ? 201 : 200, method, path, route, caller, dest, version: canary ? '1.1' : '1.0', reason: 'ok', ms: slow(typical) * (canary ? 2.1 : 1), missing: [], token: 'valid' };
}

function denied(at: number): Made {
  const kind = pick([['role_missing', 8], ['token_expired', 38], ['scope_missing', 30], ['rule_deny', 13], ['token_absent', 11]]);
  const base = { at, seq: 0, outcome: 'denied' as const, method: 'GET', path: policy(), route: '/policies/{id}', dest: 'policies', version: '', ms: 0.3 + next() * 0.6 };
  switch (kind) {
    case 'token_expired': return { ...base, status: 401, caller: 'web-portal', reason: kind, missing: [], token: 'expired' };
    case 'scope_missing': return { ...base, status: 403, caller: 'reader', reason: kind, missing: ['scope:policies:read'], token: 'valid' };
    case 'rule_deny': return { ...base, status: 403, caller: 'editor', path: '/payments', route: '/payments', dest: 'payments', reason: kind, missing: [], token: 'valid' };
    case 'token_absent': return { ...base, status: 401, caller: '', reason: kind, missing: [], token: 'absent' };
    default: return { ...base, status: 403, caller: 'outsider', reason: 'role_missing', missing: ['role:policy-reader'], token: 'valid' };
  }
}

const between = (at: number, from: number, minutes: number) => at >= from && at < from + minutes * 60_000;

/** Makes what should have happened since the last look. */
export function live(now = Date.now()): Made[] {
  const fresh: Made[] = [];
  while (until < now) {
    const at = until;
    const wave = 1 + 0.06 * Math.sin(at / 900_000) + 0.05 * Math.sin(at / 140_000);
    until += (-Math.log(1 - next()) / (PER_SECOND * wave)) * 1000;
    let made = next() < 0.0175 ? denied(at) : passed(at);
    if (between(at, STORY.probe, 5) && next() < 0.16) {
      const path = pick([['/policies', 4], ['/payments', 3], ['/quotes', 3], [policy(), 9], ['/admin', 1], ['/policies/export', 1]]);
      made = { ...denied(at), status: 403, caller: 'outsider', reason: 'role_missing', path, route: path.startsWith('/policies/') ? '/policies/{id}' : path, missing: ['role:policy-reader'], token: 'valid', dest: path === '/payments' ? 'payments' : path === '/quotes' ? 'quotes' : 'policies' };
    } else if (between(at, STORY.full, 5) && next() < 0.06) {
      made = { ...passed(at), outcome: 'limited', status: 429, method: 'POST', path: '/quotes', route: '/quotes', caller: 'adjuster', dest: 'quotes', reason: 'limit_exceeded', ms: 0.8 + next() * 0.4 };
    } else if (between(at, STORY.bureau, 2) && next() < 0.017) {
      made = { ...passed(at), outcome: 'failed', status: 502, method: 'POST', path: '/quotes', route: '/quotes', caller: 'adjuster', dest: 'quotes', reason: 'upstream_status', ms: 70 + next() * 20 };
    }
    made.seq = records.length;
    records.push(made);
    fresh.push(made);
  }
  return fresh;
}

export const idOf = (r: Made) => `01981f6e-${(r.seq >>> 16).toString(16).padStart(4, '0')}-7${(r.seq & 0xfff).toString(16).padStart(3, '0')}-b0f5-${(r.seq * 2654435761 % 0x1000000000000).toString(16).padStart(12, '0')}`;
