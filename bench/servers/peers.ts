/** The servers that Popgres is compared with, by the name that each gives itself. */
import type { Seed } from '../load/content.ts'
import { startCourier } from './courier.ts'
import { DOVECOT_VARIANTS, nameOfDovecot, startDovecot } from './dovecot.ts'
import type { BenchServer } from './server.ts'

export interface Peer {
  name: string
  start(place: string, seed: Seed): Promise<BenchServer>
}

export const PEERS: readonly Peer[] = [
  ...DOVECOT_VARIANTS.map((variant) => ({
    name: nameOfDovecot(variant),
    start: (place: string, seed: Seed) => startDovecot(place, seed, variant),
  })),
  { name: 'courier', start: startCourier },
]
