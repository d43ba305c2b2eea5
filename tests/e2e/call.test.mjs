// A call of two: each sees and hears the other, not themselves.
import assert from 'node:assert/strict';

import { Call } from './support/behaviours.mjs';
import { staged } from './support/stage.mjs';

staged('two callers see and hear each other', {}, async (stage) => {
  const application = await stage.application(new Call());
  const red = await stage.join(application, { source: 'red' });
  const blue = await stage.join(application, { source: 'blue' });
  await red.turns('blue');
  await blue.turns('red');
  await Promise.all([red.seesAndHears(), blue.seesAndHears()]);
  assert.deepEqual(application.errors, []);
});
