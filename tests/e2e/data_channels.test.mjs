// Data channels: a browser with the server, and browsers with each other through it.
import assert from 'node:assert/strict';

import { DataPeer as Peer } from './support/data_peer.mjs';
import { staged } from './support/stage.mjs';

const LONGEST = 256 * 1024;
const EVERY_KIND = [
  { text: 'plain' },
  { text: '' },
  { text: 'Grüße, 世界 🌍' },
  { length: 0 },
  { length: 1 },
  { length: 70_000, first: 5 },
  { length: LONGEST, first: 3 },
  { text: 'x'.repeat(LONGEST) },
  { text: 'last' },
];

staged('messages of every kind come back to their sender', {}, async (stage) => {
  const pipeline = await (await stage.kurento()).create('MediaPipeline');
  const peer = await Peer.join(stage, pipeline, [['echo', {}]]);
  await peer.endpoint.connect(peer.endpoint, 'DATA');
  await peer.opened('echo');
  const sent = [];
  for (const message of EVERY_KIND) sent.push(await peer.send('echo', message));
  assert.deepEqual(await peer.received('echo', sent.length), sent);

  const { id } = await peer.call('describe', 'echo');
  await peer.told('DataChannelOpened', id);
  const bytes = sent.reduce((sum, { length }) => sum + length, 0);
  const { channels: { echo }, session } = await peer.stats();
  assert.equal(echo.datachannelid, id);
  assert.equal(echo.state, 'open');
  assert.deepEqual([echo.messagesReceived, echo.messagesSent], [sent.length, sent.length]);
  assert.deepEqual([echo.bytesReceived, echo.bytesSent], [bytes, bytes]);
  assert.deepEqual([session.dataChannelsOpened, session.dataChannelsClosed], [1, 0]);
  const audio = await peer.endpoint.getStats('AUDIO');
  assert.deepEqual(Object.keys(audio ?? {}), []);
});

staged('two browsers speak with each other, each channel with its namesake', {}, async (stage) => {
  const pipeline = await (await stage.kurento()).create('MediaPipeline');
  const left = await Peer.join(stage, pipeline, [['chat', {}], ['files', {}], ['left only', {}]]);
  const right = await Peer.join(stage, pipeline, [['files', {}], ['chat', { ordered: false }]]);
  const pass = await pipeline.create('PassThrough');
  await left.endpoint.connect(pass);
  await pass.connect(right.endpoint);
  await right.endpoint.connect(left.endpoint);
  for (const peer of [left, right]) {
    await peer.opened('chat');
    await peer.opened('files');
  }
  const [file, other] = [await left.send('files', { length: LONGEST }), await right.send('files', { length: 99_999, first: 7 })];
  const [hello, answer] = [await left.send('chat', { text: 'hello' }), await right.send('chat', { text: 'hi' })];
  assert.deepEqual(await right.received('files', 1), [file]);
  assert.deepEqual(await left.received('files', 1), [other]);
  assert.deepEqual(await right.received('chat', 1), [hello]);
  assert.deepEqual(await left.received('chat', 1), [answer]);

  await left.endpoint.disconnect(pass, 'DATA');
  await left.send('chat', { text: 'unheard' });
  const back = await right.send('chat', { text: 'heard' });
  assert.deepEqual(await left.received('chat', 2), [answer, back]);
  assert.equal((await right.received('chat', 1)).length, 1);
});

staged('channels of different names understand each other if each side has one', {}, async (stage) => {
  const pipeline = await (await stage.kurento()).create('MediaPipeline');
  const left = await Peer.join(stage, pipeline, [['mine', {}]]);
  const right = await Peer.join(stage, pipeline, [['yours', {}]]);
  await left.endpoint.connect(right.endpoint);
  await left.opened('mine');
  await right.opened('yours');
  const sent = await left.send('mine', { text: 'across' });
  assert.deepEqual(await right.received('yours', 1), [sent]);
});

staged('a hub hands messages on to those who listen', {}, async (stage) => {
  const pipeline = await (await stage.kurento()).create('MediaPipeline');
  const hub = await pipeline.create('DispatcherOneToMany');
  const speaker = await Peer.join(stage, pipeline, [['talk', {}]]);
  const listeners = [await Peer.join(stage, pipeline, [['talk', {}]]), await Peer.join(stage, pipeline, [['talk', {}]])];
  const port = await hub.createHubPort();
  await speaker.endpoint.connect(port);
  for (const listener of listeners) {
    const own = await hub.createHubPort();
    await own.connect(listener.endpoint);
    await listener.opened('talk');
  }
  await hub.setSource(port);
  await speaker.opened('talk');
  const sent = await speaker.send('talk', { text: 'to all' });
  for (const listener of listeners) assert.deepEqual(await listener.received('talk', 1), [sent]);
});

staged('the server opens channels and both sides close them', {}, async (stage) => {
  const pipeline = await (await stage.kurento()).create('MediaPipeline');
  const plain = await pipeline.create('WebRtcEndpoint');
  // The client tells of an error by the callback alone.
  const refused = await new Promise((resolve) => { plain.createDataChannel('none', resolve); });
  assert.equal(refused.code, 40111);
  const peer = await Peer.join(stage, pipeline, [['browser', {}]]);
  await peer.opened('browser');
  const { endpoint } = peer;
  await endpoint.createDataChannel('reliable');
  await endpoint.createDataChannel('hasty', false, -1, 2, 'proto');
  await endpoint.createDataChannel('brief', true, 500);
  for (const label of ['reliable', 'hasty', 'brief']) await peer.opened(label);
  const expected = {
    reliable: { ordered: true, protocol: '', maxRetransmits: null, maxPacketLifeTime: null },
    hasty: { ordered: false, protocol: 'proto', maxRetransmits: 2, maxPacketLifeTime: null },
    brief: { ordered: true, protocol: '', maxRetransmits: null, maxPacketLifeTime: 500 },
  };
  const ids = {};
  for (const [label, options] of Object.entries(expected)) {
    const { id, readyState, ...found } = await peer.call('describe', label);
    assert.deepEqual(found, options, label);
    assert.equal(readyState, 'open');
    ids[label] = id;
    await peer.told('DataChannelOpened', id);
  }

  await endpoint.closeDataChannel(ids.hasty);
  await peer.gone('hasty');
  await peer.told('DataChannelClosed', ids.hasty);
  await peer.call('close', 'brief');
  await peer.told('DataChannelClosed', ids.brief);
  await peer.gone('brief');
  // One that is not there.
  await endpoint.closeDataChannel(999);
  const { channels, session } = await peer.stats();
  assert.deepEqual(Object.keys(channels).sort(), ['browser', 'reliable']);
  assert.deepEqual([session.dataChannelsOpened, session.dataChannelsClosed], [4, 2]);

  await endpoint.connect(endpoint, 'DATA');
  const sent = await peer.send('reliable', { text: 'still here' });
  assert.deepEqual(await peer.received('reliable', 1), [sent]);
  const opened = peer.events.filter(([type]) => type === 'DataChannelOpened');
  assert.equal(new Set(opened.map(([, id]) => id)).size, opened.length, 'each is told once');
});

staged('a file goes through the server without losing a message', { timeout: 120_000 }, async (stage) => {
  const pipeline = await (await stage.kurento()).create('MediaPipeline');
  const left = await Peer.join(stage, pipeline, [['file', {}]]);
  const right = await Peer.join(stage, pipeline, [['file', {}]]);
  await left.endpoint.connect(right.endpoint, 'DATA');
  await left.opened('file');
  await right.opened('file');
  const receiving = right.handle.evaluate(async (peer, [total, ms]) => {
    const { channel } = peer.channels.get('file');
    let bytes = 0;
    let next = 0;
    let first = 0;
    await new Promise((resolve, reject) => {
      setTimeout(() => reject(new Error(`${bytes} of ${total} bytes came`)), ms);
      channel.onmessage = ({ data }) => {
        first ||= performance.now();
        if (new DataView(data).getUint32(0) !== next) reject(new Error(`${next} is missing`));
        next += 1;
        bytes += data.byteLength;
        if (bytes >= total) resolve();
      };
    });
    return total * 8 / (performance.now() - first) / 1000;
  }, [32 * 1024 * 1024, 90_000]);
  await left.handle.evaluate(async (peer) => {
    const { channel } = peer.channels.get('file');
    channel.bufferedAmountLowThreshold = 1024 * 1024;
    const piece = new Uint8Array(64 * 1024);
    for (let number = 0; number < 512; number += 1) {
      new DataView(piece.buffer).setUint32(0, number);
      channel.send(piece);
      if (channel.bufferedAmount > 4 * 1024 * 1024) {
        await new Promise((resolve) => { channel.onbufferedamountlow = resolve; });
      }
    }
  });
  stage.context.diagnostic(`32 MiB at ${(await receiving).toFixed(1)} Mbit/s`);
});
