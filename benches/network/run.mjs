// The bench: `node run.mjs [SCENARIO…]`. What was measured, the verdicts and a page of plots are left in
// the folder that OUTPUT names.
import { mkdirSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

import { page } from './page.mjs';
import { SCENARIOS as LONG, SHORT, play } from './scenarios.mjs';

const SCENARIOS = { ...LONG, short: SHORT };
const OUTPUT = resolve(process.env.OUTPUT ?? join(dirname(fileURLToPath(import.meta.url)), 'output'));
const names = process.argv.length > 2 ? process.argv.slice(2) : Object.keys(LONG);
mkdirSync(OUTPUT, { recursive: true });
for (const name of names) {
  if (!SCENARIOS[name]) throw new Error(`There is no scenario '${name}', only ${Object.keys(SCENARIOS).join(', ')}`);
}
let missed = 0;
for (const name of names) {
  console.log(`${name}: ${SCENARIOS[name].title}`);
  try {
    const run = await play(name, SCENARIOS[name]);
    writeFileSync(join(OUTPUT, `${name}.json`), JSON.stringify(run));
    for (const { what, text, holds } of run.verdicts) {
      console.log(`  ${holds === undefined ? '      ' : holds ? 'yes   ' : 'NO    '} ${what}: ${text}`);
      missed += Number(holds === false);
    }
    if (run.errors.length > 0) console.log(`  the application: ${run.errors.join('; ')}`);
  } catch (error) {
    console.log(`  it broke: ${error.stack}`);
    missed += 1;
  }
}
const runs = readdirSync(OUTPUT).filter((file) => file.endsWith('.json') && file !== 'summary.json')
  .map((file) => JSON.parse(readFileSync(join(OUTPUT, file), 'utf8')));
const order = Object.keys(SCENARIOS);
runs.sort((one, other) => order.indexOf(one.name) - order.indexOf(other.name));
const summary = runs.map(({ name, title, at, verdicts, machine }) => ({ name, title, at, verdicts, machine }));
writeFileSync(join(OUTPUT, 'summary.json'), JSON.stringify(summary, null, 2));
writeFileSync(join(OUTPUT, 'report.html'), page(runs));
console.log(`${join(OUTPUT, 'report.html')}: ${missed} missed`);
process.exit(missed > 0 ? 1 : 0);
