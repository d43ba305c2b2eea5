// One presenter and several viewers, who come late, leave and come back.
import assert from 'node:assert/strict';

import { OneToMany } from './support/behaviours.mjs';
import { staged } from './support/stage.mjs';

const PRESENTER = { role: 'presenter', receive: false };
const VIEWER = { role: 'viewer', source: 'none' };

for (const passThrough of [false, true]) {
  const way = passThrough ? 'through a PassThrough' : 'directly';
  staged(`three viewers see the presenter ${way}`, { timeout: 90_000 }, async (stage) => {
    const application = await stage.application(new OneToMany({ passThrough }));
    await stage.join(application, PRESENTER);
    const early = await stage.join(application, VIEWER);
    const leaving = await stage.join(application, VIEWER);
    await Promise.all([early.sees(), leaving.sees()]);

    const late = await stage.join(application, VIEWER);
    await late.sees();
    await leaving.leave();
    await early.sees();

    const back = await stage.join(application, VIEWER);
    await Promise.all([early, late, back].map((viewer) => viewer.seesAndHears()));
    assert.deepEqual(application.errors, []);
  });
}
