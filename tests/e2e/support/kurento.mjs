// The unmodified Kurento client for Node, with what it needs to run on today's Node.
import '../domain-shim.cjs';

import { once } from 'node:events';

const { default: kurento } = await import('kurento-client');

/** The connection of each client: what a client resolves to does not show it. */
const connections = new WeakMap();

/** Opens a client of the given version of the library; `leave` it at the end. */
export async function open(library, url, settings = {}) {
  const opening = library(url, { failAfter: 5, ...settings });
  const client = await opening;
  connections.set(client, opening._re);
  return client;
}

/** Opens a client of the last version. */
export const connect = (url) => open(kurento, url);

/** An ICE candidate as Kurento's complex type. */
export const iceCandidate = (candidate) => kurento.getComplexType('IceCandidate')(candidate);

/**
 * Closes a client and waits until its connection has ended. `close()` alone ends the connection when
 * the last answer is there, and never when that was an error; a client that is still connected when
 * the server ends tries to come back, and throws where nobody catches it.
 */
export async function leave(client) {
  const connection = connections.get(client);
  const ended = connection.connected && once(connection, 'disconnect');
  connection.on('error', () => {});
  client.close();
  connection.disconnect();
  await ended;
}
