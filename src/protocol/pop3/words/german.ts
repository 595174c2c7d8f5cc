/** German, in UTF-8: what shows that a language is one file (RFC 6856 §3). */
import type { Words } from './words.ts'

export const GERMAN: Words = {
  tag: 'de',
  name: 'Deutsch',
  languageChosen: 'Ab jetzt auf Deutsch',
  languagesFollow: 'Sprachen folgen',

  sendPassword: 'PASS senden',
  capabilitiesFollow: 'Liste der Fähigkeiten folgt',
  mechanismsFollow: 'Verfahren folgen',
  beginTls: 'TLS beginnen',
  utf8Enabled: 'Ab jetzt UTF-8',
  topFollows: 'Anfang der Nachricht folgt',
  uniqueIdsFollow: 'Liste der Kennungen folgt',
  maildropOpened: (owner, count, octets) =>
    `${owner === undefined ? 'Postfach' : `Postfach von ${owner}`}: ${sizeOf(count, octets)}`,
  maildropHas: (count, octets) => `im Postfach: ${sizeOf(count, octets)}`,
  octetsFollow: (octets) => `${octets} Oktette`,
  scanListingFollows: sizeOf,
  messageDeleted: (number) => `Nachricht ${number} gelöscht`,
  signOff: (hostname) => `${hostname} POP3-Server verabschiedet sich`,
  signOffAfterUpdate: (hostname, countLeft) => {
    const left = countLeft === 0 ? 'Postfach leer' : `noch ${messages(countLeft)}`
    return `${hostname} POP3-Server verabschiedet sich (${left})`
  },

  unknownCommand: 'unbekannter Befehl',
  expected: (usage) => `erwartet: ${usage}`,
  lineTooLong: 'Befehlszeile zu lang',
  controlCharacters: 'Steuerzeichen sind nicht erlaubt',
  notLoggedIn: 'zuerst anmelden',
  alreadyLoggedIn: 'schon angemeldet',
  userFirst: 'zuerst USER senden',
  tooManyBadCommands: 'zu viele falsche Befehle, die Verbindung wird beendet',
  tooManyCommands: 'zu viele Befehle vor der Anmeldung, die Verbindung wird beendet',
  unknownLanguage: 'Sprache nicht bekannt',
  tlsUnavailable: 'TLS kann hier nicht begonnen werden',
  plaintextRefused:
    'unverschlüsselt werden keine Passwörter angenommen, im Mailprogramm TLS einstellen',
  apopUnavailable: 'APOP gibt es hier nicht',
  mechanismUnavailable: 'dieses Anmeldeverfahren gibt es hier nicht',
  responseNotBase64: 'die Antwort ist kein Base64',
  responseMalformed: 'die Antwort passt nicht zum Verfahren',
  loginCancelled: 'Anmeldung abgebrochen',

  wrongCredentials: 'Benutzername oder Passwort falsch',
  passwordNeeded:
    'Benutzername oder Geheimnis falsch; die erste Anmeldung braucht USER und PASS, oder PLAIN',
  tooManyLogins: 'zu viele vergebliche Anmeldungen, die Verbindung wird beendet',
  accountSuspended: 'dieses Konto ist gesperrt',
  maildropInUse: 'das Postfach ist in einer anderen Sitzung geöffnet',
  loginTooSoon: 'zu früh nach der letzten Anmeldung',
  loginsThrottled: 'zu viele vergebliche Anmeldungen, später noch einmal versuchen',
  tooManySessions: 'zu viele Sitzungen, später noch einmal versuchen',
  mailBeingMoved: 'Ihre Post zieht auf diesen Server um, in einigen Minuten noch einmal versuchen',
  loginImpossible: 'Anmelden geht gerade nicht, später noch einmal versuchen',

  maildropUnavailable: 'das Postfach ist gerade nicht lesbar, später noch einmal versuchen',
  noSuchMessage: (total) => `keine solche Nachricht, im Postfach nur ${messages(total)}`,
  alreadyDeleted: (number) => `Nachricht ${number} ist schon gelöscht`,
  messageGone: 'die Nachricht ist nicht mehr da',
  messageUnavailable: 'die Nachricht ist gerade nicht lesbar, später noch einmal versuchen',
  messageDamaged: 'die Nachricht ist beschädigt',
  messageNeedsUtf8: 'die Nachricht hat Kopfzeilen jenseits von ASCII, zuerst UTF8 senden',
  nothingDeleted: 'nichts wurde gelöscht, später noch einmal versuchen',
  sessionWasEnded: 'diese Sitzung war schon beendet, nichts wurde gelöscht',
  shuttingDown: 'der Server wird angehalten, später noch einmal versuchen',
  sessionEnded: 'diese Sitzung wurde vom Server beendet',
}

function sizeOf(count: number, octets: number): string {
  return `${messages(count)} (${octets} Oktette)`
}

function messages(count: number): string {
  return count === 1 ? '1 Nachricht' : `${count} Nachrichten`
}
