// The budget of the page: JavaScript and CSS together, gzipped, without the faces.
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';

const BUDGET_KB = 120;
let sum = 0;
for (const entry of await readdir('dist', { recursive: true })) {
  if (!/\.(js|css)$/.test(entry)) continue;
  const size = gzipSync(await readFile(join('dist', entry)), { level: 9 }).length / 1024;
  sum += size;
  console.log(`${size.toFixed(1).padStart(7)} KB  ${entry}`);
}
console.log(`${sum.toFixed(1).padStart(7)} KB  of ${BUDGET_KB}`);
if (sum > BUDGET_KB) process.exit(1);
