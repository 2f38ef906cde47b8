// What the server says, by the names the page uses. The shapes come from the server's own description, `schema.d.ts`.

export type Outcome = 'passed' | 'denied' | 'limited' | 'failed';

export interface Series {
  from: number;
  step_ms: number;
  passed: number[];
  denied: number[];
  limited: number[];
  failed: number[];
  unmatched?: number[] | null;
  lost?: number[] | null;
}
export interface Session {
  csrf: string;
  user: { name: string; role: string };
}
export interface Status {
  ingest_lag_ms: number | null;
  records_lost_1h: number;
  records_dropped: Record<string, number>;
  epoch: number | null;
  proxies: { total: number; on_epoch: number };
  first_record_ms: number | null;
  retention: { raw_days: number };
  version: string;
}
export interface Totals {
  requests: number;
  passed: number;
  denied: number;
  limited: number;
  failed: number;
  per_second: number;
  duration_p50_ms: number | null;
  duration_p95_ms: number | null;
  duration_p99_ms: number | null;
  decision_p99_ms: number | null;
  not_enforced_s: number;
}
export interface Finding {
  kind: string;
  title: string;
  detail: string;
  when: string;
  link: string;
}
export interface ServiceRow {
  name: string;
  namespace: string;
  versions: string[];
  per_second: number;
  p99_ms: number | null;
  failed_percent: number;
  stopped: number;
  spark: { passed: number[]; denied: number[]; limited: number[]; failed: number[] };
}
export interface Change {
  at_ms: number;
  letter: string;
  title: string;
  detail: string;
  kind: string;
}
export interface Overview {
  range: { from: number; to: number };
  verdict: { text: string; level: string };
  findings: Finding[];
  totals: Totals;
  previous: Totals;
  series: Series;
  services: ServiceRow[];
  reasons: { reason: string; outcome: Outcome; count: number; mostly: string }[];
  changes: Change[];
}
export interface RequestRow {
  id: string;
  key: string;
  time: string;
  time_ns: string;
  outcome: Outcome;
  status: number;
  method: string;
  path: string;
  caller: string;
  dest: string;
  source: string;
  route: string;
  reason: string;
  duration_ms: number;
  reporter: string;
  version: string;
  subject: string;
  trace_id: string;
}
export interface TermCount {
  term: string;
  count: number;
  error?: string | null;
}
export interface SearchAnswer {
  rows: RequestRow[];
  next_cursor: string | null;
  matched: number;
  total: number;
  scanned: number;
  took_ms: number;
  terms: TermCount[];
}
export interface Facet {
  field: string;
  label: string;
  values: { value: string; count: number; outcome?: Outcome | null }[];
  other: number;
}
export interface Stage {
  name: string;
  us: number;
  outcome?: string | null;
}
export interface RequestRecord {
  key: string;
  service: string;
  reporter: string;
  time: string;
  time_ns: string;
  outcome: Outcome;
  headline: string;
  body: string;
  trace_id: string;
  span_id: string;
  stages: Stage[];
  stopped_at: string | null;
  groups: { title: string; attributes: { key: string; value: unknown }[] }[];
}
export interface Peer {
  name: string;
  per_second: number;
  p95_ms: number | null;
  stopped: number;
  outcome?: Outcome | null;
  security: string;
}
export interface ServiceDetail {
  name: string;
  namespace: string;
  verdict: { text: string; detail: string; level: string };
  series: Series;
  duration: { from: number; step_ms: number; p50: (number | null)[]; p95: (number | null)[]; p99: (number | null)[] };
  by_version: { version: string; p99: (number | null)[] }[];
  versions: {
    version: string;
    endpoints: number;
    share_percent: number;
    requests: number;
    failed: number;
    p50_ms: number | null;
    p95_ms: number | null;
    p99_ms: number | null;
    slowest_route: string;
  }[];
  callers: Peer[];
  callees: Peer[];
  routes: { method: string; route: string; per_second: number; p99_ms: number | null; stopped: number; rules: string[] }[];
  state: { label: string; value: string }[];
}
export interface Suggestion {
  token: string;
  meaning: string;
  count: number;
}
