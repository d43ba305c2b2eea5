// The server under test: started on free ports, stopped at the end, what it printed kept.
import { execFileSync, spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const ROOT = join(dirname(fileURLToPath(import.meta.url)), '../../..');
const START_MS = 10_000;
const STOP_MS = 5_000;
const KEPT_CHARACTERS = 200_000;

/** `RIVERO_BIN`, or the newest build that Cargo knows the place of. */
export function binary() {
  if (process.env.RIVERO_BIN) return process.env.RIVERO_BIN;
  const metadata = JSON.parse(
    execFileSync('cargo', ['metadata', '--no-deps', '--format-version=1'], {
      cwd: ROOT,
      maxBuffer: 64 << 20,
      stdio: ['ignore', 'pipe', 'ignore'],
    }),
  );
  const host = /^host: (.*)$/m.exec(execFileSync('rustc', ['-vV'], { encoding: 'utf8' }))[1];
  const found = ['release', 'debug']
    .flatMap((profile) => [join(host, profile), profile])
    .map((folder) => join(metadata.target_directory, folder, 'rivero'))
    .find(existsSync);
  if (!found) throw new Error('No build of rivero was found: run `cargo build --release`.');
  return found;
}

/**
 * Starts a server. `address` is its HTTP address, `kurento` its WebSocket address. `command` may
 * start it in another way than by its name, `env` holds further variables, and `reach` says at which
 * address it is reached from here, if at another one.
 */
export async function startServer({ flags = [], command = [binary()], env = {}, reach } = {}) {
  const [program, ...before] = command;
  const child = spawn(program, [...before, '--bind', '127.0.0.1', '--port', '0', ...flags], {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { RUST_LOG: 'rivero=debug,info', RUST_BACKTRACE: '1', ...process.env, ...env },
  });
  // A test that failed half-way or ran out of time leaves no server behind.
  const kill = () => child.kill('SIGKILL');
  process.once('exit', kill);
  let output = '';
  const exited = new Promise((resolve) => {
    child.once('exit', (code, signal) => resolve(signal ?? code));
    child.once('error', (error) => resolve(error.message));
  });
  exited.then(() => process.off('exit', kill));
  const own = await new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`The server is not ready:\n${output}`)), START_MS);
    const take = (bytes) => {
      output = (output + bytes).slice(-KEPT_CHARACTERS);
      const ready = /Rivero is ready: (http:\/\/\S+?)\/?\s/.exec(output);
      if (ready) {
        clearTimeout(timer);
        resolve(ready[1]);
      }
    };
    child.stdout.on('data', take);
    child.stderr.on('data', take);
    exited.then((how) => {
      clearTimeout(timer);
      reject(new Error(`The server ended early (${how}):\n${output}`));
    });
  }).catch((error) => {
    child.kill('SIGKILL');
    throw error;
  });
  const address = await reach?.(own) ?? own;

  return {
    address,
    pid: child.pid,
    kurento: `${address.replace(/^http/, 'ws')}/kurento`,
    output: () => output,
    /** Asks the server to end; how it did: an exit code or a signal's name. */
    async stop() {
      child.kill('SIGTERM');
      const timer = setTimeout(() => child.kill('SIGKILL'), STOP_MS);
      const how = await exited;
      clearTimeout(timer);
      return how;
    },
  };
}
