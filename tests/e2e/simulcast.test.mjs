// A browser that sends its picture in several sizes or layers, and viewers who each get what they can take.
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';

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
  const { frameHeight, framesPerSecond, framesDecoded, freezeCount, totalFreezesDuration, keyFramesDecoded } = inbound ?? {};
  return { frameHeight, framesPerSecond, framesDecoded, freezeCount, totalFreezesDuration, keyFramesDecoded };
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

/** A presenter with two viewers, and the endpoints of all. */
async function broadcast(stage, presenting) {
  const application = await stage.application(new OneToMany());
  const presenter = await stage.join(application, { ...PRESENTER, ...presenting });
  const viewers = [await stage.join(application, VIEWER), await stage.join(application, VIEWER)];
  const [source, ...sinks] = [...application.participants].map((participant) => participant.endpoint);
  return { application, presenter, viewers, source, sinks };
}

staged('of three sizes each viewer gets what it is allowed', { timeout: 120_000 }, async (stage) => {
  const { application, presenter, viewers, source, sinks } = await broadcast(stage, { codecs: { video: 'VP8' }, encodings: { video: SIZES } });
  const [free, bounded] = viewers;
  const sending = async () => video(await presenter.report(), 'outbound-rtp').filter((one) => one.active && one.framesSent > 0);
  const sent = await until(sending, (streams) => streams.length === 3);
  assert.deepEqual(sent.map((one) => one.rid).sort(), ['f', 'h', 'q']);
  await until(() => Promise.all(viewers.map(seen)), (all) => all.every((one) => one.frameHeight === 540));

  const before = await Promise.all(viewers.map(seen));
  await sinks[1].setMaxVideoSendBandwidth(80);
  await until(() => seen(bounded), (one) => one.frameHeight === 135);
  await bounded.sees();
  await bounded.page.screenshot({ path: join(OUTPUT, 'simulcast_bounded.png') });
  await sinks[1].setMaxVideoSendBandwidth(2_000);
  await until(() => seen(bounded), (one) => one.frameHeight === 540);
  await Promise.all(viewers.map((viewer) => viewer.sees()));
  await free.page.screenshot({ path: join(OUTPUT, 'simulcast_free.png') });

  const after = await Promise.all(viewers.map(seen));
  assert.equal(after[0].frameHeight, 540);
  for (const at of [0, 1]) {
    const frozen = after[at].totalFreezesDuration - before[at].totalFreezesDuration;
    assert.ok(frozen < 1.5, `viewer ${at} was frozen for ${frozen} s`);
  }
  // The server tells of each encoding.
  const stats = Object.values(await source.getStats('VIDEO'));
  assert.equal(stats.filter((one) => one.type === 'inboundrtp' && one.packetsReceived > 0).length, 3);
  const metrics = await (await fetch(`${stage.server.address}/metrics`)).text();
  assert.match(metrics, /rivero_encoding_switches_total\{way="down"\} [1-9]/);
  assert.deepEqual(application.errors, []);
});

const LAYERED = [
  { codec: 'VP9', mode: 'L2T3_KEY', rate: 800_000, most: 100, height: 360, source: 'medium', less: (one, full) => one.frameHeight < full.frameHeight },
  { codec: 'AV1', mode: 'L1T2', rate: 300_000, most: 60, height: 240, source: 'camera', less: (one, full) => one.framesPerSecond < 0.75 * full.framesPerSecond },
];

for (const { codec, mode, rate, most, height, source, less } of LAYERED) {
  staged(`layers of ${codec} ${mode} are left out for who cannot take them`, { timeout: 120_000 }, async (stage) => {
    const page = await stage.page('about:blank');
    const known = await page.evaluate(([name]) => RTCRtpSender.getCapabilities('video').codecs.some((one) => one.mimeType === `video/${name}`), [codec]);
    if (!known) {
      stage.context.skip(`this browser has no ${codec}`);
      return;
    }
    const encodings = [{ scalabilityMode: mode, maxBitrate: rate }];
    const { application, presenter, viewers, sinks } = await broadcast(stage, { source, codecs: { video: codec }, encodings: { video: encodings } });
    const [free, bounded] = viewers;
    const both = async () => {
      const [outbound] = video(await presenter.report(), 'outbound-rtp');
      return { mode: outbound?.scalabilityMode, height: outbound?.frameHeight, seen: await Promise.all(viewers.map(seen)) };
    };
    await until(both, (now) => now.mode === mode && now.seen.every((one) => one.frameHeight === height));
    const before = await seen(bounded);
    await sinks[1].setMaxVideoSendBandwidth(most);
    const now = await until(both, ({ seen: [full, one] }) => full.frameHeight === height && less(one, full));
    await bounded.page.screenshot({ path: join(OUTPUT, `layers_${codec}.png`) });
    const frozen = now.seen[1].totalFreezesDuration - before.totalFreezesDuration;
    assert.ok(frozen < 1, `it was frozen for ${frozen} s`);
    await sinks[1].setMaxVideoSendBandwidth(3_000);
    await until(both, ({ seen: [full, one] }) => full.frameHeight === one.frameHeight && !less(one, full));
    await free.sees();
    assert.deepEqual(application.errors, []);
  });
}
