// Takes the screenshots a person compares with the prototype: pages × themes × two sizes, into shots/ (or argv[2]).
// Needs a page to look at: BASE (default the mock on 5173) and, for a real dashboard, LOGIN, its one-click link.
import { mkdir } from 'node:fs/promises';
import { open } from './browser.mjs';

const base = process.env.BASE ?? 'http://127.0.0.1:5173';
const out = process.argv[2] ?? 'shots';
const only = process.argv[3];
await mkdir(out, { recursive: true });

const SHOTS = [
  ['overview', '/', {}],
  ['requests', '/requests?q=status:>=400', { drawer: true }],
  ['requests-all', '/requests', {}],
  ['requests-filter', '/requests?q=status:>=400 reason:scope_missing', { drawer: true, focus: true }],
  ['requests-empty', '/requests?q=status:>=400 reason:scope_missing caller:adjuster', {}],
  ['requests-live', '/requests?live=1', { wait: 2500 }],
  ['service', '/services/policies', {}],
  ['services', '/services', {}],
  ['palette', '/?palette', {}],
  ['keys', '/requests?keys', {}],
  ['time', '/services?time', {}],
];
const sizes = [['', { width: 1440, height: 900 }], ['-mobile', { width: 390, height: 844 }]];

const { browser, close } = await open();
for (const theme of ['light', 'dark']) {
  for (const [suffix, viewport] of sizes) {
    const context = await browser.newContext({ viewport, deviceScaleFactor: suffix ? 2 : 1, colorScheme: theme });
    const page = await context.newPage();
    page.on('pageerror', (e) => console.log('error', e.message));
    page.on('console', (m) => ['error', 'warning'].includes(m.type()) && console.log(m.type(), m.text()));
    if (!only || 'login'.startsWith(only)) {
      await page.goto(`${base}/login#token=wrong`);
      await page.waitForTimeout(400);
      await page.screenshot({ path: `${out}/login${suffix}-${theme}.png` });
    }
    await page.goto(process.env.LOGIN ?? `${base}/login#token=dev`);
    await page.waitForURL((u) => u.pathname === '/');
    for (const [name, path, how] of SHOTS) {
      if (only && name !== only) continue;
      await page.goto(base + path);
      await page.waitForTimeout(900);
      if (how.drawer && !suffix) await page.locator('tbody tr[data-id]').nth(3).click();
      if (how.focus) await page.getByRole('combobox', { name: 'Filter' }).focus();
      await page.waitForTimeout(how.wait ?? 500);
      await page.screenshot({ path: `${out}/${name}${suffix}-${theme}.png` });
    }
    await context.close();
  }
}
await close();
