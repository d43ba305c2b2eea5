// A call in which the browser looks for another way, twice.
import assert from 'node:assert/strict';

import { HelloWorld } from './behaviours.mjs';

/** Each time another pair of addresses is used, and the picture goes on meanwhile. */
export async function restartsTwice(stage) {
  const application = await stage.application(new HelloWorld());
  const own = await stage.join(application, {});
  await own.seesAndHears();
  const used = [await own.newWay()];
  for (let round = 0; round < 2; round += 1) {
    const [watched, way] = await Promise.all([own.watch(4_000), own.restartIce().then(own.newWay)]);
    stage.context.diagnostic(`${watched.framesDecoded} frames in 4 s, by ${way.local} with ${way.remote}`);
    assert.ok(watched.framesDecoded >= 50, `${watched.framesDecoded} frames were decoded in 4 s`);
    assert.equal(way.connection, 'connected');
    used.push(way);
  }
  assert.equal(new Set(used.map(({ pair }) => pair)).size, 3, JSON.stringify(used));
  await own.seesAndHears();
  assert.deepEqual(application.errors, []);
  const [{ events }] = application.participants;
  const states = events.filter(({ type }) => type === 'ConnectionStateChanged');
  assert.deepEqual(states.map(({ newState }) => newState), ['CONNECTED']);
}
