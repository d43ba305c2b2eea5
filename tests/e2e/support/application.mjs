// An application server as Kurento's tutorials build it: browsers talk to it over a WebSocket, it
// talks to the media server with kurento-client, and it decides who is connected to whom.
import { createServer } from 'node:http';
import { readFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import WebSocket from 'ws';

import { iceCandidate } from './kurento.mjs';

const PAGES = join(dirname(fileURLToPath(import.meta.url)), '../pages');
const FILES = {
  '/': ['index.html', 'text/html; charset=utf-8'],
  '/participant.js': ['participant.js', 'text/javascript; charset=utf-8'],
};

/** One browser as the application sees it: a socket and, while in a call, a WebRtcEndpoint. */
export class Participant {
  #socket;
  #early = [];
  endpoint = null;
  /** What is done to an endpoint before anything else is. */
  prepare = null;
  /** Names of the events its endpoint raised, in order. */
  events = [];

  constructor(socket) {
    this.#socket = socket;
  }

  send(message) {
    this.#socket.send(JSON.stringify(message));
  }

  /** Makes the endpoint in `pipeline`; candidates that came before are given to it. */
  async createEndpoint(pipeline) {
    const endpoint = await pipeline.create('WebRtcEndpoint');
    this.endpoint = endpoint;
    await this.prepare?.(endpoint, this);
    endpoint.on('IceCandidateFound', ({ candidate }) => {
      this.send({ id: 'iceCandidate', candidate: iceCandidate(candidate) });
    });
    for (const type of ['MediaStateChanged', 'ConnectionStateChanged', 'MediaFlowInStateChanged', 'MediaFlowOutStateChanged']) {
      endpoint.on(type, (event) => this.events.push({ ...event, type }));
    }
    for (const candidate of this.#early.splice(0)) await endpoint.addIceCandidate(candidate);
    return endpoint;
  }

  /** The browser offered. */
  async answer(sdpOffer) {
    const sdpAnswer = await this.endpoint.processOffer(sdpOffer);
    this.send({ id: 'response', sdpAnswer });
    await this.endpoint.gatherCandidates();
  }

  /** The server offers; the browser's answer comes as a message. */
  async offer() {
    this.send({ id: 'offer', sdpOffer: await this.endpoint.generateOffer() });
    await this.endpoint.gatherCandidates();
  }

  async processAnswer(sdpAnswer) {
    await this.endpoint.processAnswer(sdpAnswer);
  }

  async addCandidate(candidate) {
    const known = iceCandidate(candidate);
    if (this.endpoint) await this.endpoint.addIceCandidate(known);
    else this.#early.push(known);
  }

  async leave() {
    const { endpoint } = this;
    this.endpoint = null;
    this.#early = [];
    await endpoint?.release();
  }
}

/** Serves the page and its socket. `behaviour` has `join(participant, message)`, and may have `leave` and `prepare`. */
export class Application {
  #http;
  #sockets;
  /** What was begun for participants and has not ended. */
  #running = new Set();
  errors = [];
  participants = new Set();

  static async start(kurento, behaviour) {
    const application = new Application();
    await application.#listen(kurento, behaviour);
    return application;
  }

  async #listen(kurento, behaviour) {
    this.behaviour = behaviour;
    behaviour.kurento = kurento;
    this.#http = createServer(async (request, response) => {
      const [file, type] = FILES[new URL(request.url, 'http://page').pathname] ?? [];
      if (!file) {
        response.writeHead(404).end();
        return;
      }
      response.writeHead(200, { 'content-type': type }).end(await readFile(join(PAGES, file)));
    });
    this.#sockets = new WebSocket.Server({ server: this.#http });
    this.#sockets.on('connection', (socket) => this.#welcome(socket));
    await new Promise((resolve) => this.#http.listen(0, '127.0.0.1', resolve));
    this.address = `http://127.0.0.1:${this.#http.address().port}/`;
  }

  #welcome(socket) {
    const participant = new Participant(socket);
    participant.prepare = this.behaviour.prepare;
    this.participants.add(participant);
    const run = async (work) => {
      this.#running.add(work);
      try {
        await work;
      } catch (error) {
        this.errors.push(error);
        if (socket.readyState === socket.OPEN) participant.send({ id: 'error', message: String(error.message ?? error) });
      } finally {
        this.#running.delete(work);
      }
    };
    const leave = async () => {
      await this.behaviour.leave?.(participant);
      await participant.leave();
    };
    socket.on('message', (bytes) => {
      const message = JSON.parse(bytes);
      switch (message.id) {
        case 'join': return run(this.behaviour.join(participant, message));
        case 'restart': return run(participant.answer(message.sdpOffer));
        case 'answer': return run(participant.processAnswer(message.sdpAnswer));
        case 'iceCandidate': return run(participant.addCandidate(message.candidate));
        case 'leave': return run(leave());
      }
    });
    socket.on('close', () => {
      this.participants.delete(participant);
      run(leave());
    });
  }

  async stop() {
    const closed = [...this.#sockets.clients].map((socket) => {
      const end = new Promise((resolve) => { socket.once('close', resolve); });
      socket.terminate();
      return end;
    });
    this.#sockets.close();
    await Promise.all([...closed, new Promise((resolve) => { this.#http.close(resolve); })]);
    await Promise.allSettled(this.#running);
  }
}
