import { describe, expect, test } from 'vitest';
import { between, isRelative, label, moment, phrase, resolve, widened, wider, write } from './range';

const now = Date.parse('2026-11-21T02:33:00Z');
const at = (iso: string) => Date.parse(iso);

describe('moment', () => {
  test.each([
    ['now', now],
    ['-1h', now - 3_600_000],
    ['now-15m', now - 900_000],
    ['-90 s', now - 90_000],
    ['-2d', now - 172_800_000],
    ['-5min', now - 300_000],
    ['1795224780000', 1795224780000],
    ['01:33', at('2026-11-21T01:33:00Z')],
    ['01:33:30', at('2026-11-21T01:33:30Z')],
    ['23:00', at('2026-11-20T23:00:00Z')],
    ['2026-11-20', at('2026-11-20T00:00:00Z')],
    ['2026-11-21 01:33', at('2026-11-21T01:33:00Z')],
    ['2026-11-21 01:33:07', at('2026-11-21T01:33:07Z')],
    ['2026-11-21T01:33:07.250Z', at('2026-11-21T01:33:07.250Z')],
    ['yesterday', null],
    ['2026-13-41', null],
    ['', null],
  ])('%j', (text, expected) => expect(moment(text, now)).toBe(expected));
});

test('resolve falls back and turns round', () => {
  expect(resolve({ from: '-1h', to: 'now' }, now)).toEqual({ from: now - 3_600_000, to: now });
  expect(resolve({ from: 'nonsense', to: 'now' }, now)).toEqual({ from: now - 3_600_000, to: now });
  expect(resolve({ from: 'now', to: '-1h' }, now)).toEqual({ from: now - 3_600_000, to: now });
  const empty = resolve({ from: 'now', to: 'now' }, now);
  expect(empty.to - empty.from).toBe(60_000);
});

test.each([
  [{ from: '-1h', to: 'now' }, 'Last hour'],
  [{ from: 'now-1d', to: 'now' }, 'Last day'],
  [{ from: '-3h', to: 'now' }, 'Last 3 h'],
  [{ from: '2026-11-21T01:33:00Z', to: '2026-11-21T02:10:00Z' }, '01:33–02:10'],
  [{ from: '2026-11-21T01:33:00Z', to: '2026-11-21T01:34:30Z' }, '01:33:00–01:34:30'],
  [{ from: '2026-11-21T01:33:00Z', to: 'now' }, '01:33–now'],
  [{ from: '2026-11-19T01:33:00Z', to: '2026-11-19T03:33:00Z' }, '11-19 01:33–03:33'],
  [{ from: '2026-11-19T01:33:00Z', to: '2026-11-20T03:33:00Z' }, '11-19 01:33 – 11-20 03:33'],
])('label %j', (spec, expected) => expect(label(spec, now)).toBe(expected));

test('phrase', () => {
  expect(phrase({ from: '-1h', to: 'now' }, now)).toBe('in the last hour');
  expect(phrase({ from: '2026-11-21T01:33:00Z', to: '2026-11-21T02:10:00Z' }, now)).toBe('between 01:33 and 02:10');
  expect(phrase({ from: '2026-11-19T01:33:00Z', to: '2026-11-19T02:10:00Z' }, now)).toBe('on 11-19 between 01:33 and 02:10');
  expect(phrase({ from: '2026-11-19T01:33:00Z', to: '2026-11-20T02:10:00Z' }, now)).toBe('between 11-19 01:33 and 11-20 02:10');
});

test('relative', () => {
  expect(isRelative({ from: '-1h', to: 'now' })).toBe(true);
  expect(isRelative({ from: '-1h', to: '-5m' })).toBe(false);
  expect(isRelative({ from: '2026-11-21', to: 'now' })).toBe(false);
});

test.each([
  ['-1h', 'Last day'],
  ['-1d', 'Last week'],
  ['-7d', 'Last 2 weeks'],
  ['-14d', undefined],
])('wider than %s', (from, expected) => expect(wider({ from, to: 'now' }, now)?.label).toBe(expected));

test('widened doubles and never passes now', () => {
  const range = { from: now - 600_000, to: now };
  expect(widened(range, now)).toEqual({ from: now - 1_200_000, to: now });
  const past = { from: now - 7_200_000, to: now - 3_600_000 };
  expect(widened(past, now)).toEqual({ from: now - 9_000_000, to: now - 1_800_000 });
});

test('a brush gives whole seconds, unless it is about milliseconds', () => {
  expect(between(at('2026-11-21T01:33:00.250Z'), at('2026-11-21T01:40:00.750Z'))).toEqual({ from: '2026-11-21T01:33:00Z', to: '2026-11-21T01:40:01Z' });
  expect(between(at('2026-11-21T01:33:00.250Z'), at('2026-11-21T01:33:00.750Z')).from).toBe('2026-11-21T01:33:00.250Z');
});

test('write leaves out empty milliseconds', () => {
  expect(write(at('2026-11-21T01:33:00Z'))).toBe('2026-11-21T01:33:00Z');
  expect(write(at('2026-11-21T01:33:00.250Z'))).toBe('2026-11-21T01:33:00.250Z');
});
