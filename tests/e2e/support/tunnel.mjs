// Ways for TCP connections between network namespaces, over sockets in the file system, which belong to
// none of them. What is tested in there sees no more network than it is given.
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const OWN = fileURLToPath(import.meta.url);

/** Where connections come from or go to: a path, or a port of this namespace. */
const place = (text) => (/^\d+$/.test(text) ? { host: '127.0.0.1', port: Number(text) } : { path: text });

/** Listens at one place and connects to another; the port, if it listens at one. */
async function pass(from, to) {
  const sockets = new Set();
  const server = createServer((near) => {
    const far = connect(place(to));
    for (const [socket, other] of [[near, far], [far, near]]) {
      sockets.add(socket);
      socket.on('error', () => other.destroy());
      socket.on('close', () => { sockets.delete(socket); other.destroy(); });
      socket.pipe(other);
    }
  });
  await new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen(place(from), resolve);
  });
  return {
    port: server.address().port,
    async stop() {
      const closed = new Promise((resolve) => { server.close(resolve); });
      for (const socket of sockets) socket.destroy();
      await closed;
    },
  };
}

/** The same in a namespace, by a process of its own; here if there is none. */
async function passIn(namespace, from, to) {
  if (!namespace) return pass(from, to);
  const child = spawn('ip', ['netns', 'exec', namespace, process.execPath, OWN, from, to], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  const exited = new Promise((resolve) => { child.once('exit', resolve); child.once('error', resolve); });
  const line = await Promise.race([
    new Promise((resolve) => { child.stdout.once('data', (bytes) => resolve(`${bytes}`)); }),
    exited.then(() => { throw new Error(`no tunnel in ${namespace}`); }),
  ]);
  return {
    port: Number(line),
    // It ends with its input.
    async stop() { child.stdin.end(); await exited; },
  };
}

/** A port in one namespace (or here) that leads to a port of another. */
export async function tunnel({ from, to, port }) {
  const folder = mkdtempSync(join(tmpdir(), 'rivero-tunnel-'));
  const path = join(folder, 'way');
  const far = await passIn(to, path, `${port}`);
  const near = await passIn(from, '0', path);
  return {
    port: near.port,
    async stop() {
      await near.stop();
      await far.stop();
      rmSync(folder, { recursive: true });
    },
  };
}

if (process.argv[1] === OWN) {
  const [from, to] = process.argv.slice(2);
  const { port } = await pass(from, to);
  process.stdout.write(`${port ?? 0}\n`);
  process.stdin.resume().on('end', () => process.exit());
}
