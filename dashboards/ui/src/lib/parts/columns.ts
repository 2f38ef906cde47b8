// How wide the columns of the requests table stand, from what is in them.
//
// Pure. A virtual table shows a few rows of thousands, and columns that follow those rows would jump while scrolling;
// so widths come from all rows seen, only ever grow, and the path takes what is left.
import type { RequestRow } from '../api/types';

export interface Widths {
  time: number;
  status: number;
  method: number;
  path: number;
  caller: number;
  dest: number;
  reason: number;
  ms: number;
}

// Advances of the two faces at the sizes of the table, and what stands between two columns.
const MONO = 6.56;
const SANS = 6.1;
const GAP = 12;
const capped = (chars: number, most: number) => Math.min(chars, most);

export function measure(rows: RequestRow[], before: Widths | null): Widths {
  const longest = (pick: (row: RequestRow) => string, most: number) => capped(rows.reduce((n, row) => Math.max(n, pick(row).length), 0), most);
  const found: Widths = {
    time: 14 + 12 * MONO + GAP,
    status: 52,
    method: Math.max(40, longest((r) => r.method, 8) * MONO) + GAP,
    path: Math.max(10, longest((r) => r.path, 64)) * MONO + GAP,
    caller: Math.max(6, longest((r) => r.caller, 24)) * SANS + GAP,
    dest: Math.max(6, longest((r) => r.dest, 20)) * SANS + GAP,
    reason: Math.max(8, longest((r) => r.reason, 22)) * MONO + GAP,
    ms: 46,
  };
  if (!before) return found;
  return Object.fromEntries(Object.entries(found).map(([name, w]) => [name, Math.max(w, before[name as keyof Widths])])) as unknown as Widths;
}

const ORDER = ['time', 'status', 'method', 'path', 'caller', 'dest', 'reason', 'ms'] as const;
export type Column = (typeof ORDER)[number];

/**
 * Widths for a table of this width. Room to spare is shared out; when there is too little,
 * context gives way before what tells one row from the next.
 */
export function fit(wanted: Widths, room: number, narrow: boolean): { column: Column; width: number }[] {
  const shown = ORDER.filter((c) => !narrow || !['caller', 'dest', 'reason'].includes(c));
  const sum = shown.reduce((n, c) => n + wanted[c], 0);
  const out = shown.map((column) => ({ column, width: wanted[column] }));
  const take = (column: Column, least: number, over: number) => {
    const at = out.find((c) => c.column === column);
    if (!at) return over;
    const given = Math.min(over, Math.max(0, at.width - least));
    at.width -= given;
    return over - given;
  };
  if (sum > room) {
    let over = sum - room;
    over = take('caller', 78, over);
    over = take('dest', 62, over);
    over = take('reason', 92, over);
    over = take('path', 132, over);
    over = take('caller', 52, over);
    over = take('dest', 52, over);
    take('path', 60, over);
  } else {
    // The two ends keep their place; the rest breathes.
    const free = out.filter((c) => c.column !== 'ms' && c.column !== 'status');
    for (const c of free) c.width += (room - sum) / free.length;
  }
  return out;
}
