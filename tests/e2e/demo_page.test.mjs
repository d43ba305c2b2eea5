// The demonstration page, as a visitor uses it.
import assert from 'node:assert/strict';
import { join } from 'node:path';

import { OUTPUT, staged } from './support/stage.mjs';

/** Text of the element once it matches. */
async function reads(page, id, pattern) {
  await page.waitForFunction(
    ([name, source]) => new RegExp(source).test(document.getElementById(name).textContent),
    [id, pattern.source],
    { timeout: 15_000 },
  );
  return page.getByTestId(id).textContent();
}

/** How many different pictures the video shows in 2 s. */
const pictures = (page, id) => page.evaluate(async (name) => {
  const video = document.getElementById(name);
  const canvas = Object.assign(document.createElement('canvas'), { width: 64, height: 48 });
  const paint = canvas.getContext('2d', { willReadFrequently: true });
  const seen = new Set();
  for (let round = 0; round < 40; round += 1) {
    paint.drawImage(video, 0, 0, 64, 48);
    seen.add(paint.getImageData(0, 0, 64, 48).data.join());
    await new Promise((resolve) => { setTimeout(resolve, 50); });
  }
  return seen.size;
}, id);

async function showsACall(page, screenshot) {
  await reads(page, 'connection', /^connected$/);
  await reads(page, 'media', /^connected$/);
  await reads(page, 'video-codec', /^(VP8|VP9|H264|AV1)$/);
  await reads(page, 'audio-codec', /^opus$/);
  await reads(page, 'bitrate-in', /^[1-9]\d* kbit\/s$/);
  await reads(page, 'bitrate-out', /^[1-9]\d* kbit\/s$/);
  await reads(page, 'round-trip', /^\d+\.\d ms$/);
  await reads(page, 'resolution', /^\d+ × \d+$/);
  await reads(page, 'fps', /^[1-9]\d*$/);
  assert.ok(await pictures(page, 'remote') > 5, 'the returned picture moves');
  assert.equal(await page.getByTestId('state').getAttribute('data-state'), 'running');
  assert.ok(await page.getByTestId('error').isHidden());
  await page.screenshot({ path: join(OUTPUT, screenshot), fullPage: true });
}

staged('the page shows the camera coming back, and can be used again', {}, async (stage) => {
  const page = await stage.page(stage.server.address);
  await page.getByTestId('start').click();
  await showsACall(page, 'demo-camera.png');

  await page.getByTestId('stop').click();
  await reads(page, 'state', /^Stopped$/);
  const client = await stage.kurento();
  const manager = await client.getServerManager();
  assert.deepEqual(await manager.getPipelines(), [], 'Stop releases the pipeline');

  await page.getByTestId('start').click();
  await showsACall(page, 'demo-camera-again.png');
});

staged('the page works with a test picture', {}, async (stage) => {
  const page = await stage.page(`${stage.server.address}/?source=test`);
  await page.emulateMedia({ colorScheme: 'dark' });
  await showsACall(page, 'demo-test-picture.png');
});

staged('the page says that the server is gone', {}, async (stage) => {
  const page = await stage.page(stage.server.address);
  await page.getByTestId('test-picture').click();
  await reads(page, 'connection', /^connected$/);
  await stage.server.stop();
  await reads(page, 'error', /server is gone/);
  assert.equal(await page.getByTestId('state').getAttribute('data-state'), 'failed');
  assert.ok(await page.getByTestId('start').isEnabled());
});
