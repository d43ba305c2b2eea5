// The relay as the bench uses it: a process for each network, told at which port the server is, and put
// between a participant of an application and the server. The browser is told of the relay's port, and
// the server of no address of the browser's: it learns from the checks where the browser seems to be.
import { execFileSync, spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

import { binary as server } from '../../tests/e2e/support/server.mjs';

const HERE = dirname(fileURLToPath(import.meta.url));
export const TRACES = join(HERE, 'traces');

/** `RELAY_BIN`, or what lies beside the server's binary; built now if it is nowhere. */
export function binary() {
  if (process.env.RELAY_BIN) return process.env.RELAY_BIN;
  const found = join(dirname(server()), 'rivero-relay');
  if (existsSync(found)) return found;
  const built = execFileSync(
    'cargo',
    ['build', '--release', '--locked', '--package', 'rivero-network', '--message-format=json'],
    { cwd: HERE, encoding: 'utf8', maxBuffer: 64 << 20, stdio: ['ignore', 'pipe', 'inherit'] },
  );
  return built.split('\n').filter(Boolean).map((line) => JSON.parse(line)).findLast(({ executable }) => executable).executable;
}

export class Relay {
  #child;
  #answers = [];
  #folder = mkdtempSync(join(tmpdir(), 'rivero-relay-'));
  #ports = new Map();

  /** Over a network as `trace` describes it: the name of one of the bench's. */
  constructor(trace, { seed = 1, seconds = 600 } = {}) {
    this.trace = trace;
    const flags = ['--trace', join(TRACES, `${trace}.trace`), '--seed', `${seed}`, '--log', this.#log, '--seconds', `${seconds}`];
    this.#child = spawn(binary(), flags, { stdio: ['pipe', 'pipe', 'inherit'] });
    this.exited = new Promise((resolve) => {
      this.#child.once('exit', resolve);
      this.#child.once('error', resolve);
    });
    this.exited.then(() => { for (const { reject } of this.#answers.splice(0)) reject(new Error('The relay has ended')); });
    this.#child.stdin.on('error', () => {});
    createInterface({ input: this.#child.stdout }).on('line', (line) => {
      const { resolve, reject } = this.#answers.shift();
      const answer = JSON.parse(line);
      if (answer.error) reject(new Error(`The relay: ${answer.error}`));
      else resolve(answer);
    });
  }

  get #log() { return join(this.#folder, 'log'); }

  #ask(command) {
    return new Promise((resolve, reject) => {
      this.#answers.push({ resolve, reject });
      this.#child.stdin.write(`${command}\n`);
    });
  }

  /** The time of the trace begins; when that is, in milliseconds since 1970. */
  async start() {
    ({ started: this.started } = await this.#ask('start'));
    return this.started;
  }

  /** Puts the network between a participant of the application and the server. */
  between(participant) {
    const send = participant.send.bind(participant);
    participant.send = async (message) => {
      if (message.id !== 'iceCandidate') return send(message);
      const candidate = await this.#translate(message.candidate);
      return candidate && send({ ...message, candidate });
    };
    participant.addCandidate = async () => {};
  }

  async #translate({ candidate, sdpMid, sdpMLineIndex }) {
    const words = candidate.split(' ');
    // One way is enough.
    if (words[2] !== 'UDP' || words[4] !== '127.0.0.1') return null;
    const address = `127.0.0.1:${words[5]}`;
    if (!this.#ports.has(address)) this.#ports.set(address, this.#ask(`to ${address}`));
    words[5] = `${(await this.#ports.get(address)).port}`;
    return { candidate: words.join(' '), sdpMid, sdpMLineIndex };
  }

  /** Ends it; what it wrote down. */
  async stop() {
    this.#child.stdin.end();
    await this.exited;
    const lines = readFileSync(this.#log, 'utf8').split('\n').filter(Boolean);
    rmSync(this.#folder, { recursive: true });
    return lines.map((line) => JSON.parse(line));
  }
}
