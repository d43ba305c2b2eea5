// A server that viewers join and leave all the time: five minutes of it here, and any time elsewhere
// (CHURN_SECONDS). The load generator judges: nothing fails, nobody loses a packet, and neither memory
// nor threads nor descriptors grow.
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';

import { binary } from './support/server.mjs';

const SECONDS = Number(process.env.CHURN_SECONDS ?? 300);
/** For those who come before it counts, and on a busy machine. */
const MORE = 120;

test('viewers that come and go cost those who stay nothing, and the server does not grow', {
  timeout: (SECONDS + MORE) * 1_000,
}, async () => {
  const folder = mkdtempSync(join(tmpdir(), 'rivero-churn-'));
  try {
    const file = join(folder, 'churn.json');
    const words = ['bench', 'churn', '--clients', '300', '--seconds', SECONDS, '--patience', '30', '--json', file];
    const { failed, output } = await new Promise((resolve) => {
      execFile(binary(), words.map(String), (error, stdout, stderr) => {
        resolve({ failed: error, output: stdout + stderr });
      });
    });
    assert.equal(failed, null, output);
    const { joins, media, verdicts } = JSON.parse(readFileSync(file, 'utf8'));
    assert.deepEqual(verdicts.filter(({ passed }) => !passed), []);
    assert.equal(verdicts.length, 6, output);
    // One comes each second, beside those who were there before.
    assert.ok(joins.joined > 298 + SECONDS * 0.8, output);
    assert.ok(media.received > 200 * 100 * SECONDS, output);
  } finally {
    rmSync(folder, { recursive: true });
  }
});
