/**
 * Stands in for a worker: it says hello, and serves or does not, as the start message says. It ends
 * with whoever forked it.
 */
process.on('message', (/** @type {any} */ message) => {
  if (message.kind === 'start' && message.settings.HANGS !== 'yes')
    process.send?.({ kind: 'serving', addresses: { pop3: ['here'], pop3s: [], lmtp: [] } })
  if (message.kind === 'drain') process.exit(0)
})
process.on('disconnect', () => process.exit(0))
process.send?.({ kind: 'hello' })
