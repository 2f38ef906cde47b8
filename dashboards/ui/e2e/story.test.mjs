// The story a person lives through on the first day: sign in by the printed link, find a denied request, open it, read why,
// watch new requests arrive, and all of it without a violation axe can see, in both themes.
//
//   TOLLGATE_URL      one-click sign-in link, http://127.0.0.1:7080/login#token=…
//   TOLLGATE_INGRESS  the gateway, to send requests of our own (without it the demo traffic has to do)
//   TOLLGATE_DENIED   filter that finds a denied request; default reason:scope_missing
//   TOLLGATE_TOKEN    bearer token of a subject without the scope, for the request of our own
//   SCREENSHOT_DIR    where screenshots go
import assert from 'node:assert/strict';
import { mkdir, readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { after, before, test } from 'node:test';
import { open } from '../dev/browser.mjs';

const link = process.env.TOLLGATE_URL;
const ingress = process.env.TOLLGATE_INGRESS;
const shots = process.env.SCREENSHOT_DIR;
const filter = process.env.TOLLGATE_DENIED ?? 'reason:scope_missing';
if (!link) throw new Error('TOLLGATE_URL is not set: give the one-click link that `tollgate up` prints');
const base = new URL(link).origin;
const axe = await readFile(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');

let chromium;
let context;
let page;
const complaints = [];

before(async () => {
  if (shots) await mkdir(shots, { recursive: true });
  chromium = await open();
  context = await chromium.browser.newContext({ viewport: { width: 1440, height: 900 }, colorScheme: 'light', acceptDownloads: true });
  page = await context.newPage();
  page.on('pageerror', (e) => complaints.push(`script: ${e.message}`));
  page.on('console', (m) => m.type() === 'error' && /Content Security Policy/.test(m.text()) && complaints.push(m.text()));
});
after(async () => chromium?.close());

const shot = async (name) => shots && page.screenshot({ path: `${shots}/${name}.png` });
/** Our own requests: two that must show, one of them denied. A gateway that does not answer is a failure of the story. */
async function send(id) {
  if (!ingress) return;
  const headers = process.env.TOLLGATE_TOKEN ? { authorization: `Bearer ${process.env.TOLLGATE_TOKEN}` } : {};
  const answer = await fetch(new URL(`/policies/POL-${id}`, ingress), { headers });
  await answer.arrayBuffer();
}

test('signs in by the link, and the token leaves the address', async () => {
  await send(1042);
  await page.goto(link);
  await page.waitForURL((u) => u.pathname === '/');
  assert.equal(new URL(page.url()).hash, '');
  await page.getByRole('heading', { level: 1, name: 'Overview' }).waitFor();
  await page.locator('.say h2').waitFor();
  await page.locator('.tiles').waitFor();
  await page.waitForTimeout(400); // Only for the picture: the charts paint after the answer.
  await shot('overview');
});

test('a used link says what to do', async () => {
  const other = await chromium.browser.newContext();
  const used = await other.newPage();
  await used.goto(`${base}/login#token=wrong`);
  await used.getByRole('alert').getByText('used or has expired').waitFor();
  await used.getByText('tollgate dashboard login').waitFor();
  assert.equal(new URL(used.url()).hash, '');
  await other.close();
});

test('finds a denied request by typing a filter', async () => {
  await page.keyboard.press('g');
  await page.keyboard.press('r');
  await page.waitForURL((u) => u.pathname === '/requests');
  await page.locator('tbody tr[data-id]').first().waitFor();
  await page.keyboard.press('/');
  await page.keyboard.type(filter);
  await page.keyboard.press('Enter');
  await page.waitForURL((u) => u.searchParams.get('q')?.includes(filter));
  await page.keyboard.press('Escape');
  await page.getByText(/(requests|records) match(es)?\./).waitFor();
  await page.locator('tbody tr[data-id]', { hasText: filter.split(':')[1] }).first().waitFor();
});

test('opens it by keyboard and reads who, what and why', async () => {
  await page.keyboard.press('j');
  await page.keyboard.press('Enter');
  const drawer = page.locator('aside.drawer');
  const title = drawer.locator('h2');
  await title.getByText('Denied:').waitFor();
  const words = await title.innerText();
  assert.match(words, /may not (GET|POST)/, `the title says who may not do what: ${words}`);
  assert.ok(new URL(page.url()).searchParams.get('drawer'), 'the open request is in the address');
  if (filter.includes('scope_missing')) {
    assert.match(words, /scope/, `the title says why: ${words}`);
    await drawer.getByRole('region', { name: 'What would have been enough' }).getByText(/^scope:/).waitFor();
    await drawer.getByRole('region', { name: 'Why authorization refused' }).getByText(/scope needs/).waitFor();
  }
  await drawer.getByRole('heading', { name: 'Where it stopped' }).waitFor();
  for (const group of ['Decision', 'Token', 'Request']) await drawer.getByRole('heading', { name: group, exact: true }).waitFor();
  await drawer.getByText(/tollgate\.(authz\.)?reason/).first().waitFor();
  await page.waitForTimeout(300);
  await shot('request');
});

test('the address alone shows the same again', async () => {
  const words = await page.locator('aside.drawer h2').innerText();
  await page.reload();
  await page.locator('aside.drawer h2', { hasText: words }).waitFor();
  await page.keyboard.press('Escape');
  await page.locator('aside.drawer').waitFor({ state: 'detached' });
});

test('exports what matches', async () => {
  await page.getByRole('button', { name: 'Export' }).click();
  const [download] = await Promise.all([page.waitForEvent('download'), page.getByRole('button', { name: /^CSV/ }).click()]);
  assert.match(download.suggestedFilename(), /\.csv$/);
});

test('says which term is too much when nothing matches', async () => {
  await page.goto(`${base}/requests?q=${encodeURIComponent(`${filter} caller:nobody-is-called-this`)}`);
  await page.getByRole('heading', { name: 'No request matches both terms.' }).waitFor();
  await page.getByRole('button', { name: 'Only this' }).first().click();
  await page.locator('tbody tr[data-id]').first().waitFor();
});

test('the live tail shows a new request', async () => {
  await page.goto(`${base}/requests?live=1`);
  await page.getByText(/requests\/s/).waitFor();
  await page.mouse.move(700, 5); // Rows wait while the pointer is over them.
  await page.waitForTimeout(600); // The subscription has to stand before the request that it should show.
  await send(4711);
  const row = ingress ? page.locator('tbody tr[data-id]', { hasText: 'POL-4711' }) : page.locator('tbody tr[data-id]');
  await row.first().waitFor({ timeout: 15_000 });
  await shot('live');
  await page.keyboard.press(' ');
  await page.getByRole('button', { name: 'Go on' }).waitFor();
});

for (const theme of ['light', 'dark']) {
  test(`axe finds nothing, ${theme}`, async (t) => {
    await page.goto(`${base}/requests?theme=${theme}&q=${encodeURIComponent(filter)}`);
    const first = page.locator('tbody tr[data-id]').first();
    await first.waitFor();
    const id = await first.getAttribute('data-id');
    await page.goto(`${base}/services?theme=${theme}`);
    const service = (await page.locator('main tbody th a').first().getAttribute('href')).split('?')[0];
    const places = [
      ['/', '.tiles'],
      ['/requests', 'tbody tr[data-id]'],
      [`/requests?q=${encodeURIComponent(filter)}&drawer=${id}`, 'aside.drawer h3'],
      ['/requests?q=caller:nobody-is-called-this', '.blank h2'],
      ['/services', 'main tbody tr'],
      [service, 'main tbody tr'],
      ['/?palette', 'dialog[open] [role=option]'],
      ['/?keys', 'dialog[open] dt'],
      ['/services?time', '.pop input'],
      ['/login', 'h1'],
    ];
    for (const [path, ready] of places) {
      await page.goto(`${base}${path}${path.includes('?') ? '&' : '?'}theme=${theme}`);
      await page.locator(ready).first().waitFor();
      await page.waitForTimeout(250); // Popovers fade in for 120 ms, and a colour half way there is not the colour.
      await page.evaluate(axe);
      const { violations } = await page.evaluate(() => window.axe.run(document, { resultTypes: ['violations'] }));
      const found = violations.map((v) => `${path}: ${v.id} (${v.impact}) ${v.help}: ${v.nodes.slice(0, 3).map((n) => n.html.slice(0, 140)).join(' | ')}`);
      t.diagnostic(`${path} ${violations.length}`);
      assert.deepEqual(found, []);
      if (shots) await shot(`axe-${theme}-${path.replace(/[^a-z]+/gi, '-').slice(0, 24)}`);
    }
  });
}

test('the scripts and the policy had nothing to complain about', () => {
  assert.deepEqual(complaints, []);
});
