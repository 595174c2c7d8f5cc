/**
 * Loaded into a Node server before its own code (`--import`, with `--expose-gc`): on SIGUSR2 it
 * collects its garbage, so that memory is what sessions hold and not what logins have left.
 */
process.on('SIGUSR2', () => {
  globalThis.gc?.()
  globalThis.gc?.()
})
