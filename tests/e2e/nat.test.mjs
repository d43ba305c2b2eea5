// Calls through routers that translate addresses, in network namespaces: the server at a site, the
// browser at home, an internet between them with a STUN and TURN server in it. What is asserted of the
// way is the pair of candidates that the server selected.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { test } from 'node:test';

import { HelloWorld } from './support/behaviours.mjs';
import { findBrowser, launchBrowser } from './support/browser.mjs';
import { PASSWORD, USER, startCoturn } from './support/coturn.mjs';
import { HOME, Internet, RELAY, SERVER, SITE, missing } from './support/nat.mjs';
import { binary } from './support/server.mjs';
import { staged } from './support/stage.mjs';

const PORT = 42_000;
const STUN = { KMS_STUN_IP: RELAY, KMS_STUN_PORT: '3478' };
const why = missing();

/** What a server needs of a router that publishes one port of it. */
const published = (port = PORT) => ({
  site: { published: [`udp dport ${port}`, `tcp dport ${port}`] },
  flags: ['--workers', '1', '--media-port', `${port}`],
  env: { KMS_EXTERNAL_IPV4: SITE },
});

/**
 * A call with itself of a browser at home. `iceServers` are those of the browser, `relay` is the port of
 * the STUN and TURN server if there is one, `source` is what the page sends and `trusting` whether it may use the camera; the rest are routers, flags and variables.
 */
function across(name, { site, home, flags = [], env, relay, iceServers, source, trusting }, check) {
  if (why) {
    test(name, { skip: why });
    return;
  }
  let net;
  staged(name, {
    timeout: 120_000,
    prepare: async (stage) => {
      net = new Internet({ site, home });
      stage.later(() => net.stop());
      if (relay) {
        const coturn = await startCoturn({ address: RELAY, ports: [relay, 5349], before: net.at('relay') });
        stage.later(() => coturn.stop());
      }
      return {
        command: [...net.at('server'), binary()],
        flags: ['--media-address', SERVER, ...flags],
        env,
        reach: (address) => net.lead({ to: 'server', address }),
        browser: () => launchBrowser({ executablePath: net.wrapper('client', findBrowser()), trusting }),
      };
    },
  }, async (stage) => {
    const behaviour = new HelloWorld();
    behaviour.prepare = async (endpoint, participant) => {
      for (const type of ['NewCandidatePairSelected', 'IceComponentStateChanged']) {
        endpoint.on(type, (event) => participant.events.push({ ...event, type }));
      }
    };
    const application = await stage.application(behaviour);
    application.address = `${await net.lead({ from: 'client', address: application.address })}/`;
    const own = await stage.join(application, { iceServers, source });
    await own.seesAndHears();
    assert.deepEqual(application.errors, []);
    const [{ events }] = application.participants;
    const pair = events.filter(({ type }) => type === 'NewCandidatePairSelected').at(-1).candidatePair;
    stage.context.diagnostic(`${pair.localCandidate} with ${pair.remoteCandidate}`);
    await check?.({ local: pair.localCandidate, remote: pair.remoteCandidate, own, net, application, stage });
  });
}

const BROWSERS_STUN = [{ urls: `stun:${RELAY}` }];

across('one published port and an external address let a browser behind a router in', published(), ({ local, remote }) => {
  assert.match(local, new RegExp(` UDP .* ${SITE} ${PORT} typ host`, 'i'));
  assert.match(remote, new RegExp(` ${HOME} \\d+ `), 'the browser is where its router shows it');
});

across('a browser behind a symmetric router reaches a published port', {
  ...published(), home: { symmetric: true }, relay: 3478, iceServers: BROWSERS_STUN,
}, ({ local, remote }) => {
  assert.match(local, new RegExp(` ${SITE} ${PORT} typ host`));
  assert.match(remote, new RegExp(` ${HOME} \\d+ `));
});

across('two routers that publish nothing are passed with a STUN server', {
  env: STUN, relay: 3478, iceServers: BROWSERS_STUN,
}, ({ remote, net }) => {
  assert.match(remote, new RegExp(` ${HOME} \\d+ `));
  const [program, ...before] = net.at('server');
  const doctor = spawnSync(program, [...before, binary(), 'doctor', '--port', '0'], { encoding: 'utf8', env: { ...process.env, ...STUN } });
  assert.match(doctor.stdout, new RegExp(`fine +STUN server: ${RELAY}:3478 sees this machine at ${SITE}:`));
});

across('two symmetric routers that publish nothing are passed with the server\'s relay', {
  site: { symmetric: true }, home: { symmetric: true }, relay: 3478, iceServers: BROWSERS_STUN,
  env: { KMS_TURN_URL: `${USER}:${PASSWORD}@${RELAY}:3478` },
}, ({ local }) => {
  assert.match(local, new RegExp(` ${RELAY} \\d+ typ relay`));
});

across('a site that lets nothing out but TCP is passed with a relay over TCP', {
  site: { allows: 'meta l4proto tcp' }, home: { symmetric: true }, relay: 3478, iceServers: BROWSERS_STUN,
  env: { KMS_TURN_URL: `${USER}:${PASSWORD}@${RELAY}:3478?transport=tcp` },
}, ({ local }) => {
  assert.match(local, new RegExp(` ${RELAY} \\d+ typ relay`));
});

across('where UDP is shut, media goes over TCP', {
  ...published(), home: { allows: 'meta l4proto tcp' },
}, ({ local }) => {
  assert.match(local, new RegExp(` TCP .* ${SITE} ${PORT} typ host tcptype passive`, 'i'));
});

across('a firewall that lets nothing but TCP to 443 through is passed by media at 443', {
  ...published(443), home: { allows: 'tcp dport 443' },
}, ({ local }) => {
  assert.match(local, new RegExp(` TCP .* ${SITE} 443 typ host tcptype passive`, 'i'));
});

across('a browser brings a relay of its own, at TCP 443, to a server that publishes nothing', {
  env: { ...STUN, KMS_STUN_PORT: '443' }, home: { allows: 'tcp dport 443' }, relay: 443,
  iceServers: [{ urls: `turn:${RELAY}:443?transport=tcp`, username: USER, credential: PASSWORD }],
}, ({ remote }) => {
  assert.match(remote, new RegExp(` ${RELAY} \\d+ typ (relay|prflx)`));
});

across('a browser that hides its address behind a name of multicast DNS is found by its checks', {
  ...published(), source: 'red', trusting: false,
}, async ({ remote, own }) => {
  assert.match(remote, new RegExp(` ${HOME} \\d+ `));
  const lines = await own.page.evaluate(() => window.candidatesSent);
  assert.ok(lines.length > 0 && lines.every((line) => line.includes('.local ')), lines.join('\n'));
});

/** Waits until `condition` holds; how long that took. */
async function until(condition, what, ms = 15_000) {
  const start = performance.now();
  while (!await condition()) {
    assert.ok(performance.now() < start + ms, what);
    await new Promise((resolve) => { setTimeout(resolve, 100); });
  }
  return performance.now() - start;
}

across('a call goes on when the browser\'s router gets another address', published(), async ({ own, net, application, stage }) => {
  const [{ events }] = application.participants;
  net.move('home', '198.51.100.77');
  const took = await until(async () => (await own.watch(300)).changes > 2, 'the picture moves again');
  stage.context.diagnostic(`the picture moved again after ${(took / 1000).toFixed(1)} s`);
  // What was lost on the way may hold it up once more until there is a keyframe.
  const well = await until(() => own.seesAndHears().then(() => true, () => false), 'the call is well again');
  stage.context.diagnostic(`the call was well again ${(well / 1000).toFixed(1)} s later`);
  const last = events.filter(({ type }) => type === 'NewCandidatePairSelected').at(-1);
  assert.match(last.candidatePair.remoteCandidate, / 198\.51\.100\.77 \d+ /);
  assert.ok(!events.some(({ state }) => state === 'FAILED'));
});

across('a browser that loses its own address comes back by an ICE restart', published(), async ({ own, net, application, stage }) => {
  const [{ events }] = application.participants;
  const told = (state) => events.some(({ type, state: now }) => type === 'IceComponentStateChanged' && now === state);
  net.move('client', '10.2.0.77');
  await until(() => told('DISCONNECTED'), 'the silence is told');
  await own.restartIce();
  const took = await until(async () => (await own.watch(300)).changes > 2, 'the picture moves again');
  stage.context.diagnostic(`the picture moved again after ${(took / 1000).toFixed(1)} s`);
  await until(() => own.seesAndHears().then(() => true, () => false), 'the call is well again');
  assert.ok(!told('FAILED'));
  assert.deepEqual(application.errors, []);
});

// Without a restart nothing brings it back; any other second offer is refused, as by the original.
across('a browser that loses its own address is given up, and is welcome again', published(), async ({ own, net, application, stage }) => {
  const [{ events, endpoint }] = application.participants;
  net.move('client', '10.2.0.77');
  const took = await until(
    () => events.some(({ type, state }) => type === 'IceComponentStateChanged' && state === 'DISCONNECTED'),
    'the silence is told',
  );
  stage.context.diagnostic(`the silence was told after ${(took / 1000).toFixed(1)} s`);
  const refused = await new Promise((resolve) => { endpoint.processOffer('v=0', resolve); });
  assert.equal(refused.code, 40208);
  await own.leave();
  const again = await stage.join(application);
  await again.seesAndHears();
});
