/**
 * What another server said, as it may stand in a log: some repeat what they were sent, so name and
 * password are taken out of it, plain or in the base64 of SASL, and what would move a terminal's
 * cursor. A word that is as short as a letter goes with them; better that than a password.
 */
const SHOWN_MAX = 200

/** @param text as latin1 */
export function withoutSaid(text: string, said: readonly Buffer[]): string {
  const forms = said.flatMap((octets) => [
    octets.toString('latin1'),
    octets.toString('base64'),
    octets.toString('base64').replace(/=+$/, ''),
  ])
  // The longest first: a part of it would leave the rest.
  forms.sort((one, other) => other.length - one.length)
  let shown = text
  for (const form of forms) if (form !== '') shown = shown.replaceAll(form, '…')
  return shown.replace(/[^ -~…]/g, '?').slice(0, SHOWN_MAX)
}
