// Firefox as the browser: alone with the server in both roles, and with Chromium at the other end.
import assert from 'node:assert/strict';
import { after } from 'node:test';

import { Call, HelloWorld } from './support/behaviours.mjs';
import { launchBrowser } from './support/browser.mjs';
import { DataPeer } from './support/data_peer.mjs';
import { launchFirefox } from './support/firefox.mjs';
import { restartsTwice } from './support/restarting.mjs';
import { staged } from './support/stage.mjs';

let started;
after(async () => (await started)?.close());

/** One Firefox for all tests, for it takes its time to start; each test has windows of its own. */
async function sharedFirefox() {
  started ??= launchFirefox();
  const firefox = await started;
  const pages = [];
  return {
    async newPage() {
      const page = await firefox.newPage();
      pages.push(page);
      return page;
    },
    async close() {
      for (const page of pages) await page.close();
    },
  };
}

const ALONE = { browser: sharedFirefox, timeout: 120_000 };

for (const serverOffers of [false, true]) {
  const who = serverOffers ? 'the server' : 'the browser';
  staged(`Firefox sees and hears itself when ${who} offers`, ALONE, async (stage) => {
    const application = await stage.application(new HelloWorld());
    const own = await stage.join(application, { serverOffers });
    const [seen, heard] = await own.seesAndHears();
    stage.context.diagnostic(`${seen.codec} and ${heard.codec}, ${seen.framesDecoded} frames in 2 s`);
    assert.deepEqual(application.errors, []);
    const [{ events }] = application.participants;
    const states = events.filter((event) => event.type === 'ConnectionStateChanged');
    assert.deepEqual(states.map((event) => event.newState), ['CONNECTED']);
  });
}

for (const codec of ['VP8', 'VP9']) {
  staged(`Firefox and Chromium see and hear each other in ${codec}`, ALONE, async (stage) => {
    const application = await stage.application(new Call());
    const chromium = await stage.launched(launchBrowser());
    const codecs = { video: codec };
    const red = await stage.join(application, { source: 'red', codecs });
    const blue = await stage.join(application, { source: 'blue', codecs }, chromium);
    await Promise.all([red.turns('blue'), blue.turns('red')]);
    const all = await Promise.all([red.seesAndHears(), blue.seesAndHears()]);
    assert.deepEqual(all.map(([seen]) => seen.codec), [`video/${codec}`, `video/${codec}`]);
    assert.deepEqual(application.errors, []);
  });
}

/** Without a camera in use, Firefox tells no address of its own. */
const HIDING = { browser: () => launchFirefox({ preferences: { 'media.peerconnection.ice.obfuscate_host_addresses': true } }), timeout: 120_000 };

staged('Firefox that hides its addresses behind names of multicast DNS is found', HIDING, async (stage) => {
  const application = await stage.application(new HelloWorld());
  const own = await stage.join(application, { source: 'red' });
  await own.sees();
  assert.deepEqual(application.errors, []);
  const lines = await own.page.evaluate(() => window.candidatesSent);
  stage.context.diagnostic(lines.join('; '));
  const hosts = lines.filter((line) => line.includes(' typ host'));
  assert.ok(hosts.length > 0 && hosts.every((line) => line.includes('.local ')), lines.join('\n'));
});

staged('Firefox restarts ICE twice, and the picture never stands still', ALONE, restartsTwice);

staged('Firefox and the server open channels, and messages come back whole', ALONE, async (stage) => {
  const pipeline = await (await stage.kurento()).create('MediaPipeline');
  const peer = await DataPeer.join(stage, pipeline, [['browser', {}], ['hasty', { ordered: false, maxRetransmits: 2 }]]);
  const { endpoint } = peer;
  await endpoint.connect(endpoint, 'DATA');
  for (const label of ['browser', 'hasty']) await peer.opened(label);
  await endpoint.createDataChannel('server', true, -1, -1, 'proto');
  await peer.opened('server');
  const { readyState, ordered, protocol } = await peer.call('describe', 'server');
  assert.deepEqual({ readyState, ordered, protocol }, { readyState: 'open', ordered: true, protocol: 'proto' });
  for (const label of ['browser', 'server', 'hasty']) {
    const sent = [];
    for (const message of [{ text: 'Grüße' }, { text: '' }, { length: 0 }, { length: 256 * 1024, first: 3 }]) {
      sent.push(await peer.send(label, message));
    }
    assert.deepEqual(await peer.received(label, sent.length), sent, label);
  }
  const { id } = await peer.call('describe', 'server');
  await peer.call('close', 'server');
  await peer.told('DataChannelClosed', id);
  await peer.gone('server');
});

staged('Firefox and Chromium speak through channels of the same name', ALONE, async (stage) => {
  const pipeline = await (await stage.kurento()).create('MediaPipeline');
  const chromium = await stage.launched(launchBrowser());
  const left = await DataPeer.join(stage, pipeline, [['chat', {}]]);
  const right = await DataPeer.join(stage, pipeline, [['chat', {}]], chromium);
  await left.endpoint.connect(right.endpoint, 'DATA');
  await right.endpoint.connect(left.endpoint, 'DATA');
  for (const peer of [left, right]) await peer.opened('chat');
  const [hello, file] = [await left.send('chat', { text: 'hello' }), await right.send('chat', { length: 99_999, first: 7 })];
  assert.deepEqual(await right.received('chat', 1), [hello]);
  assert.deepEqual(await left.received('chat', 1), [file]);
});
