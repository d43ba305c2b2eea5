// How long a viewer who joins a running broadcast waits for the first picture. `JOINS=100` measures
// with more joins than the few of the ordinary run.
import assert from 'node:assert/strict';

import { OneToMany } from './support/behaviours.mjs';
import { staged } from './support/stage.mjs';

const JOINS = Number(process.env.JOINS ?? 5);
const LIMIT_MS = Number(process.env.LIMIT_MS ?? 5000);

staged(`${JOINS} late viewers see a picture`, { timeout: 30_000 + JOINS * 4000 }, async (stage) => {
  const application = await stage.application(new OneToMany());
  await stage.join(application, { role: 'presenter', receive: false });
  const page = await stage.page(application.address);
  const times = await page.evaluate(async (joins) => {
    const measured = [];
    for (let join = 0; join < joins; join += 1) {
      const viewer = new window.Participant();
      await viewer.join({ role: 'viewer', source: 'none' });
      measured.push(await viewer.timeToFirstFrame());
      viewer.leave();
      // Joins fall at different distances from the keyframes that earlier ones caused.
      await new Promise((resolve) => { setTimeout(resolve, 200 + (join * 137) % 800); });
    }
    return measured;
  }, JOINS);
  times.sort((one, other) => one - other);
  const share = (part) => times[Math.min(times.length - 1, Math.ceil(part * times.length) - 1)];
  const [median, most, worst] = [share(0.5), share(0.99), share(1)].map(Math.round);
  console.log(`time to first frame over ${JOINS} joins: p50 ${median} ms, p99 ${most} ms, max ${worst} ms`);
  assert.ok(worst <= LIMIT_MS, `a viewer waited ${worst} ms`);
  assert.deepEqual(application.errors, []);
});
