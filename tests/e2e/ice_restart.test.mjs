// The browser looks for another way while the call goes on: a second offer, which kurento-client hands
// over as it did with the first.
import assert from 'node:assert/strict';

import { HelloWorld } from './support/behaviours.mjs';
import { launchFirefox } from './support/firefox.mjs';
import { staged } from './support/stage.mjs';

for (const [name, browser] of [['Chromium', undefined], ['Firefox', launchFirefox]]) {
  staged(`${name} restarts ICE twice, and the picture never stands still`, { browser, timeout: 120_000 }, async (stage) => {
    const application = await stage.application(new HelloWorld());
    const own = await stage.join(application);
    await own.seesAndHears();
    const before = await own.newWay();
    const [{ events }] = application.participants;
    const used = [before];
    for (let round = 0; round < 2; round += 1) {
      const [watched, way] = await Promise.all([own.watch(4_000), own.restartIce().then(own.newWay)]);
      stage.context.diagnostic(`${watched.framesDecoded} frames in 4 s, by ${way.local} with ${way.remote}`);
      assert.ok(watched.framesDecoded >= 60, `${watched.framesDecoded} frames were decoded in 4 s`);
      assert.equal(way.connection, 'connected');
      used.push(way);
    }
    assert.equal(new Set(used.map(({ pair }) => pair)).size, 3, JSON.stringify(used));
    await own.seesAndHears();
    assert.deepEqual(application.errors, []);
    const states = events.filter(({ type }) => type === 'ConnectionStateChanged');
    assert.deepEqual(states.map(({ newState }) => newState), ['CONNECTED']);
  });
}
