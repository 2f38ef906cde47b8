// What changed in the range: policy, deploys, certificates, limits set by hand. The same letters stand on every chart,
// in "What changed" and in the time picker, so there is one list.
import { api } from '../api/client';
import type { Change } from '../api/types';
import type { Range } from '../time/range';

let list = $state.raw<Change[]>([]);
let of = '';

const name = (range: Range) => `${Math.round(range.from / 60_000)} ${Math.round(range.to / 60_000)}`;

export const changes = {
  get list() {
    return list;
  },
  get marks() {
    return list.map((c) => ({ at: c.at_ms, letter: c.letter }));
  },
};

export function offerChanges(range: Range, found: Change[]): void {
  of = name(range);
  list = found;
}

/** Fetches the list unless a page has it already. A failure leaves the page without flags, which is not worth a banner. */
export async function wantChanges(range: Range): Promise<void> {
  if (of === name(range)) return;
  of = name(range);
  try {
    list = (await api.overview({ ...range, q: '' })).changes;
  } catch {
    of = '';
  }
}
