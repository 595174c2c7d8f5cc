/**
 * The pure session with a maildrop in memory, so that dialogs and fuzzing need no socket and no
 * database. It does what the contract of the actions asks of an owner, at once and in one thread;
 * it stands for no server, and nothing about storage is proved with it.
 */
import { createHash, createHmac, pbkdf2Sync } from 'node:crypto'
import type {
  ImportedIds,
  LoginAttempt,
  LoginRefusal,
  Pop3Action,
  Pop3Outcome,
  Pop3Parameters,
  SaslMechanismName,
} from '../../src/protocol/pop3/actions.ts'
import { Pop3Session } from '../../src/protocol/pop3/session.ts'
import { DotStuffer } from '../../src/protocol/wire/dot-stuffing.ts'
import { TopCutter } from '../../src/protocol/wire/top-cutter.ts'
import { stuffed } from '../support/stuffed.ts'
import { type Ability, type EventName, type Fixtures, parseOctets } from './dialog.ts'
import type { DialogConnection, DialogPeer } from './runner.ts'

type Asked = Exclude<Pop3Action, { kind: 'send' | 'close' }>
type Close = Extract<Pop3Action, { kind: 'close' }>

const TIMESTAMP = '<1896.697170952@dbc.mtview.ca.us>'
/** Of RFC 7677 §3, so that its example can be spoken word for word. */
const SCRAM_SALT = {
  salt: Buffer.from('W22ZaJ0SNY7soEsUEjb6gQ==', 'base64'),
  iterations: 4096,
  nonce: '%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0',
}
const CHANNEL_BINDING = createHash('sha256').update('dewey').digest()
/** Uids are not numbers from 1, so that the two cannot be confused unnoticed. */
const FIRST_UID = 501

export class MemoryPeer implements DialogPeer {
  readonly abilities: ReadonlySet<Ability> = new Set<Ability>([
    'fixed-timestamp',
    'plaintext-refused',
    'apop-withheld',
    'certificate',
    'fixed-scram',
    'bearer',
    'policy',
    'utf8-asked',
    'suspension',
    'in-use',
    'unique-ids',
    'faults',
    'drain',
    'idle',
    'lease-lost',
    'deliver',
    'remove',
    'tls',
  ])
  readonly #chunkOctets: number

  /** @param chunkOctets messages are handed over in chunks of this size */
  constructor(chunkOctets: number) {
    this.#chunkOctets = chunkOctets
  }

  async open(fixtures: Fixtures): Promise<MemoryConnection> {
    return new MemoryConnection(fixtures, this.#chunkOctets)
  }
}

export class MemoryConnection implements DialogConnection {
  readonly session: Pop3Session
  /** Everything the session asked for except `send`, in order. */
  readonly asked: Asked[] = []
  closeReason: Close['reason'] | undefined
  readonly #fixtures: Fixtures
  readonly #chunkOctets: number
  readonly #messages = new Map<number, Buffer>()
  readonly #timestamp: string | undefined
  #output: Buffer[] = []
  #isDropped = false
  #isEncrypted = false
  #nextUid = FIRST_UID

  constructor(fixtures: Fixtures, chunkOctets: number) {
    this.#fixtures = fixtures
    this.#chunkOctets = chunkOctets
    for (const { content } of fixtures.messages) this.#deliver(content)
    this.#timestamp = fixtures.isApopOffered ? (fixtures.timestamp ?? TIMESTAMP) : undefined
    this.session = new Pop3Session(this.#parameters())
    this.#pump()
  }

  /** Whether the session waits for a handshake. */
  get isSecuring(): boolean {
    return this.asked.at(-1)?.kind === 'start-tls' && !this.#isEncrypted
  }

  /** The handshake that the session asked for is done. */
  secure(): void {
    this.#isEncrypted = true
    this.session.resume({ kind: 'secured', parameters: this.#parameters() })
    this.#pump()
  }

  #parameters(): Pop3Parameters {
    const isEncrypted = this.#isEncrypted
    const { isPlaintextAllowed, isTlsOffered, policy, ownPolicy, isUtf8Asked } = this.#fixtures
    const isProtected = isEncrypted || isPlaintextAllowed
    const canWork = (mechanism: SaslMechanismName): boolean => {
      if (mechanism === 'SCRAM-SHA-256') return true
      if (mechanism === 'SCRAM-SHA-256-PLUS') return isEncrypted
      return mechanism === 'EXTERNAL' ? isEncrypted && this.#fixtures.hasCertificate : isProtected
    }
    return {
      hostname: 'dewey',
      apopTimestamp: this.#timestamp,
      isPlaintextAllowed: isProtected,
      isTlsOffered: isTlsOffered && !isEncrypted,
      saslMechanisms: this.#fixtures.saslMechanisms.filter(canWork),
      channelBinding: isEncrypted ? CHANNEL_BINDING : undefined,
      policy,
      isPolicyByUser: ownPolicy !== undefined,
      isUtf8Asked,
      implementation: 'Popgres',
    }
  }

  async write(octets: Buffer): Promise<void> {
    this.push(octets)
  }

  push(octets: Buffer): void {
    if (this.closeReason !== undefined) return
    this.session.receive(octets)
    this.#pump()
  }

  /** What was sent since the last call. */
  takeOutput(): Buffer {
    const output = Buffer.concat(this.#output)
    this.#output = []
    return output
  }

  async read(): Promise<Buffer | undefined> {
    if (this.#output.length > 0) return this.takeOutput()
    if (this.closeReason !== undefined) return undefined
    throw new Error('the session is silent')
  }

  async event(name: EventName, argument: string): Promise<void> {
    if (name === 'deliver') this.#deliver(parseOctets(argument))
    else if (name === 'remove') this.#messages.delete(FIRST_UID + Number(argument) - 1)
    else if (name === 'tls') this.secure()
    else this.session.end(name)
    this.#pump()
  }

  async drop(): Promise<void> {
    if (this.#isDropped) return
    this.#isDropped = true
    this.session.end('gone')
    this.#pump()
  }

  async numbersLeft(): Promise<number[]> {
    const numbers = [...this.#messages.keys()].map((uid) => uid - FIRST_UID + 1)
    return numbers.filter((number) => number <= this.#fixtures.messages.length)
  }

  #deliver(content: Buffer): void {
    this.#messages.set(this.#nextUid, content)
    this.#nextUid += 1
  }

  #pump(): void {
    for (;;) {
      const action = this.session.next()
      if (action === undefined) return
      if (action.kind === 'send') this.#output.push(action.bytes)
      else if (action.kind === 'close') this.closeReason = action.reason
      else {
        this.asked.push(action)
        if (action.kind === 'start-tls') return
        this.session.resume(this.#answer(action))
      }
    }
  }

  #answer(action: Exclude<Asked, { kind: 'start-tls' }>): Pop3Outcome {
    switch (action.kind) {
      case 'login':
        return this.#logIn(action.attempt)
      case 'scram-salt':
        return { kind: 'scram-salt', ...SCRAM_SALT }
      case 'list':
        if (this.#faultOf('list') !== undefined) return { kind: 'unavailable', reason: 'temporary' }
        return this.#list()
      case 'unique-ids':
        return this.#faultOf('unique-ids') === undefined
          ? { kind: 'unique-ids', ...this.#uniqueIds(action.firstUid, action.lastUid) }
          : { kind: 'unavailable', reason: 'temporary' }
      case 'retrieve':
        return this.#retrieve(action)
      case 'commit':
        return this.#commit(action.uids)
    }
  }

  #faultOf(what: Fixtures['faults'][number]['what']): string | undefined {
    return this.#fixtures.faults.find((fault) => fault.what === what)?.detail
  }

  #logIn(attempt: LoginAttempt): Pop3Outcome {
    const { user, isSuspended, isInUse, messages, policy, ownPolicy } = this.#fixtures
    const fault = this.#faultOf('login')
    if (fault !== undefined) {
      return { kind: 'login-refused', reason: (fault || 'temporary') as LoginRefusal }
    }
    const isNamed = attempt.name === user || isNameless(attempt)
    if (!isNamed || !this.#isProof(attempt)) {
      return { kind: 'login-refused', reason: 'bad-credentials' }
    }
    if (isSuspended) return { kind: 'login-refused', reason: 'suspended' }
    if (isInUse) return { kind: 'login-refused', reason: 'in-use' }
    return {
      kind: 'opened',
      displayName: user,
      messageCount: messages.length,
      octets: messages.reduce((sum, { content }) => sum + content.length, 0),
      uidPrefix: '1763850000.',
      hasUniqueIds: messages.some(({ uniqueId }) => uniqueId !== undefined),
      policy: ownPolicy ?? policy,
      serverSignature: attempt.mechanism === 'scram' ? this.#scram(attempt).signature : undefined,
    }
  }

  #isProof(attempt: LoginAttempt): boolean {
    const { password, bearerToken } = this.#fixtures
    switch (attempt.mechanism) {
      case 'password':
        return attempt.password.reveal().equals(Buffer.from(password, 'utf8'))
      case 'apop': {
        const proof = createHash('md5').update(attempt.timestamp).update(password).digest('hex')
        return attempt.timestamp === this.#timestamp && attempt.digest === proof
      }
      case 'scram':
        return this.#scram(attempt).proof.equals(attempt.clientProof)
      case 'bearer':
        return attempt.token.reveal().toString() === bearerToken
      case 'external':
        return this.#fixtures.hasCertificate
    }
  }

  /** RFC 5802 §3, from the password itself. */
  #scram({ authMessage }: { authMessage: string }): { proof: Buffer; signature: Buffer } {
    const { salt, iterations } = SCRAM_SALT
    const salted = pbkdf2Sync(this.#fixtures.password, salt, iterations, 32, 'sha256')
    const hmac = (key: Buffer, text: string) => createHmac('sha256', key).update(text).digest()
    const clientKey = hmac(salted, 'Client Key')
    const storedKey = createHash('sha256').update(clientKey).digest()
    const mask = hmac(storedKey, authMessage)
    const proof = Buffer.from(clientKey.map((octet, index) => octet ^ (mask[index] as number)))
    return { proof, signature: hmac(hmac(salted, 'Server Key'), authMessage) }
  }

  /** As at login: neither what came later nor what another removed changes the numbers. */
  #list(): Pop3Outcome {
    const { messages } = this.#fixtures
    return {
      kind: 'listed',
      uids: Int32Array.from(messages, (_, index) => FIRST_UID + index),
      octets: Int32Array.from(messages, ({ content }) => content.length),
    }
  }

  #uniqueIds(firstUid: number, lastUid: number): ImportedIds {
    const found = this.#fixtures.messages.flatMap(({ uniqueId }, index) => {
      const uid = FIRST_UID + index
      return uniqueId === undefined || uid < firstUid || uid > lastUid ? [] : [{ uid, uniqueId }]
    })
    return {
      uids: Int32Array.from(found, ({ uid }) => uid),
      uniqueIds: found.map(({ uniqueId }) => uniqueId),
    }
  }

  #retrieve(action: Extract<Asked, { kind: 'retrieve' }>): Pop3Outcome {
    const [faulty, reason = ''] = (this.#faultOf('retrieve') ?? '').split(' ')
    if (Number(faulty) === action.uid - FIRST_UID + 1) {
      return { kind: 'unavailable', reason: reason as 'gone' | 'temporary' | 'damaged' }
    }
    const content = this.#messages.get(action.uid)
    if (content === undefined) return { kind: 'unavailable', reason: 'gone' }
    const { header, bodyLines, isAsciiOnly } = action
    if (isAsciiOnly && needsUtf8(content)) return { kind: 'unavailable', reason: 'needs-utf8' }
    this.#output.push(header, ...serializeMessage(content, bodyLines, this.#chunkOctets))
    return { kind: 'retrieved' }
  }

  #commit(uids: Int32Array): Pop3Outcome {
    const fault = this.#faultOf('commit')
    if (fault === 'undecided') return { kind: 'commit-undecided' }
    if (fault !== undefined) {
      return { kind: 'commit-failed', reason: fault as 'nothing-deleted' | 'lease-lost' }
    }
    for (const uid of uids) this.#messages.delete(uid)
    return { kind: 'committed' }
  }
}

/** OAUTHBEARER and EXTERNAL may leave it to the proof to say who it is. */
function isNameless({ mechanism, name }: LoginAttempt): boolean {
  return name === '' && (mechanism === 'bearer' || mechanism === 'external')
}

/** RFC 6856 §2: whether a header field needs UTF8. */
function needsUtf8(content: Buffer): boolean {
  const end = content.indexOf('\r\n\r\n')
  return content.subarray(0, end === -1 ? content.length : end).some((octet) => octet >= 0x80)
}

/** A message as RETR or TOP sends it, read in chunks of `chunkOctets`. */
export function serializeMessage(
  content: Buffer,
  bodyLines: number | undefined,
  chunkOctets: number,
): Buffer[] {
  const stuffer = new DotStuffer()
  const cutter = bodyLines === undefined ? undefined : new TopCutter(bodyLines)
  const pieces: Buffer[] = []
  for (let start = 0; start < content.length && cutter?.isDone !== true; start += chunkOctets) {
    const chunk = content.subarray(start, start + chunkOctets)
    for (const piece of cutter?.push(chunk) ?? [chunk]) pieces.push(stuffed(stuffer, piece))
  }
  return [...pieces, stuffer.finish()]
}
