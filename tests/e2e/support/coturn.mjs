// A real TURN server: coturn on addresses of this machine, with a user and a certificate of its own.
import { execFileSync, spawn } from 'node:child_process';
import { createServer } from 'node:net';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

export const USER = 'caller';
export const PASSWORD = 'correct horse';
const START_MS = 15_000;

/** Ports that are free right now. */
async function freePorts(count, address) {
  const servers = await Promise.all(Array.from({ length: count }, () => new Promise((resolve, reject) => {
    const server = createServer();
    server.once('error', reject);
    server.listen(0, address, () => resolve(server));
  })));
  const ports = servers.map((server) => server.address().port);
  await Promise.all(servers.map((server) => new Promise((resolve) => { server.close(resolve); })));
  return ports;
}

/**
 * Starts coturn at `address`. `before` are words of the command line before its name. `certificate` is a
 * file that a client has to trust for TLS; `url` says what a `turnUrl` needs.
 */
export async function startCoturn({ address = '127.0.0.1', ports, before = [] } = {}) {
  const folder = mkdtempSync(join(tmpdir(), 'rivero-coturn-'));
  const [key, certificate] = [join(folder, 'key.pem'), join(folder, 'certificate.pem')];
  execFileSync('openssl', ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes',
    '-keyout', key, '-out', certificate, '-days', '2', '-subj', '/CN=a relay of Rivero',
    // Unless it says so, it is made one that vouches for others, which is none for a server.
    '-addext', 'basicConstraints=critical,CA:FALSE', '-addext', `subjectAltName=DNS:localhost,IP:${address}`],
  { stdio: 'ignore' });
  const [plain, tls] = ports ?? await freePorts(2, address);
  const program = [...before, 'turnserver'];
  const child = spawn(program[0], [...program.slice(1), '-n', '--no-cli', '--lt-cred-mech', '--realm=rivero.test',
    `--user=${USER}:${PASSWORD}`, `--listening-ip=${address}`, `--relay-ip=${address}`, '--allow-loopback-peers',
    `--listening-port=${plain}`, `--tls-listening-port=${tls}`, `--cert=${certificate}`, `--pkey=${key}`,
    '--log-file=stdout', '--simple-log', '--verbose', '--no-dtls', '--relay-threads=1',
    `--pidfile=${join(folder, 'pid')}`, `--userdb=${join(folder, 'users')}`],
  { stdio: ['ignore', 'pipe', 'pipe'], cwd: folder });
  const kill = () => child.kill('SIGKILL');
  process.once('exit', kill);
  let log = '';
  const exited = new Promise((resolve) => {
    child.once('exit', resolve);
    child.once('error', (error) => { log += error.message; resolve(); });
  });
  const stop = async () => {
    kill();
    await exited;
    process.off('exit', kill);
    rmSync(folder, { recursive: true });
  };
  const take = (bytes) => { log = (log + bytes).slice(-200_000); };
  child.stdout.on('data', take);
  child.stderr.on('data', take);
  let gone = false;
  exited.then(() => { gone = true; });
  const late = performance.now() + START_MS;
  while (!log.includes(`TLS/TCP listener opened on : ${address}:${tls}`) && !log.includes('Total auth threads')) {
    if (gone || performance.now() > late) {
      await stop();
      throw new Error(`coturn does not run:\n${log}`);
    }
    await new Promise((resolve) => { setTimeout(resolve, 50); });
  }
  return {
    address,
    port: plain,
    certificate,
    log: () => log,
    /** For `setTurnUrl`. */
    url: (transport, { password = PASSWORD, host = address.includes(':') ? `[${address}]` : address } = {}) => (
      `${USER}:${password}@${host}:${transport === 'tls' ? tls : plain}?transport=${transport}`),
    stop,
  };
}
