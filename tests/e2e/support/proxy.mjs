// A TCP proxy whose connections can be cut, and which can be turned to another server.
import { connect, createServer } from 'node:net';

/** Starts a proxy before `target`, a URL; `address` has its own host and port. */
export async function startProxy(target) {
  let to = new URL(target);
  const sockets = new Set();
  const server = createServer((near) => {
    const far = connect(Number(to.port), to.hostname);
    for (const [socket, other] of [[near, far], [far, near]]) {
      sockets.add(socket);
      socket.on('error', () => other.destroy());
      socket.on('close', () => {
        sockets.delete(socket);
        other.destroy();
      });
      socket.pipe(other);
    }
  });
  await new Promise((resolve) => { server.listen(0, '127.0.0.1', resolve); });
  return {
    get address() {
      const { pathname, protocol } = to;
      return `${protocol}//127.0.0.1:${server.address().port}${pathname}`;
    },
    /** New connections go to this URL. */
    turn(other) { to = new URL(other); },
    /** Cuts all connections; new ones are welcome. */
    cut() { for (const socket of sockets) socket.destroy(); },
    async stop() {
      const closed = new Promise((resolve) => { server.close(resolve); });
      this.cut();
      await closed;
    },
  };
}
