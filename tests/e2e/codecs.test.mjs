// Each codec that is forwarded, from the browser's encoder to its decoder.
import assert from 'node:assert/strict';

import { HelloWorld } from './support/behaviours.mjs';
import { staged } from './support/stage.mjs';

const PAIRS = [
  ['VP8', 'opus'],
  ['VP9', 'PCMU'],
  ['H264', 'PCMA'],
  ['AV1', 'opus'],
];

for (const [video, audio] of PAIRS) {
  staged(`${video} and ${audio} come back`, {}, async (stage) => {
    const application = await stage.application(new HelloWorld());
    const page = await stage.page(application.address);
    const known = await page.evaluate(() => window.knownCodecs('video'));
    if (!known.includes(video)) {
      stage.context.skip(`this browser has no ${video}`);
      return;
    }
    const own = await stage.join(application, { codecs: { video, audio } });
    const [seen, heard] = await own.seesAndHears();
    assert.equal(seen.codec, `video/${video}`);
    assert.equal(heard.codec, `audio/${audio}`);
    assert.deepEqual(application.errors, []);
  });
}
