// The browser looks for another way while the call goes on: a second offer, which kurento-client hands
// over as it did with the first. Firefox does the same among its other tests.
import { restartsTwice } from './support/restarting.mjs';
import { staged } from './support/stage.mjs';

staged('Chromium restarts ICE twice, and the picture never stands still', { timeout: 120_000 }, restartsTwice);
