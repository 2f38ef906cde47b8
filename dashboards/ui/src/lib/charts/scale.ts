// The arithmetic of the two charts: round maxima, ticks of time, and two y scales that meet on one line.
//
// Pure. Nothing here knows a canvas.

const ROUND = [1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10];

/** The next round number, so that axis text is short and steady. */
export function nice(max: number): number {
  if (!(max > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(max));
  // A hair of slack keeps 0.30000000000000004 from becoming 0.4.
  const step = ROUND.find((m) => m * power >= max * (1 - 1e-9)) ?? 10;
  return Number((step * power).toPrecision(3));
}

const STEPS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 10_800, 21_600, 43_200, 86_400, 172_800, 604_800].map((s) => s * 1000);

/** Round moments in a range, with room for their text between them. */
export function timeTicks(from: number, to: number, width: number): number[] {
  // Narrow charts get their ticks closer, or they would have hardly any.
  const apart = Math.min(112, Math.max(64, width / 7));
  const most = Math.max(1, Math.floor(width / apart));
  const step = STEPS.find((s) => (to - from) / s <= most) ?? STEPS.at(-1)!;
  const ticks: number[] = [];
  for (let t = Math.ceil(from / step) * step; t <= to; t += step) ticks.push(t);
  return ticks;
}

/** Where the line stands and what the two scales reach, for a share of the height above it. */
export function mirrorScales(up: number, down: number, above: number): { up: [number, number]; down: [number, number] } {
  const share = Math.min(0.95, Math.max(0.05, above));
  return {
    up: [(-up * (1 - share)) / share, up],
    down: [-down, (down * share) / (1 - share)],
  };
}

/** Stacks series from the line outwards: for each step, where each layer begins and ends. */
export function stack(layers: number[][]): { begin: number; end: number }[][] {
  const height: number[] = [];
  return layers.map((layer) =>
    layer.map((value, i) => {
      const begin = height[i] ?? 0;
      height[i] = begin + value;
      return { begin, end: height[i]! };
    }),
  );
}

/** Sums neighbours so that no more than `most` steps are left: bars thinner than a pixel are noise. */
export function coarser(values: number[], by: number): number[] {
  if (by <= 1) return values;
  const out: number[] = [];
  for (let i = 0; i < values.length; i += by) out.push(values.slice(i, i + by).reduce((a, b) => a + b, 0));
  return out;
}

/** Axis and read-out numbers. */
export function axis(n: number): string {
  if (n === 0) return '0';
  if (n >= 100) return Math.round(n).toLocaleString('en');
  return n.toFixed(n >= 10 ? 1 : n >= 1 ? 1 : n >= 0.1 ? 2 : 3).replace(/\.?0+$/, '');
}
