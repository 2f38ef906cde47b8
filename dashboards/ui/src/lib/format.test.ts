import { expect, test } from 'vitest';
import { column, count, inWords, micros, percent, pieces, plural, short, spanText, wire, wireClock } from './format';

test.each([
  [0, '0'], [0.0042, '<0.01'], [0.43, '0.43'], [0.9, '0.9'], [0.996, '1'], [1.04, '1'], [1.64, '1.6'], [14.23, '14.2'],
  [20, '20'], [99.96, '100'], [123.4, '123'], [73878, '73,878'], [Number.NaN, '–'], [10.02, '10'],
])('short(%d)', (n, expected) => expect(short(n)).toBe(expected));

test.each([[0.7, '0.70'], [0.431, '0.43'], [9.9, '9.90'], [10.04, '10.0'], [212.4, '212'], [1234.5, '1,235']])(
  'column(%d)',
  (n, expected) => expect(column(n)).toBe(expected),
);

test.each([
  [71178, 73878, '96.35'], [1, 1, '100'], [0, 5, '0'], [99999, 100000, '99.99'], [1, 100000, '0.01'], [0, 0, '–'],
])('percent(%d, %d)', (part, whole, expected) => expect(percent(part, whole)).toBe(expected));

test.each([
  [0.05, '50\u00a0µs'], [0.43, '0.43\u00a0ms'], [41.6, '41.6\u00a0ms'], [12_300, '12.3\u00a0s'], [600_000, '10\u00a0min'], [9_000_000, '2.5\u00a0h'],
])('spanText(%d)', (ms, expected) => expect(spanText(ms)).toBe(expected));

test.each([
  ['2026-11-21T02:31:07.482Z', '02:31:07.482'],
  ['2026-11-21T02:31:07Z', '02:31:07.000'],
  ['2026-11-21T02:31:07.482913+00:00', '02:31:07.482'],
])('wireClock(%s)', (time, expected) => expect(wireClock(time)).toBe(expected));

test('words', () => {
  expect(inWords(3)).toBe('three');
  expect(inWords(40)).toBe('40');
  expect(plural(1, 'request')).toBe('1 request');
  expect(plural(1200, 'request')).toBe('1,200 requests');
  expect(count(2295.6)).toBe('2,296');
  expect(micros(352)).toBe('352\u00a0µs');
  expect(micros(61_000)).toBe('61\u00a0ms');
});

test('pieces join to what they came from', () => {
  expect(pieces('tollgate.authz.decision_id')).toEqual(['tollgate.', 'authz.', 'decision_', 'id']);
});

test.each([
  ['plain', 'plain'], [['openid', 'profile'], 'openid profile'], [412, '412'], [false, 'false'], [{ a: 1 }, '{"a":1}'], [null, 'null'],
])('wire(%j)', (value, expected) => expect(wire(value)).toBe(expected));
