// What applications do with kurento-client, in its last version of each line. No browser takes part.
import './domain-shim.cjs';

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';

import { leave, open } from './support/kurento.mjs';
import { startProxy } from './support/proxy.mjs';
import { startServer } from './support/server.mjs';

const TIMEOUT = { timeout: 30_000 };
const PERIOD_S = 1;

/** Calls `work` with a callback as this client has them; what it was called back with. */
const called = (work) => new Promise((resolve, reject) => {
  work((error, result) => (error ? reject(error) : resolve(result)));
});

/** Waits until `condition` holds. */
async function until(condition) {
  while (!(await condition())) await new Promise((resolve) => { setTimeout(resolve, 20); });
}

// Both before the first test: the runner may end when all tests that it knows of have.
const { default: seven } = await import('kurento-client');
const { default: six } = await import('rivero-e2e-kurento-6');

for (const [version, kurento] of [['7.3.0', seven], ['6.18.0', six]]) {
  /** A test with a server, and `connect` for clients that are closed at the end. */
  const with_server = (title, run, options = {}) => test(`${version}: ${title}`, TIMEOUT, async () => {
    const server = await startServer(options);
    const clients = [];
    const connect = async (url = server.kurento, settings = {}) => {
      const client = await open(kurento, url, settings);
      clients.push(client);
      return client;
    };
    try {
      await run({ server, connect });
    } finally {
      await Promise.all(clients.map(leave));
      await server.stop();
    }
  });

  with_server('a strict client finds the modules it was made for', async ({ connect }) => {
    const client = await connect(undefined, { strict: true });
    const manager = await client.getServerManager();
    const info = await manager.getInfo();
    assert.equal(info.type, 'KMS');
    assert.deepEqual(info.capabilities, ['transactions']);
    const modules = info.modules.map((module) => module.name);
    for (const module of ['core', 'elements', 'filters']) assert.ok(modules.includes(module), module);
    assert.equal(await manager.getCpuCount() > 0, true);
    assert.equal(await manager.getName(), 'manager_ServerManager');
  });

  with_server('objects are created one by one', async ({ connect }) => {
    const client = await connect();
    const pipeline = await client.create('MediaPipeline');
    assert.match(pipeline.id, /^[0-9a-f-]{36}_kurento\.MediaPipeline$/);
    const endpoint = await pipeline.create('WebRtcEndpoint');
    const hub = await pipeline.create('Dispatcher');
    const port = await hub.createHubPort();
    assert.ok(endpoint.id.startsWith(`${pipeline.id}/`));
    assert.ok(port.id.startsWith(`${hub.id}/`));
    const children = (await pipeline.getChildren()).map((child) => child.id);
    assert.deepEqual(children.sort(), [endpoint.id, hub.id].sort());
  });

  with_server('objects are created in lists', async ({ connect }) => {
    const client = await connect();
    const pipeline = await client.create('MediaPipeline');
    const types = ['WebRtcEndpoint', 'PassThrough'];
    const elements = await called((back) => pipeline.create(types.map((type) => ({ type })), back));
    assert.deepEqual(elements.map((element) => element.constructor.name), types);

    // A number stands for the object that the list makes at that place: one transaction.
    const list = [
      { type: 'MediaPipeline' },
      { type: 'WebRtcEndpoint', params: { mediaPipeline: 0 } },
      { type: 'PassThrough', params: { mediaPipeline: 0 } },
    ];
    const [other, endpoint, pass] = await called((back) => client.create(list, back));
    assert.notEqual(other.id, pipeline.id);
    for (const element of [endpoint, pass]) assert.ok(element.id.startsWith(`${other.id}/`));
  });

  with_server('properties are set and read', async ({ connect }) => {
    const client = await connect();
    const pipeline = await client.create('MediaPipeline');
    const endpoint = await pipeline.create('WebRtcEndpoint');
    await endpoint.setName('naïve 😀');
    assert.equal(await endpoint.getName(), 'naïve 😀');
    await endpoint.setMaxVideoSendBandwidth(700);
    assert.equal(await endpoint.getMaxVideoSendBandwidth(), 700);
    await endpoint.addTag('colour', 'green');
    assert.equal(await endpoint.getTag('colour'), 'green');
    const [tag] = await endpoint.getTags();
    assert.deepEqual([tag.key, tag.value], ['colour', 'green']);
    assert.equal(typeof await endpoint.getCreationTime(), 'number');
  });

  with_server('a pipeline commits a transaction', async ({ connect }) => {
    const client = await connect();
    const pipeline = await client.create('MediaPipeline');
    let source;
    let sink;
    await pipeline.transaction(function work() {
      source = this.create('WebRtcEndpoint');
      sink = this.create('PassThrough');
      source.connect(sink);
    });
    const connections = await (await source).getSinkConnections();
    assert.deepEqual(connections.map(({ type }) => type).sort(), ['AUDIO', 'DATA', 'VIDEO']);
    assert.ok(connections.every((connection) => connection.sink === sink.id || connection.sink.id === sink.id));
  });

  with_server('a client commits a transaction that makes the pipeline too', async ({ connect }) => {
    const client = await connect();
    let pipeline;
    let element;
    await client.transaction(function work() {
      pipeline = this.create('MediaPipeline');
      element = this.create('PassThrough', { mediaPipeline: pipeline });
    });
    assert.ok((await element).id.startsWith(`${(await pipeline).id}/`));
  });

  with_server('a transaction ends at its first failure', async ({ connect }) => {
    const client = await connect();
    const pipeline = await client.create('MediaPipeline');
    const element = await pipeline.create('PassThrough');
    const answers = [];
    const keep = (error, result) => { answers.push(error ? error.message : result); };
    await pipeline.transaction(() => {
      element.setName('before', keep);
      element.getTag('nothing', keep);
      element.setName('after', keep);
    });
    await until(() => answers.length === 3);
    assert.match(answers[1], /Tag key not found/);
    assert.match(answers[2], /not executed/);
    assert.equal(await element.getName(), 'before');
  });

  with_server('events come while somebody listens', async ({ connect }) => {
    const client = await connect();
    const pipeline = await client.create('MediaPipeline');
    const source = await pipeline.create('PassThrough');
    const sink = await pipeline.create('PassThrough');
    const kinds = [];
    const listener = (event) => {
      assert.equal(event.source, source.id);
      assert.match(event.timestampMillis, /^[0-9]{13}$/);
      assert.equal(event.timestamp, event.timestampMillis.slice(0, -3));
      kinds.push(event.mediaType);
    };
    const connected = async () => {
      await source.connect(sink);
      // The reply comes behind the events.
      await source.getName();
    };
    source.on('ElementConnected', listener);
    await until(async () => { await connected(); return kinds.length >= 3; });
    assert.deepEqual(kinds.slice(0, 3).sort(), ['AUDIO', 'DATA', 'VIDEO']);
    source.removeListener('ElementConnected', listener);
    // Somebody else is told still, so nothing is missing because it is late.
    const other = await connect();
    const same = await other.getMediaobjectById(source.id);
    let told = 0;
    same.on('ElementConnected', () => { told += 1; });
    const before = kinds.length;
    await until(async () => { await connected(); return told >= 3; });
    assert.equal(kinds.length, before);
  });

  with_server('errors have the types and codes that applications look at', async ({ connect }) => {
    const client = await connect();
    const pipeline = await client.create('MediaPipeline');
    const element = await pipeline.create('PassThrough');
    const failure = async (work) => {
      const error = await called(work).then(() => null, (reason) => reason);
      assert.ok(error, 'it fails');
      return error;
    };
    const gone = `${pipeline.id}/11111111-2222-4333-8444-555555555555_kurento.PassThrough`;
    const missing = await failure((back) => { client.getMediaobjectById(gone, back); });
    assert.ok(missing instanceof ReferenceError, `${missing}`);
    assert.deepEqual([missing.code, missing.message], [40101, `Object '${gone}' not found`]);
    assert.equal(missing.data.type, 'MEDIA_OBJECT_NOT_FOUND');

    const tag = await failure((back) => { element.getTag('nothing', back); });
    assert.deepEqual([tag.code, tag.data.type], [40110, 'MEDIA_OBJECT_TAG_KEY_NOT_FOUND']);

    const endpoint = await pipeline.create('WebRtcEndpoint');
    const sdp = await failure((back) => { endpoint.processAnswer('v=0\r\n', back); });
    assert.equal(sdp.code >= 40200 && sdp.code < 40300, true, `${sdp.code}`);
  });

  with_server('what is released is gone, and its children with it', async ({ connect }) => {
    const client = await connect();
    const manager = await client.getServerManager();
    const pipeline = await client.create('MediaPipeline');
    const element = await pipeline.create('PassThrough');
    assert.deepEqual((await manager.getPipelines()).map((each) => each.id), [pipeline.id]);
    await pipeline.release();
    assert.deepEqual(await manager.getPipelines(), []);
    const other = await connect();
    await assert.rejects(called((back) => { other.getMediaobjectById(element.id, back); }), { code: 40101 });
  });

  with_server('an object can be used by another client that knows its id', async ({ connect }) => {
    const [first, second] = [await connect(), await connect()];
    const pipeline = await first.create('MediaPipeline');
    const endpoint = await pipeline.create('WebRtcEndpoint');
    const same = await second.getMediaobjectById(endpoint.id);
    assert.equal(same.constructor.name, 'WebRtcEndpoint');
    await same.setName('shared');
    assert.equal(await endpoint.getName(), 'shared');
  });

  with_server('two endpoints exchange descriptions, and have statistics', async ({ connect }) => {
    const client = await connect();
    const pipeline = await client.create('MediaPipeline');
    const [caller, callee] = [await pipeline.create('WebRtcEndpoint'), await pipeline.create('WebRtcEndpoint')];
    const answer = await callee.processOffer(await caller.generateOffer());
    await caller.processAnswer(answer);
    assert.match(answer, /^v=0\r\n/);
    let gathered = 0;
    callee.on('IceGatheringDone', () => { gathered += 1; });
    await callee.gatherCandidates();
    await until(() => gathered === 1);
    const stats = Object.values(await callee.getStats());
    assert.ok(stats.every((each) => typeof each.id === 'string' && typeof each.type === 'string'));
    assert.ok(stats.some(({ type }) => type === 'inboundrtp' || type === 'outboundrtp' || type === 'endpoint'));
  });

  with_server('a client whose socket is cut comes back to its session', async ({ server, connect }) => {
    const proxy = await startProxy(server.kurento);
    try {
      const client = await connect(proxy.address);
      const pipeline = await client.create('MediaPipeline');
      const source = await pipeline.create('PassThrough');
      const session = client.sessionId;
      let events = 0;
      source.on('ElementConnected', () => { events += 1; });
      await source.getName();
      const back = once(client, 'reconnected');
      proxy.cut();
      assert.deepEqual(await back, [true]);
      assert.equal(client.sessionId, session);
      assert.equal(await source.getName(), source.id);
      // Nobody subscribed again.
      await until(async () => { await source.connect(source); return events >= 3; });
    } finally {
      await proxy.stop();
    }
  });

  with_server('a client that meets another server is told so', async ({ server, connect }) => {
    const proxy = await startProxy(server.kurento);
    const other = await startServer();
    try {
      const client = await connect(proxy.address);
      const first = await client.create('MediaPipeline');
      await first.getName();
      const back = once(client, 'reconnected');
      proxy.turn(other.kurento);
      proxy.cut();
      assert.deepEqual(await back, [false]);
      const pipeline = await client.create('MediaPipeline');
      assert.equal(await pipeline.getName(), pipeline.id);
    } finally {
      await proxy.stop();
      await other.stop();
    }
  });

  test(`${version}: what clients left behind is collected, and what an idle one holds is not`, TIMEOUT, async () => {
    const folder = mkdtempSync(join(tmpdir(), 'rivero-'));
    const settings = {
      mediaServer: {
        resources: { garbageCollectorPeriod: PERIOD_S },
        net: { websocket: { port: 8888 } },
      },
    };
    const file = join(folder, 'kurento.conf.json');
    writeFileSync(file, JSON.stringify(settings));
    const server = await startServer({ flags: ['-f', file] });
    try {
      const idle = await open(kurento, server.kurento);
      const kept = await idle.create('MediaPipeline');
      const leaving = await open(kurento, server.kurento);
      const left = await leaving.create('MediaPipeline');
      const manager = await idle.getServerManager();
      const destroyed = [];
      manager.on('ObjectDestroyed', ({ objectId }) => destroyed.push(objectId));
      await manager.getName();
      await leave(leaving);
      await until(() => destroyed.length > 0);
      assert.deepEqual(destroyed, [left.id]);
      assert.equal(await kept.getName(), kept.id);
      await leave(idle);
    } finally {
      await server.stop();
      rmSync(folder, { recursive: true });
    }
  });
}
