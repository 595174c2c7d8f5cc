/** Octets of a message as a reply has them. */
import { type DotStuffer, stuffedMax } from '../../src/protocol/wire/dot-stuffing.ts'

/** In just the room that is promised to be enough. */
export function stuffed(stuffer: DotStuffer, part: Buffer): Buffer {
  const target = Buffer.alloc(stuffedMax(part.length))
  const end = stuffer.stuff(part, target, 0)
  if (end > target.length) throw new Error(`${part.length} octets have become ${end}`)
  return target.subarray(0, end)
}
