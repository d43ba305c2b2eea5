// A real TURN server, coturn, between the browser and the media server, which is told to have no address
// of its own: whatever passes then passes the relay.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';

import { HelloWorld } from './support/behaviours.mjs';
import { PASSWORD, USER, startCoturn } from './support/coturn.mjs';
import { binary } from './support/server.mjs';
import { staged } from './support/stage.mjs';

/** No interface has this name. */
const NOWHERE = 'none0';

/** A coturn for the time of the test; the server takes its certificate for a good one if it is `trusted`. */
function relayed(name, run, { trusted = true, address } = {}) {
  let coturn;
  staged(name, {
    timeout: 120_000,
    prepare: async (stage) => {
      coturn = await startCoturn({ address });
      stage.later(() => coturn.stop());
      stage.context.after(() => {
        if (!stage.failed) return;
        for (const line of coturn.log().split('\n').slice(-60)) stage.context.diagnostic(`coturn: ${line}`);
      });
      return trusted ? { env: { SSL_CERT_FILE: coturn.certificate } } : {};
    },
  }, (stage) => run(stage, coturn));
}

/** Everybody sees themselves; each endpoint is told about the servers first. */
function mirror({ url, hosts }) {
  const behaviour = new HelloWorld();
  behaviour.prepare = async (endpoint, participant) => {
    if (!hosts) await endpoint.setNetworkInterfaces(NOWHERE);
    await endpoint.setTurnUrl(url);
    for (const type of ['NewCandidatePairSelected', 'IceCandidateFound', 'IceGatheringDone']) {
      endpoint.on(type, (event) => participant.events.push({ ...event, type }));
    }
  };
  return behaviour;
}

for (const transport of ['udp', 'tcp', 'tls']) {
  relayed(`a call passes a TURN server over ${transport.toUpperCase()}`, async (stage, coturn) => {
    const application = await stage.application(mirror({ url: coturn.url(transport, { host: 'localhost' }) }));
    const own = await stage.join(application);
    await own.seesAndHears();
    assert.deepEqual(application.errors, []);
    const [{ events }] = application.participants;
    const lines = events.filter(({ type }) => type === 'IceCandidateFound').map(({ candidate }) => candidate.candidate);
    assert.ok(lines.length > 0 && lines.every((line) => / typ relay /.test(`${line} `)), lines.join('\n'));
    const selected = events.filter(({ type }) => type === 'NewCandidatePairSelected');
    for (const { candidatePair } of selected) assert.match(candidatePair.localCandidate, / typ relay/);
    assert.ok(selected.length > 0, 'a pair was selected');
    await own.leave();
    // The address is given back at once, and does not wait for its lease to end.
    const end = performance.now() + 5_000;
    while (!/refreshed, realm=<rivero.test>, username=<caller>, lifetime=0/.test(coturn.log())) {
      assert.ok(performance.now() < end, 'the address was not given back');
      await new Promise((resolve) => { setTimeout(resolve, 50); });
    }
  });
}

relayed('a call passes a relay that has addresses of IPv6 only', async (stage, coturn) => {
  const application = await stage.application(mirror({ url: coturn.url('udp') }));
  const own = await stage.join(application);
  await own.seesAndHears();
  assert.deepEqual(application.errors, []);
  const [{ events }] = application.participants;
  const pairs = events.filter(({ type }) => type === 'NewCandidatePairSelected').map(({ candidatePair }) => candidatePair);
  assert.ok(pairs.length > 0, 'a pair was selected');
  for (const { localCandidate } of pairs) assert.match(localCandidate, / ::1 \d+ typ relay/);
}, { address: '::1' });

relayed('a wrong password is told in the log, and the call finds another way', async (stage, coturn) => {
  const url = coturn.url('udp', { password: 'wrong' });
  const application = await stage.application(mirror({ url, hosts: true }));
  const own = await stage.join(application);
  await own.sees();
  const [{ events }] = application.participants;
  assert.ok(events.some(({ type }) => type === 'IceGatheringDone'), 'gathering ends');
  const lines = events.filter(({ type }) => type === 'IceCandidateFound').map(({ candidate }) => candidate.candidate);
  assert.ok(lines.length > 0 && !lines.some((line) => line.includes('relay')));
  const warning = stage.server.output().split('\n').find((line) => line.includes('the TURN server lends no address'));
  assert.match(warning, /WARN.*code=401.*user or password are wrong/);
  assert.doesNotMatch(warning, /wrong@/, 'no password stands in the log');
});

relayed('a certificate that nobody vouches for is told in the log, and the call finds another way', async (stage, coturn) => {
  const application = await stage.application(mirror({ url: coturn.url('tls'), hosts: true }));
  const own = await stage.join(application);
  await own.sees();
  const [{ events }] = application.participants;
  assert.ok(events.some(({ type }) => type === 'IceGatheringDone'), 'gathering ends');
  assert.match(stage.server.output(), /WARN.*TLS is refused.*invalid peer certificate/);
}, { trusted: false });

relayed('the doctor tells servers that help from those that do not, and why', async (stage, coturn) => {
  const examine = (variables) => {
    const { stdout } = spawnSync(binary(), ['doctor', '--json', '--port', '0'], {
      encoding: 'utf8',
      env: { ...process.env, ...variables },
    });
    const findings = JSON.parse(stdout);
    return (subject) => findings.find((finding) => finding.subject === subject);
  };
  const stun = { KMS_STUN_IP: coturn.address, KMS_STUN_PORT: `${coturn.port}` };
  for (const transport of ['udp', 'tcp', 'tls']) {
    const found = examine({ ...stun, KMS_TURN_URL: coturn.url(transport), SSL_CERT_FILE: coturn.certificate });
    assert.deepEqual([found('TURN server').severity, found('TURN server').advice], ['fine', ''], JSON.stringify(found('TURN server')));
    assert.match(found('TURN server').seen, /lends addresses, as 127\.0\.0\.1$/);
    assert.match(found('STUN server').seen, /sees this machine at 127\.0\.0\.1/);

    const wrong = examine({ KMS_TURN_URL: coturn.url(transport, { password: 'wrong' }), SSL_CERT_FILE: coturn.certificate });
    assert.equal(wrong('TURN server').severity, 'trouble');
    assert.match(wrong('TURN server').seen, /lends no address: user or password are wrong/);
  }
  const strange = examine({ KMS_TURN_URL: coturn.url('tls') });
  assert.match(strange('TURN server').seen, /is refused: invalid peer certificate/);
  assert.match(strange('TURN server').advice, /SSL_CERT_FILE/);
  const nobody = examine({ KMS_TURN_URL: `${USER}:${PASSWORD}@127.0.0.1:9?transport=tcp`, KMS_STUN_IP: '127.0.0.1', KMS_STUN_PORT: '9' });
  for (const subject of ['TURN server', 'STUN server']) {
    assert.equal(nobody(subject).severity, 'trouble');
    assert.match(nobody(subject).seen, /does not answer/);
  }
});
