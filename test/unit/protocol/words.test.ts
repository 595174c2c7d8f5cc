/** That every language says everything, in lines that are replies. */
import { describe, expect, test } from 'vitest'
import * as replies from '../../../src/protocol/pop3/replies.ts'
import { findLanguage, LANGUAGES } from '../../../src/protocol/pop3/words/languages.ts'

/** Larger than any that a maildrop has. */
const MANY = 2_147_483_647
const OCTETS = Number.MAX_SAFE_INTEGER
/** RFC 1035 §2.3.4 */
const HOSTNAME = 'h'.repeat(253)

describe.each(LANGUAGES.map((words) => [words.tag, words] as const))('%s', (tag, words) => {
  const texts = [
    words.maildropOpened('m'.repeat(64), MANY, OCTETS),
    words.maildropOpened(undefined, 1, 1),
    words.maildropHas(MANY, OCTETS),
    words.octetsFollow(MANY),
    words.scanListingFollows(MANY, OCTETS),
    words.messageDeleted(MANY),
    words.signOff(HOSTNAME),
    words.signOffAfterUpdate(HOSTNAME, 0),
    words.signOffAfterUpdate(HOSTNAME, MANY),
    words.expected('AUTH [mechanism [initial-response]]'),
    words.noSuchMessage(MANY),
    words.alreadyDeleted(MANY),
    ...Object.values(words).filter((text) => typeof text === 'string'),
  ]

  test('a text is one line that fits into a reply', () => {
    for (const text of texts) {
      expect(text).toMatch(/^[^\p{Cc}]+$/u)
      // RFC 1939 §3: 512 octets with "-ERR [LOGIN-DELAY] " and CRLF.
      expect(Buffer.byteLength(text)).toBeLessThanOrEqual(490)
    }
  })

  test('no text could be taken for a response code or a status', () => {
    for (const text of texts) expect(text).not.toMatch(/^(\[|<|\+OK|-ERR)/)
  })

  test('only English is ASCII by necessity', () => {
    if (tag === 'en') for (const text of texts) expect(text).toMatch(/^[\x20-\x7e]+$/)
  })

  test('numbers come first where programs look for them', () => {
    expect(words.octetsFollow(120)).toMatch(/^120 /)
    expect(words.scanListingFollows(2, 320)).toMatch(/^2 .*320/)
  })
})

test('no language leaves a text as another has it by oversight', () => {
  const [english, ...others] = LANGUAGES
  for (const other of others) {
    const same = Object.entries(other).filter(
      ([key, text]) => typeof text === 'string' && text === english?.[key as keyof typeof english],
    )
    expect(same).toEqual([])
  }
})

test('every refusal has words and every login refusal a response code', () => {
  const refusals = Object.values(replies.LOGIN_REFUSALS)
  for (const words of LANGUAGES) {
    for (const refusal of refusals) {
      expect(replies.serializeRefusal(refusal, words)).toMatch(/^-ERR \[[A-Z/-]+\] .+\r\n$/)
    }
  }
})

test('RFC 4647 §3.4: lookup takes the nearest language, and none for what is no range', () => {
  const cases: [string, string | undefined][] = [
    ['en', 'en'],
    ['EN-us', 'en'],
    ['de-CH-1996', 'de'],
    ['de-a-b-c', 'de'],
    ['*', 'en'],
    ['de-*', 'de'],
    ['fr', undefined],
    ['deu', undefined],
    ['e', undefined],
    ['', undefined],
    ['-de', undefined],
    ['i-default', undefined],
    ['constructor', undefined],
  ]
  for (const [range, tag] of cases) expect([range, findLanguage(range)?.tag]).toEqual([range, tag])
})
