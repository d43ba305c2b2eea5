// GStreamer's rtpbin as a peer of plain RTP: it sends a moving ball and a tone, or receives, decodes and
// hands over what came of it.
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';

import { CODECS, targets } from './ffmpeg.mjs';

const WIDTH = 64;
const HEIGHT = 48;

/** How each codec is made into packets, and made out of them again. */
const CHAINS = {
  VP8: {
    make: (distance) => `vp8enc deadline=1 cpu-used=8 target-bitrate=400000 keyframe-max-dist=${distance} ! rtpvp8pay`,
    take: 'rtpvp8depay ! vp8dec',
    clock: 90_000,
  },
  H264: {
    make: (distance) => `openh264enc complexity=low bitrate=400000 gop-size=${distance} ! rtph264pay config-interval=-1`,
    take: 'rtph264depay ! h264parse ! openh264dec',
    clock: 90_000,
  },
  opus: { make: () => 'opusenc ! rtpopuspay', take: 'rtpopusdepay ! opusdec', clock: 48_000 },
  PCMU: { make: () => 'mulawenc ! rtppcmupay', take: 'rtppcmudepay ! mulawdec', clock: 8_000 },
};

function run(pipeline, pipes) {
  const words = pipeline.flatMap((part) => part.trim().split(/\s+/));
  const child = spawn('gst-launch-1.0', ['-q', ...words], { stdio: ['ignore', pipes ? 'pipe' : 'ignore', 'pipe', ...(pipes ? ['pipe'] : [])] });
  const kill = () => child.kill('SIGKILL');
  process.once('exit', kill);
  let log = '';
  child.stderr.on('data', (bytes) => { log = (log + bytes).slice(-20_000); });
  const exited = new Promise((resolve) => {
    child.once('exit', resolve);
    child.once('error', (error) => { log += error.message; resolve(); });
  });
  return {
    child,
    log: () => log,
    async stop() {
      kill();
      await exited;
      process.off('exit', kill);
    },
  };
}

/** The parts of a session that carry reports both ways. */
const reports = (session, local, { address, port }) => [
  `udpsrc address=127.0.0.1 port=${local} ! bin.recv_rtcp_sink_${session}`,
  `bin.send_rtcp_src_${session} ! udpsink host=${address} port=${port} sync=false async=false`,
];

/**
 * Sends until it is stopped. `ports` are its own, as described; every `distance`-th picture is whole, and
 * one more whenever it is asked for, if the profile has feedback.
 */
export function send({ audio, video, ports, answer, feedback, distance }) {
  const { address, ports: to } = targets(answer);
  const sources = [
    'audiotestsrc is-live=true wave=sine freq=440 ! audioconvert ! audioresample !',
    'videotestsrc is-live=true pattern=ball ! video/x-raw,format=I420,width=320,height=240,framerate=15/1 !',
  ];
  return run([
    `rtpbin name=bin rtp-profile=${feedback ? 'avpf' : 'avp'}`,
    ...[audio, video].flatMap((codec, session) => [
      `${sources[session]} ${CHAINS[codec].make(distance)} pt=${CODECS[codec].number} ! bin.send_rtp_sink_${session}`,
      `bin.send_rtp_src_${session} ! udpsink host=${address} port=${to[session]} sync=false async=false`,
      ...reports(session, ports[session] + 1, { address, port: to[session] + 1 }),
    ]),
  ]);
}

/** Receives until it is stopped, and decodes: how many pictures came, how many differ, how loud it is. */
export function receive({ audio, video, ports, answer, feedback }) {
  const { address, ports: to } = targets(answer);
  const sinks = [
    'audioconvert ! audioresample ! audio/x-raw,format=S16LE,rate=8000,channels=1 ! fdsink fd=3 sync=false',
    `videoconvert ! videoscale ! video/x-raw,format=GRAY8,width=${WIDTH},height=${HEIGHT} ! fdsink fd=1 sync=false`,
  ];
  const one = run([
    `rtpbin name=bin latency=100 rtp-profile=${feedback ? 'avpf' : 'avp'}`,
    ...[audio, video].flatMap((codec, session) => [
      `udpsrc address=127.0.0.1 port=${ports[session]} caps=${described(session, codec, feedback)} ! bin.recv_rtp_sink_${session}`,
      `bin. ! ${CHAINS[codec].take} ! queue ! ${sinks[session]}`,
      ...reports(session, ports[session] + 1, { address, port: to[session] + 1 }),
    ]),
  ], true);
  let rest = Buffer.alloc(0);
  let [frames, energy, samples] = [0, 0, 0];
  const sums = new Set();
  one.child.stdout.on('data', (bytes) => {
    rest = Buffer.concat([rest, bytes]);
    for (const size = WIDTH * HEIGHT; rest.length >= size; rest = rest.subarray(size)) {
      frames += 1;
      sums.add(createHash('md5').update(rest.subarray(0, size)).digest('hex'));
    }
  });
  one.child.stdio[3].on('data', (bytes) => {
    for (let at = 0; at + 1 < bytes.length; at += 2) energy += (bytes.readInt16LE(at) / 32_768) ** 2;
    samples += bytes.length / 2;
  });
  return {
    ...one,
    seen: () => ({ frames, different: sums.size, seconds: samples / 8_000, loudness: Math.sqrt(energy / Math.max(samples, 1)) }),
  };
}

function described(session, codec, feedback) {
  const { clock } = CHAINS[codec];
  const media = ['audio', 'video'][session];
  const asks = feedback && media === 'video' ? ',rtcp-fb-nack=(boolean)true,rtcp-fb-nack-pli=(boolean)true' : '';
  return `application/x-rtp,media=${media},clock-rate=${clock},encoding-name=${codec.toUpperCase()},payload=${CODECS[codec].number}${asks}`;
}
