// A network between browser and server that loses media: relays on loopback, one for each address that
// the server announces. The browser is told of the relays, and the server of nothing: it learns from
// the checks where the browser seems to be.
import { createSocket } from 'node:dgram';

/** The same sequence each time, from 0 to 1. */
function random(seed) {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 2 ** 32;
  };
}

const bound = async (socket) => {
  await new Promise((resolve) => { socket.bind(0, '127.0.0.1', resolve); });
  return socket.address().port;
};

export class Lossy {
  #sockets = [];
  #relays = new Map();
  #random = random(7);
  /** To the server and from it: how many packets were not passed on, by SSRC. */
  lost = { up: new Map(), down: new Map() };

  /** `chance` from 0 to 1 that a packet of media is lost, in either direction. */
  constructor(chance) {
    this.chance = chance;
  }

  /** Puts the network between a participant of the application and the server. */
  between(participant) {
    const send = participant.send.bind(participant);
    participant.send = async (message) => {
      if (message.id !== 'iceCandidate') return send(message);
      const candidate = await this.#translate(message.candidate);
      return candidate && send({ ...message, candidate });
    };
    participant.addCandidate = async () => {};
  }

  async #translate(candidate) {
    const words = candidate.candidate.split(' ');
    // One way is enough.
    if (words[2] !== 'UDP' || words[4] !== '127.0.0.1') return null;
    if (!this.#relays.has(words[5])) this.#relays.set(words[5], this.#relay(Number(words[5])));
    words[5] = `${await this.#relays.get(words[5])}`;
    const { sdpMid, sdpMLineIndex } = candidate;
    return { candidate: words.join(' '), sdpMid, sdpMLineIndex };
  }

  async #relay(server) {
    const near = this.#open();
    const far = new Map();
    near.on('message', async (bytes, { address, port }) => {
      if (!far.has(port)) {
        const socket = this.#open();
        far.set(port, bound(socket).then(() => socket));
        socket.on('message', (answer) => this.#pass('down', answer) && near.send(answer, port, address));
      }
      const socket = await far.get(port);
      if (this.#pass('up', bytes)) socket.send(bytes, server, '127.0.0.1');
    });
    return bound(near);
  }

  #open() {
    const socket = createSocket('udp4');
    // What is still on its way when the test ends goes nowhere.
    socket.on('error', () => {});
    this.#sockets.push(socket);
    return socket;
  }

  /** Whether a datagram is passed on: only RTP is ever lost (RFC 7983, RFC 5761). */
  #pass(way, bytes) {
    const rtp = bytes.length >= 12 && bytes[0] >= 128 && bytes[0] < 192 && (bytes[1] < 192 || bytes[1] > 223);
    if (!rtp || this.#random() >= this.chance) return true;
    const ssrc = bytes.readUInt32BE(8);
    const lost = this.lost[way];
    lost.set(ssrc, (lost.get(ssrc) ?? 0) + 1);
    return false;
  }

  close() {
    for (const socket of this.#sockets.splice(0)) socket.close();
  }
}
