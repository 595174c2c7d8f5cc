/**
 * What a session costs at most, in figures that are the same on every machine. Each guard prints
 * its figure and fails above its bound.
 *
 * To change a bound: run `npx vitest run --project main test/guard` and write the printed figure
 * here. When a figure falls, its bound follows it down. A bound goes up only with a reason in the
 * commit that raises it; those that are bare numbers are the project's targets and do not go up.
 */

/** Measured; octets vary with the digits of ids. */
const octets = (measured: number): number => Math.ceil(measured * 1.05)
/**
 * Measured with Node 20; another version of Node or V8 lays out its objects otherwise. A doubled
 * cost, or one more copy of a message, is beyond it.
 */
const allocated = (measured: number): number => Math.ceil(measured * 1.2)

export const BOUNDS = {
  'warm login: round trips to the database': 1,
  'warm poll with UIDL: statements': 3,
  'warm poll with UIDL: round trips to the database': 2,
  'warm poll with UIDL: octets to the database': octets(566),
  'warm poll with UIDL: octets from the database': octets(1_343),
  'warm poll with UIDL: plans of one statement': 5,
  'warm poll with UIDL: writes to the socket': 5,
  'warm poll with UIDL: octets allocated on the heap': allocated(138_000),
  'warm poll with UIDL: octets allocated in buffers': allocated(5_300),
  // Half a microsecond. With prom-client's own counters, labels bound before, it is 80 and more.
  'counting a warm poll: readings of the clock': 25,
  'warm poll with STAT alone: statements': 3,
  'warm poll with STAT alone: round trips to the database': 2,
  'warm poll with STAT alone: octets to the database': octets(566),
  'warm poll with STAT alone: octets from the database': octets(1_343),

  // Messages of 10 KB, two chunks each; the list came with the login.
  '100 RETRs one at a time: statements': 5,
  'RETR one at a time: octets to the database': octets(6),
  'RETR one at a time: octets from the database beyond the message': octets(75),
  'RETR one at a time: writes to the socket': 1,
  // What the reader may hold (reader.ts), whenever it is that it reads on.
  'RETR one at a time: octets held ahead of the client': octets(786_432),
  'RETR one at a time: octets allocated on the heap': allocated(11_400),
  // Rows lie in memory that is used again (row-memory.ts): a slab more or less for 250 messages.
  'RETR one at a time: octets allocated in buffers': allocated(1_000),
  '100 RETRs pipelined: statements': 5,
  '100 RETRs pipelined: writes to the socket': 13,
  'RETR pipelined: octets from the database beyond the message': octets(75),

  // One stretch that the client has not taken, the next one, and what PostgreSQL's protocol has added
  // by then: 11 octets a chunk.
  'RETR of 50 MB by a slow reader: octets held': octets(2 * 259_072 + 80_000),

  'LMTP delivery: statements': 2,
  'LMTP delivery: round trips to the database': 2,
  'LMTP delivery: octets to the database beyond the message': octets(492),
  'LMTP delivery: octets from the database': octets(143),
  // The replies to MAIL, RCPT and DATA, and the one after the message.
  'LMTP delivery, commands together: writes to the socket': 2,
  // The first goes alone; how many are there when it is done depends on the machine.
  '16 LMTP deliveries at once: delivering statements': 8,
} as const
