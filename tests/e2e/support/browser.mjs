// Headless Chromium with a made-up camera (a moving figure on green) and microphone (beeps).
import { existsSync } from 'node:fs';
import { chromium } from 'playwright-core';

const PLACES = ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'];

const FLAGS = [
  '--use-fake-device-for-media-stream',
  '--use-fake-ui-for-media-stream',
  '--autoplay-policy=no-user-gesture-required',
  // Tests often run as root, and on machines without network or with loopback alone.
  '--no-sandbox',
  '--allow-loopback-in-peer-connection',
  '--disable-gpu',
  '--disable-quic',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
  '--no-first-run',
  // Several pages take part in one call; none of them may be slowed down for not being in front.
  '--disable-background-timer-throttling',
  '--disable-backgrounding-occluded-windows',
  '--disable-renderer-backgrounding',
];

const TRUST = ['--use-fake-ui-for-media-stream', '--allow-loopback-in-peer-connection'];

/** Where Chromium is. */
export function findBrowser() {
  const found = process.env.CHROMIUM ?? PLACES.find(existsSync);
  if (!found) throw new Error('No Chromium was found: install it, or name it in CHROMIUM.');
  return found;
}

/** Without `trusting` it has the camera's permission to ask for, and hides its addresses until then. */
export function launchBrowser({ flags = [], executablePath = findBrowser(), trusting = true } = {}) {
  const own = FLAGS.filter((flag) => trusting || !TRUST.includes(flag));
  return chromium.launch({ executablePath, headless: true, args: [...own, ...flags] });
}
