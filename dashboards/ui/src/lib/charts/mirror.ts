// The mirror: what passed stands above the line as a stepped area, what was stopped hangs below it on a scale of its own.
// Both zeros meet on the line, which is drawn last and in full ink.
import type uPlot from 'uplot';
import type { Series } from '../api/types';
import { flag, hatch, level, type Pen, type Tone } from './paint';
import { gridline, timeAxis, type Frame, type Kind, type Mark } from './plot';
import { axis, mirrorScales, nice, stack } from './scale';

export const STOPPED = [
  { name: 'denied', word: 'Denied', tone: 'deny-fill' },
  { name: 'limited', word: 'Limited', tone: 'limit-fill' },
  { name: 'failed', word: 'Failed', tone: 'error-fill' },
] as const satisfies { name: 'denied' | 'limited' | 'failed'; word: string; tone: Tone }[];

export interface MirrorLook {
  height: number;
  /** Share of the height above the line. */
  split: number;
  /** Without axes, as in the strip. */
  bare: boolean;
  marks: Mark[];
  /** The moment a page is about. */
  pin: number | null;
}

export function frameOf(series: Series): Frame {
  const steps = series.passed.length;
  return { from: series.from, to: series.from + steps * series.step_ms, step: series.step_ms, steps };
}

export function mirror(series: Series, look: MirrorLook): Kind {
  const frame = frameOf(series);
  const perSecond = series.step_ms / 1000;
  const behind = series.unmatched ?? null;
  const tall = series.passed.map((v, i) => v + (behind?.[i] ?? 0));
  const layers = stack(STOPPED.map(({ name }) => series[name]));
  const deepest = Math.max(0, ...(layers.at(-1) ?? []).map((bar) => bar.end));
  const upMax = nice(Math.max(0, ...tall) / perSecond);
  const downMax = nice(deepest / perSecond);
  const scales = mirrorScales(upMax, downMax, look.split);

  function skyline(u: uPlot, pen: Pen, values: number[], fill: Tone, edge: Tone | null): void {
    const { ctx, ratio } = pen;
    const zero = u.valToPos(0, 'up', true);
    const sky = new Path2D();
    const ground = new Path2D();
    ground.moveTo(u.bbox.left, zero);
    values.forEach((v, i) => {
      const x1 = u.valToPos(frame.from + i * frame.step, 'x', true);
      const x2 = u.valToPos(frame.from + (i + 1) * frame.step, 'x', true);
      const y = u.valToPos(v / perSecond, 'up', true);
      if (i === 0) sky.moveTo(x1, y);
      else sky.lineTo(x1, y);
      sky.lineTo(x2, y);
      ground.lineTo(x1, y);
      ground.lineTo(x2, y);
    });
    ground.lineTo(u.bbox.left + u.bbox.width, zero);
    ground.closePath();
    ctx.fillStyle = pen.tones[fill];
    ctx.fill(ground);
    if (!edge) return;
    ctx.strokeStyle = pen.tones[edge];
    ctx.lineWidth = 1.2 * ratio;
    ctx.stroke(sky);
  }

  function bars(u: uPlot, pen: Pen): void {
    const { ctx, ratio } = pen;
    const line = Math.round(u.valToPos(0, 'down', true)) + Math.ceil(ratio);
    const wide = u.bbox.width / frame.steps;
    const between = wide > 5 * ratio ? ratio : wide > 3 * ratio ? 0.6 * ratio : 0;
    const depth = u.bbox.top + u.bbox.height - line;
    for (let i = 0; i < frame.steps; i += 1) {
      const x = u.valToPos(frame.from + i * frame.step, 'x', true);
      let y = line;
      STOPPED.forEach(({ tone }, layer) => {
        const { begin, end } = layers[layer]![i]!;
        if (end === begin) return;
        // One request in a busy hour must still be seen.
        const tallness = Math.max(ratio * 1.5, ((end - begin) / perSecond / downMax) * depth);
        ctx.fillStyle = pen.tones[tone];
        ctx.fillRect(x, y, Math.max(0.8 * ratio, wide - between), tallness);
        y += tallness;
      });
    }
  }

  function absent(u: uPlot, pen: Pen): void {
    series.lost?.forEach((lost, i) => {
      if (lost > 0) {
        const x1 = u.valToPos(frame.from + i * frame.step, 'x', true);
        hatch(pen, x1, u.valToPos(frame.from + (i + 1) * frame.step, 'x', true), u.bbox.top, u.bbox.top + u.bbox.height);
      }
    });
  }

  return {
    frame,
    height: look.height,
    room: look.bare ? [3, 0, 2, 0] : [look.marks.length > 0 ? 17 : 8, 1, 18, 34],
    scales,
    draw(u, pen) {
      const { ctx, ratio } = pen;
      const { left, top, width, height } = u.bbox;
      if (behind) skyline(u, pen, tall, 'rule', null);
      skyline(u, pen, series.passed, 'flow', series.passed.some((v) => v > 0) ? 'flow2' : null);
      if (!look.bare) {
        const above = (height / ratio) * look.split;
        ctx.globalCompositeOperation = 'destination-over';
        gridline(u, pen, 'up', upMax, axis(upMax));
        if (above > 44) gridline(u, pen, 'up', upMax / 2, axis(upMax / 2));
        gridline(u, pen, 'down', -downMax, deepest > 0 ? axis(downMax) : '0');
        ctx.globalCompositeOperation = 'source-over';
      }
      bars(u, pen);
      absent(u, pen);
      level(pen, left, left + width, Math.round(u.valToPos(0, 'up', true)) + ratio / 2, 'ink');
      for (const { at, letter } of look.marks) {
        if (at >= frame.from && at <= frame.to) flag(pen, letter, u.valToPos(at, 'x', true), top - 16 * ratio, top + height);
      }
      if (look.pin !== null && look.pin >= frame.from && look.pin <= frame.to) {
        const x = Math.round(u.valToPos(look.pin, 'x', true));
        ctx.fillStyle = pen.tones['hand-fill'];
        ctx.fillRect(x - 0.75 * ratio, 0, 1.5 * ratio, top + height + 2 * ratio);
        ctx.beginPath();
        ctx.moveTo(x - 4 * ratio, 0);
        ctx.lineTo(x + 4 * ratio, 0);
        ctx.lineTo(x, 5 * ratio);
        ctx.fill();
      }
      if (!look.bare) timeAxis(u, pen, frame);
    },
  };
}
