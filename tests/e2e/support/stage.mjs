// What a test stands on: a server, a browser, an application between them; all of it ended
// afterwards, and what it said shown when the test failed.
import { mkdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

import { Application } from './application.mjs';
import { launchBrowser } from './browser.mjs';
import { connect, leave } from './kurento.mjs';
import { joining } from './participant.mjs';
import { startServer } from './server.mjs';

export const OUTPUT = join(dirname(fileURLToPath(import.meta.url)), '../output');
const SHOWN_LINES = 150;

class Stage {
  #ending = [];
  #pages = 0;
  said = [];
  failed = false;

  constructor(context) {
    this.context = context;
  }

  /** Runs `end` after the test, last come first. */
  later(end) {
    this.#ending.push(end);
  }

  async open({ browser = launchBrowser, ...options }) {
    this.server = await startServer(options);
    this.later(() => this.server.stop());
    this.browser = await this.launched(browser());
  }

  /** A browser that is being started, once it is; it is closed at the end. */
  async launched(starting) {
    const browser = await starting;
    this.later(() => browser.close());
    return browser;
  }

  /** A client of the media server, as an application would open it. */
  async kurento() {
    const client = await connect(this.server.kurento);
    this.later(() => leave(client));
    return client;
  }

  /** An application server with the given behaviour, and its page's address. */
  async application(behaviour) {
    const application = await Application.start(await this.kurento(), behaviour);
    this.later(() => application.stop());
    return application;
  }

  async page(address, browser = this.browser) {
    const page = await browser.newPage();
    this.#pages += 1;
    const name = `page ${this.#pages}`;
    page.on('console', (message) => this.said.push(`${name}: ${message.text()}`));
    page.on('pageerror', (error) => this.said.push(`${name}: ${error.stack}`));
    await page.goto(address);
    return page;
  }

  /** A new page whose participant joins the application's call. */
  async join(application, options, browser) {
    const page = await this.page(application.address, browser);
    return joining(page, options);
  }

  async close() {
    for (const end of this.#ending.reverse()) {
      try {
        await end();
      } catch (error) {
        this.said.push(`at the end: ${error.stack}`);
      }
    }
  }

  /** What everybody said, for a failed test. */
  report() {
    const log = this.server?.output().trimEnd().split('\n').slice(-SHOWN_LINES) ?? [];
    return [...this.said.slice(-SHOWN_LINES), '--- the server:', ...log];
  }
}

/**
 * A test on a stage of its own; `browser` starts another one than Chromium, and `prepare` does what has to
 * come before the server, and may return more of its options.
 */
export function staged(name, { timeout = 60_000, flags, browser, prepare } = {}, run) {
  test(name, { timeout }, async (context) => {
    const stage = new Stage(context);
    // The runner abandons a test whose time is up; the report has to come before that.
    const late = setTimeout(() => stage.report().forEach((line) => context.diagnostic(line)), timeout - 500);
    try {
      mkdirSync(OUTPUT, { recursive: true });
      await stage.open({ flags, browser, ...await prepare?.(stage) });
      await run(stage);
    } catch (error) {
      stage.failed = true;
      stage.report().forEach((line) => context.diagnostic(line));
      throw error;
    } finally {
      clearTimeout(late);
      await stage.close();
    }
  });
}
