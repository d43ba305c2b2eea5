// Headless Firefox with a made-up camera (colours that change) and microphone (a tone), driven over
// WebDriver BiDi, which the browser speaks by itself. Of a page there is here what the tests use, under
// the names that Playwright has for it; Playwright's own way to Firefox asks the distributions'
// releases for commands that they do not know.
import { spawn } from 'node:child_process';
import { EventEmitter } from 'node:events';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import WebSocket from 'ws';

const PLACES = ['/usr/bin/firefox-esr', '/usr/bin/firefox'];
const START_MS = 60_000;
const END_MS = 5_000;

const PREFERENCES = {
  'media.navigator.streams.fake': true,
  'media.navigator.permission.disabled': true,
  'media.autoplay.default': 0,
  'media.autoplay.blocking_policy': 0,
  // Loudspeakers that nobody hears: without any, an AudioContext never runs.
  'media.cubeb.force_mock_context': true,
  // The server is on this machine, and so is what there is of a network.
  'media.peerconnection.ice.loopback': true,
  'media.peerconnection.ice.obfuscate_host_addresses': false,
  // Nothing is downloaded: neither codecs nor lists nor the browser itself.
  'media.gmp-manager.updateEnabled': false,
  'media.gmp-manager.url': '',
  'app.update.disabledForTesting': true,
  'app.normandy.enabled': false,
  'browser.safebrowsing.malware.enabled': false,
  'browser.safebrowsing.phishing.enabled': false,
  'browser.newtabpage.enabled': false,
  'browser.startup.homepage_override.mstone': 'ignore',
  'browser.shell.checkDefaultBrowser': false,
  'captivedetect.canonicalURL': '',
  'datareporting.policy.dataSubmissionEnabled': false,
  'extensions.systemAddon.update.enabled': false,
  'network.captive-portal-service.enabled': false,
  'network.connectivity-service.enabled': false,
  'services.settings.server': '',
  'toolkit.telemetry.enabled': false,
  // Several windows take part in one call; none of them may be slowed down.
  'dom.min_background_timeout_value': 4,
  'dom.timeout.enable_budget_timer_throttling': false,
  'widget.windows.window_occlusion_tracking.enabled': false,
};

/** Commands and their answers, over one WebSocket. */
class Connection extends EventEmitter {
  #socket;
  #last = 0;
  #waiting = new Map();

  static async open(url) {
    const connection = new Connection();
    connection.#socket = new WebSocket(url, { maxPayload: 256 << 20 });
    await new Promise((resolve, reject) => {
      connection.#socket.once('open', resolve);
      connection.#socket.once('error', reject);
    });
    connection.#socket.on('message', (text) => connection.#take(JSON.parse(text)));
    connection.#socket.on('close', () => connection.#end());
    return connection;
  }

  #take(message) {
    const waiting = this.#waiting.get(message.id);
    this.#waiting.delete(message.id);
    if (message.type === 'event') this.emit(message.method, message.params);
    else if (message.type === 'success') waiting?.resolve(message.result);
    else waiting?.reject(new Error(`${waiting.method}: ${message.message ?? message.error}`));
  }

  #end() {
    for (const { method, reject } of this.#waiting.values()) reject(new Error(`${method}: Firefox is gone`));
    this.#waiting.clear();
  }

  command(method, params = {}) {
    if (this.#socket.readyState !== WebSocket.OPEN) throw new Error(`${method}: Firefox is gone`);
    this.#last += 1;
    const id = this.#last;
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { method, resolve, reject });
      this.#socket.send(JSON.stringify({ id, method, params }));
    });
  }

  close() {
    this.#socket.terminate();
  }
}

/** A value that stays in the page. */
class Handle {
  constructor(page, handle) {
    this.page = page;
    this.handle = handle;
  }

  evaluate = (work, value) => this.page.call(work, value, this);
}

class Page extends EventEmitter {
  #connection;
  #context;

  constructor(connection, context) {
    super();
    this.#connection = connection;
    this.#context = context;
    connection.on('log.entryAdded', ({ text, type, source }) => {
      if (source.context !== context) return;
      if (type === 'javascript') this.emit('pageerror', { stack: text });
      else this.emit('console', { text: () => text });
    });
  }

  async goto(url) {
    await this.#connection.command('browsingContext.navigate', { context: this.#context, url, wait: 'complete' });
  }

  async close() {
    await this.#connection.command('browsingContext.close', { context: this.#context });
  }

  /** Values travel as JSON, whole; a handle goes first. */
  async call(work, value, handle) {
    const json = JSON.stringify([value]);
    const result = await this.#run(
      `async (json, ...first) => JSON.stringify(await (${work})(...first, ...JSON.parse(json)))`,
      [{ type: 'string', value: json }, ...(handle ? [{ handle: handle.handle }] : [])],
      'none',
    );
    return result.type === 'string' ? JSON.parse(result.value) : undefined;
  }

  evaluate = (work, value) => this.call(work, value);

  async evaluateHandle(work, value) {
    const json = JSON.stringify([value]);
    const result = await this.#run(
      `async (json) => (${work})(...JSON.parse(json))`,
      [{ type: 'string', value: json }],
      'root',
    );
    return new Handle(this, result.handle);
  }

  async #run(functionDeclaration, values, resultOwnership) {
    const { type, result, exceptionDetails } = await this.#connection.command('script.callFunction', {
      functionDeclaration,
      arguments: values,
      target: { context: this.#context },
      awaitPromise: true,
      resultOwnership,
      serializationOptions: { maxObjectDepth: 0 },
      userActivation: true,
    });
    if (type === 'exception') throw new Error(exceptionDetails.text);
    return result;
  }
}

class Firefox {
  #child;
  #profile;
  #exited;
  #connection;
  #kill = () => this.#child.kill('SIGKILL');

  static async launch(preferences, command) {
    const firefox = new Firefox();
    try {
      await firefox.#start(preferences, command);
    } catch (error) {
      await firefox.close();
      throw error;
    }
    return firefox;
  }

  async #start(preferences, [program, ...before]) {
    this.#profile = mkdtempSync(join(tmpdir(), 'rivero-firefox-'));
    const lines = Object.entries({ ...PREFERENCES, ...preferences })
      .map(([name, value]) => `user_pref(${JSON.stringify(name)}, ${JSON.stringify(value)});\n`);
    writeFileSync(join(this.#profile, 'user.js'), lines.join(''));
    this.#child = spawn(
      program,
      [...before, '--headless', '--no-remote', '--profile', this.#profile, '--remote-debugging-port', '0', 'about:blank'],
      {
        stdio: ['ignore', 'ignore', 'pipe'],
        env: { ...process.env, HOME: this.#profile, MOZ_CRASHREPORTER_DISABLE: '1' },
      },
    );
    process.once('exit', this.#kill);
    this.#exited = new Promise((resolve) => {
      this.#child.once('exit', resolve);
      this.#child.once('error', resolve);
    });
    let log = '';
    const address = await new Promise((resolve, reject) => {
      const fail = (why) => reject(new Error(`Firefox ${why}:\n${log}`));
      const timer = setTimeout(() => fail('is not ready'), START_MS);
      this.#exited.then(() => { clearTimeout(timer); fail('ended early'); });
      this.#child.stderr.on('data', (bytes) => {
        log = (log + bytes).slice(-20_000);
        const ready = /WebDriver BiDi listening on (ws:\S+)/.exec(log);
        if (ready) { clearTimeout(timer); resolve(ready[1]); }
      });
    });
    this.#connection = await Connection.open(`${address}/session`);
    await this.#connection.command('session.new', { capabilities: {} });
    await this.#connection.command('session.subscribe', { events: ['log.entryAdded'] });
  }

  /** A window of its own, for one that lies behind another is given less to do. */
  async newPage() {
    const { context } = await this.#connection.command('browsingContext.create', { type: 'window' });
    return new Page(this.#connection, context);
  }

  async close() {
    if (this.#child) {
      this.#connection?.command('browser.close').catch(() => {});
      const timer = setTimeout(this.#kill, this.#connection ? END_MS : 0);
      await this.#exited;
      clearTimeout(timer);
      process.off('exit', this.#kill);
    }
    this.#connection?.close();
    if (this.#profile) rmSync(this.#profile, { recursive: true, force: true, maxRetries: 10, retryDelay: 200 });
  }
}

/** Starts a Firefox; `before` are words of the command line before its name. */
export function launchFirefox({ preferences = {}, before = [] } = {}) {
  const program = process.env.FIREFOX ?? PLACES.find(existsSync);
  if (!program) throw new Error('No Firefox was found: install it, or name it in FIREFOX.');
  return Firefox.launch(preferences, [...before, program]);
}
