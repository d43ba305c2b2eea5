// One side of a call in the browser, with nothing but RTCPeerConnection: sends, receives, and
// measures what can be seen and heard.
'use strict';

const SAMPLE_MS = 50;
const COLOURS = { red: [200, 30, 30], green: [30, 170, 30], blue: [30, 30, 200] };
const pause = (ms) => new Promise((resolve) => { setTimeout(resolve, ms); });

/** A picture of one colour with a bar that moves, and a tone. */
function colouredSource(name, frequency) {
  const canvas = Object.assign(document.createElement('canvas'), { width: 320, height: 240 });
  const paint = canvas.getContext('2d');
  let x = 0;
  const draw = () => {
    paint.fillStyle = `rgb(${COLOURS[name].join()})`;
    paint.fillRect(0, 0, 320, 240);
    paint.fillStyle = 'white';
    paint.fillRect(x = (x + 4) % 320, 100, 16, 40);
  };
  draw();
  const timer = setInterval(draw, 50);
  const sound = new AudioContext();
  const tone = new OscillatorNode(sound, { frequency });
  const output = sound.createMediaStreamDestination();
  tone.connect(output);
  tone.start();
  const stream = canvas.captureStream(20);
  stream.addTrack(output.stream.getAudioTracks()[0]);
  stream.dispose = () => { clearInterval(timer); sound.close(); };
  return stream;
}

function openSource(source) {
  if (source instanceof MediaStream) return source;
  if (source === 'none') return new MediaStream();
  // Of what is smaller browsers do not make three sizes.
  if (source === 'large') {
    return navigator.mediaDevices.getUserMedia({
      audio: true,
      video: { width: 960, height: 540, frameRate: 15 },
    });
  }
  if (source === 'medium') {
    return navigator.mediaDevices.getUserMedia({
      audio: true,
      video: { width: 640, height: 360, frameRate: 15 },
    });
  }
  if (source === 'camera') {
    return navigator.mediaDevices.getUserMedia({
      audio: true,
      video: { width: 320, height: 240, frameRate: 20 },
    });
  }
  return colouredSource(source, 440);
}

/** The codecs of `kind` that the browser can both send and receive under this name. */
function codecsNamed(kind, name) {
  const mime = `${kind}/${name}`.toLowerCase();
  return RTCRtpReceiver.getCapabilities(kind).codecs.filter(
    (codec) => codec.mimeType.toLowerCase() === mime
      && !/profile-id=[123]|profile=[12]/.test(codec.sdpFmtpLine ?? ''),
  );
}

class Participant {
  /**
   * Joins the application's call. `source` is a name or a stream of the caller's own. `codecs` may force one
   * codec: { video: 'VP8', audio: 'opus' }; `encodings` are what to send of it, as RTCRtpSender has them.
   */
  async join({ source = 'camera', receive = true, codecs = {}, encodings = {}, serverOffers = false, iceServers = [], ...request } = {}) {
    this.startedAt = performance.now();
    this.errors = [];
    this.stream = await openSource(source);
    this.peer = new RTCPeerConnection({ iceServers });
    this.remote = new MediaStream();
    this.video = Object.assign(document.createElement('video'), { autoplay: true, playsInline: true });
    this.video.srcObject = this.remote;
    document.body.append(this.video);
    this.firstFrame = new Promise((resolve) => {
      this.video.requestVideoFrameCallback(() => resolve(performance.now() - this.startedAt));
    });
    this.peer.ontrack = ({ track }) => this.remote.addTrack(track);

    await this.openSocket();
    this.peer.onicecandidate = ({ candidate }) => {
      if (!candidate?.candidate) return;
      window.candidatesSent.push(candidate.candidate);
      this.send({ id: 'iceCandidate', candidate });
    };
    if (serverOffers) {
      this.send({ id: 'join', ...request });
    } else {
      await this.addSenders(receive, codecs, encodings);
      await this.peer.setLocalDescription();
      this.send({ id: 'join', sdpOffer: this.peer.localDescription.sdp, ...request });
    }
    await this.connected();
  }

  async addSenders(receive, codecs, encodings = {}) {
    for (const kind of ['audio', 'video']) {
      const track = this.stream.getTracks().find((candidate) => candidate.kind === kind);
      if (!track && !receive) continue;
      const direction = track ? (receive ? 'sendrecv' : 'sendonly') : 'recvonly';
      const init = { direction, streams: [this.stream] };
      if (track && encodings[kind]) init.sendEncodings = encodings[kind];
      const transceiver = this.peer.addTransceiver(track ?? kind, init);
      if (codecs[kind]) transceiver.setCodecPreferences(codecsNamed(kind, codecs[kind]));
      if (init.sendEncodings) {
        // On a busy machine pictures would become smaller by themselves.
        const parameters = transceiver.sender.getParameters();
        await transceiver.sender.setParameters({ ...parameters, degradationPreference: 'maintain-resolution' });
      }
    }
  }

  openSocket() {
    this.socket = new WebSocket(location.href.replace(/^http/, 'ws'));
    // Messages are worked through one by one, so that no candidate passes its description.
    let last = Promise.resolve();
    this.socket.onmessage = ({ data }) => {
      last = last.then(() => this.receive(JSON.parse(data))).catch((error) => this.fail(error.message));
    };
    return new Promise((resolve, reject) => {
      this.socket.onopen = resolve;
      this.socket.onerror = () => reject(new Error('The application does not answer'));
    });
  }

  fail(text) {
    console.error(text);
    this.errors.push(text);
  }

  send(message) {
    this.socket.send(JSON.stringify(message));
  }

  async receive(message) {
    switch (message.id) {
      case 'response':
        await this.peer.setRemoteDescription({ type: 'answer', sdp: message.sdpAnswer });
        break;
      case 'offer':
        await this.peer.setRemoteDescription({ type: 'offer', sdp: message.sdpOffer });
        for (const track of this.stream.getTracks()) this.peer.addTrack(track, this.stream);
        await this.peer.setLocalDescription();
        this.send({ id: 'answer', sdpAnswer: this.peer.localDescription.sdp });
        break;
      case 'iceCandidate': {
        const { candidate, sdpMid, sdpMLineIndex } = message.candidate;
        await this.peer.addIceCandidate({ candidate, sdpMid, sdpMLineIndex });
        break;
      }
      case 'error':
        this.fail(message.message);
        break;
    }
  }

  async connected(ms = 15_000) {
    const deadline = performance.now() + ms;
    while (this.peer.connectionState !== 'connected') {
      if (this.errors.length > 0) throw new Error(this.errors.join('; '));
      if (performance.now() > deadline) {
        throw new Error(`Connection is ${this.peer.connectionState}, ICE ${this.peer.iceConnectionState}`);
      }
      await pause(20);
    }
  }

  /** Milliseconds from the start of `join` to the first picture on the screen. */
  timeToFirstFrame(ms = 15_000) {
    return Promise.race([
      this.firstFrame,
      pause(ms).then(() => { throw new Error('No picture came'); }),
    ]);
  }

  pixels() {
    this.canvas ??= Object.assign(document.createElement('canvas'), { width: 80, height: 60 });
    this.paint ??= this.canvas.getContext('2d', { willReadFrequently: true });
    this.paint.drawImage(this.video, 0, 0, 80, 60);
    return this.paint.getImageData(0, 0, 80, 60).data;
  }

  /** Looks for another way, as pages do when their network changed; until the answer is there. */
  async restartIce() {
    this.peer.restartIce();
    await this.peer.setLocalDescription();
    const answered = new Promise((resolve) => {
      this.peer.onsignalingstatechange = () => { if (this.peer.signalingState === 'stable') resolve(); };
    });
    this.send({ id: 'restart', sdpOffer: this.peer.localDescription.sdp });
    await Promise.race([answered, pause(5_000).then(() => { throw new Error(`No answer: ${this.errors.join('; ')}`); })]);
  }

  /** Waits until the way in use belongs to the last restart; the pair, and the fragments of both sides. */
  async newWay(ms = 10_000) {
    const [, ufrag] = /a=ice-ufrag:(.*)\r/.exec(this.peer.localDescription.sdp);
    for (const end = performance.now() + ms; ;) {
      const report = await this.peer.getStats();
      const entries = [...report.values()];
      const transport = entries.find(({ type }) => type === 'transport');
      const pair = report.get(transport?.selectedCandidatePairId) ?? entries.find((entry) => entry.type === 'candidate-pair' && entry.selected);
      const [local, remote] = [report.get(pair?.localCandidateId), report.get(pair?.remoteCandidateId)];
      if (local?.usernameFragment === ufrag || (local && local.usernameFragment === undefined)) {
        return { pair: pair.id, local: local.usernameFragment, remote: remote.usernameFragment, state: pair.state, connection: this.peer.connectionState };
      }
      if (performance.now() > end) throw new Error(`${JSON.stringify([pair, local])} is used, not ${ufrag}`);
      await pause(SAMPLE_MS);
    }
  }

  /** Sends nothing any more, and stays in the call. */
  async fallSilent() {
    for (const sender of this.peer.getSenders()) await sender.replaceTrack(null);
  }

  agreedOn(text) {
    return this.peer.remoteDescription.sdp.includes(text);
  }

  /** All that the browser tells of the connection, as it is at this moment. */
  async report() {
    return [...(await this.peer.getStats()).values()];
  }

  /** Nothing for a moment after the first packet: browsers keep a report for a while. */
  async inbound(kind) {
    const report = await this.peer.getStats();
    const stream = [...report.values()].find((entry) => entry.type === 'inbound-rtp' && entry.kind === kind);
    return stream && { ...stream, codec: report.get(stream.codecId)?.mimeType };
  }

  /** Watches the screen for `ms`: how often the picture changed, and what was decoded meanwhile. */
  async watch(ms = 2000) {
    await this.timeToFirstFrame();
    const before = await this.inbound('video');
    let last = this.pixels();
    let changes = 0;
    for (const end = performance.now() + ms; performance.now() < end;) {
      await pause(SAMPLE_MS);
      const now = this.pixels();
      if (now.some((value, index) => Math.abs(value - last[index]) > 24)) changes += 1;
      last = now;
    }
    const after = await this.inbound('video');
    return {
      changes,
      framesDecoded: (after?.framesDecoded ?? 0) - (before?.framesDecoded ?? 0),
      width: this.video.videoWidth,
      height: this.video.videoHeight,
      codec: after?.codec,
    };
  }

  /** Listens for `ms`: the loudest moment (RMS, 0 to 1) and the energy that came in. */
  async listen(ms = 2500) {
    const context = new AudioContext();
    const analyser = new AnalyserNode(context, { fftSize: 2048 });
    context.createMediaStreamSource(this.remote).connect(analyser);
    const before = await this.inbound('audio');
    const samples = new Float32Array(analyser.fftSize);
    let loudest = 0;
    for (const end = performance.now() + ms; performance.now() < end;) {
      await pause(20);
      analyser.getFloatTimeDomainData(samples);
      loudest = Math.max(loudest, Math.hypot(...samples) / Math.sqrt(samples.length));
    }
    await context.close();
    const after = await this.inbound('audio');
    return {
      loudest,
      energy: (after?.totalAudioEnergy ?? 0) - (before?.totalAudioEnergy ?? 0),
      packets: (after?.packetsReceived ?? 0) - (before?.packetsReceived ?? 0),
      codec: after?.codec,
    };
  }

  /** The name of the colour that the returned picture has most of; null before the first picture. */
  colour() {
    if (!this.video.videoWidth) return null;
    const pixels = this.pixels();
    const mean = [0, 1, 2].map((channel) => {
      let sum = 0;
      for (let at = channel; at < pixels.length; at += 4) sum += pixels[at];
      return sum / (pixels.length / 4);
    });
    const distance = (name) => Math.hypot(...COLOURS[name].map((value, at) => value - mean[at]));
    return Object.keys(COLOURS).sort((one, other) => distance(one) - distance(other))[0];
  }

  /** Waits until the picture has that colour; milliseconds it took. */
  async turns(name, ms = 5000) {
    const start = performance.now();
    while (this.colour() !== name) {
      if (performance.now() - start > ms) throw new Error(`The picture is ${this.colour()}, not ${name}`);
      await pause(SAMPLE_MS);
    }
    return performance.now() - start;
  }

  leave() {
    this.send({ id: 'leave' });
    this.socket.close();
    this.peer.close();
    for (const track of this.stream.getTracks()) track.stop();
    this.stream.dispose?.();
    this.video.remove();
  }
}

window.Participant = Participant;
/** Lines of the candidates that this page told the application. */
window.candidatesSent = [];
/** Names of the codecs this browser can receive and send. */
window.knownCodecs = (kind) => [...new Set(
  RTCRtpSender.getCapabilities(kind).codecs
    .filter((codec) => codecsNamed(kind, codec.mimeType.split('/')[1]).length > 0)
    .map((codec) => codec.mimeType.split('/')[1].toUpperCase()),
)];
