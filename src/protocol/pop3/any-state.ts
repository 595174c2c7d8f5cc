/** Commands that both AUTHORIZATION and TRANSACTION know: so far CAPA alone, RFC 2449 §5. */
import { serializeCapabilities } from './capabilities.ts'
import type { Dialogue } from './dialogue.ts'
import { CAPABILITIES_FOLLOW } from './replies.ts'

export function listCapabilities(dialogue: Dialogue): void {
  dialogue.reply(CAPABILITIES_FOLLOW)
  dialogue.reply(serializeCapabilities(dialogue.parameters))
}
