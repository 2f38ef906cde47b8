import { expect, test } from 'vitest';
import type { RequestRow } from '../api/types';
import { fit, measure } from './columns';

const row = (path: string, caller = 'reader'): RequestRow => ({
  id: '1', key: '1', time: '2026-11-21T02:31:07.482Z', time_ns: '1', outcome: 'denied', status: 403, method: 'GET', path, caller, dest: 'policies',
  source: '', route: '', reason: 'scope_missing', duration_ms: 0.4, reporter: 'gateway', version: '', subject: '', trace_id: '',
});
const sum = (columns: { width: number }[]) => columns.reduce((n, c) => n + c.width, 0);

test.each([400, 600, 900, 1400])('columns fill a table of %d exactly, or need more only when nothing can give', (room) => {
  const columns = fit(measure([row('/policies/POL-1042')], null), room, room < 500);
  expect(sum(columns)).toBeCloseTo(room, 3);
});
test('narrow tables drop the context columns', () => {
  expect(fit(measure([row('/p')], null), 360, true).map((c) => c.column)).toEqual(['time', 'status', 'method', 'path', 'ms']);
});
test('widths only grow', () => {
  const wide = measure([row('/policies/POL-1042/with/a/long/path')], null);
  expect(measure([row('/p')], wide)).toEqual(wide);
});
