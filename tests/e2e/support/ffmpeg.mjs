// ffmpeg as a peer of plain RTP: it sends a moving picture and a tone, and it receives, decodes and says
// what came of it.
import { spawn } from 'node:child_process';
import { createSocket } from 'node:dgram';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const QUIET = ['-hide_banner', '-nostats', '-loglevel', 'info'];
const SUITE = 'AES_CM_128_HMAC_SHA1_80';

/** How each codec is encoded, and how a description names it. */
export const CODECS = {
  VP8: {
    number: 97,
    encoder: ['libvpx', '-deadline', 'realtime', '-cpu-used', '8', '-b:v', '400k'],
    lines: ['a=rtpmap:97 VP8/90000'],
  },
  H264: {
    number: 98,
    encoder: ['libx264', '-preset', 'ultrafast', '-tune', 'zerolatency', '-profile:v', 'baseline'],
    lines: ['a=rtpmap:98 H264/90000', 'a=fmtp:98 packetization-mode=1'],
  },
  H265: {
    number: 99,
    encoder: ['libx265', '-preset', 'ultrafast', '-tune', 'zerolatency',
      '-x265-params', 'log-level=error:repeat-headers=1:keyint=15:bframes=0'],
    lines: ['a=rtpmap:99 H265/90000'],
  },
  opus: { number: 96, encoder: ['libopus', '-b:a', '48k'], lines: ['a=rtpmap:96 opus/48000/2'] },
  PCMU: { number: 0, encoder: ['pcm_mulaw', '-ar', '8000', '-ac', '1'], lines: ['a=rtpmap:0 PCMU/8000'] },
};

/** A port with a free one behind it, both bound to nobody when this returns. */
export async function freePorts() {
  for (;;) {
    const socket = createSocket('udp4');
    const port = await new Promise((resolve) => {
      socket.bind(0, '127.0.0.1', () => resolve(socket.address().port));
    });
    const next = createSocket('udp4');
    const free = await new Promise((resolve) => {
      next.once('error', () => resolve(false));
      next.bind(port + 1, '127.0.0.1', () => resolve(true));
    });
    socket.close();
    if (free) next.close();
    if (free && port % 2 === 0) return port;
  }
}

/**
 * A description of one sound and one picture, each with a port. `key`, in Base64, makes it one with
 * keys; `more` is added to each section.
 */
export function describe({ audio, video, ports, direction, key, more = [] }) {
  const section = (kind, codec, port) => [
    `m=${kind} ${port} RTP/${key ? 'SAVP' : 'AVP'} ${CODECS[codec].number}`,
    ...CODECS[codec].lines,
    ...(key ? [`a=crypto:1 ${SUITE} inline:${key}`] : []),
    `a=${direction}`,
    ...more,
  ];
  return ['v=0', 'o=- 0 0 IN IP4 127.0.0.1', 's=ffmpeg', 'c=IN IP4 127.0.0.1', 't=0 0',
    ...section('audio', audio, ports[0]), ...section('video', video, ports[1]), ''].join('\r\n');
}

/** Where the server of that description receives: an address, and a port for each section. */
export function targets(description) {
  const ports = [...description.matchAll(/^m=\w+ (\d+)/gm)].map((match) => Number(match[1]));
  return { address: /^c=IN IP4 (\S+)/m.exec(description)[1], ports };
}

function run(args) {
  const child = spawn('ffmpeg', [...QUIET, ...args], { stdio: ['ignore', 'pipe', 'pipe'] });
  const kill = () => child.kill('SIGKILL');
  process.once('exit', kill);
  let [out, log] = ['', ''];
  child.stdout.on('data', (bytes) => { out += bytes; });
  child.stderr.on('data', (bytes) => { log = (log + bytes).slice(-20_000); });
  const exited = new Promise((resolve) => { child.once('exit', resolve); });
  exited.then(() => process.off('exit', kill));
  return {
    exited: exited.then(() => ({ out, log })),
    log: () => log,
    async stop() {
      kill();
      await exited;
    },
  };
}

/** Sends until it is stopped. */
export function send({ audio, video, answer, key }) {
  const { address, ports } = targets(answer);
  const to = (port) => `${key ? 'srtp' : 'rtp'}://${address}:${port}`;
  const sealed = key ? ['-srtp_out_suite', SUITE, '-srtp_out_params', key] : [];
  const output = (codec, map, port) => [
    '-map', map, map === '0:v' ? '-c:v' : '-c:a', ...CODECS[codec].encoder,
    '-payload_type', `${CODECS[codec].number}`, '-f', 'rtp', ...sealed, to(port),
  ];
  return run([
    '-re', '-f', 'lavfi', '-i', 'testsrc2=size=320x240:rate=15',
    '-re', '-f', 'lavfi', '-i', 'sine=frequency=440:sample_rate=48000',
    ...output(audio, '1:a', ports[0]),
    '-g', '15', '-pix_fmt', 'yuv420p', ...output(video, '0:v', ports[1]),
  ]);
}

/**
 * Decodes what comes until there were so many pictures and seconds of sound: how many of the pictures
 * differ, and how loud the sound is on average, in decibels.
 */
export async function receive({ pictures: enough, seconds, description }) {
  const folder = mkdtempSync(join(tmpdir(), 'rivero-ffmpeg-'));
  const file = join(folder, 'in.sdp');
  writeFileSync(file, description);
  const child = run([
    '-protocol_whitelist', 'file,rtp,srtp,udp', '-i', file,
    '-frames:v', `${enough}`, '-map', '0:v', '-f', 'framemd5', '-',
    '-t', `${seconds}`, '-map', '0:a', '-af', 'volumedetect', '-f', 'null', '-',
  ]);
  const { out, log } = await child.exited;
  rmSync(folder, { recursive: true });
  const pictures = out.split('\n').filter((line) => line && !line.startsWith('#'));
  const sums = pictures.map((line) => line.split(',').at(-1).trim());
  const volume = /mean_volume: (-?[\d.]+) dB/.exec(log);
  return {
    frames: pictures.length,
    different: new Set(sums).size,
    decibels: volume ? Number(volume[1]) : -Infinity,
    log,
  };
}
