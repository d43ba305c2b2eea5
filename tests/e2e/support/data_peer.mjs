// A page with data channels, connected to an endpoint of its own.
import { iceCandidate } from './kurento.mjs';

const PATIENCE_MS = 15_000;

/** What a page does with channels; it is handed to the page as text. */
function install() {
  const long = (length, first) => Uint8Array.from({ length }, (_, at) => (at + first) & 0xff);
  // FNV-1a: a page without an address has no cryptography.
  const digest = (data) => {
    const text = typeof data === 'string';
    const bytes = text ? new TextEncoder().encode(data) : new Uint8Array(data);
    const hash = bytes.reduce((sum, byte) => Math.imul(sum ^ byte, 0x01000193) >>> 0, 0x811c9dc5);
    return { text, length: bytes.length, hash };
  };
  window.DataPeer = class {
    channels = new Map();
    closed = [];
    #waiting = [];

    constructor() {
      this.peer = new RTCPeerConnection();
      this.peer.ondatachannel = ({ channel }) => this.add(channel);
      this.candidates = [];
      this.peer.onicecandidate = ({ candidate }) => { if (candidate?.candidate) this.candidates.push(candidate.toJSON()); };
    }

    add(channel) {
      channel.binaryType = 'arraybuffer';
      const known = { channel, received: [] };
      this.channels.set(channel.label, known);
      channel.onmessage = ({ data }) => { known.received.push(data); this.changed(); };
      channel.onopen = () => this.changed();
      channel.onclose = () => { this.closed.push(channel.label); this.changed(); };
      this.changed();
    }

    changed() {
      for (const look of this.#waiting) look();
    }

    async until(condition, what, ms) {
      const deadline = new Promise((_, reject) => {
        setTimeout(() => reject(new Error(`${what}: peer is ${this.peer.connectionState}, `
          + [...this.channels].map(([label, { channel, received }]) => `${label} is ${channel.readyState} with ${received.length}`).join(', '))), ms);
      });
      const met = new Promise((resolve) => {
        const look = () => { if (condition()) resolve(); };
        this.#waiting.push(look);
        look();
      });
      await Promise.race([met, deadline]);
    }

    async offer(channels) {
      for (const [label, options] of channels) this.add(this.peer.createDataChannel(label, options));
      await this.peer.setLocalDescription();
      await new Promise((resolve) => {
        const look = () => { if (this.peer.iceGatheringState === 'complete') resolve(); };
        this.peer.onicegatheringstatechange = look;
        look();
      });
      return this.peer.localDescription.sdp;
    }

    opened = (label, ms) => this.until(() => this.channels.get(label)?.channel.readyState === 'open', `${label} opens`, ms);
    gone = (label, ms) => this.until(() => this.closed.includes(label), `${label} closes`, ms);

    send(label, { text, length, first = 0 }) {
      const { channel } = this.channels.get(label);
      const data = text ?? long(length, first);
      channel.send(data);
      return digest(data);
    }

    async received(label, count, ms) {
      await this.until(() => this.channels.get(label).received.length >= count, `${count} messages on ${label}`, ms);
      return this.channels.get(label).received.map(digest);
    }

    describe(label) {
      const { channel } = this.channels.get(label);
      const { id, ordered, protocol, maxRetransmits, maxPacketLifeTime, readyState } = channel;
      return { id, ordered, protocol, maxRetransmits, maxPacketLifeTime, readyState };
    }

    close(label) {
      this.channels.get(label).channel.close();
    }
  };
}

/** A page with a connection to an endpoint of its own. */
export class DataPeer {
  events = [];
  #waiting = [];

  constructor(page, handle, endpoint) {
    this.page = page;
    this.handle = handle;
    this.endpoint = endpoint;
  }

  static async join(stage, pipeline, channels = [], browser = undefined) {
    const page = await stage.page('about:blank', browser);
    await page.evaluate(install);
    const handle = await page.evaluateHandle(() => new window.DataPeer());
    const endpoint = await pipeline.create('WebRtcEndpoint', { useDataChannels: true });
    const peer = new DataPeer(page, handle, endpoint);
    for (const type of ['DataChannelOpened', 'DataChannelClosed']) {
      endpoint.on(type, ({ channelId }) => {
        peer.events.push([type, channelId]);
        peer.#waiting.forEach((look) => look());
      });
    }
    endpoint.on('IceCandidateFound', ({ candidate }) => {
      const { candidate: line, sdpMid, sdpMLineIndex } = candidate;
      handle.evaluate(
        (known, init) => known.peer.addIceCandidate(init),
        { candidate: line, sdpMid, sdpMLineIndex },
      ).catch((error) => stage.said.push(`candidate: ${error.message}`));
    });
    // Without a channel of its own an offer has no section for data.
    const offer = await peer.call('offer', channels.length > 0 ? channels : [['unused', { negotiated: true, id: 1022 }]]);
    const answer = await endpoint.processOffer(offer);
    await handle.evaluate((known, sdp) => known.peer.setRemoteDescription({ type: 'answer', sdp }), answer);
    await endpoint.gatherCandidates();
    for (const candidate of await handle.evaluate((known) => known.candidates)) {
      await endpoint.addIceCandidate(iceCandidate(candidate));
    }
    return peer;
  }

  call(method, ...values) {
    return this.handle.evaluate((peer, [name, list]) => peer[name](...list), [method, values]);
  }

  opened = (label) => this.call('opened', label, PATIENCE_MS);
  gone = (label) => this.call('gone', label, PATIENCE_MS);
  send = (label, message) => this.call('send', label, message);
  received = (label, count) => this.call('received', label, count, PATIENCE_MS);

  /** An event of the endpoint. */
  told(type, channel) {
    return new Promise((resolve, reject) => {
      const late = setTimeout(() => reject(new Error(`no ${type} ${channel} in ${JSON.stringify(this.events)}`)), PATIENCE_MS);
      const look = () => {
        if (this.events.some(([known, id]) => known === type && id === channel)) {
          clearTimeout(late);
          resolve();
        }
      };
      this.#waiting.push(look);
      look();
    });
  }

  /** Statistics: those of channels by label, and of all together. */
  async stats() {
    const entries = Object.values(await this.endpoint.getStats('DATA'));
    const channels = entries.filter(({ type }) => type === 'datachannel');
    return {
      channels: Object.fromEntries(channels.map((entry) => [entry.label, entry])),
      session: entries.find(({ type }) => type === 'session'),
    };
  }
}
