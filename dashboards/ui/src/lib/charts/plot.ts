// What both chart kinds share: a uPlot that gives scales, the crosshair, the brush and the syncing of charts on a page,
// while every pixel of data is drawn by the kind itself.
import uPlot from 'uplot';
import 'uplot/dist/uPlot.min.css';
import { clock, day } from '../time/range';
import { level, text, tones, type Pen } from './paint';
import { timeTicks } from './scale';

export interface Mark {
  at: number;
  letter: string;
}
export interface Frame {
  from: number;
  to: number;
  step: number;
  steps: number;
}
export interface Kind {
  frame: Frame;
  height: number;
  /** Room in CSS pixels: top, right, bottom, left. */
  room: [number, number, number, number];
  scales: Record<string, [number, number]>;
  draw(u: uPlot, pen: Pen): void;
}
export interface Hands {
  hover?: (step: number | null) => void;
  brush?: (from: number, to: number) => void;
  widen?: () => void;
}
export interface Plot {
  show(kind: Kind): void;
  /** Draws again, with the colours of the theme as it is now. */
  repaint(): void;
  destroy(): void;
}

/** Text of a moment on the axis; midnight is a date. */
function tick(ms: number, from: number, to: number): string {
  if (to - from > 36 * 3_600_000 || ms % 86_400_000 === 0) return ms % 86_400_000 === 0 ? day(ms) : clock(ms);
  return clock(ms, to - from <= 900_000 && ms % 60_000 !== 0);
}

export function timeAxis(u: uPlot, pen: Pen, frame: Frame): void {
  const { left, width, top, height } = u.bbox;
  const edge = 16 * pen.ratio;
  for (const at of timeTicks(frame.from, frame.to, width / pen.ratio)) {
    const x = u.valToPos(at, 'x', true);
    if (x < left + edge || x > left + width - edge) continue;
    text(pen, tick(at, frame.from, frame.to), x, top + height + 14.5 * pen.ratio, 'center');
  }
}

export function gridline(u: uPlot, pen: Pen, scale: string, value: number, label: string): void {
  const y = u.valToPos(value, scale, true);
  level(pen, u.bbox.left, u.bbox.left + u.bbox.width, y, 'rule');
  text(pen, label, u.bbox.left - 6 * pen.ratio, y + 3.5 * pen.ratio, 'right');
}

export function plot(host: HTMLElement, first: Kind, hands: Hands, sync: string | null): Plot {
  let kind = first;
  let colours = tones(host);
  const names = Object.keys(first.scales);
  const hidden = { show: false };

  const options: uPlot.Options = {
    width: Math.max(60, host.clientWidth),
    height: first.height,
    padding: first.room,
    legend: hidden,
    scales: {
      x: { time: false, range: () => [kind.frame.from, kind.frame.to] },
      ...Object.fromEntries(names.map((name) => [name, { range: () => kind.scales[name]! }])),
    },
    axes: [hidden, ...names.map((scale) => ({ ...hidden, scale }))],
    series: [{}, ...names.map((scale) => ({ scale, paths: () => null, points: hidden }))],
    cursor: {
      y: false,
      points: hidden,
      drag: { x: hands.brush !== undefined, y: false, setScale: false },
      ...(sync ? { sync: { key: sync, scales: ['x', null] as [string, null], setSeries: false } } : {}),
      move: (u, left, top) => {
        if (left < 0 || u.cursor.drag?.x === undefined) return [left, top];
        const { step, from } = kind.frame;
        const at = Math.floor((u.posToVal(left, 'x') - from) / step);
        return [u.valToPos(from + (at + 0.5) * step, 'x'), top];
      },
      bind: {
        dblclick: () => () => {
          hands.widen?.();
          return null;
        },
      },
    },
    hooks: {
      draw: [(u) => kind.draw(u, { ctx: u.ctx, ratio: uPlot.pxRatio, tones: colours })],
      setCursor: [
        (u) => {
          const left = u.cursor.left ?? -1;
          const at = left < 0 ? -1 : Math.floor((u.posToVal(left, 'x') - kind.frame.from) / kind.frame.step);
          hands.hover?.(at >= 0 && at < kind.frame.steps ? at : null);
        },
      ],
      setSelect: [
        (u) => {
          const { left, width } = u.select;
          if (width > 3) hands.brush?.(u.posToVal(left, 'x'), u.posToVal(left + width, 'x'));
          u.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
        },
      ],
    },
  };

  const data = () => {
    const { from, step, steps } = kind.frame;
    const xs = Array.from({ length: steps }, (_, i) => from + (i + 0.5) * step);
    return [xs, ...names.map(() => xs.map(() => null))] as unknown as uPlot.AlignedData;
  };
  const u = new uPlot(options, data(), host);

  const resized = new ResizeObserver(() => {
    const width = Math.max(60, host.clientWidth);
    if (width !== u.width || kind.height !== u.height) u.setSize({ width, height: kind.height });
  });
  resized.observe(host);
  // The first paint may come before the faces; axis text is drawn again when they are there.
  void document.fonts.ready.then(() => u.redraw(false));

  return {
    show(next) {
      kind = next;
      u.setData(data());
    },
    repaint() {
      colours = tones(host);
      u.redraw(false);
    },
    destroy() {
      resized.disconnect();
      u.destroy();
    },
  };
}
