// A participant in a page, as the test sees it.
import assert from 'node:assert/strict';

class Remote {
  #handle;

  constructor(page, handle) {
    this.page = page;
    this.#handle = handle;
  }

  #call(method, ...parameters) {
    return this.#handle.evaluate(
      (participant, [name, values]) => participant[name](...values),
      [method, parameters],
    );
  }

  // What is not given stays away: not every way into a page knows `undefined`.
  watch = (...ms) => this.#call('watch', ...ms);
  listen = (...ms) => this.#call('listen', ...ms);
  turns = (...colourAndMs) => this.#call('turns', ...colourAndMs);
  timeToFirstFrame = (...ms) => this.#call('timeToFirstFrame', ...ms);
  report = () => this.#call('report');
  agreedOn = (text) => this.#call('agreedOn', text);
  restartIce = () => this.#call('restartIce');
  newWay = () => this.#call('newWay');
  fallSilent = () => this.#call('fallSilent');
  leave = () => this.#call('leave');

  /** The picture moves; what was measured. */
  async sees() {
    const seen = await this.watch();
    assert.ok(seen.changes >= 5, `the picture changed ${seen.changes} times in 2 s`);
    assert.ok(seen.framesDecoded >= 10, `${seen.framesDecoded} frames were decoded in 2 s`);
    return seen;
  }

  /** There is sound, and not silence; what was measured. */
  async hears() {
    const heard = await this.listen();
    assert.ok(heard.packets >= 20, `${heard.packets} packets of sound came in 2.5 s`);
    assert.ok(heard.loudest > 0.001, `the loudest moment was ${heard.loudest}`);
    assert.ok(heard.energy > 0, 'no energy in the sound');
    return heard;
  }

  /** Both at once; what was measured of each. */
  seesAndHears() {
    return Promise.all([this.sees(), this.hears()]);
  }
}

/** Lets a new participant of `page` join. */
export async function joining(page, options) {
  const handle = await page.evaluateHandle(async (values) => {
    const participant = new window.Participant();
    await participant.join(values);
    return participant;
  }, options);
  return new Remote(page, handle);
}
