// Hello world: the browser sees and hears itself through the server.
import assert from 'node:assert/strict';

import { HelloWorld } from './support/behaviours.mjs';
import { staged } from './support/stage.mjs';

staged('a browser sees and hears itself', {}, async (stage) => {
  const application = await stage.application(new HelloWorld());
  const own = await stage.join(application);
  await own.seesAndHears();
  assert.deepEqual(application.errors, []);

  const [{ events }] = application.participants;
  const states = (type) => events.filter((event) => event.type === type);
  assert.deepEqual(states('ConnectionStateChanged').map((event) => event.newState), ['CONNECTED']);
  assert.equal(states('MediaStateChanged')[0]?.newState, 'CONNECTED');
  for (const type of ['MediaFlowInStateChanged', 'MediaFlowOutStateChanged']) {
    const flowing = states(type).filter((event) => event.state === 'FLOWING');
    assert.deepEqual(flowing.map((event) => event.mediaType).sort(), ['AUDIO', 'VIDEO'], type);
  }
});

staged('the server can make the offer', {}, async (stage) => {
  const application = await stage.application(new HelloWorld());
  const own = await stage.join(application, { serverOffers: true });
  await own.seesAndHears();
  assert.deepEqual(application.errors, []);
});
