// The report: one page with plots that needs nothing else.

const WIDTH = 640;
const HEIGHT = 150;
const LEFT = 58;
const RIGHT = 12;
const ABOVE = 24;
const BELOW = 20;

const STYLE = `body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:84rem;padding:0 1rem;color:#1c2530;background:#fff}
h1{font-size:1.5rem}h2{font-size:1.2rem;margin-top:2.5rem}h3{font-size:1rem}table{border-collapse:collapse;margin:.5rem 0}
td,th{padding:.2rem .8rem .2rem 0;border-bottom:1px solid #e3e7ec;text-align:left}td.n{text-align:right}
.yes{color:#157347}.no{color:#b42318;font-weight:600}.plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(30rem,1fr));gap:.6rem 1rem}
svg{width:100%;height:auto}.title{font:600 12px system-ui}.number,.legend{font:10px system-ui;fill:#687482}.grid{stroke:#e3e7ec}
.line{fill:none;stroke-width:1.5}.a{stroke:#0b6bcb;fill:#0b6bcb}.b{stroke:#d97706;fill:#d97706}.c{stroke:#157347;fill:#157347}
.d{stroke:#9333ea;fill:#9333ea}.limit{stroke:#b42318;fill:#b42318;stroke-dasharray:5 3}text.a,text.b,text.c,text.d,text.limit{stroke:none}
.bad{fill:#b42318;fill-opacity:.25;stroke:none}p.small{color:#687482;font-size:13px}
@media(prefers-color-scheme:dark){body{background:#14181d;color:#dfe5ec}td,th{border-color:#2b333c}.grid{stroke:#2b333c}.title{fill:#dfe5ec}}`;

const escape = (text) => String(text).replace(/[&<>"]/g, (letter) => `&#${letter.codePointAt(0)};`);

/** A round distance between lines of the grid, a few of which cover the range. */
function step(range) {
  const power = 10 ** Math.floor(Math.log10(range / 3));
  return [5, 2, 1].find((times) => power * times <= range / 3) * power;
}

/**
 * Lines over the same seconds: `lines` are `{ name, style, points: [[x, y]…] }`, a point without a value
 * ends a piece of its line; `marks` are spans of time to be shown behind them. `most` cuts what is higher.
 */
function plot(title, end, lines, { marks = [], most = Infinity, bars = false } = {}) {
  const values = lines.flatMap(({ points }) => points.map(([, value]) => value)).filter(Number.isFinite);
  if (values.length === 0) return '';
  const highest = Math.min(most, Math.max(...values, 0.1));
  const rise = step(highest);
  const top = Math.ceil(highest / rise - 1e-9) * rise;
  const x = (at) => (LEFT + Math.max(0, Math.min(at, end)) / end * (WIDTH - LEFT - RIGHT)).toFixed(1);
  const y = (value) => (HEIGHT - BELOW - Math.min(value, top) / top * (HEIGHT - BELOW - ABOVE)).toFixed(1);
  const parts = [`<svg viewBox="0 0 ${WIDTH} ${HEIGHT}" role="img" aria-label="${escape(title)}"><text class="title" x="${LEFT}" y="13">${escape(title)}</text>`];
  for (const [from, to] of marks) {
    parts.push(`<rect class="bad" x="${x(from)}" y="${ABOVE}" width="${Math.max(1, x(to) - x(from)).toFixed(1)}" height="${HEIGHT - ABOVE - BELOW}"/>`);
  }
  for (let value = 0; value <= top + rise / 2; value += rise) {
    parts.push(`<line class="grid" x1="${LEFT}" x2="${WIDTH - RIGHT}" y1="${y(value)}" y2="${y(value)}"/>`
      + `<text class="number" text-anchor="end" x="${LEFT - 5}" y="${Number(y(value)) + 3}">${+value.toPrecision(6)}</text>`);
  }
  for (let at = 0; at <= end; at += step(end)) {
    parts.push(`<text class="number" text-anchor="middle" x="${x(at)}" y="${HEIGHT - 6}">${+at.toPrecision(6)} s</text>`);
  }
  let legend = WIDTH - RIGHT;
  for (const { name, style, points } of lines.filter((line) => line.points.length > 0).reverse()) {
    if (bars) {
      parts.push(...points.filter(([, value]) => value > 0)
        .map(([at, value]) => `<line class="line ${style}" x1="${x(at)}" x2="${x(at)}" y1="${y(0)}" y2="${y(value)}"/>`));
    } else {
      let drawn = false;
      let path = '';
      for (const [at, value] of points) {
        if (Number.isFinite(value)) path += `${drawn ? 'L' : 'M'}${x(at)} ${y(value)}`;
        drawn = Number.isFinite(value);
      }
      parts.push(`<path class="line ${style}" style="fill:none" d="${path}"/>`);
    }
    parts.push(`<text class="legend ${style}" text-anchor="end" x="${legend}" y="13">${escape(name)}</text>`);
    legend -= name.length * 5.6 + 12;
  }
  return `${parts.join('')}</svg>`;
}

/** What a counter grows by in a second. */
function speed(samples, seconds, of, window = 5) {
  const known = samples.filter((sample) => of(sample) !== undefined);
  return known.slice(window).map((sample, index) => {
    const before = known[index];
    return [seconds(sample.at), (of(sample) - of(before)) * 1000 / (sample.at - before.at)];
  });
}

/** The mean over a few points, for lines that would be a hedge otherwise. */
function smooth(points, width = 5) {
  return points.map(([at], index) => {
    const around = points.slice(Math.max(0, index - width + 1), index + 1);
    return [at, around.reduce((sum, [, value]) => sum + value, 0) / around.length];
  });
}

function viewerPlots(name, viewer, end) {
  const seconds = (at) => (at - viewer.startedAt) / 1000;
  const { samples, server = [], network = [] } = viewer;
  // A freeze is told when it is over; it began by its length earlier.
  const frozen = [];
  for (const [index, { at, video }] of samples.entries()) {
    const before = samples[index - 1]?.video;
    const length = video && before ? video.totalFreezesDuration - before.totalFreezesDuration : 0;
    if (length > 0) frozen.push([seconds(at) - length, seconds(at)]);
  }
  const shown = { marks: frozen };
  const mega = (points) => points.map(([at, value]) => [at, value / 1e6]);
  const down = network.filter(({ direction }) => direction === 'down').map((line) => ({ ...line, time: seconds(line.at) })).filter(({ time }) => time >= 0);
  const bytes = (of) => smooth(down.map((line) => [line.time, line[of] * 80 / 1e6]));
  const estimate = server.map(({ at, outgoing }) => [seconds(at), outgoing / 1e6]).filter(([at]) => at >= 0);
  const rates = down.length > 0
    ? [
      { name: 'link', style: 'limit', points: down.map(({ time, rate }) => [time, rate === null ? NaN : rate / 1e6]) },
      { name: 'offered', style: 'b', points: bytes('offeredBytes') },
      { name: 'delivered', style: 'a', points: bytes('deliveredBytes') },
    ]
    : [{ name: 'received', style: 'a', points: mega(speed(samples, seconds, ({ pair }) => pair && pair.bytesReceived * 8)) }];
  rates.push({ name: 'server may send', style: 'd', points: estimate });
  const highest = Math.max(...rates.slice(0, -1).flatMap(({ points }) => points.map(([, value]) => value)).filter(Number.isFinite));
  const of = (field) => samples.filter(({ video }) => video?.[field] !== undefined).map(({ at, video }) => [seconds(at), video[field]]);
  return [
    plot(`${name}: Mbit/s`, end, rates, { ...shown, most: highest * 1.5 }),
    plot(`${name}: longest wait at the bottleneck, ms`, end, [{ name: 'queue', style: 'b', points: down.map(({ time, queueMs }) => [time, queueMs]) }], shown),
    plot(`${name}: lines of the picture`, end, [{ name: 'height', style: 'c', points: of('frameHeight') }], shown),
    plot(`${name}: frames per second`, end, [
      { name: 'received', style: 'b', points: speed(samples, seconds, ({ video }) => video?.framesReceived) },
      { name: 'decoded', style: 'a', points: speed(samples, seconds, ({ video }) => video?.framesDecoded) },
    ], { ...shown, most: 60 }),
    plot(`${name}: packets lost in 100 ms`, end, [
      { name: 'by chance', style: 'a', points: down.map((line) => [line.time, line.lostRandom]) },
      { name: 'in bursts', style: 'd', points: down.map((line) => [line.time, line.lostBurst]) },
      { name: 'queue full', style: 'limit', points: down.map((line) => [line.time, line.lostQueue]) },
    ], { ...shown, bars: true }),
    plot(`${name}: jitter buffer and sound`, end, [
      { name: 'picture waits, ms', style: 'c', points: waits(samples, seconds) },
      { name: 'sound made up, samples per ms', style: 'limit', points: speed(samples, seconds, ({ audio }) => audio && (audio.concealedSamples - audio.silentConcealedSamples) / 1000) },
    ], shown),
  ];
}

/** Milliseconds that pictures waited in the browser. */
function waits(samples, seconds) {
  const known = samples.filter(({ video }) => video?.jitterBufferEmittedCount);
  return known.slice(5).map((sample, index) => {
    const [now, before] = [sample.video, known[index].video];
    const frames = now.jitterBufferEmittedCount - before.jitterBufferEmittedCount;
    return [seconds(sample.at), frames > 0 ? (now.jitterBufferDelay - before.jitterBufferDelay) * 1000 / frames : NaN];
  });
}

function publisherPlots(publisher, from, end) {
  const seconds = (at) => (at - from) / 1000;
  const layers = Math.max(0, ...publisher.samples.map(({ sent }) => sent?.length ?? 0));
  const styles = ['a', 'c', 'd'];
  const samples = publisher.samples.filter(({ at }) => seconds(at) >= -1);
  const lines = Array.from({ length: layers }, (_, layer) => ({
    name: samples.at(-1)?.sent?.[layer]?.rid ?? 'sent',
    style: styles[layer] ?? 'a',
    points: speed(samples, seconds, ({ sent }) => sent?.[layer]?.bytesSent).map(([at, value]) => [at, value * 8 / 1e6]),
  }));
  const told = (publisher.server ?? []).map(({ at, incoming }) => [seconds(at), incoming / 1e6]).filter(([at, value]) => at >= 0 && value > 0);
  const highest = Math.max(0.1, ...lines.flatMap(({ points }) => points.map(([, value]) => value)));
  return [
    plot('publisher: Mbit/s of each layer', end, [...lines, { name: 'server asks for', style: 'limit', points: told }], { most: highest * 1.5 }),
    plot('publisher: frames encoded per second', end, [{ name: 'encoded', style: 'a',
      points: speed(samples, seconds, ({ sent }) => sent && Math.max(...sent.map(({ framesEncoded }) => framesEncoded ?? 0))) }], { most: 60 }),
  ];
}

function section(run) {
  const { publisher, ...viewers } = run.participants;
  const started = Object.values(viewers).map(({ startedAt }) => startedAt);
  const from = Math.min(...started);
  const rows = run.verdicts.map(({ what, text, holds }) => `<tr><td>${escape(what)}</td><td class="n">${escape(text)}</td>`
    + `<td class="${holds ? 'yes' : 'no'}">${holds === undefined ? '' : holds ? 'yes' : 'no'}</td></tr>`);
  const plots = Object.entries(viewers).flatMap(([name, viewer]) => {
    const end = Math.max(...viewer.samples.map(({ at }) => (at - viewer.startedAt) / 1000));
    return viewerPlots(name, viewer, end);
  });
  if (publisher && started.length > 0) {
    plots.push(...publisherPlots(publisher, from, (publisher.samples.at(-1).at - from) / 1000));
  }
  if (run.joins) {
    const sorted = (of) => run.joins.map(of).sort((one, other) => one - other).map((value, index) => [index / (run.joins.length - 1 || 1) * 100, value]);
    plots.push(plot('joins: ms to the first picture, and to the connection (over the percentage of joins)', 100, [
      { name: 'first picture', style: 'a', points: sorted(({ first }) => first) },
      { name: 'connected', style: 'b', points: sorted(({ connected }) => connected) },
    ]));
  }
  return `<h2 id="${run.name}">${escape(run.title)}</h2>
<p class="small">${escape(run.at)}; ${escape(run.machine.cpu)}, ${run.machine.cores} cores, load ${run.machine.load.toFixed(1)} at the end.
Seconds count from the start of the trace; freezes are marked red.</p>
<table>${rows.join('')}</table>
<div class="plots">${plots.filter(Boolean).join('\n')}</div>`;
}

/** The page of several runs. */
export function page(runs) {
  const rows = runs.map(({ name, title, verdicts }) => {
    const judged = verdicts.filter(({ holds }) => holds !== undefined);
    const missed = judged.filter(({ holds }) => !holds);
    const how = judged.length === 0 ? '' : missed.length === 0 ? 'all reached' : missed.map(({ what, text }) => `${what}: ${text}`).join('; ');
    return `<tr><td><a href="#${name}">${escape(title)}</a></td><td class="${missed.length ? 'no' : 'yes'}">${escape(how)}</td></tr>`;
  });
  return `<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>Calls over bad networks</title>
<style>${STYLE}</style>
<h1>Calls over bad networks</h1>
<p>Chromium publishes, Chromium watches, each viewer behind a relay of its own that shapes both directions; the figures of
pictures and sound are what the receiving browser says of itself.</p>
<table>${rows.join('\n')}</table>
${runs.map(section).join('\n')}
</html>
`;
}
