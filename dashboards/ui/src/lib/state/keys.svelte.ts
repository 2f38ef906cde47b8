// Single keys. A page lends its own while it is shown; the shell has the ones that work everywhere.
// Keys do nothing while somebody types or a dialog is open.
type Keys = Record<string, (event: KeyboardEvent) => void>;

const lent: Keys[] = [];

/**
 * For an effect: lends keys, and takes them back when the effect ends. A page's come before the shell's,
 * in whichever order the two were made.
 */
export function lendKeys(keys: Keys, whose: 'page' | 'shell' = 'page'): () => void {
  if (whose === 'page') lent.push(keys);
  else lent.unshift(keys);
  return () => void lent.splice(lent.indexOf(keys), 1);
}

function typing(target: EventTarget | null): boolean {
  return target instanceof HTMLElement && target.matches('input:not([type=checkbox]), textarea, select, [contenteditable]');
}

export function handleKey(event: KeyboardEvent): void {
  if (event.metaKey || event.ctrlKey || event.altKey) return;
  if (document.querySelector('dialog[open]')) return;
  if (typing(event.target) && event.key !== 'Escape') return;
  for (let i = lent.length - 1; i >= 0; i -= 1) {
    const act = lent[i]?.[event.key];
    if (act) {
      act(event);
      return;
    }
  }
}
