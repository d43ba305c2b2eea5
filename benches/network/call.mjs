// One run: a publisher, viewers who come when the scenario says, each behind the network it says, and what
// everybody measured.
import { cpus, loadavg } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { Application } from '../../tests/e2e/support/application.mjs';
import { OneToMany } from '../../tests/e2e/support/behaviours.mjs';
import { launchBrowser } from '../../tests/e2e/support/browser.mjs';
import { connect, leave } from '../../tests/e2e/support/kurento.mjs';
import { startServer } from '../../tests/e2e/support/server.mjs';
import { Relay } from './relay.mjs';
import { camera } from './source.mjs';

const SAMPLER = join(dirname(fileURLToPath(import.meta.url)), 'sampler.js');
const ASK_MS = 500;
const FIRST_PICTURE_MS = 20_000;

export const pause = (ms) => new Promise((resolve) => { setTimeout(resolve, ms); });

/** One to many, with a network before those who have one. */
class Behind extends OneToMany {
  relays = new Map();
  endpoints = new Map();

  async join(participant, message) {
    this.relays.get(message.name)?.between(participant);
    await super.join(participant, message);
    this.endpoints.set(message.name, participant.endpoint);
  }
}

/** What the server says of an endpoint: what it may send and why, and what it receives and sends. */
function told(stats) {
  const entries = Object.values(stats);
  // Only what is in use has an estimate, and another pair may have carried more before.
  const used = entries.map(({ selectedCandidatePairId }) => selectedCandidatePairId).filter(Boolean);
  const pair = entries.find(({ id }) => used.includes(id));
  const streams = (type) => entries.filter((entry) => entry.type === type)
    .map(({ ssrc, remb, targetBitrate, fractionLost, packetsLost, roundTripTime, nackCount, pliCount }) => (
      { ssrc, remb, targetBitrate, fractionLost, packetsLost, roundTripTime, nackCount, pliCount }));
  return {
    outgoing: pair?.availableOutgoingBitrate,
    outgoingLimit: pair?.availableOutgoingLimit,
    incoming: pair?.availableIncomingBitrate,
    incomingLimit: pair?.availableIncomingLimit,
    streams: { in: streams('inboundrtp'), out: streams('outboundrtp') },
  };
}

export class Stage {
  #ending = [];
  #asking = new Set();
  samples = new Map();
  viewers = new Map();
  relays = new Map();

  /** `size` is that of the camera, `WIDTHxHEIGHT`, and `rate` how many pictures it gives in a second. */
  static async open({ size = '640x480', rate = 30 } = {}) {
    const stage = new Stage();
    try {
      Object.assign(stage, { size, rate });
      stage.server = await startServer({ flags: [], env: { RUST_LOG: process.env.RUST_LOG ?? 'rivero=info,warn' } });
      stage.#ending.push(() => stage.server.stop());
      const client = await connect(stage.server.kurento);
      stage.#ending.push(() => leave(client));
      stage.behaviour = new Behind();
      stage.application = await Application.start(client, stage.behaviour);
      stage.#ending.push(() => stage.application.stop());
      // What encodes has a browser of its own, as it has in life.
      [stage.sending, stage.receiving] = await Promise.all([
        launchBrowser({ flags: [camera(size, { rate })] }),
        launchBrowser(),
      ]);
      stage.#ending.push(() => Promise.all([stage.sending.close(), stage.receiving.close()]));
    } catch (error) {
      await stage.close();
      throw error;
    }
    return stage;
  }

  async relay(name, { trace, seed }) {
    if (!trace) return undefined;
    const relay = new Relay(trace, { seed });
    this.behaviour.relays.set(name, relay);
    this.relays.set(name, relay);
    this.#ending.push(() => relay.stop().catch(() => {}));
    return relay;
  }

  async #page(browser) {
    const page = await browser.newPage();
    page.on('pageerror', (error) => console.error(error.stack));
    await page.goto(this.application.address);
    await page.addScriptTag({ path: SAMPLER });
    return page;
  }

  async #participant(browser, name, options) {
    const page = await this.#page(browser);
    const handle = await page.evaluateHandle(async (values) => {
      const participant = new window.Sampled();
      await participant.joinWith(values);
      return participant;
    }, { name, ...options });
    this.#ask(name);
    return { page, handle, taken: () => handle.evaluate((participant) => participant.taken()) };
  }

  #ask(name) {
    const list = [];
    this.samples.set(name, list);
    const timer = setInterval(async () => {
      try {
        const stats = await this.behaviour.endpoints.get(name)?.getStats();
        if (stats) list.push({ at: Date.now(), ...told(stats) });
      } catch {
        // It has left.
        clearInterval(timer);
      }
    }, ASK_MS);
    this.#asking.add(timer);
  }

  /** `encodings` are what the publisher may send of its picture. */
  async publish({ encodings, network = {}, codec = 'VP8' }) {
    await this.relay('publisher', network);
    const [width, height] = this.size.split('x').map(Number);
    this.publisher = await this.#participant(this.sending, 'publisher', {
      role: 'presenter',
      receive: false,
      hidden: Boolean(network.trace),
      video: { width, height, frameRate: this.rate },
      codecs: { video: codec },
      encodings: { video: encodings },
    });
    await this.relays.get('publisher')?.start();
  }

  /** What the publisher sends in `ms`, in bits per second. */
  async published(ms = 1000) {
    const sent = () => this.publisher.handle.evaluate((participant) => (
      participant.samples.at(-1)?.sent?.reduce((sum, { bytesSent = 0 }) => sum + bytesSent, 0) ?? 0));
    const before = await sent();
    await pause(ms);
    return (await sent() - before) * 8000 / ms;
  }

  /** Waits until the publisher sends that much, or as long as it may take. */
  async warm(rate, ms = 15_000) {
    for (const end = Date.now() + ms; Date.now() < end;) {
      if (await this.published() >= rate) return;
    }
  }

  /** A viewer who joins now; the time of its trace begins when it is connected. */
  async view(name, network) {
    const relay = await this.relay(name, network);
    const viewer = await this.#participant(this.receiving, name, { role: 'viewer', hidden: Boolean(relay) });
    viewer.startedAt = await relay?.start() ?? Date.now();
    viewer.trace = network.trace;
    this.viewers.set(name, viewer);
    viewer.firstPicture = viewer.handle.evaluate((participant, ms) => participant.firstPicture(ms), FIRST_PICTURE_MS)
      .catch(() => undefined);
    return viewer;
  }

  /** Joins and leaves again and again; the times to the first picture, in milliseconds. */
  async join(times, network) {
    await this.relay('guest', network);
    await this.relays.get('guest')?.start();
    const page = await this.#page(this.receiving);
    const measured = [];
    for (let join = 0; join < times; join += 1) {
      measured.push(await page.evaluate(async (ms) => {
        const viewer = new window.Sampled();
        await viewer.joinWith({ name: 'guest', role: 'viewer', hidden: true });
        const connected = performance.now() - viewer.startedAt;
        const first = await viewer.timeToFirstFrame(ms).catch(() => ms);
        viewer.taken();
        viewer.leave();
        return { connected, first };
      }, FIRST_PICTURE_MS));
      await pause(200 + (join * 137) % 800);
    }
    return measured;
  }

  /** Ends the measuring and returns all that was measured. */
  async collect() {
    for (const timer of this.#asking) clearInterval(timer);
    const participants = {};
    for (const [name, participant] of [['publisher', this.publisher], ...this.viewers]) {
      if (!participant) continue;
      participants[name] = {
        ...await participant.taken(),
        startedAt: participant.startedAt,
        trace: participant.trace,
        firstPictureAt: await participant.firstPicture,
        server: this.samples.get(name),
      };
    }
    for (const [name, relay] of this.relays) {
      const network = await relay.stop();
      if (participants[name]) participants[name].network = network;
    }
    const metrics = await (await fetch(`${this.server.address}/metrics`)).text();
    return {
      participants,
      errors: this.application.errors.map(String),
      metrics: metrics.split('\n').filter((line) => line && !line.startsWith('#') && !/ 0$/.test(line)),
      log: this.server.output().trimEnd().split('\n').slice(-40),
      machine: { cpu: cpus()[0].model, cores: cpus().length, load: loadavg()[0] },
    };
  }

  async close() {
    for (const timer of this.#asking) clearInterval(timer);
    for (const end of this.#ending.splice(0).reverse()) {
      await Promise.resolve(end()).catch((error) => console.error(`at the end: ${error.message}`));
    }
  }
}
