// What is tried, and what is to be reached.
import { Viewed, atLeast, below, info, infoRate, mbit, percent, within } from './judge.mjs';
import { Stage, pause } from './call.mjs';

const AUDIO = 50_000;
const single = (maxBitrate) => [{ maxBitrate, maxFramerate: 30 }];
const LAYERS = [
  { rid: 'low', scaleResolutionDownBy: 4, maxBitrate: 150_000 },
  { rid: 'middle', scaleResolutionDownBy: 2, maxBitrate: 500_000 },
  { rid: 'high', maxBitrate: 2_000_000 },
];
/** The uppermost layer needs most of 4 Mbit/s. */
const TALL = [{ ...LAYERS[0] }, { ...LAYERS[1], maxBitrate: 650_000 }, { ...LAYERS[2], maxBitrate: 3_300_000 }];
const seconds = (value) => `${value} s`;
const ms = (value) => `${Math.round(value)} ms`;
const pixels = (value) => `${value} lines`;

/** One viewer behind one trace, for so long. */
const watched = ({ trace, length, rate = 2_500_000, layers, size, publisher, codec, control = false }) => async (stage) => {
  await stage.publish({ encodings: layers ?? single(rate), network: publisher, codec });
  await stage.warm(0.8 * (layers ? layers.reduce((sum, { maxBitrate }) => sum + maxBitrate, 0) : rate));
  const viewing = [stage.view('viewer', { trace, seed: 7 })];
  if (control) viewing.push(stage.view('control', {}));
  await Promise.all(viewing);
  await pause(length * 1000);
};

const lossy = (length, limit) => (run) => {
  const viewed = new Viewed(run, 'viewer');
  const [from, to] = [1, length];
  return [
    ...limit(viewed, from, to),
    ...viewed.told(from, to),
    infoRate('arrived', viewed.rate('deliveredBytes', from, to - from)),
  ];
};

const steps = (length, drop, rise, width, narrow) => (run) => {
  const viewed = new Viewed(run, 'viewer');
  const down = drop === undefined ? [] : [
    within('offered less than the new limit after', viewed.firstRate('offeredBytes', drop, (rate) => rate <= narrow * 1.02), 2),
    within('queue under 100 ms after', viewed.emptied(drop, 100), 3),
    infoRate('offered in the narrow part', viewed.rate('offeredBytes', drop + 3, rise - drop - 3)),
    infoRate('arrived in the narrow part', viewed.rate('deliveredBytes', drop + 3, rise - drop - 3)),
    info('longest queue in the narrow part', viewed.longestQueue(drop + 3, rise), ms),
  ];
  return [
    ...down,
    within('80 % of the wider link after', viewed.firstRate('deliveredBytes', rise, (rate) => rate >= 0.8 * width), 12),
    infoRate('arrived in the last 5 s', viewed.rate('deliveredBytes', length - 5, 5)),
    ...viewed.told(2, length),
  ];
};

/** How long a viewer waits until what arrives is what a source of `rate` gives. */
const full = (viewed, rate) => viewed.firstRate('deliveredBytes', 0, (now) => now >= 0.95 * rate);

/** Each has `run(stage)` and `judge(run)`; `size` and `rate` are those of the camera. */
export const SCENARIOS = {
  loss5: {
    title: '5 % loss each way at 100 ms',
    run: watched({ trace: 'loss5', length: 60, control: true }),
    judge: lossy(60, (viewed, from, to) => [
      atLeast('frames decoded', viewed.decodedShare(from, to), 0.99, percent),
      below('frozen', viewed.frozenShare(from, to), 0.01, percent),
    ]),
  },
  'loss5-both': {
    title: '5 % loss each way at 100 ms, for the publisher and for the viewer',
    run: watched({ trace: 'loss5', length: 60, publisher: { trace: 'loss5', seed: 11 } }),
    judge: lossy(60, (viewed, from, to) => [
      atLeast('frames decoded', viewed.decodedShare(from, to), 0.99, percent),
      below('frozen', viewed.frozenShare(from, to), 0.01, percent),
    ]),
  },
  loss10: {
    title: '10 % loss each way at 100 ms',
    run: watched({ trace: 'loss10', length: 60, control: true }),
    judge: lossy(60, (viewed, from, to) => [
      below('sound made up', viewed.concealedShare(from, to), 0.03, percent),
    ]),
  },
  bursts: {
    title: 'Losses of four in a row, 3 % in all',
    run: watched({ trace: 'bursts', length: 30 }),
    judge: lossy(30, () => []),
  },
  step: {
    title: '4, 1 and 4 Mbit/s, one stream',
    run: watched({ trace: 'step-4-1-4', length: 60, rate: 5_000_000 }),
    judge: steps(60, 20, 40, 4e6, 1e6),
  },
  'step-simulcast': {
    title: '4, 1 and 4 Mbit/s, three layers',
    size: '960x540',
    rate: 20,
    run: watched({ trace: 'step-4-1-4', length: 60, layers: TALL }),
    judge: steps(60, 20, 40, 4e6, 1e6),
  },
  climb: {
    title: 'From 300 kbit/s to 2 Mbit/s',
    run: watched({ trace: 'climb-300k-2m', length: 50, rate: 2_500_000 }),
    judge: steps(50, undefined, 20, 2e6),
  },
  start: {
    title: 'Start on an unlimited link: with the publisher, and later',
    async run(stage) {
      await stage.publish({ encodings: single(2_500_000) });
      await stage.view('early', { trace: 'start-unlimited', seed: 7 });
      await pause(12_000);
      await stage.view('late', { trace: 'start-unlimited', seed: 8 });
      await pause(10_000);
    },
    judge(run) {
      const [early, late] = ['early', 'late'].map((name) => new Viewed(run, name));
      return [
        within('full rate of a publisher who begins, too, after', full(early, 2.5e6), 4),
        within('full rate of one who is there, after', full(late, 2.5e6), 4),
        info('first picture of the late one after', late.viewer.firstPictureAt - late.viewer.joinedAt, ms),
        info('frozen, early', early.frozenShare(1, early.ends), percent),
        info('frozen, late', late.frozenShare(1, late.ends), percent),
      ];
    },
  },
  viewers: {
    title: 'Three viewers on 3, 1 and 0.3 Mbit/s of one simulcast source',
    size: '960x540',
    rate: 20,
    async run(stage) {
      await stage.publish({ encodings: LAYERS });
      await stage.warm(2_000_000);
      await Promise.all(['3M', '1M', '300k'].map((rate, index) => stage.view(rate, { trace: `viewer-${rate}`, seed: 7 + index })));
      await pause(60_000);
    },
    judge(run) {
      const wanted = { '3M': [540, 2e6], '1M': [270, 0.5e6], '300k': [135, 0.15e6] };
      return Object.entries(wanted).flatMap(([name, [height, rate]]) => {
        const viewed = new Viewed(run, name);
        const [from, to] = [5, 60];
        return [
          atLeast(`${name}: picture`, viewed.height(from, to), height, pixels),
          below(`${name}: frozen`, viewed.frozenShare(from, to), 0.01, percent),
          info(`${name}: freezes`, viewed.freezes(from, to)),
          atLeast(`${name}: arrived`, viewed.rate('deliveredBytes', from, to - from), 0.85 * rate, mbit),
          info(`${name}: longest queue`, viewed.longestQueue(from, to), ms),
          info(`${name}: sound made up`, viewed.concealedShare(from, to), percent),
        ];
      });
    },
  },
  late: {
    title: 'Late viewers with 5 % loss at 100 ms',
    async run(stage) {
      await stage.publish({ encodings: single(1_500_000) });
      await stage.warm(1_000_000);
      return { joins: await stage.join(Number(process.env.JOINS ?? 30), { trace: 'loss5', seed: 21 }) };
    },
    judge(run) {
      const firsts = run.joins.map(({ first }) => first).sort((one, other) => one - other);
      const connects = run.joins.map(({ connected }) => connected).sort((one, other) => one - other);
      const share = (values, part) => values[Math.min(values.length - 1, Math.ceil(part * values.length) - 1)];
      return [
        below('first picture, 99 %', share(firsts, 0.99), 1000, ms),
        info('first picture, median', share(firsts, 0.5), ms),
        info('first picture, longest', firsts.at(-1), ms),
        info('connected, median', share(connects, 0.5), ms),
        info('connected, 99 %', share(connects, 0.99), ms),
        info('joins', firsts.length),
      ];
    },
  },
  wifi: {
    title: 'A wireless network that swings between 3 and 1.5 Mbit/s',
    run: watched({ trace: 'wifi', length: 60, rate: 2_500_000 }),
    judge: (run) => {
      const viewed = new Viewed(run, 'viewer');
      return [
        ...viewed.told(2, 60),
        infoRate('arrived', viewed.rate('deliveredBytes', 2, 58)),
        info('longest queue', viewed.longestQueue(2, 60), ms),
      ];
    },
  },
  reorder: {
    title: 'One packet of ten is overtaken',
    run: watched({ trace: 'reorder', length: 30 }),
    judge: lossy(30, (viewed, from, to) => [below('frozen', viewed.frozenShare(from, to), 0.01, percent)]),
  },
};

/** One that every test run has time for, with bounds that a busy machine keeps. */
export const SHORT = {
  title: 'Losses, a narrow link and a wide one again, in half a minute',
  size: '640x360',
  run: watched({ trace: 'short', length: 34, rate: 1_200_000 }),
  judge(run) {
    const viewed = new Viewed(run, 'viewer');
    return [
      atLeast('frames decoded under losses', viewed.decodedShare(1, 12), 0.97, percent),
      below('frozen under losses', viewed.frozenShare(1, 12), 0.12, percent),
      below('sound made up under losses', viewed.concealedShare(3, 12), 0.03, percent),
      within('offered less than the narrow link carries after', viewed.firstRate('offeredBytes', 12, (rate) => rate <= 0.65e6), 5),
      within('queue under 200 ms after', viewed.emptied(12, 200), 6),
      atLeast('arrived over the narrow link', viewed.rate('deliveredBytes', 16, 6), 0.25e6, mbit),
      within('the rate of the source again after', viewed.firstRate('deliveredBytes', 22, (rate) => rate >= 1e6), 11),
      below('frozen after the narrow part', viewed.frozenShare(24, 34), 0.15, percent),
      info('frames encoded per second', viewed.encodedRate(1, 34), (value) => value.toFixed(1)),
    ];
  },
};

/** What was measured on a machine that had no time to encode says little of the server. */
function busy({ participants: { publisher } }, { rate = 30 }) {
  const encoded = ({ sent }) => sent && Math.max(...sent.map(({ framesEncoded }) => framesEncoded ?? 0));
  const known = publisher.samples.filter((sample) => encoded(sample) > 0);
  const [first, last] = [known.at(Math.floor(known.length / 5)), known.at(-1)];
  if (!first || first === last) return [];
  const made = (encoded(last) - encoded(first)) * 1000 / (last.at - first.at);
  return made < 0.9 * rate ? [info('THE ENCODER CAME SHORT: frames per second', made, (value) => value.toFixed(1))] : [];
}

/** Runs one on a stage of its own; all that was measured, and the verdicts. */
export async function play(name, scenario = SCENARIOS[name]) {
  const stage = await Stage.open(scenario);
  try {
    const more = await scenario.run(stage);
    const run = { name, title: scenario.title, at: new Date().toISOString(), ...await stage.collect(), ...more };
    run.verdicts = [...scenario.judge(run), ...busy(run, scenario)];
    return run;
  } finally {
    await stage.close();
  }
}
