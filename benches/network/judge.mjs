// What was measured, held against what is to be reached. Times are seconds since the trace of a viewer began.

/** The value of a counter at a moment, on the line between the samples around it. */
export function counter(samples, at, of) {
  let before;
  for (const sample of samples) {
    const value = of(sample);
    if (value === undefined) continue;
    if (sample.at >= at) {
      if (!before) return value;
      const share = (at - before.at) / (sample.at - before.at);
      return before.value + (value - before.value) * share;
    }
    before = { at: sample.at, value };
  }
  return before?.value ?? 0;
}

export const percent = (share) => `${(share * 100).toFixed(2)} %`;
const seconds = (value) => (value === undefined ? 'never' : `${value.toFixed(1)} s`);
const mbit = (value) => `${(value / 1e6).toFixed(2)} Mbit/s`;

/** A sentence, its figure, and whether it holds; without a limit it is only told. */
const verdict = (what, value, text, holds) => ({ what, value, text, holds });
export const below = (what, value, limit, form) => (
  verdict(`${what} (under ${form(limit)})`, value, form(value), value !== undefined && value < limit));
export const within = (what, value, limit) => (
  verdict(`${what} (within ${limit} s)`, value, seconds(value), value !== undefined && value <= limit));
export const atLeast = (what, value, limit, form) => (
  verdict(`${what} (at least ${form(limit)})`, value, form(value), value >= limit));
export const info = (what, value, form = String) => verdict(what, value, form(value));
export const infoRate = (what, value) => info(what, value, mbit);

/** One viewer of a run, and the publisher it sees. */
export class Viewed {
  constructor(run, name) {
    this.viewer = run.participants[name];
    this.publisher = run.participants.publisher;
    this.started = this.viewer.startedAt;
    this.ends = (this.viewer.samples.at(-1).at - this.started) / 1000;
  }

  at = (time) => this.started + time * 1000;

  change(of, from, to, samples = this.viewer.samples) {
    return counter(samples, this.at(to), of) - counter(samples, this.at(from), of);
  }

  decoded(from, to) {
    return this.change(({ video }) => video?.framesDecoded, from, to);
  }

  /** Frames that were decoded, of those that were encoded meanwhile. */
  decodedShare(from, to) {
    const encoded = this.change(({ sent }) => sent && Math.max(...sent.map(({ framesEncoded }) => framesEncoded ?? 0)),
      from, to, this.publisher.samples);
    return this.decoded(from, to) / Math.max(encoded, 1);
  }

  encodedRate(from, to) {
    return this.change(({ sent }) => sent && Math.max(...sent.map(({ framesEncoded }) => framesEncoded ?? 0)),
      from, to, this.publisher.samples) / (to - from);
  }

  /** Of the time; what has not thawed by the end counts, though the browser counts it when it is over. */
  frozenShare(from, to) {
    const known = this.change(({ video }) => video?.totalFreezesDuration, from, to);
    let still = to;
    while (still > from && this.decoded(still - 0.2, to) < 0.5) still -= 0.2;
    return (known + (to - still > 1 ? to - still : 0)) / (to - from);
  }

  freezes = (from, to) => Math.round(this.change(({ video }) => video?.freezeCount, from, to));

  concealedShare(from, to) {
    const concealed = this.change(({ audio }) => audio && audio.concealedSamples - audio.silentConcealedSamples, from, to);
    return concealed / Math.max(1, this.change(({ audio }) => audio?.totalSamplesReceived, from, to));
  }

  /** What the viewer's network saw towards it, each 100 ms. */
  get network() {
    this.lines ??= this.viewer.network.filter(({ direction, since }) => direction === 'down' && since !== null);
    return this.lines;
  }

  /** Bits per second from `from` for `length` seconds; `of` names which bytes. */
  rate(of, from, length) {
    const lines = this.network.filter(({ since }) => since > from && since <= from + length);
    return lines.reduce((sum, line) => sum + line[of], 0) * 8 / length;
  }

  /** How long after `from` a rate over one second is for the first time as `holds` wants it. */
  firstRate(of, from, holds) {
    for (let at = from; at + 1 <= this.ends; at += 0.1) {
      if (holds(this.rate(of, at, 1))) return at - from;
    }
    return undefined;
  }

  /** How long after `from` no packet waits for as long as `limit` ms any more, for half a second. */
  emptied(from, limit) {
    const lines = this.network.filter(({ since }) => since > from);
    let last = 0;
    for (const { since, queueMs } of lines) {
      if (queueMs >= limit) last = since - from;
      // The queue grows after the drop.
      else if (since - from > Math.max(0.8, last + 0.5)) return last;
    }
    return undefined;
  }

  longestQueue(from, to) {
    return Math.max(0, ...this.network.filter(({ since }) => since > from && since <= to).map(({ queueMs }) => queueMs));
  }

  /** The height of the picture that was there for most of the time. */
  height(from, to) {
    const times = new Map();
    for (const { at, video } of this.viewer.samples) {
      if (at < this.at(from) || at > this.at(to) || !video?.frameHeight) continue;
      times.set(video.frameHeight, (times.get(video.frameHeight) ?? 0) + 1);
    }
    const [most] = [...times].sort((one, other) => other[1] - one[1]);
    return most?.[0] ?? 0;
  }

  /** The usual lines about a picture and its sound. */
  told(from, to) {
    return [
      info('frames decoded, of those encoded', this.decodedShare(from, to), percent),
      info('frozen', this.frozenShare(from, to), percent),
      info('freezes', this.freezes(from, to)),
      info('sound made up', this.concealedShare(from, to), percent),
      info('frames encoded per second', this.encodedRate(from, to), (value) => value.toFixed(1)),
    ];
  }
}

export { mbit };
