import { once } from 'node:events';
import { connect, createServer, type AddressInfo, type Server, type Socket } from 'node:net';

/** `cut`: connections are reset, new ones too. `blackhole`: all stay open, and nothing passes until it is healed. */
export type Break = 'cut' | 'blackhole';

interface Pair {
  near: Socket;
  far?: Socket;
}

/** The way of one process to one server, over TCP of the loopback, which a test can break and heal. */
export class Relay {
  private readonly pairs = new Set<Pair>();
  private readonly abandoned = new Set<Pair>();
  /** Connections that were reset at once, as it was cut. */
  refused = 0;
  private broken?: Break;

  private constructor(
    private readonly server: Server,
    private target: number,
  ) {}

  static async open(target: number): Promise<Relay> {
    const server = createServer({ allowHalfOpen: true, noDelay: true });
    const relay = new Relay(server, target);
    server.on('connection', (near) => relay.accept(near));
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    return relay;
  }

  get port(): number {
    return (this.server.address() as AddressInfo).port;
  }

  break(how: Break): void {
    this.broken = how;
    for (const pair of this.pairs) {
      if (how === 'cut') this.drop(pair);
      else {
        pair.far?.unpipe(pair.near);
        pair.near.unpipe(pair.far);
      }
    }
  }

  /** What was sent into a blackhole arrives now, as packets that are sent again do; so do ends of connections. */
  heal(): void {
    this.broken = undefined;
    for (const pair of this.pairs) {
      if (pair.near.destroyed || pair.far?.destroyed) this.drop(pair);
      else this.join(pair);
    }
  }

  /** Connections of now stay open for ever with nothing passing, as after a router has forgotten them; new ones are not hit. */
  abandon(): void {
    for (const pair of this.pairs) {
      pair.far?.unpipe(pair.near);
      pair.near.unpipe(pair.far);
      this.abandoned.add(pair);
    }
    this.pairs.clear();
  }

  /** Heals a blackhole into another way: what was connected stays open for ever with nothing passing, all else leads there. */
  leadTo(port: number): void {
    this.target = port;
    for (const pair of this.pairs) {
      if (!pair.far) continue;
      this.pairs.delete(pair);
      this.abandoned.add(pair);
    }
    this.heal();
  }

  close(): void {
    this.server.close();
    for (const pair of [...this.pairs, ...this.abandoned]) this.drop(pair);
  }

  private accept(near: Socket): void {
    if (this.broken === 'cut') {
      this.refused++;
      near.resetAndDestroy();
      return;
    }
    const pair = { near };
    this.pairs.add(pair);
    this.watch(near, pair);
    if (!this.broken) this.join(pair);
  }

  private join(pair: Pair): void {
    if (!pair.far) {
      pair.far = connect({ port: this.target, host: '127.0.0.1', allowHalfOpen: true, noDelay: true });
      this.watch(pair.far, pair);
    }
    pair.near.pipe(pair.far).pipe(pair.near);
  }

  private watch(socket: Socket, pair: Pair): void {
    socket.on('error', () => undefined);
    socket.on('close', () => {
      // The other side must not hear of it while nothing passes.
      if (this.broken !== 'blackhole') this.drop(pair);
    });
  }

  private drop(pair: Pair): void {
    this.pairs.delete(pair);
    pair.near.resetAndDestroy();
    pair.far?.resetAndDestroy();
  }
}
