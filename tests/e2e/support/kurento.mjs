// The unmodified Kurento client for Node, with what it needs to run on today's Node.
import '../domain-shim.cjs';

const { default: kurento } = await import('kurento-client');

/** Opens a client; `close()` it at the end. */
export const connect = (url) => kurento(url, { failAfter: 5 });

/** An ICE candidate as Kurento's complex type. */
export const iceCandidate = (candidate) => kurento.getComplexType('IceCandidate')(candidate);
