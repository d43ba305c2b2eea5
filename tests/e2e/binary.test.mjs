// The binary as an operator meets it: it needs nothing beside itself, says whether it is well, and
// ends when asked.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { copyFileSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';

import { binary, startServer } from './support/server.mjs';

const TIMEOUT = { timeout: 30_000 };

test('the server starts in an empty root directory', TIMEOUT, async (context) => {
  if (process.getuid() !== 0) {
    context.skip('only root may change the root directory');
    return;
  }
  const root = mkdtempSync(join(tmpdir(), 'rivero-'));
  try {
    copyFileSync(binary(), join(root, 'rivero'));
    const server = await startServer({ command: ['chroot', root, '/rivero'] });
    const response = await fetch(`${server.address}/health`);
    assert.equal(response.status, 200);
    assert.equal((await response.json()).status, 'ok');
    assert.equal(await server.stop(), 0);
  } finally {
    rmSync(root, { recursive: true });
  }
});

test('`rivero health` tells a running server from one that is gone', TIMEOUT, async () => {
  const server = await startServer();
  const { port } = new URL(server.address);
  const health = () => spawnSync(binary(), ['health', '--port', port], { encoding: 'utf8' });
  const well = health();
  assert.equal(well.status, 0, well.stderr);
  assert.match(well.stdout, /"status":"ok"/);
  assert.equal(await server.stop(), 0, 'a server that is asked to end ends well');
  assert.equal(health().status, 1);
});

test('the metrics are in the form of Prometheus', TIMEOUT, async () => {
  const server = await startServer();
  const text = await (await fetch(`${server.address}/metrics`)).text();
  assert.match(text, /^# TYPE rivero_sessions gauge$/m);
  for (const line of text.trimEnd().split('\n').filter((each) => !each.startsWith('#'))) {
    assert.match(line, /^[a-z_]+(\{[a-z]+="[^"]*"(,[a-z]+="[^"]*")*\})? -?[0-9.e+-]+$/);
  }
  assert.equal(await server.stop(), 0);
});
