// Dispatchers: which of two sources a viewer sees is decided while the call runs.
import assert from 'node:assert/strict';

import { Hub } from './support/behaviours.mjs';
import { staged } from './support/stage.mjs';

async function twoSourcesAndAViewer(stage, type) {
  const hub = new Hub(type);
  const application = await stage.application(hub);
  await stage.join(application, { role: 'red', source: 'red' });
  await stage.join(application, { role: 'blue', source: 'blue' });
  const viewer = await stage.join(application, { role: 'viewer', source: 'none' });
  return { application, hub: hub.hub, ports: hub.ports, viewer };
}

staged('a Dispatcher switches one viewer between two sources', { timeout: 90_000 }, async (stage) => {
  const { application, hub, ports, viewer } = await twoSourcesAndAViewer(stage, 'Dispatcher');
  for (const colour of ['red', 'blue', 'red']) {
    await hub.connect(ports.get(colour), ports.get('viewer'));
    const took = await viewer.turns(colour);
    stage.context.diagnostic(`turned ${colour} after ${Math.round(took)} ms`);
    await viewer.seesAndHears();
  }
  assert.deepEqual(application.errors, []);
});

staged('a DispatcherOneToMany shows everybody its source', { timeout: 90_000 }, async (stage) => {
  const { application, hub, ports, viewer } = await twoSourcesAndAViewer(stage, 'DispatcherOneToMany');
  for (const colour of ['blue', 'red']) {
    // This client sends all members of a port that was awaited, not its id alone.
    await hub.setSource(ports.get(colour));
    await viewer.turns(colour);
    await viewer.seesAndHears();
  }
  await hub.removeSource();
  await new Promise((resolve) => { setTimeout(resolve, 1000); });
  const seen = await viewer.watch(1000);
  assert.equal(seen.framesDecoded, 0, 'nothing comes without a source');
  assert.deepEqual(application.errors, []);
});
