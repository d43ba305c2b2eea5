// In a page, beside `participant.js`: joins with a camera of the bench, and writes down every 200 ms what
// the browser tells of the call.
'use strict';

const EVERY_MS = 200;
const VIDEO_IN = ['framesReceived', 'framesDecoded', 'framesDropped', 'keyFramesDecoded', 'freezeCount', 'totalFreezesDuration',
  'pauseCount', 'totalPausesDuration', 'bytesReceived', 'headerBytesReceived', 'retransmittedBytesReceived', 'packetsReceived', 'packetsLost', 'nackCount',
  'pliCount', 'frameWidth', 'frameHeight', 'framesPerSecond', 'jitterBufferDelay', 'jitterBufferEmittedCount', 'totalDecodeTime'];
const AUDIO_IN = ['concealedSamples', 'silentConcealedSamples', 'totalSamplesReceived', 'concealmentEvents', 'packetsReceived',
  'packetsLost', 'bytesReceived', 'jitterBufferDelay', 'jitterBufferEmittedCount'];
const VIDEO_OUT = ['rid', 'active', 'bytesSent', 'headerBytesSent', 'retransmittedBytesSent', 'framesEncoded', 'framesSent', 'keyFramesEncoded',
  'frameWidth', 'frameHeight', 'framesPerSecond', 'targetBitrate', 'qualityLimitationReason', 'nackCount', 'pliCount', 'totalEncodeTime'];

const pick = (entry, names) => Object.fromEntries(names.filter((name) => entry[name] !== undefined).map((name) => [name, entry[name]]));

class Sampled extends window.Participant {
  samples = [];

  /** `video` are constraints of the camera; who is `hidden` tells nobody of its addresses. */
  async joinWith({ video, hidden = false, ...options }) {
    this.hidden = hidden;
    const source = video ? await navigator.mediaDevices.getUserMedia({ audio: true, video }) : 'none';
    if (video) source.getVideoTracks()[0].contentHint = 'motion';
    this.joinedAt = Date.now();
    const joining = this.join({ source, ...options });
    this.sampling = setInterval(() => this.sample(), EVERY_MS);
    await joining;
    this.connectedAt = Date.now();
    // The browser's screen is not what is measured, and painting costs the machine.
    Object.assign(this.video.style, { width: '160px', height: '90px' });
  }

  send(message) {
    if (!this.hidden || message.id !== 'iceCandidate') super.send(message);
  }

  async sample() {
    if (this.busy || !this.peer) return;
    this.busy = true;
    const report = await this.peer.getStats();
    this.busy = false;
    const sample = { at: Date.now() };
    for (const entry of report.values()) {
      if (entry.type === 'inbound-rtp') sample[entry.kind] = pick(entry, entry.kind === 'video' ? VIDEO_IN : AUDIO_IN);
      if (entry.type === 'outbound-rtp' && entry.kind === 'video') (sample.sent ??= []).push(pick(entry, VIDEO_OUT));
      if (entry.type === 'transport' && entry.selectedCandidatePairId) {
        sample.pair = {
          ...pick(report.get(entry.selectedCandidatePairId) ?? {}, ['currentRoundTripTime', 'availableOutgoingBitrate']),
          ...pick(entry, ['bytesReceived', 'bytesSent']),
        };
      }
    }
    this.samples.push(sample);
  }

  /** When the first picture was on the screen, in milliseconds since 1970. */
  async firstPicture(ms) {
    const after = await this.timeToFirstFrame(ms);
    return performance.timeOrigin + this.startedAt + after;
  }

  taken() {
    clearInterval(this.sampling);
    return { joinedAt: this.joinedAt, connectedAt: this.connectedAt, samples: this.samples };
  }
}

window.Sampled = Sampled;
