import { describe, expect, test } from 'vitest';
import { lane } from './lane';

const denied = [
  { name: 'accept', us: 38, outcome: null },
  { name: 'route', us: 9, outcome: null },
  { name: 'authorize', us: 352, outcome: 'deny' },
  { name: 'limit', us: null, outcome: 'not_reached' },
  { name: 'upstream', us: null, outcome: 'not_reached' },
];

describe('lane', () => {
  test('ends at the gate and names what was not reached', () => {
    const l = lane(denied, 'authorize', 'denied', 396);
    expect(l.bars.map((b) => b.name)).toEqual(['accept', 'route', 'authorize']);
    expect(l.missed).toEqual(['limit', 'upstream']);
    expect(l.gate).toBeGreaterThan(l.end);
    expect(l.end).toBeLessThan(260);
    expect(l.bars[2]!.weight).toBe('dark');
  });
  test('the longest bar carries its unit, the others their number', () => {
    expect(lane(denied, 'authorize', 'denied', 396).labels.map((x) => x.words)).toEqual(['accept 38', 'route 9', 'authorize 352 µs']);
  });
  test('passed: the line goes to the end and there is no gate', () => {
    const l = lane([{ name: 'authorize', us: 400, outcome: 'allow' }, { name: 'upstream', us: 61_000, outcome: null }], null, 'passed', 396);
    expect(l.gate).toBeNull();
    expect(l.end).toBeCloseTo(396, 0);
    expect(l.labels.at(-1)!.words).toBe('upstream 61 ms');
  });
  test.each([[[]], [[{ name: 'accept', us: 0, outcome: null }]], [[{ name: 'accept', us: null, outcome: null }]]])('%j draws nothing impossible', (stages) => {
    const l = lane(stages, null, 'passed', 396);
    for (const b of l.bars) expect(Number.isFinite(b.x) && Number.isFinite(b.width)).toBe(true);
  });
  test('labels never overlap', () => {
    const many = ['accept', 'route', 'authorize', 'limit', 'upstream', 'respond'].map((name, i) => ({ name, us: 5 + i, outcome: null }));
    const spans = lane(many, null, 'passed', 300).labels.map((x) => {
      const wide = x.words.length * 6.35;
      return x.end ? [x.x - wide, x.x] : [x.x, x.x + wide];
    });
    spans.sort((a, b) => a[0]! - b[0]!);
    for (let i = 1; i < spans.length; i += 1) expect(spans[i]![0]).toBeGreaterThanOrEqual(spans[i - 1]![1]!);
  });
});
