// A small internet of network namespaces:
//
//   server 10.1.0.2 ── site 192.0.2.10 ──┐
//   client 10.2.0.2 ── home 198.51.100.20 ── net ── 203.0.113.5 relay
//
// `site` and `home` translate addresses with nftables as a router does that keeps ports where it can, and
// lets in what was asked for: address- and port-dependent filtering (RFC 4787 §5).
import { spawnSync } from 'node:child_process';
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { tunnel } from './tunnel.mjs';

export const SITE = '192.0.2.10';
export const HOME = '198.51.100.20';
export const RELAY = '203.0.113.5';
export const SERVER = '10.1.0.2';

const PLACES = { server: 1, site: 2, net: 3, home: 4, client: 5, relay: 6 };
/** Two ends of a cable, each with a place and an address; and who is asked for the way to the rest. */
const CABLES = [
  ['server', `${SERVER}/24`, 'site', '10.1.0.1/24'],
  ['site', `${SITE}/24`, 'net', '192.0.2.1/24'],
  ['client', '10.2.0.2/24', 'home', '10.2.0.1/24'],
  ['home', `${HOME}/24`, 'net', '198.51.100.1/24'],
  ['relay', `${RELAY}/24`, 'net', '203.0.113.1/24'],
];
const ROUTES = { server: '10.1.0.1', site: '192.0.2.1', client: '10.2.0.1', home: '198.51.100.1', relay: '203.0.113.1' };

function sh(script) {
  const { status, stderr, error } = spawnSync('sh', ['-eu'], {
    input: script,
    encoding: 'utf8',
    env: { ...process.env, PATH: `${process.env.PATH}:/usr/sbin:/sbin` },
  });
  if (status !== 0) throw new Error(`${error?.message ?? stderr.trim()}`);
}

/** Why there can be no such network here; nothing if there can. */
export function missing() {
  if (process.getuid() !== 0) return 'only root may make network namespaces';
  const name = `rivero-${process.pid}-probe`;
  try {
    sh(`ip netns add ${name}\nip netns exec ${name} nft add table ip probe`);
    return undefined;
  } catch (error) {
    return `no network namespaces with nftables here: ${error.message}`;
  } finally {
    spawnSync('ip', ['netns', 'del', name], { stdio: 'ignore' });
  }
}

/**
 * Rules of a router. `symmetric` gives each connection a port of its own, `published` maps ports to the
 * one behind, and `allows` says what may leave, if not all may.
 */
function rules({ symmetric = false, published = [], behind = SERVER, allows }) {
  return `table ip nat {
  chain before { type nat hook prerouting priority dstnat
    ${published.map((port) => `iifname outside ${port} dnat to ${behind}`).join('\n')}
  }
  chain after { type nat hook postrouting priority srcnat
    oifname outside masquerade ${symmetric ? 'fully-random' : ''}
  }
}
table ip guard {
  chain forward { type filter hook forward priority filter; policy drop
    ct state established,related accept
    ct status dnat accept
    iifname inside ${allows ? `${allows} accept` : 'accept'}
  }
  chain input { type filter hook input priority filter; policy drop
    iifname lo accept
  }
}
`;
}

export class Internet {
  #name = (place) => `rivero-${process.pid}-${place}`;
  #ending = [];
  #folder = mkdtempSync(join(tmpdir(), 'rivero-nat-'));
  #remove = () => {
    for (const place of Object.keys(PLACES)) spawnSync('ip', ['netns', 'del', this.#name(place)], { stdio: 'ignore' });
    rmSync(this.#folder, { recursive: true, force: true });
  };

  /** `site` and `home` are what their routers do; without it they only pass on. */
  constructor({ site = {}, home = {} }) {
    process.once('exit', this.#remove);
    try {
      this.#build(site, home);
    } catch (error) {
      this.#remove();
      throw error;
    }
  }

  #build(site, home) {
    const name = this.#name;
    const lines = Object.keys(PLACES).flatMap((place) => [`ip netns add ${name(place)}`, `ip -n ${name(place)} link set lo up`]);
    CABLES.forEach(([left, leftAddress, right, rightAddress], number) => {
      const to = { net: `c${number}`, server: 'eth0', client: 'eth0', relay: 'eth0' };
      // A router's own two sides.
      const near = to[left] ?? 'outside';
      const far = to[right] ?? 'inside';
      lines.push(
        `ip link add ${near} netns ${name(left)} type veth peer name ${far} netns ${name(right)}`,
        `ip -n ${name(left)} address add ${leftAddress} dev ${near}`,
        `ip -n ${name(right)} address add ${rightAddress} dev ${far}`,
        `ip -n ${name(left)} link set ${near} up`,
        `ip -n ${name(right)} link set ${far} up`,
      );
    });
    for (const [place, via] of Object.entries(ROUTES)) lines.push(`ip -n ${name(place)} route add default via ${via}`);
    for (const place of ['site', 'net', 'home']) {
      lines.push(`ip netns exec ${name(place)} sh -c 'echo 1 > /proc/sys/net/ipv4/ip_forward'`);
    }
    for (const [place, router] of Object.entries({ site, home })) {
      const file = join(this.#folder, `${place}.nft`);
      writeFileSync(file, rules(router));
      lines.push(`ip netns exec ${name(place)} nft -f ${file}`);
    }
    sh(lines.join('\n'));
  }

  /** A place gives up its address on the side of the internet, and has another one of the same net. */
  move(place, address) {
    const device = place === 'client' ? 'eth0' : 'outside';
    const own = `ip -n ${this.#name(place)}`;
    sh(`${own} address flush dev ${device}
      ${own} address add ${address}/24 dev ${device}
      ${own} route add default via ${ROUTES[place]}`);
  }

  /** Words before a command that put it into a place. */
  at = (place) => ['ip', 'netns', 'exec', this.#name(place)];

  /** A program that runs another one in a place, for those who take a path alone. */
  wrapper(place, program) {
    const file = join(this.#folder, `${place}-program`);
    writeFileSync(file, `#!/bin/sh\nexec ip netns exec ${this.#name(place)} ${program} "$@"\n`);
    chmodSync(file, 0o755);
    return file;
  }

  /** A local address in one place (here, without one) that leads to a local address of another. */
  async lead({ from, to, address }) {
    const url = new URL(address);
    const way = await tunnel({ from: from && this.#name(from), to: to && this.#name(to), port: url.port });
    this.#ending.push(() => way.stop());
    url.port = way.port;
    url.hostname = '127.0.0.1';
    return url.href.replace(/\/$/, '');
  }

  async stop() {
    for (const end of this.#ending.reverse()) await end();
    this.#remove();
    process.off('exit', this.#remove);
  }
}
