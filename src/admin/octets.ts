/**
 * Sizes as operators write and read them: `500M`, `1.5G`, or plain octets. K, M, G and T are powers
 * of 1024, because that is what quotas and disks of mail hosts are counted in.
 */
const FACTORS: Readonly<Record<string, number>> = {
  '': 1,
  K: 1024,
  M: 1024 ** 2,
  G: 1024 ** 3,
  T: 1024 ** 4,
}

/**
 * @param text digits, perhaps a fraction, perhaps one of K, M, G, T (any case)
 * @returns whole octets, or undefined if `text` is no size (a negative one is none)
 */
export function parseOctets(text: string): number | undefined {
  const match = /^(\d{1,15})(\.\d{1,6})?([KMGT]?)$/.exec(text.toUpperCase())
  const factor = FACTORS[match?.[3] ?? '']
  if (match === null || factor === undefined || (factor === 1 && match[2] !== undefined))
    return undefined
  const octets = Math.round(Number(`${match[1]}${match[2] ?? ''}`) * factor)
  return Number.isSafeInteger(octets) ? octets : undefined
}

/** For people: `0`, `999`, `1.0K`, `20.3M`. JSON gives the exact number instead. */
export function formatOctets(octets: number): string {
  let value = octets
  let unit = ''
  for (const next of ['K', 'M', 'G', 'T']) {
    if (value < 1023.95) break
    value /= 1024
    unit = next
  }
  return unit === '' ? String(value) : `${value.toFixed(1)}${unit}`
}
