// Colours and pens for the canvas: the tokens of the style sheet as the browser resolves them now, and text and lines on whole pixels.

const NAMES = ['ink', 'ink2', 'ink3', 'rule', 'rule2', 'edge', 'sheet', 'flow', 'flow2', 'deny-fill', 'limit-fill', 'error-fill', 'hand-fill', 'alt', 'hatch'] as const;
export type Tone = (typeof NAMES)[number];
export type Tones = Record<Tone, string>;

/** `light-dark()` stays text in a custom property, so a colour has to be used once to be known. */
export function tones(at: HTMLElement): Tones {
  const probe = document.createElement('i');
  probe.hidden = true;
  at.append(probe);
  const out = {} as Tones;
  for (const name of NAMES) {
    probe.style.setProperty('color', `var(--${name})`);
    out[name] = getComputedStyle(probe).color;
  }
  probe.remove();
  return out;
}

export interface Pen {
  ctx: CanvasRenderingContext2D;
  /** Device pixels in one CSS pixel. */
  ratio: number;
  tones: Tones;
}

export function text(pen: Pen, words: string, x: number, y: number, align: CanvasTextAlign, tone: Tone = 'ink3', weight = 400): void {
  const { ctx, ratio } = pen;
  ctx.font = `${weight} ${10.5 * ratio}px Wire, ui-monospace, monospace`;
  ctx.textAlign = align;
  ctx.textBaseline = 'alphabetic';
  ctx.fillStyle = pen.tones[tone];
  ctx.fillText(words, x, y);
}

/** A horizontal hairline on a whole pixel row. */
export function level(pen: Pen, x1: number, x2: number, y: number, tone: Tone, width = 1): void {
  const { ctx, ratio } = pen;
  const thick = Math.max(1, Math.round(width * ratio));
  ctx.fillStyle = pen.tones[tone];
  ctx.fillRect(x1, Math.round(y - thick / 2), x2 - x1, thick);
}

/** Hatching is absence: what was not seen is lined, never tinted. */
export function hatch(pen: Pen, x1: number, x2: number, y1: number, y2: number): void {
  const { ctx, ratio } = pen;
  ctx.save();
  ctx.beginPath();
  ctx.rect(x1, y1, x2 - x1, y2 - y1);
  ctx.clip();
  ctx.strokeStyle = pen.tones.hatch;
  ctx.lineWidth = ratio;
  const apart = 5 * Math.SQRT2 * ratio;
  const tall = y2 - y1;
  ctx.beginPath();
  // Lines start on a grid of the canvas, so that neighbouring hatches join.
  for (let x = Math.floor((x1 - tall) / apart) * apart; x < x2; x += apart) {
    ctx.moveTo(x, y2);
    ctx.lineTo(x + tall, y1);
  }
  ctx.stroke();
  ctx.restore();
}

/** A lettered flag: what changed, with the same letter wherever the range is drawn. */
export function flag(pen: Pen, letter: string, x: number, top: number, bottom: number): void {
  const { ctx, ratio } = pen;
  ctx.save();
  ctx.strokeStyle = pen.tones.ink3;
  ctx.lineWidth = ratio;
  ctx.setLineDash([ratio, 3 * ratio]);
  ctx.beginPath();
  ctx.moveTo(Math.round(x) + 0.5, top + 14 * ratio);
  ctx.lineTo(Math.round(x) + 0.5, bottom);
  ctx.stroke();
  ctx.setLineDash([]);
  ctx.beginPath();
  ctx.roundRect(Math.round(x - 7 * ratio), Math.round(top), 14 * ratio, 14 * ratio, 3 * ratio);
  ctx.fillStyle = pen.tones.sheet;
  ctx.strokeStyle = pen.tones.rule2;
  ctx.fill();
  ctx.stroke();
  text(pen, letter, Math.round(x), top + 10.6 * ratio, 'center', 'ink2', 600);
  ctx.restore();
}
