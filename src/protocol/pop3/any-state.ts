/** Commands that both AUTHORIZATION and TRANSACTION know. */
import { serializeCapabilities } from './capabilities.ts'
import type { Dialogue } from './dialogue.ts'
import { type Refusal, UNKNOWN_LANGUAGE } from './replies.ts'
import { findLanguage, LANGUAGES } from './words/languages.ts'

/** RFC 2449 §5 */
export function listCapabilities(dialogue: Dialogue): void {
  dialogue.accept(dialogue.words.capabilitiesFollow)
  dialogue.reply(serializeCapabilities(dialogue.parameters, dialogue.ownPolicy))
}

export function checkLanguage(_: Dialogue, range: string | undefined): Refusal | undefined {
  return range === undefined || findLanguage(range) !== undefined ? undefined : UNKNOWN_LANGUAGE
}

/** RFC 6856 §3: the languages there are, or one of them from this reply on. */
export function chooseLanguage(dialogue: Dialogue, range: string | undefined): void {
  if (range === undefined) {
    dialogue.accept(dialogue.words.languagesFollow)
    for (const { tag, name } of LANGUAGES) dialogue.reply(`${tag} ${name}\r\n`)
    dialogue.reply('.\r\n')
    return
  }
  dialogue.words = findLanguage(range) ?? dialogue.words
  dialogue.accept(`${dialogue.words.tag} ${dialogue.words.languageChosen}`)
}

/**
 * RFC 6856 §2. LENIENT: the RFC has it before the login only, since a server that rewrites messages
 * must know before it tells sizes; we never rewrite one. CLIENT: Outlook sends it after the login.
 */
export function enableUtf8(dialogue: Dialogue): void {
  dialogue.isUtf8 = true
  dialogue.accept(dialogue.words.utf8Enabled)
}
