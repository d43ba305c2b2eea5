// Applications of the Kurento tutorials, each as what it does when somebody joins or leaves.

/** Hello world: everybody has a pipeline of their own and sees themselves. */
export class HelloWorld {
  #pipelines = new Map();

  async join(participant, { sdpOffer }) {
    const pipeline = await this.kurento.create('MediaPipeline');
    this.#pipelines.set(participant, pipeline);
    const endpoint = await participant.createEndpoint(pipeline);
    await endpoint.connect(endpoint);
    if (sdpOffer) await participant.answer(sdpOffer);
    else await participant.offer();
  }

  async leave(participant) {
    const pipeline = this.#pipelines.get(participant);
    this.#pipelines.delete(participant);
    participant.endpoint = null;
    await pipeline?.release();
  }
}

/** One to many: one presenter, any number of viewers, all in one pipeline. */
export class OneToMany {
  #pipeline;
  #presenter;
  #source;

  /** With `passThrough`, viewers hang on a PassThrough behind the presenter. */
  constructor({ passThrough = false } = {}) {
    this.passThrough = passThrough;
  }

  async join(participant, { role, sdpOffer }) {
    if (role === 'presenter') {
      this.#pipeline = await this.kurento.create('MediaPipeline');
      this.#presenter = participant;
      this.#source = await participant.createEndpoint(this.#pipeline);
      if (this.passThrough) {
        const pass = await this.#pipeline.create('PassThrough');
        await this.#source.connect(pass);
        this.#source = pass;
      }
    } else {
      if (!this.#presenter) throw new Error('There is no presenter');
      const endpoint = await participant.createEndpoint(this.#pipeline);
      await this.#source.connect(endpoint);
    }
    await participant.answer(sdpOffer);
  }

  async leave(participant) {
    if (participant !== this.#presenter) return;
    participant.endpoint = null;
    this.#presenter = null;
    await this.#pipeline.release();
  }
}

/** A call of two: the second to join is connected with the first, both ways. */
export class Call {
  #pipeline;
  #first;

  async join(participant, { sdpOffer }) {
    this.#pipeline ??= await this.kurento.create('MediaPipeline');
    const endpoint = await participant.createEndpoint(this.#pipeline);
    if (this.#first) {
      await this.#first.connect(endpoint);
      await endpoint.connect(this.#first);
    }
    this.#first ??= endpoint;
    await participant.answer(sdpOffer);
  }
}

/** Everybody at a port of one hub of the given class. */
export class Hub {
  #pipeline;
  ports = new Map();

  constructor(type) {
    this.type = type;
  }

  async join(participant, { role, sdpOffer }) {
    this.#pipeline ??= await this.kurento.create('MediaPipeline');
    this.hub ??= await this.#pipeline.create(this.type);
    const port = await this.hub.createHubPort();
    this.ports.set(role, port);
    const endpoint = await participant.createEndpoint(this.#pipeline);
    await endpoint.connect(port);
    await port.connect(endpoint);
    await participant.answer(sdpOffer);
  }
}
