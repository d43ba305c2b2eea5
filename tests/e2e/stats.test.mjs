// What the server says of a call, against what the browser at its other end says.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';

import { Call, HelloWorld, OneToMany } from './support/behaviours.mjs';
import { Lossy } from './support/lossy.mjs';
import { staged } from './support/stage.mjs';

/** Between the two looks at both sides. */
const CALL_MS = 8_000;
/** Counters may differ by this much. */
const TOLERANCE = 0.02;
/** And by what is under way while both sides are asked: packets, and bytes of them. */
const UNDER_WAY = { packets: 6, bytes: 6_000 };
/** On loopback no round trip takes longer, busy as the machine may be. */
const MAX_ROUND_TRIP = 0.25;

const pause = (ms) => new Promise((resolve) => { setTimeout(resolve, ms); });

/** Both sides of one connection at one moment, as near as one gets. */
async function look(participant, endpoint) {
  const [browser, server] = await Promise.all([participant.report(), endpoint.getStats()]);
  // Who is told when each packet came makes an estimate for itself, and is told none.
  const transportWide = await participant.agreedOn('transport-cc');
  const only = (entries, fits) => {
    const found = entries.filter(fits);
    assert.equal(found.length, 1, `${found.length} of ${JSON.stringify(entries)}`);
    return found[0];
  };
  const entries = Object.values(server);
  const transport = only(browser, (entry) => entry.type === 'transport');
  const ours = only(entries, (entry) => entry.type === 'transport');
  return {
    entries,
    transportWide,
    /** A stream to the server ('outbound' of the browser) or from it, on both sides. */
    stream(kind, way) {
      const theirs = only(browser, (entry) => entry.type === `${way}-rtp` && entry.kind === kind);
      const ours = only(entries, (entry) => entry.ssrc === `${theirs.ssrc}`);
      assert.equal(ours.type, way === 'outbound' ? 'inboundrtp' : 'outboundrtp');
      const remote = browser.find((entry) => entry.id === theirs.remoteId);
      return { browser: theirs, server: ours, remote };
    },
    transport: { browser: transport, server: ours },
    /** What each side sends over: the browser may change its mind, and then they differ. */
    selected: {
      browser: only(browser, (entry) => entry.id === transport.selectedCandidatePairId),
      server: only(entries, (entry) => entry.id === ours.selectedCandidatePairId),
    },
    /** Both sides of each pair that the browser sends or sent media over. */
    pairs() {
      const used = browser.filter((entry) => entry.type === 'candidate-pair' && entry.bytesSent > 0);
      return used.map((pair) => {
        const [near, far] = [pair.localCandidateId, pair.remoteCandidateId].map(
          (id) => only(browser, (entry) => entry.id === id),
        );
        const is = (id, candidate) => {
          const one = only(entries, (entry) => entry.id === id);
          return one.portNumber === candidate.port && one.ipAddress === (candidate.address ?? candidate.ip);
        };
        const server = only(entries, (entry) => entry.type === 'candidatepair'
          && is(entry.remoteCandidateId, near) && is(entry.localCandidateId, far));
        return { browser: pair, server };
      });
    },
  };
}

/** `more` is what may have come between the two answers. */
function near(what, browser, server, more = 0) {
  const unit = (/bytes/i.test(what) ? UNDER_WAY.bytes : UNDER_WAY.packets) + more;
  const off = Math.abs(browser - server);
  const known = Math.max(browser, server);
  assert.ok(off <= Math.max(TOLERANCE * known, unit), `${what}: ${browser} by the browser, ${server} by the server`);
}

/** Compares members of both sides as totals, and as what came between two looks. */
function compare(stage, what, before, after, members) {
  for (const [theirs, ours] of members) {
    const [first, then] = [before, after].map(({ browser, server }) => [browser[theirs], server[ours]]);
    for (const value of [...first, ...then]) assert.ok(Number.isFinite(value), `${what}: ${theirs}, ${ours}`);
    stage.context.diagnostic(`${what} ${theirs}: ${then[0]}, ${ours}: ${then[1]}`);
    const apart = [before, after].map(({ browser, server }) => Math.abs(browser.timestamp - server.timestampMillis));
    const span = Math.max(1, after.server.timestampMillis - before.server.timestampMillis);
    const between = apart.map((ms) => ((then[1] - first[1]) / span) * ms);
    near(`${what} ${ours}`, ...then, between[1]);
    near(`${what} ${ours} meanwhile`, then[0] - first[0], then[1] - first[1], between[0] + between[1]);
  }
}

function compareSent(stage, kind, before, after) {
  const [first, then] = [before, after].map((side) => side.stream(kind, 'outbound'));
  compare(stage, `${kind} to the server`, first, then, [
    ['packetsSent', 'packetsReceived'],
    ['bytesSent', 'bytesReceived'],
    ['nackCount', 'nackCount'],
  ]);
  const { browser, server, remote } = then;
  if (kind === 'video') {
    assert.equal(server.pliCount, browser.pliCount, 'keyframes that were asked for');
    assert.equal(server.firCount, browser.firCount);
    assert.ok(server.remb > 0 || before.transportWide, 'an estimate was told');
  }
  assert.equal(server.packetsLost, 0);
  // The browser knows them from our last report.
  assert.equal(remote.packetsLost, 0);
  assert.ok(Math.abs(remote.jitter - server.jitter) < 0.03, `jitter: ${remote.jitter}, ${server.jitter}`);
  assert.ok(remote.roundTripTime < MAX_ROUND_TRIP, `${remote.roundTripTime} s`);
}

function compareReceived(stage, kind, before, after) {
  const [first, then] = [before, after].map((side) => side.stream(kind, 'inbound'));
  compare(stage, `${kind} from the server`, first, then, [
    ['packetsReceived', 'packetsSent'],
    ['bytesReceived', 'bytesSent'],
    ['packetsLost', 'packetsLost'],
    ...(kind === 'video' ? [['nackCount', 'nackCount'], ['pliCount', 'pliCount'], ['firCount', 'firCount']] : []),
  ]);
  const { server } = then;
  const span = (then.browser.timestamp - first.browser.timestamp) / 1_000;
  const bitrate = ((then.browser.bytesReceived - first.browser.bytesReceived) * 8) / span;
  const times = server.targetBitrate / bitrate;
  assert.ok(times > 0.3 && times < 3, `${kind}: ${bitrate} bit/s came, ${server.targetBitrate} are told`);
  if (kind === 'video') {
    assert.ok(server.roundTripTime > 0 && server.roundTripTime < MAX_ROUND_TRIP, `${server.roundTripTime} s`);
    assert.ok(server.remb > 0 || before.transportWide, 'the browser told an estimate');
  }
}

function comparePath(stage, before, after) {
  const BYTES = [['bytesSent', 'bytesReceived'], ['bytesReceived', 'bytesSent']];
  compare(stage, 'transport', before.transport, after.transport, BYTES);
  for (const pair of after.pairs()) {
    const known = before.pairs().find((one) => one.browser.id === pair.browser.id);
    compare(stage, 'pair', known ?? pair, pair, BYTES);
  }
  const { selected: pair, transport } = after;
  assert.equal(transport.server.activeConnection, true);
  for (const member of ['nominated', 'writable', 'readable']) assert.equal(pair.server[member], true, member);
  const { currentRoundTripTime: theirs } = pair.browser;
  const { roundTripTime: ours } = pair.server;
  // Chromium counts whole milliseconds.
  assert.ok(theirs >= 0 && theirs < MAX_ROUND_TRIP, `${theirs} s`);
  assert.ok(ours > 0 && ours < MAX_ROUND_TRIP, `${ours} s`);
  const candidates = ['localCandidateId', 'remoteCandidateId'].map((member) => {
    const candidate = after.entries.find((entry) => entry.id === pair.server[member]);
    assert.ok(candidate, member);
    return candidate;
  });
  assert.deepEqual(candidates.map(({ type }) => type), ['localcandidate', 'remotecandidate']);
  for (const { ipAddress, portNumber } of candidates) assert.ok(ipAddress && portNumber > 0);
}

staged('both ends of a call tell the same numbers', { timeout: 60_000 }, async (stage) => {
  const application = await stage.application(new Call());
  const pages = [];
  const endpoints = [];
  for (const source of ['camera', 'red']) {
    pages.push(await stage.join(application, { source, codecs: { video: 'VP8', audio: 'opus' } }));
    endpoints.push([...application.participants].at(-1).endpoint);
  }
  await Promise.all(pages.map((page) => page.sees()));
  const before = await Promise.all(pages.map((page, at) => look(page, endpoints[at])));
  await pause(CALL_MS);
  const after = await Promise.all(pages.map((page, at) => look(page, endpoints[at])));
  for (const at of [0, 1]) {
    for (const kind of ['audio', 'video']) {
      compareSent(stage, kind, before[at], after[at]);
      compareReceived(stage, kind, before[at], after[at]);
    }
    comparePath(stage, before[at], after[at]);
    for (const { timestampMillis } of after[at].entries) {
      assert.ok(Math.abs(timestampMillis - Date.now()) < 5_000, `${timestampMillis}`);
    }
  }
  assert.deepEqual(application.errors, []);
});

/** Everybody sees themselves over a network that loses media. */
class LossyHelloWorld extends HelloWorld {
  constructor(network) {
    super();
    this.network = network;
  }

  async join(participant, message) {
    this.network.between(participant);
    await super.join(participant, message);
  }
}

/** All that is not audio is video, on whichever SSRC it is sent again. */
function lostOf(lost, kind, audio) {
  const all = [...lost.values()].reduce((sum, count) => sum + count, 0);
  const ofAudio = lost.get(audio) ?? 0;
  return kind === 'audio' ? ofAudio : all - ofAudio;
}

staged('what a network loses is told as it was lost', { timeout: 60_000 }, async (stage) => {
  const network = new Lossy(0.06);
  stage.later(() => network.close());
  const application = await stage.application(new LossyHelloWorld(network));
  const page = await stage.join(application, { codecs: { video: 'VP8', audio: 'opus' } });
  const [{ endpoint }] = application.participants;
  await page.sees();
  await pause(CALL_MS);
  // Nothing is under way any more when the counters stand still.
  await page.fallSilent();
  const counters = async () => {
    const entries = Object.values(await endpoint.getStats());
    return entries.map(({ packetsReceived, packetsSent }) => packetsReceived ?? packetsSent ?? 0).join();
  };
  for (let last; last !== (last = await counters());) await pause(1_500);
  const after = await look(page, endpoint);
  const audio = {
    up: after.stream('audio', 'outbound').browser.ssrc,
    down: after.stream('audio', 'inbound').browser.ssrc,
  };
  for (const kind of ['audio', 'video']) {
    const up = after.stream(kind, 'outbound');
    const lostUp = lostOf(network.lost.up, kind, audio.up);
    const down = after.stream(kind, 'inbound');
    const lostDown = lostOf(network.lost.down, kind, audio.down);
    stage.context.diagnostic(`${kind}: ${lostUp} lost to the server, ${lostDown} from it`);
    stage.context.diagnostic(`${kind} to the server: ${JSON.stringify(up.server)}`);
    stage.context.diagnostic(`${kind} from the server: ${JSON.stringify(down.server)}`);
    assert.ok(lostUp > 2 && lostDown > 2, 'the network loses');
    // What comes a second time, because it was asked for too soon, is a replay of SRTP and not counted.
    const twice = {
      up: up.browser.packetsSent - lostUp - up.server.packetsReceived,
      down: down.server.packetsSent - lostDown - down.browser.packetsReceived,
    };
    const most = { up: up.browser.retransmittedPacketsSent, down: 2 * down.server.nackCount };
    for (const way of ['up', 'down']) {
      assert.ok(twice[way] >= 0 && twice[way] <= most[way], `${kind} ${way}: ${twice[way]} of ${most[way]} not counted`);
    }
    near(`${kind} requests for packets, sent`, up.browser.nackCount ?? 0, up.server.nackCount);
    if (kind === 'audio') {
      // The browser reports of audio every 5 s, so the end of it may be missing.
      const [known, told] = [down.browser.packetsLost, down.server.packetsLost];
      assert.ok(told > 5 && told <= known, `${known} of audio are lost, ${told} were reported`);
      // Nobody repairs it.
      near('audio lost on the way to the server', lostUp, up.server.packetsLost);
      near('audio lost, as we reported it', up.remote.packetsLost, up.server.packetsLost);
    } else {
      assert.ok(up.server.nackCount > 0 && down.server.nackCount > 0, 'somebody asks again');
      near('video lost on the way to the browser', down.browser.packetsLost, down.server.packetsLost);
      near('video requests for packets, received', down.browser.nackCount, down.server.nackCount);
      near('requests for keyframes, sent', up.browser.pliCount, up.server.pliCount);
      near('requests for keyframes, received', down.browser.pliCount, down.server.pliCount);
    }
  }
});

staged('latencies and the graph are those of a call', { timeout: 60_000 }, async (stage) => {
  const application = await stage.application(new OneToMany({ passThrough: true }));
  await stage.join(application, { role: 'presenter', receive: false });
  const [presenter] = application.participants;
  const viewing = await stage.join(application, { role: 'viewer', source: 'none' });
  const viewer = [...application.participants].at(-1);
  const pipeline = await viewer.endpoint.getMediaPipeline();
  const stats = async (element) => Object.values(await element.getStats());
  await viewing.sees();
  assert.equal((await stats(viewer.endpoint)).some(({ type }) => type === 'endpoint'), false);

  await pipeline.setLatencyStats(true);
  await viewing.sees();
  const entry = (await stats(viewer.endpoint)).find(({ type }) => type === 'endpoint');
  assert.equal(entry.id, viewer.endpoint.id);
  for (const media of ['AUDIO', 'VIDEO']) {
    const [entered, left] = ['inputLatency', 'E2ELatency'].map(
      (member) => entry[member].find(({ type }) => type === media).avg,
    );
    stage.context.diagnostic(`${media}: ${entered} ns until it entered, ${left} ns until it had left`);
    assert.ok(entered > 0 && entered < left, `${entered} and ${left} ns`);
    assert.ok(left < 100_000_000, `${left} ns`);
  }
  const silent = (await stats(presenter.endpoint)).find(({ type }) => type === 'endpoint');
  assert.deepEqual(silent.E2ELatency.map(({ avg }) => avg), [0, 0]);
  await pipeline.setLatencyStats(false);

  await viewer.endpoint.setName('a "viewer"\\');
  const graph = await pipeline.getGstreamerDot();
  assert.match(graph, /VIDEO\\nVP8|VIDEO\\nVP9|VIDEO\\nH264|VIDEO\\nAV1/);
  const dot = spawnSync('dot', ['-Tsvg'], { input: graph, encoding: 'utf8' });
  if (dot.error) {
    stage.context.diagnostic(`Graphviz is not installed, so nobody drew the graph: ${dot.error.message}`);
  } else {
    assert.equal(dot.stderr, '');
    assert.equal(dot.status, 0);
    assert.equal(dot.stdout.match(/class="cluster"/g).length, 3);
    assert.ok(dot.stdout.includes('a &quot;viewer&quot;\\'), dot.stdout);
  }
});
