// A call over a network that loses packets and then narrows, as `make network-bench` has them at length.
// The bounds are what a busy machine keeps; the figures to be reached are in the bench.
import assert from 'node:assert/strict';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';

import { page } from '../../benches/network/page.mjs';
import { SHORT, play } from '../../benches/network/scenarios.mjs';
import { OUTPUT } from './support/stage.mjs';

test('a viewer goes on seeing and hearing over a network that loses packets and narrows', { timeout: 120_000 }, async (context) => {
  const run = await play('short', SHORT);
  mkdirSync(OUTPUT, { recursive: true });
  writeFileSync(join(OUTPUT, 'network.html'), page([run]));
  for (const { what, text, holds } of run.verdicts) context.diagnostic(`${holds === false ? 'NOT ' : ''}${what}: ${text}`);
  const missed = run.verdicts.filter(({ holds }) => holds === false);
  if (missed.length > 0) run.log.forEach((line) => context.diagnostic(line));
  assert.deepEqual(missed.map(({ what, text }) => `${what}: ${text}`), []);
  assert.deepEqual(run.errors, []);
});
