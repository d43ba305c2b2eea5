// RtpEndpoint with GStreamer's rtpbin at both ends and kurento-client as the application.
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { describe, freePorts } from './support/ffmpeg.mjs';
import { receive, send } from './support/gstreamer.mjs';
import { connect, leave } from './support/kurento.mjs';
import { startServer } from './support/server.mjs';

const TIMEOUT = { timeout: 60_000 };
/** Pictures and seconds of sound that have to come before the patience ends. */
const ENOUGH = 30;
const PATIENCE_MS = 20_000;

/** GStreamer → RtpEndpoint → RtpEndpoint → GStreamer. */
async function passes(context, { audio, video, feedback }) {
  const server = await startServer({ flags: ['--media-address', '127.0.0.1'] });
  const client = await connect(server.kurento);
  const running = [];
  try {
    const pipeline = await client.create('MediaPipeline');
    const endpoints = [];
    for (const direction of ['sendonly', 'recvonly']) {
      const endpoint = await pipeline.create('RtpEndpoint');
      const ports = [await freePorts(), await freePorts()];
      const offer = describe({ audio, video, ports, direction, feedback });
      const answer = await endpoint.processOffer(offer);
      assert.equal(answer.match(feedback ? /RTP\/AVPF / : /RTP\/AVP /g) !== null, true, answer);
      endpoints.push({ endpoint, ports, answer });
    }
    const [publisher, viewer] = endpoints;
    const reported = new Promise((resolve) => {
      publisher.endpoint.on('MediaStateChanged', (event) => resolve(event.newState));
    });
    const flowing = new Promise((resolve) => {
      publisher.endpoint.on('MediaFlowOutStateChanged', (event) => { if (event.mediaType === 'VIDEO') resolve(); });
    });
    // With feedback no whole picture comes again unless the server asks for one.
    const distance = feedback ? 10_000 : 15;
    const sender = send({ audio, video, feedback, distance, ports: publisher.ports, answer: publisher.answer });
    running.push(sender);
    const receiver = receive({ audio, video, feedback, ports: viewer.ports, answer: viewer.answer });
    running.push(receiver);
    await flowing;
    await publisher.endpoint.connect(viewer.endpoint);
    const end = performance.now() + PATIENCE_MS;
    const enough = ({ frames, seconds }) => frames >= ENOUGH && seconds >= 2;
    while (!enough(receiver.seen()) && performance.now() < end) {
      await new Promise((resolve) => { setTimeout(resolve, 50); });
    }
    const seen = receiver.seen();
    context.diagnostic(JSON.stringify(seen));
    assert.ok(enough(seen), `${JSON.stringify(seen)}\n${receiver.log()}\n${sender.log()}`);
    assert.ok(seen.different >= ENOUGH * 0.8, 'the picture moves');
    assert.ok(seen.loudness > 0.01, 'the tone is heard');
    assert.equal(await reported, 'CONNECTED', 'the sender sends reports');
    const stats = Object.values(await publisher.endpoint.getStats());
    const inbound = stats.filter((one) => one.type === 'inboundrtp');
    assert.equal(inbound.length, 2);
    for (const stream of inbound) assert.ok(stream.packetsReceived > 10 && stream.packetsLost === 0, JSON.stringify(stream));
  } finally {
    for (const one of running) await one.stop();
    await leave(client);
    await server.stop();
  }
}

for (const feedback of [false, true]) {
  const profile = feedback ? 'with feedback' : 'without feedback';
  for (const [video, audio] of [['VP8', 'opus'], ['H264', 'PCMU']]) {
    test(`${video} and ${audio} pass from GStreamer to GStreamer ${profile}`, TIMEOUT, (context) => passes(context, { audio, video, feedback }));
  }
}
