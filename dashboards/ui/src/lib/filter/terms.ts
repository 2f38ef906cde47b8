// The filter language as text and as terms: `key:value`, `key:>=400`, `-key:value`, `key:a,b`, `"text"`, and-ed.
//
// Pure. What a term finds is the server's business; this module only splits, joins and edits the text,
// so that a token on the page and the words in the URL can never say different things.

export type Operator = '=' | '>' | '>=' | '<' | '<=';

export interface Term {
  /** Exactly as it stands in the text. */
  raw: string;
  negated: boolean;
  /** Empty for a term that looks for text anywhere. */
  key: string;
  operator: Operator;
  values: string[];
}

/**
 * The short keys, the column each stands for, and what to say about it. A name with `@` is worked out by the dashboard
 * from several attributes (the caller is the subject, else the workload, else the address), so no attribute has that short key.
 */
export const KEYS: Record<string, { attribute: string; meaning: string; example: string }> = {
  status: { attribute: 'http.response.status_code', meaning: 'number, or 4xx', example: 'status:>=400' },
  outcome: { attribute: '@outcome', meaning: 'passed, denied, limited, failed', example: 'outcome:denied' },
  reason: { attribute: 'tollgate.reason', meaning: 'why it was stopped', example: 'reason:scope_missing' },
  source: { attribute: 'tollgate.source.workload', meaning: 'which workload called', example: 'source:ingress' },
  caller: { attribute: '@caller', meaning: 'who called', example: 'caller:reader' },
  dest: { attribute: '@dest', meaning: 'what was called', example: 'dest:policies' },
  route: { attribute: 'http.route', meaning: 'as configured', example: 'route:/policies/{id}' },
  path: { attribute: 'url.path', meaning: 'as it came', example: 'path:/policies/POL-1042' },
  method: { attribute: 'http.request.method', meaning: 'GET, POST', example: 'method:POST' },
  dur: { attribute: 'tollgate.duration_us', meaning: 'total time', example: 'dur:>200ms' },
  version: { attribute: 'tollgate.destination.version', meaning: 'of what was called', example: 'version:1.1' },
  token: { attribute: 'tollgate.token.state', meaning: 'state of the token', example: 'token:expired' },
  limit: { attribute: 'tollgate.ratelimit.rule', meaning: 'which limit', example: 'limit:subject' },
  reporter: { attribute: 'tollgate.reporter', meaning: 'which end saw it', example: 'reporter:gateway' },
  id: { attribute: 'tollgate.request.id', meaning: 'one request', example: 'id:01981f6e-7c0a-7d41-b0f5-2f6c01aa31d2' },
  flag: { attribute: 'tollgate.response.flags', meaning: "Envoy's letters", example: 'flag:UAEX' },
};

const SHORT_OF = new Map(Object.entries(KEYS).map(([short, { attribute }]) => [attribute, short]));

/** The short key of an attribute, or the attribute itself where there is none. */
export function shortKey(attribute: string): string {
  return SHORT_OF.get(attribute) ?? attribute;
}

/** Splits at blanks that are not inside quotes. An open quote runs to the end. */
function words(text: string): string[] {
  const out: string[] = [];
  let word = '';
  let quoted = false;
  for (let i = 0; i < text.length; i += 1) {
    const c = text[i]!;
    if (c === '\\' && quoted && i + 1 < text.length) {
      word += c + text[i + 1]!;
      i += 1;
    } else if (c === '"') {
      quoted = !quoted;
      word += c;
    } else if (!quoted && /\s/.test(c)) {
      if (word) out.push(word);
      word = '';
    } else {
      word += c;
    }
  }
  if (word) out.push(quoted ? `${word}"` : word);
  return out;
}

function unquote(text: string): string {
  if (text.length >= 2 && text.startsWith('"') && text.endsWith('"')) {
    return text.slice(1, -1).replace(/\\(.)/g, '$1');
  }
  return text;
}

/** Quotes a value only when it could be read as something else. */
export function quote(value: string): string {
  return value === '' || /[\s",]/.test(value) || /^[<>]/.test(value)
    ? `"${value.replace(/(["\\])/g, '\\$1')}"`
    : value;
}

function splitValues(text: string): string[] {
  const out: string[] = [];
  let part = '';
  let quoted = false;
  for (const c of text) {
    if (c === '"') quoted = !quoted;
    if (c === ',' && !quoted) {
      out.push(part);
      part = '';
    } else {
      part += c;
    }
  }
  out.push(part);
  return out.filter((v) => v !== '').map(unquote);
}

function term(word: string): Term {
  const negated = word.length > 1 && word.startsWith('-');
  const body = negated ? word.slice(1) : word;
  const match = /^([A-Za-z_][\w.-]*):(.*)$/s.exec(body);
  // `https://…` is something to look for, not a key called https.
  if (!match || match[2]!.startsWith('//')) {
    return { raw: word, negated, key: '', operator: '=', values: [unquote(body)] };
  }
  const [, operator, rest] = /^(>=|<=|>|<)?(.*)$/s.exec(match[2]!)!;
  return {
    raw: word,
    negated,
    key: match[1]!,
    operator: (operator ?? '=') as Operator,
    values: operator ? [unquote(rest!)] : splitValues(rest!),
  };
}

export function parse(text: string): Term[] {
  return words(text).map(term);
}

/** One word of the language for these parts; bare words become quoted text, so that they survive a round trip. */
export function write({ negated, key, operator, values }: Omit<Term, 'raw'>): string {
  const sign = negated ? '-' : '';
  if (!key) return `${sign}"${(values[0] ?? '').replace(/(["\\])/g, '\\$1')}"`;
  return `${sign}${key}:${operator === '=' ? '' : operator}${values.map(quote).join(',')}`;
}

export function join(terms: Pick<Term, 'raw'>[]): string {
  return terms.map((t) => t.raw).join(' ');
}

/** Adds what was typed, leaving out terms that are there already. */
export function add(text: string, typed: string): string {
  const terms = parse(text);
  for (const next of parse(typed)) {
    const raw = next.key ? next.raw : write(next);
    if (!terms.some((t) => t.raw === raw)) terms.push({ ...next, raw });
  }
  return join(terms);
}

export function remove(text: string, raw: string): string {
  return join(parse(text).filter((t) => t.raw !== raw));
}

/** Whether a facet's value is ticked: some plain, not negated term of the key names it. */
export function has(text: string, key: string, value: string): boolean {
  return parse(text).some((t) => t.key === key && !t.negated && t.operator === '=' && t.values.includes(value));
}

/** Ticks or unticks one value of a key. Several ticks of one key stand in one term, because terms are and-ed. */
export function toggle(text: string, key: string, value: string): string {
  const terms = parse(text);
  const at = terms.findIndex((t) => t.key === key && !t.negated && t.operator === '=');
  const found = terms[at];
  if (!found) return join([...terms, { raw: write({ negated: false, key, operator: '=', values: [value] }) }]);
  const values = found.values.includes(value) ? found.values.filter((v) => v !== value) : [...found.values, value];
  if (values.length === 0) terms.splice(at, 1);
  else terms[at] = { ...found, values, raw: write({ ...found, values }) };
  return join(terms);
}

/** The term to add for "filter by this" and "leave this out". */
export function exactly(key: string, value: string, negated = false): string {
  return write({ negated, key: shortKey(key), operator: '=', values: [value] });
}

/** A refusal filter gives the lower half of the histogram the room. */
export function asksForStopped(text: string): boolean {
  return parse(text).some((t) => {
    if (t.negated) return false;
    if (t.key === 'reason' || t.key === 'flag' || t.key === 'tollgate.reason') return !t.values.includes('ok');
    if (t.key === 'outcome') return !t.values.includes('passed');
    if (t.key === 'status') {
      const first = t.values[0] ?? '';
      return t.values.every((v) => /^[45]/.test(v)) && (t.operator === '=' || ((t.operator === '>' || t.operator === '>=') && Number(first) >= 399));
    }
    return false;
  });
}
