// Lines of durations: at most three weights of ink, named at their right end. A gap in the data is hatched, never joined.
import type uPlot from 'uplot';
import { flag, hatch, level, text, type Pen, type Tone } from './paint';
import { gridline, timeAxis, type Frame, type Kind, type Mark } from './plot';
import { axis, nice } from './scale';

export interface Line {
  name: string;
  values: (number | null)[];
  tone: Tone;
  width: number;
  /** A comparison is dashed as well as coloured. */
  dashed?: boolean;
}

export function lines(frame: Frame, series: Line[], look: { height: number; marks: Mark[] }): Kind {
  const known = series.flatMap((s) => s.values).filter((v): v is number => v !== null);
  const max = nice(Math.max(0, ...known));
  const longest = Math.max(0, ...series.map((s) => s.name.length));

  function draw(u: uPlot, pen: Pen): void {
    const { ctx, ratio } = pen;
    const { left, top, width, height } = u.bbox;
    gridline(u, pen, 'y', max, axis(max));
    gridline(u, pen, 'y', max / 2, axis(max / 2));
    level(pen, left, left + width, u.valToPos(0, 'y', true), 'rule2');
    text(pen, '0', left - 6 * ratio, u.valToPos(0, 'y', true) + 3.5 * ratio, 'right');

    // Where no line has a value there was nothing to measure.
    for (let i = 0; i < frame.steps; i += 1) {
      if (series.every((s) => (s.values[i] ?? null) === null)) {
        hatch(pen, u.valToPos(frame.from + i * frame.step, 'x', true), u.valToPos(frame.from + (i + 1) * frame.step, 'x', true), top, top + height);
      }
    }
    const ends: number[] = [];
    for (const s of series) {
      ctx.save();
      ctx.beginPath();
      let last: number | null = null;
      let joined = false;
      s.values.forEach((v, i) => {
        if (v === null) {
          joined = false;
          return;
        }
        const x = u.valToPos(frame.from + (i + 0.5) * frame.step, 'x', true);
        const y = u.valToPos(v, 'y', true);
        const alone = !joined && (s.values[i + 1] ?? null) === null;
        if (joined) ctx.lineTo(x, y);
        else ctx.moveTo(alone ? x - 1.5 * ratio : x, y);
        // A single value between two gaps is a short dash, or it would not be seen.
        if (alone) ctx.lineTo(x + 1.5 * ratio, y);
        joined = true;
        last = y;
      });
      ctx.strokeStyle = pen.tones[s.tone];
      ctx.lineWidth = s.width * ratio;
      ctx.lineJoin = 'round';
      if (s.dashed) ctx.setLineDash([5 * ratio, 3 * ratio]);
      ctx.stroke();
      ctx.restore();
      if (last === null) continue;
      // Names at the end keep a line's height from each other.
      let y: number = last;
      while (ends.some((other) => Math.abs(other - y) < 11 * ratio)) y -= 11 * ratio;
      ends.push(y);
      text(pen, s.name, left + width + 6 * ratio, y + 3.5 * ratio, 'left', s.tone === 'alt' ? 'alt' : 'ink3');
    }
    for (const { at, letter } of look.marks) {
      if (at >= frame.from && at <= frame.to) flag(pen, letter, u.valToPos(at, 'x', true), top - 16 * ratio, top + height);
    }
    timeAxis(u, pen, frame);
  }

  return {
    frame,
    height: look.height,
    room: [look.marks.length > 0 ? 17 : 8, longest * 6.6 + 10, 18, 34],
    scales: { y: [0, max] },
    draw,
  };
}
