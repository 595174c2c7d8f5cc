/**
 * What the server says to people, as a form that each language fills in (RFC 6856 §3). The parts
 * that programs read (+OK, -ERR, response codes, numbers in the order of RFC 1939) are not here, so
 * no translation can break them. Nothing that a peer typed is ever repeated.
 *
 * A text is one line without its line end, and short: a reply has at most 512 octets (RFC 1939 §3).
 */
export interface Words {
  /** BCP 47, lower case. */
  readonly tag: string
  /** The language's name in itself. */
  readonly name: string
  readonly languageChosen: string
  readonly languagesFollow: string

  /** RFC 1939 §7 lets USER answer alike for known and unknown names. */
  readonly sendPassword: string
  readonly capabilitiesFollow: string
  readonly mechanismsFollow: string
  readonly beginTls: string
  readonly utf8Enabled: string
  readonly topFollows: string
  readonly uniqueIdsFollow: string
  /** @param owner the account's own name for itself; undefined where it is not plain ASCII */
  maildropOpened(owner: string | undefined, count: number, octets: number): string
  maildropHas(count: number, octets: number): string
  /** CLIENT: Java Mail takes the number that RETR's reply begins with for the size. */
  octetsFollow(octets: number): string
  /** The number of messages comes first. */
  scanListingFollows(count: number, octets: number): string
  messageDeleted(number: number): string
  signOff(hostname: string): string
  /** @param countLeft messages of this session's listing that stay */
  signOffAfterUpdate(hostname: string, countLeft: number): string

  readonly unknownCommand: string
  /** @param usage the command with its arguments, e.g. `TOP message lines` */
  expected(usage: string): string
  readonly lineTooLong: string
  readonly controlCharacters: string
  readonly notLoggedIn: string
  readonly alreadyLoggedIn: string
  readonly userFirst: string
  readonly tooManyBadCommands: string
  readonly tooManyCommands: string
  readonly unknownLanguage: string
  readonly tlsUnavailable: string
  readonly plaintextRefused: string
  readonly apopUnavailable: string
  readonly mechanismUnavailable: string
  readonly responseNotBase64: string
  readonly responseMalformed: string
  readonly loginCancelled: string

  readonly wrongCredentials: string
  readonly passwordNeeded: string
  readonly tooManyLogins: string
  readonly accountSuspended: string
  readonly maildropInUse: string
  readonly loginTooSoon: string
  readonly loginsThrottled: string
  readonly tooManySessions: string
  readonly mailBeingMoved: string
  readonly loginImpossible: string

  readonly maildropUnavailable: string
  /** @param total how far the numbers go, deleted messages included */
  noSuchMessage(total: number): string
  alreadyDeleted(number: number): string
  readonly messageGone: string
  readonly messageUnavailable: string
  readonly messageDamaged: string
  readonly messageNeedsUtf8: string
  readonly nothingDeleted: string
  readonly sessionWasEnded: string
  readonly shuttingDown: string
  readonly sessionEnded: string
}
