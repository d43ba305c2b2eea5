// A browser that sends its picture in several sizes at the same time, and viewers who get what they can take.
import assert from 'node:assert/strict';
import { setTimeout as pause } from 'node:timers/promises';
import { join } from 'node:path';

import { OneToMany } from './support/behaviours.mjs';
import { OUTPUT, staged } from './support/stage.mjs';

const VIEWER = { role: 'viewer', source: 'none' };
const PRESENTER = { role: 'presenter', receive: false, source: 'large' };
const SIZES = [
  { rid: 'q', scaleResolutionDownBy: 4, maxBitrate: 100_000 },
  { rid: 'h', scaleResolutionDownBy: 2, maxBitrate: 300_000 },
  { rid: 'f', maxBitrate: 900_000 },
];

/** Entries of a browser's report of one type and of video. */
const video = (report, type) => report.filter((entry) => entry.type === type && entry.kind === 'video');

/** What a viewer's browser says of the picture it gets. */
async function seen(viewer) {
  const [inbound] = video(await viewer.report(), 'inbound-rtp');
  return inbound ?? {};
}

/** Waits until `check` holds of what `measure` says; the last that it said. */
async function until(measure, check, ms = 30_000) {
  const deadline = Date.now() + ms;
  for (;;) {
    const measured = await measure();
    if (check(measured)) return measured;
    if (Date.now() > deadline) assert.fail(`it came to ${JSON.stringify(measured)}`);
    await pause(250);
  }
}

staged('three sizes are sent, and a viewer gets the largest', { timeout: 90_000 }, async (stage) => {
  const application = await stage.application(new OneToMany());
  const presenter = await stage.join(application, { ...PRESENTER, codecs: { video: 'VP8' }, encodings: { video: SIZES } });
  const viewers = [await stage.join(application, VIEWER), await stage.join(application, VIEWER)];
  const sending = async () => video(await presenter.report(), 'outbound-rtp').filter((one) => one.active && one.framesSent > 0);
  const sent = await until(sending, (streams) => streams.length === 3);
  if (process.env.SEE) console.error(JSON.stringify(sent.map((o) => [o.rid, o.frameHeight, o.targetBitrate, o.framesSent, o.scalabilityMode])));
  assert.deepEqual(sent.map((one) => one.rid).sort(), ['f', 'h', 'q']);
  await until(() => Promise.all(viewers.map(seen)), (all) => all.every((one) => one.frameHeight === 540));
  const before = await Promise.all(viewers.map(seen));
  await Promise.all(viewers.map((viewer) => viewer.sees()));
  const after = await Promise.all(viewers.map(seen));
  for (const at of [0, 1]) {
    assert.equal(after[at].freezeCount, before[at].freezeCount, 'nothing froze');
  }
  await viewers[0].page.screenshot({ path: join(OUTPUT, 'simulcast.png') });
  // The server tells of each encoding.
  const [participant] = application.participants;
  const stats = Object.values(await participant.endpoint.getStats('VIDEO'));
  assert.equal(stats.filter((one) => one.type === 'inboundrtp' && one.packetsReceived > 0).length, 3);
  assert.deepEqual(application.errors, []);
});
