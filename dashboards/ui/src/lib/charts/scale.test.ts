import { expect, test } from 'vitest';
import { axis, coarser, mirrorScales, nice, stack, timeTicks } from './scale';

test.each([
  [0, 1], [-3, 1], [0.3, 0.3], [0.31, 0.4], [1, 1], [1.2, 1.5], [5.47, 6], [7, 8], [9, 10], [22.8, 25], [61, 80], [101, 150], [0.1 + 0.2, 0.3], [73878, 80000],
])('nice(%d)', (max, expected) => expect(nice(max)).toBe(expected));

test('ticks are round, inside the range and apart', () => {
  const from = Date.parse('2026-11-21T01:33:00Z');
  const to = from + 3_600_000;
  const ticks = timeTicks(from, to, 820);
  expect(ticks.map((t) => new Date(t).toISOString().slice(11, 16))).toEqual(['01:40', '01:50', '02:00', '02:10', '02:20', '02:30']);
  expect(timeTicks(from, to, 300).length).toBeLessThanOrEqual(4);
  expect(timeTicks(from, from + 14 * 86_400_000, 800).length).toBeLessThanOrEqual(8);
  expect(timeTicks(from, from + 60_000, 800)[0]! % 10_000).toBe(0);
});

test.each([[25, 6, 0.6], [25, 6, 0.34], [1, 1, 0.5], [1, 100, 0.05]])('both zeros meet on the line: up %d, down %d, above %d', (up, down, above) => {
  const scales = mirrorScales(up, down, above);
  const zero = ([min, max]: [number, number]) => (0 - min) / (max - min);
  expect(zero(scales.up)).toBeCloseTo(1 - above, 9);
  expect(zero(scales.down)).toBeCloseTo(1 - above, 9);
  expect(scales.up[1]).toBe(up);
  expect(scales.down[0]).toBe(-down);
});

test('stack', () => {
  expect(stack([[1, 2], [3, 0]])).toEqual([
    [{ begin: 0, end: 1 }, { begin: 0, end: 2 }],
    [{ begin: 1, end: 4 }, { begin: 2, end: 2 }],
  ]);
});

test('coarser keeps the sum', () => {
  expect(coarser([1, 2, 3, 4, 5], 2)).toEqual([3, 7, 5]);
  expect(coarser([1, 2], 1)).toEqual([1, 2]);
});

test.each([[0, '0'], [25, '25'], [12.5, '12.5'], [1.5, '1.5'], [0.25, '0.25'], [0.025, '0.025'], [1500, '1,500']])('axis(%d)', (n, expected) =>
  expect(axis(n)).toBe(expected),
);
