// One short sentence that something was done ("Link copied"), gone by itself.
let text = $state('');
let timer: ReturnType<typeof setTimeout> | undefined;

export const toast = {
  get text() {
    return text;
  },
};

export function say(words: string): void {
  text = words;
  clearTimeout(timer);
  timer = setTimeout(() => (text = ''), 2400);
}

export async function copy(what: string, words: string): Promise<void> {
  try {
    await navigator.clipboard.writeText(what);
    say(words);
  } catch {
    say('The browser did not let the page copy');
  }
}
