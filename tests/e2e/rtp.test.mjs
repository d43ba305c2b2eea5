// RtpEndpoint with ffmpeg at both ends and kurento-client as the application. No browser takes part.
import './domain-shim.cjs';

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { describe, freePorts, receive, send, targets } from './support/ffmpeg.mjs';
import { connect, leave } from './support/kurento.mjs';
import { startServer } from './support/server.mjs';

const TIMEOUT = { timeout: 60_000 };
const SECONDS = 3;
/** At 15 a second; a busy machine takes longer. */
const PICTURES = 45;
const KEY = 'QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNk';

const { default: kurento } = await import('kurento-client');

const sdes = kurento.getComplexType('SDES')({ crypto: 'AES_128_CM_HMAC_SHA1_80', keyBase64: KEY });

/**
 * ffmpeg → RtpEndpoint → RtpEndpoint → ffmpeg. `sealed` says whether the way in and the way out have
 * keys.
 */
async function passes(context, { audio, video, sealed = [false, false] }) {
  const server = await startServer({ flags: ['--media-address', '127.0.0.1'] });
  const client = await connect(server.kurento);
  let sender;
  try {
    const pipeline = await client.create('MediaPipeline');
    const endpoints = [];
    for (const [at, direction] of ['sendonly', 'recvonly'].entries()) {
      const endpoint = await pipeline.create('RtpEndpoint', sealed[at] ? { crypto: sdes } : {});
      const ports = [await freePorts(), await freePorts()];
      const key = sealed[at] ? KEY : undefined;
      const offer = describe({ audio, video, ports, direction, key });
      const answer = await endpoint.processOffer(offer);
      endpoints.push({ endpoint, ports, key, answer });
    }
    const [publisher, viewer] = endpoints;
    for (const port of targets(publisher.answer).ports) assert.equal(port % 2, 0, publisher.answer);
    const flowing = new Set();
    publisher.endpoint.on('MediaFlowOutStateChanged', (event) => flowing.add(event.mediaType));
    const reported = new Promise((resolve) => {
      publisher.endpoint.on('MediaStateChanged', (event) => resolve(event.newState));
    });
    await publisher.endpoint.connect(viewer.endpoint);
    const { answer, key } = publisher;
    sender = send({ audio, video, answer, key });
    const description = describe({
      audio, video, ports: viewer.ports, direction: 'recvonly', key: viewer.key,
    });
    const seen = await receive({ pictures: PICTURES, seconds: SECONDS, description });
    context.diagnostic(`${seen.frames} pictures, ${seen.different} of them different, ${seen.decibels} dB`);
    assert.equal(seen.frames, PICTURES, `${seen.frames} pictures\n${seen.log}\n${sender.log()}`);
    assert.ok(seen.different >= PICTURES * 0.9, 'the picture moves');
    assert.ok(seen.decibels > -40, 'the tone is heard');
    assert.equal(await reported, 'CONNECTED', 'ffmpeg sends reports');
    assert.deepEqual([...flowing].sort(), ['AUDIO', 'VIDEO']);
    const stats = Object.values(await publisher.endpoint.getStats());
    for (const stream of stats.filter((one) => one.type === 'inboundrtp')) {
      assert.ok(stream.packetsReceived > 50 && stream.packetsLost === 0, JSON.stringify(stream));
    }
  } finally {
    await sender?.stop();
    await leave(client);
    await server.stop();
  }
}

test('VP8 and Opus pass from ffmpeg to ffmpeg', TIMEOUT, (context) => passes(context, {
  audio: 'opus', video: 'VP8',
}));

test('H.264 and PCMU pass from ffmpeg to ffmpeg', TIMEOUT, (context) => passes(context, {
  audio: 'PCMU', video: 'H264',
}));

test('H.265 passes from ffmpeg to ffmpeg', TIMEOUT, (context) => passes(context, {
  audio: 'opus', video: 'H265',
}));

test('what ffmpeg seals is opened by the keys of the description', TIMEOUT, (context) => passes(context, {
  audio: 'opus', video: 'VP8', sealed: [true, false],
}));

test('ffmpeg opens what is sealed by the keys of the description', TIMEOUT, (context) => passes(context, {
  audio: 'opus', video: 'H264', sealed: [false, true],
}));

test('nothing passes with a wrong key', TIMEOUT, async () => {
  const server = await startServer({ flags: ['--media-address', '127.0.0.1'] });
  const client = await connect(server.kurento);
  let sender;
  try {
    const pipeline = await client.create('MediaPipeline');
    const endpoint = await pipeline.create('RtpEndpoint', { crypto: sdes });
    const ports = [await freePorts(), await freePorts()];
    const answer = await endpoint.processOffer(describe({
      audio: 'opus', video: 'VP8', ports, direction: 'sendonly', key: KEY,
    }));
    const key = Buffer.from('another key of thirty letters.').toString('base64');
    sender = send({ audio: 'opus', video: 'VP8', answer, key });
    const dropped = async () => {
      const metrics = await (await fetch(`${server.address}/metrics`)).text();
      return Number(/reason="srtp_authentication"} (\d+)/.exec(metrics)?.[1] ?? 0);
    };
    while (await dropped() < 50) await new Promise((resolve) => { setTimeout(resolve, 50); });
    const stats = Object.values(await endpoint.getStats());
    const streams = stats.filter(({ type }) => type === 'inboundrtp');
    assert.deepEqual(streams.map((stream) => stream.packetsReceived), [0, 0]);
  } finally {
    await sender?.stop();
    await leave(client);
    await server.stop();
  }
});
