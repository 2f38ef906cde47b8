// Light or dark. `theme.js` has set the first one before the page was drawn; this turns it over and tells the charts,
// whose colours are pixels and do not follow the style sheet by themselves.
const system = matchMedia('(prefers-color-scheme: dark)');

let turn = $state(0);
system.addEventListener('change', () => (turn += 1));

function dark(): boolean {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === 'dark' : system.matches;
}

export const theme = {
  get dark() {
    void turn;
    return dark();
  },
};

export function flipTheme(): void {
  const next = dark() ? 'light' : 'dark';
  document.documentElement.dataset.theme = next;
  try {
    localStorage.setItem('tollgate.theme', next);
  } catch {
    // Storage may be switched off; the choice then lasts as long as the page.
  }
  turn += 1;
}
