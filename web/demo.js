// Hello world over the Kurento Protocol, written by hand: one pipeline, one WebRtcEndpoint that is
// connected to itself. No library, so that every message of the protocol can be read here.

const byId = (id) => document.getElementById(id);
const say = (id, text) => { byId(id).textContent = text; };
const LOG_LINES = 200;
const REQUEST_TIMEOUT_MS = 10_000;
const KEEP_ALIVE_MS = 30_000;

/** JSON-RPC 2.0 over one WebSocket: requests with their replies, and events as they come. */
class KurentoConnection {
  #socket;
  #waiting = new Map();
  #nextId = 1;
  #sessionId;
  #keepAlive;
  onEvent = () => {};
  onGone = () => {};

  open(url) {
    return new Promise((resolve, reject) => {
      const socket = new WebSocket(url);
      this.#socket = socket;
      let opened = false;
      socket.onopen = () => {
        opened = true;
        this.#keepAlive = setInterval(
          () => this.request('ping', { interval: KEEP_ALIVE_MS }).catch(() => {}),
          KEEP_ALIVE_MS,
        );
        resolve();
      };
      socket.onmessage = ({ data }) => this.#receive(data);
      socket.onclose = () => {
        clearInterval(this.#keepAlive);
        const gone = new Error('The connection to the server is gone.');
        for (const { reject: fail, timer } of this.#waiting.values()) {
          clearTimeout(timer);
          fail(gone);
        }
        this.#waiting.clear();
        if (opened) this.onGone(gone);
        else reject(new Error(`The server does not answer at ${url}.`));
      };
    });
  }

  request(method, params = {}) {
    if (this.#socket?.readyState !== WebSocket.OPEN) {
      return Promise.reject(new Error('The connection to the server is gone.'));
    }
    const id = this.#nextId++;
    const session = this.#sessionId ? { sessionId: this.#sessionId } : {};
    const text = JSON.stringify({ jsonrpc: '2.0', id, method, params: { ...params, ...session } });
    log('sent', text);
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#waiting.delete(id);
        reject(new Error(`The server did not answer "${method}" in time.`));
      }, REQUEST_TIMEOUT_MS);
      this.#waiting.set(id, { resolve, reject, timer });
      this.#socket.send(text);
    });
  }

  create(type, constructorParams) {
    return this.request('create', { type, constructorParams });
  }

  invoke(object, operation, operationParams = {}) {
    return this.request('invoke', { object, operation, operationParams });
  }

  subscribe(object, type) {
    return this.request('subscribe', { object, type });
  }

  close() {
    this.onGone = () => {};
    this.#socket?.close();
  }

  #receive(text) {
    log('received', text);
    const message = JSON.parse(text);
    if (message.method === 'onEvent') {
      this.onEvent(message.params.value);
      return;
    }
    const request = this.#waiting.get(message.id);
    if (!request) return;
    this.#waiting.delete(message.id);
    clearTimeout(request.timer);
    if (message.error) {
      request.reject(new Error(`${message.error.message} (code ${message.error.code})`));
      return;
    }
    this.#sessionId = message.result?.sessionId ?? this.#sessionId;
    request.resolve(message.result?.value);
  }
}

function log(kind, text) {
  const list = byId('log');
  const line = document.createElement('li');
  line.className = kind;
  line.textContent = text.length > 400 ? `${text.slice(0, 400)}…` : text;
  list.append(line);
  while (list.childElementCount > LOG_LINES) list.firstElementChild.remove();
}

// ---- what is sent --------------------------------------------------------------------------

async function openCamera() {
  if (!navigator.mediaDevices?.getUserMedia) {
    throw new Error(
      'Browsers hand out the camera only to pages of localhost or of https. Open this page as '
      + `http://localhost:${location.port}/ on the server's own machine, put TLS in front of the `
      + 'server, or use the test picture.',
    );
  }
  try {
    return await navigator.mediaDevices.getUserMedia({
      audio: true,
      video: { width: { ideal: 1280 }, height: { ideal: 720 } },
    });
  } catch (error) {
    const reasons = {
      NotFoundError: 'No camera or no microphone was found. The test picture works without them.',
      NotAllowedError: 'The browser was not allowed to use camera and microphone. Allow it beside '
        + 'the address, or use the test picture.',
      NotReadableError: 'Camera or microphone are in use by another program.',
    };
    throw new Error(reasons[error.name] ?? `Camera and microphone cannot be used: ${error.message}`);
  }
}

/** A moving picture and a quiet tone, for machines without camera. */
function openTestPicture() {
  const canvas = Object.assign(document.createElement('canvas'), { width: 640, height: 480 });
  const paint = canvas.getContext('2d');
  const draw = () => {
    const now = performance.now();
    paint.fillStyle = `hsl(${(now / 40) % 360} 55% 40%)`;
    paint.fillRect(0, 0, canvas.width, canvas.height);
    const angle = now / 700;
    paint.fillStyle = '#ffffff';
    paint.beginPath();
    paint.arc(320 + 180 * Math.cos(angle), 240 + 130 * Math.sin(angle), 40, 0, 2 * Math.PI);
    paint.fill();
    paint.font = '600 48px system-ui, sans-serif';
    paint.textAlign = 'center';
    paint.fillText(new Date().toLocaleTimeString(), 320, 256);
  };
  draw();
  // A timer and not the screen's own rhythm: a page in the background goes on sending.
  const timer = setInterval(draw, 1000 / 30);

  const sound = new AudioContext();
  const tone = new OscillatorNode(sound, { frequency: 330 });
  const volume = new GainNode(sound, { gain: 0.05 });
  const output = sound.createMediaStreamDestination();
  tone.connect(volume).connect(output);
  tone.start();

  const stream = canvas.captureStream(30);
  stream.addTrack(output.stream.getAudioTracks()[0]);
  stream.dispose = () => {
    clearInterval(timer);
    sound.close();
  };
  return stream;
}

// ---- the call ------------------------------------------------------------------------------

class Loopback {
  #kurento = new KurentoConnection();
  #peer;
  #pipeline;
  #stream;
  #timer;
  #before = new Map();
  #ended = false;
  onEnd = () => {};

  async start(stream) {
    this.#stream = stream;
    byId('local').srcObject = stream;

    const scheme = location.protocol === 'https:' ? 'wss' : 'ws';
    this.#kurento.onGone = (error) => this.#fail(error);
    // A server that wants a token gets the one that its page was opened with.
    const token = new URLSearchParams(location.search).get('access_token');
    const query = token === null ? '' : `?access_token=${encodeURIComponent(token)}`;
    await this.#kurento.open(`${scheme}://${location.host}/kurento${query}`);

    const kurento = this.#kurento;
    this.#pipeline = await kurento.create('MediaPipeline', {});
    const endpoint = await kurento.create('WebRtcEndpoint', { mediaPipeline: this.#pipeline });
    await kurento.invoke(endpoint, 'connect', { sink: endpoint });

    const peer = new RTCPeerConnection();
    this.#peer = peer;
    this.#listen(peer, endpoint);
    for (const type of ['IceCandidateFound', 'ConnectionStateChanged', 'MediaStateChanged', 'Error']) {
      await kurento.subscribe(endpoint, type);
    }

    for (const track of stream.getTracks()) peer.addTrack(track, stream);
    await peer.setLocalDescription();
    const answer = await kurento.invoke(endpoint, 'processOffer', {
      offer: peer.localDescription.sdp,
    });
    await peer.setRemoteDescription({ type: 'answer', sdp: answer });
    await kurento.invoke(endpoint, 'gatherCandidates');
    this.#timer = setInterval(() => this.#measure().catch(() => {}), 1000);
  }

  #listen(peer, endpoint) {
    const returned = new MediaStream();
    byId('remote').srcObject = returned;
    peer.ontrack = ({ track }) => returned.addTrack(track);
    peer.onicecandidate = ({ candidate }) => {
      if (!candidate?.candidate) return;
      const { sdpMid, sdpMLineIndex } = candidate;
      this.#kurento
        .invoke(endpoint, 'addIceCandidate', {
          candidate: { candidate: candidate.candidate, sdpMid, sdpMLineIndex },
        })
        .catch((error) => this.#fail(error));
    };
    peer.onconnectionstatechange = () => {
      say('connection', peer.connectionState);
      if (peer.connectionState === 'connected') setState('running', 'Running');
      if (peer.connectionState === 'failed') {
        this.#fail(new Error(
          'No path for the media was found between browser and server. A firewall may keep UDP away.',
        ));
      }
    };

    // Candidates of the server may be here before its answer has been set.
    const early = [];
    const add = (candidate) => peer.addIceCandidate(candidate).catch((error) => this.#fail(error));
    peer.addEventListener('signalingstatechange', () => {
      if (peer.signalingState === 'stable') early.splice(0).forEach(add);
    });
    this.#kurento.onEvent = ({ type, data }) => {
      if (type === 'IceCandidateFound') {
        const { candidate, sdpMid, sdpMLineIndex } = data.candidate;
        const found = { candidate, sdpMid, sdpMLineIndex };
        if (peer.remoteDescription) add(found);
        else early.push(found);
      } else if (type === 'MediaStateChanged') {
        say('media', data.newState.toLowerCase());
      } else if (type === 'Error') {
        this.#fail(new Error(`The server reports: ${data.description}`));
      }
    };
  }

  async #measure() {
    const report = await this.#peer.getStats();
    if (this.#ended) return;
    const all = [...report.values()];
    const of = (type, kind) => all.find((entry) => entry.type === type && entry.kind === kind);
    const codec = (kind) => {
      const used = report.get((of('inbound-rtp', kind) ?? of('outbound-rtp', kind))?.codecId);
      return used ? used.mimeType.split('/')[1] : '–';
    };
    say('video-codec', codec('video'));
    say('audio-codec', codec('audio'));
    say('bitrate-out', this.#bitrate(all, 'outbound-rtp', 'bytesSent'));
    say('bitrate-in', this.#bitrate(all, 'inbound-rtp', 'bytesReceived'));

    const transport = all.find((entry) => entry.type === 'transport');
    const seconds = report.get(transport?.selectedCandidatePairId)?.currentRoundTripTime;
    say('round-trip', seconds === undefined ? '–' : `${(seconds * 1000).toFixed(1)} ms`);

    const incoming = all.filter((entry) => entry.type === 'inbound-rtp');
    say('lost', String(incoming.reduce((sum, entry) => sum + (entry.packetsLost ?? 0), 0)));
    const video = of('inbound-rtp', 'video');
    say('resolution', video?.frameWidth ? `${video.frameWidth} × ${video.frameHeight}` : '–');
    say('fps', video?.framesPerSecond === undefined ? '–' : String(Math.round(video.framesPerSecond)));
    say('local-size', size(byId('local')));
    say('remote-size', size(byId('remote')));
  }

  #bitrate(all, type, member) {
    const streams = all.filter((entry) => entry.type === type);
    if (streams.length === 0) return '–';
    const bytes = streams.reduce((sum, entry) => sum + (entry[member] ?? 0), 0);
    const at = streams[0].timestamp;
    const before = this.#before.get(type);
    this.#before.set(type, { bytes, at });
    if (!before || at <= before.at) return '–';
    return `${Math.round(((bytes - before.bytes) * 8) / (at - before.at))} kbit/s`;
  }

  #fail(error) {
    if (this.#ended) return;
    showError(error);
    this.stop('failed', 'Ended by an error');
  }

  stop(state = 'idle', text = 'Stopped') {
    if (this.#ended) return;
    this.#ended = true;
    clearInterval(this.#timer);
    this.#peer?.close();
    for (const track of this.#stream?.getTracks() ?? []) track.stop();
    this.#stream?.dispose?.();
    byId('local').srcObject = null;
    byId('remote').srcObject = null;
    // Without waiting: this also runs when the page goes away.
    if (this.#pipeline) this.#kurento.request('release', { object: this.#pipeline }).catch(() => {});
    this.#kurento.request('closeSession').catch(() => {});
    this.#kurento.close();
    setState(state, text);
    this.onEnd();
  }
}

const size = (video) => (video.videoWidth ? `${video.videoWidth} × ${video.videoHeight}` : '');

// ---- the page ------------------------------------------------------------------------------

const FIGURES = ['connection', 'media', 'video-codec', 'audio-codec', 'bitrate-out', 'bitrate-in',
  'round-trip', 'lost', 'resolution', 'fps'];
let current;

function setState(state, text) {
  byId('state').dataset.state = state;
  say('state', text);
}

function showError(error) {
  console.error(error);
  byId('error').hidden = false;
  say('error', error.message);
}

function setBusy(busy) {
  byId('start').disabled = busy;
  byId('test-picture').disabled = busy;
  byId('stop').disabled = !busy;
}

async function start(open) {
  byId('error').hidden = true;
  for (const id of FIGURES) say(id, '–');
  say('local-size', '');
  say('remote-size', '');
  setBusy(true);
  setState('starting', 'Starting…');
  const call = new Loopback();
  current = call;
  call.onEnd = () => {
    current = undefined;
    setBusy(false);
  };
  let stream;
  try {
    stream = await open();
    if (current !== call) throw new Error('Stopped');
    await call.start(stream);
  } catch (error) {
    for (const track of stream?.getTracks() ?? []) track.stop();
    if (current !== call) return;
    showError(error);
    call.stop('failed', 'Could not start');
  }
}

const wantsTestPicture = new URLSearchParams(location.search).get('source') === 'test';
byId('start').onclick = () => start(wantsTestPicture ? openTestPicture : openCamera);
byId('test-picture').onclick = () => start(openTestPicture);
byId('stop').onclick = () => current?.stop();
// Off at first: sound from the loudspeaker would come back through the microphone.
byId('sound').onchange = ({ target }) => { byId('remote').muted = !target.checked; };
addEventListener('pagehide', () => current?.stop());
if (wantsTestPicture) start(openTestPicture);
